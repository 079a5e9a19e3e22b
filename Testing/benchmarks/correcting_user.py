"""Simulated users who correct a slice click by click until told to stop.

Both see the slice's own pixels, and click through the same session that answers a real one.

* "largest" clicks into the middle of the largest error: of all connected regions that are missing
  or too much the one of most pixels, in it the place farthest from its outline, and of several such
  places the one nearest to the region's centre.
* "deepest" clicks where an error lies deepest, whatever its size, and of several such places on the
  first one in reading order, as RITM is measured (Sofiiuk et al., 2021). Where an error is one or
  two pixels thin, which is most of what is left on a small structure, that is an end of some thin
  strip: a user whom no clinician resembles, but the one whom other figures were measured with.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMFineTuneLib.interactive.protocol import Point, Prompt, Start
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.prediction.mask_agreement import agreement

Mask = NDArray[np.bool_]
Clicking = Literal["largest", "deepest"]
Place = tuple[int, int, bool]


def correct_slice(
    session: SliceCorrector,
    number: int,
    truth: Mask,
    clicks: int,
    start: Start = "nothing",
    label: int | None = None,
    clicking: Clicking = "largest",
) -> list[float]:
    """DSC before the first click and after each one.

    Args:
        session: of the volume.
        number: of the slice.
        truth: (rows, columns).
        clicks: how many at most.
        start: what the clicks correct.
        label: the structure's number in the tuned model.
        clicking: which user.
    """
    choose = largest_error if clicking == "largest" else deepest_error
    prompts: list[Prompt] = []
    mask = session.find_mask(number, prompts, start, label).mask
    found = [agreement(mask, truth)]
    for _ in range(clicks):
        place = choose(mask, truth)
        if place is not None:
            row, column, positive = place
            at = session.stack.voxel(number, float(row), float(column))
            prompts.append(Point(at=at, positive=positive))
            mask = session.find_mask(number, prompts, start, label).mask
        found.append(agreement(mask, truth))
    return found


def largest_error(mask: Mask, truth: Mask) -> Place | None:
    """Row, column and whether it is missing, in the middle of the largest error; None without.

    Of a region that is missing and one as large that is too much, the missing one.
    """
    missing, extra = _largest_region(truth & ~mask), _largest_region(mask & ~truth)
    positive = bool(missing.sum() >= extra.sum())
    region = missing if positive else extra
    if not region.any():
        return None
    depth = _depth(region)
    deepest = np.argwhere(depth == depth.max())
    centre = np.argwhere(region).mean(0)
    row, column = deepest[((deepest - centre) ** 2).sum(1).argmin()]
    return int(row), int(column), positive


def deepest_error(mask: Mask, truth: Mask) -> Place | None:
    """Row, column and whether it is missing, where an error is deepest; None without any."""
    missing, extra = _depth(truth & ~mask), _depth(mask & ~truth)
    positive = bool(missing.max() >= extra.max())
    depth = missing if positive else extra
    if not depth.max():
        return None
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column), positive


def _largest_region(error: Mask) -> Mask:
    """Its largest connected region (pixels that share a side); empty where there is none."""
    regions, count = ndimage.label(error)
    if not count:
        return error
    largest: Mask = regions == np.bincount(regions.ravel())[1:].argmax() + 1
    return largest


def _depth(error: Mask) -> NDArray[np.float64]:
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    return depth
