"""Accepted masks carried to other slices: between them, and outward from the first and the last.

Between two accepted slices shape interpolation says what one knows without looking at the image
(Raya and Udupa 1990); what the image says is added to it, unless the accepted slices themselves
speak against it: each that lies between two others is predicted from these two in both ways, and
where interpolation alone does better on any of them, it is taken for all. Nothing can be known of
the slices between, but so 6 of 268 fillings of the shared images came out worse than interpolation,
by 0.01 at most; 9 of them where the mean over the accepted slices decided. (To choose among several
weights so was tried too: a few slices choose by luck, and more came out worse.)

Outward the mask of the slice before takes the place of the interpolation, and it goes on until
the structure ends, the image no longer supports it, or it changes too suddenly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.shape_interpolation import Distance, shape_between, signed_distance
from SAMFineTuneLib.interactive.evidence import Evidence
from SAMFineTuneLib.interactive.session import CorrectionSession, Mask
from SAMFineTuneLib.prediction.between_slices import agreement, moved_outline

_OUTWARD_WEIGHT = 0.2
# Outward: the share of its area that the image must support, and by what it may grow at once.
_LEAST_SUPPORT = 0.5
_LARGEST_GROWTH = 1.6
_LEAST_PIXELS = 4

Check = Callable[[int, int], None]


@dataclass
class Carried:
    """Masks that were found on slices that were not accepted.

    Attributes:
        masks: slice number -> (rows, columns) bool.
        confidence: slice number -> share of the mask that the image supports, from 0 to 1.
        words: where it stopped and why.
    """

    masks: dict[int, Mask] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)
    words: str = ""


def carry_on(
    session: CorrectionSession,
    accepted: Mapping[int, Mask],
    label: int | None,
    outward: int,
    between: bool,
    check: Check = lambda done, steps: None,
) -> Carried:
    """Masks of the slices between accepted ones, and of those beyond them.

    Args:
        session: the open volume.
        accepted: slice number -> mask that is right; an empty one says that the structure is not
            there.
        label: the structure's number in the tuned model, where that finds it.
        outward: how many slices to go beyond the first and the last one at most.
        between: whether to fill what lies between.
        check: called with slices done and in all; may raise to stop.

    Raises:
        InputError: nothing was accepted, or only empty slices.
    """
    shown = sorted(number for number, mask in accepted.items() if mask.any())
    if not shown:
        raise InputError(
            "there is no accepted slice with something on it",
            "accept the mask of one slice first",
            code="nothing_accepted",
        )
    carrier = _Carrier(session, accepted, label, check)
    carrier.steps = (shown[-1] - shown[0]) * between + 2 * outward
    if between:
        carrier.fill()
    if outward:
        carrier.go_outward(shown[0], -1, outward)
        carrier.go_outward(shown[-1], +1, outward)
    return carrier.carried


class _Carrier:
    """One carrying on, slice by slice."""

    def __init__(
        self,
        session: CorrectionSession,
        accepted: Mapping[int, Mask],
        label: int | None,
        check: Check,
    ) -> None:
        self._session = session
        self._accepted = accepted
        self._evidence = Evidence(session, accepted, label)
        self._check = check
        self._distances: dict[int, Distance] = {}
        self._done = 0
        self.steps = 0
        self.carried = Carried()

    def fill(self) -> None:
        """What lies between neighbouring accepted slices."""
        numbers = sorted(self._accepted)
        image_helps = self._image_helps(numbers)
        for first, last in pairwise(numbers):
            if not (self._accepted[first].any() and self._accepted[last].any()):
                continue
            for number in range(first + 1, last):
                self._tell()
                seen = self._evidence.seen(number)
                mask = self._between(first, number, last, seen.pull if image_helps else None)
                self._keep(number, mask, _support(mask, seen.logits))

    def go_outward(self, start: int, step: int, slices: int) -> None:
        """From an accepted slice on in one direction, until it ends."""
        before = self._accepted[start]
        for number in range(start + step, start + step * (slices + 1), step):
            if number in self._accepted or not 0 <= number < len(self._session.stack):
                return
            self._tell()
            mask, confidence, support = self._beyond(number, before)
            why = _why_stop(mask, before, support)
            if why:
                self._add_words(f"stopped before slice {number}: {why}")
                return
            self._keep(number, mask, confidence)
            before = mask

    def _image_helps(self, numbers: Sequence[int]) -> bool:
        """Whether no accepted slice is predicted better without looking at the image.

        With two accepted slices there is nothing to try it on.
        """
        for first, middle, last in zip(numbers, numbers[1:], numbers[2:], strict=False):
            truths = [self._accepted[each] for each in (first, middle, last)]
            if all(truth.any() for truth in truths):
                self._check(self._done, self.steps)
                # What is predicted must not have been learnt from.
                pull = self._evidence.without(middle).seen(middle).pull
                seen = agreement(self._between(first, middle, last, pull), truths[1])
                if seen < agreement(self._between(first, middle, last, None), truths[1]):
                    return False
        return True

    def _between(
        self, first: int, number: int, last: int, pull: NDArray[np.float32] | None
    ) -> Mask:
        shape = shape_between({each: self._distance(each) for each in (first, last)}, number)
        if pull is None:
            mask: Mask = shape > 0
            return mask
        away = min(number - first, last - number) * self._slice_spacing
        moved: Mask = moved_outline(shape, away, pull) > 0
        return moved

    def _beyond(self, number: int, before: Mask) -> tuple[Mask, float, float]:
        """The mask of a slice, and how far the image supports it and the mask before it."""
        seen = self._evidence.seen(number).logits
        shape = signed_distance(before, self._session.stack.pixel_spacing)
        mask: Mask = shape + _OUTWARD_WEIGHT * self._slice_spacing * seen > 0
        return mask, _support(mask, seen), _support(before, seen)

    def _distance(self, number: int) -> Distance:
        """Signed distance to the outline of an accepted mask, mm, positive inside."""
        if number not in self._distances:
            spacing = self._session.stack.pixel_spacing
            self._distances[number] = signed_distance(self._accepted[number], spacing)
        return self._distances[number]

    @property
    def _slice_spacing(self) -> float:
        stack = self._session.stack
        return float(stack.geometry.spacing[::-1][stack.axis])

    def _keep(self, number: int, mask: Mask, confidence: float) -> None:
        self.carried.masks[number] = mask
        self.carried.confidence[number] = confidence

    def _add_words(self, words: str) -> None:
        self.carried.words = "; ".join(filter(None, [self.carried.words, words]))

    def _tell(self) -> None:
        self._check(self._done, self.steps)
        self._done += 1


def _why_stop(mask: Mask, before: Mask, support: float) -> str:
    if mask.sum() < _LEAST_PIXELS:
        return "the structure ends"
    if support < _LEAST_SUPPORT:
        return "the image does not show it clearly there"
    if mask.sum() > _LARGEST_GROWTH * before.sum():
        return "it would grow too suddenly"
    return ""


def _support(mask: Mask, seen: NDArray[np.float32]) -> float:
    """Share of a mask on which the image shows the structure; 0 for an empty mask."""
    return float((seen[mask] > 0).mean()) if mask.any() else 0.0
