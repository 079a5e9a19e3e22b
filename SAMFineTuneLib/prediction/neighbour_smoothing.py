"""Class probabilities of a slice, smoothed by those of the slices above and below.

A model that segments slices one by one knows nothing of what it found on the next one, and what it
is unsure of comes and goes from slice to slice. So the probabilities are averaged over a window
along the axis: every slice has a vote. The weight of a vote falls with the distance in mm, so that
thick slices hardly change, and with the difference between the two images around the pixel: where
a structure really ends, the image changes, and the slices beyond its end hardly vote. Where the
image does not tell, votes from both sides balance at an end, so that it stays where it is.
This is a bilateral filter (Tomasi and Manduchi 1998) along one axis, of the prediction, guided by
the image.

A window of slices is all that is in memory: 16 bits for each class and pixel of nine slices at
most, or 52 MB for eleven classes of 512 x 512 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.networks.staged_encoder import FeatureState

# Standard deviation of the weights along the axis, and of the differences between images whose grey
# levels are from 0 to 1.
_DISTANCE_MM = 2.0
_GREY = 0.1
# Slices that are further away have no vote.
_FARTHEST_MM = 2 * _DISTANCE_MM
_MOST_SLICES = 4
# Side of the square around a pixel over which images are compared.
_AROUND = 3
# Where no slice of the window gives the structures more than this together, there is background.
_CLAIM = 0.05


class Slice(NamedTuple):
    """What was predicted on a slice.

    Attributes:
        number: of the slice.
        probabilities: (classes, rows, columns), background first.
        features: the image encoder's features of the slice, where they are still needed.
    """

    number: int
    probabilities: Tensor
    features: FeatureState | None


class _Waiting(NamedTuple):
    """A slice of the window; `box` is where it claims a structure, None if nowhere."""

    number: int
    probabilities: Tensor
    image: Tensor
    features: FeatureState | None
    box: tuple[int, int, int, int] | None


def neighbours_vote(slice_spacing: float) -> bool:
    """Whether slices are so thin that the next one has a vote."""
    return slice_spacing <= _FARTHEST_MM


class NeighbourSmoothing:
    """Takes slices in ascending order, and gives each smoothed once its neighbours are there.

    Args:
        slice_spacing: mm from one slice to the next.
    """

    def __init__(self, slice_spacing: float) -> None:
        self._spacing = slice_spacing
        self._reach = min(_MOST_SLICES, math.floor(_FARTHEST_MM / slice_spacing))
        self._window: list[_Waiting] = []
        self._next = 0

    def add(self, found: Slice, image: NDArray[np.floating]) -> Iterator[Slice]:
        """Takes a slice; gives those whose window is complete.

        Args:
            found: what was predicted.
            image: (rows, columns) or (rows, columns, channels), 0 to 1 in the volume's window.
        """
        probabilities = found.probabilities
        grey = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(probabilities.device)
        self._window.append(
            _Waiting(
                found.number,
                probabilities.half(),
                grey if grey.ndim == 2 else grey.movedim(-1, 0),
                found.features,
                _box_of_claims(probabilities),
            )
        )
        while self._waits and self._window[self._next].number + self._reach <= found.number:
            yield self._smoothed()

    def rest(self) -> Iterator[Slice]:
        """The slices at the end, after the last one was added."""
        while self._waits:
            yield self._smoothed()

    @property
    def _waits(self) -> bool:
        return self._next < len(self._window)

    def _smoothed(self) -> Slice:
        own = self._window[self._next]
        self._next += 1
        votes = [each for each in self._window if abs(each.number - own.number) <= self._reach]
        found = torch.zeros_like(own.probabilities, dtype=torch.float32)
        found[0] = 1
        box = _around([each.box for each in votes if each.box is not None])
        if box is not None:
            top, bottom, left, right = box
            found[:, top:bottom, left:right] = self._mean(own, votes, box)
        # Those that no later slice asks.
        while self._window and self._window[0].number < own.number + 1 - self._reach:
            self._window.pop(0)
            self._next -= 1
        return Slice(own.number, found, own.features)

    def _mean(self, own: _Waiting, votes: list[_Waiting], box: tuple[int, int, int, int]) -> Tensor:
        """The weighted mean of the probabilities within a box."""
        top, bottom, left, right = box
        mean = own.probabilities[:, top:bottom, left:right].float()
        total = torch.ones_like(mean[0])
        for each in votes:
            if each.number == own.number:
                continue
            weight = self._weight(own, each)[top:bottom, left:right]
            mean += weight * each.probabilities[:, top:bottom, left:right].float()
            total += weight
        return mean / total

    def _weight(self, own: _Waiting, other: _Waiting) -> Tensor:
        """(rows, columns), 1 for the slice itself."""
        difference = (own.image - other.image).square()
        if difference.ndim == 3:
            difference = difference.mean(0)
        around = functional.avg_pool2d(
            difference[None], _AROUND, 1, _AROUND // 2, count_include_pad=False
        )[0]
        away = (own.number - other.number) * self._spacing
        return torch.exp(-around / (2 * _GREY**2) - away**2 / (2 * _DISTANCE_MM**2))


def _box_of_claims(probabilities: Tensor) -> tuple[int, int, int, int] | None:
    """First and last + 1 row and column in which a structure is claimed; None without a claim."""
    claimed = probabilities[0] < 1 - _CLAIM
    rows, columns = (claimed.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None


def _around(boxes: list[tuple[int, int, int, int]]) -> tuple[int, int, int, int] | None:
    if not boxes:
        return None
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)
