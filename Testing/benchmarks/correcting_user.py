"""A simulated user who corrects a slice click by click until told to stop.

The first click lies in the middle of the structure, or of the largest error of the mask that was
there; each further one in the middle of the largest error that is left, as interactive
segmentation is measured in the literature (Sofiiuk et al., RITM, 2021). The user sees the slice's
own pixels, and clicks through the same session that answers a real one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMFineTuneLib.correction.messages import Point, Prompt, Start
from SAMFineTuneLib.correction.session import CorrectionSession

Mask = NDArray[np.bool_]


def dsc(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Of two masks of one shape; 1 where both are empty."""
    total = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / total if total else 1.0


def correct_slice(
    session: CorrectionSession,
    number: int,
    truth: Mask,
    clicks: int,
    start: Start = "nothing",
    label: int | None = None,
) -> list[float]:
    """DSC before the first click and after each one.

    Args:
        session: of the volume.
        number: of the slice.
        truth: (rows, columns).
        clicks: how many at most.
        start: what the clicks correct.
        label: the structure's number in the tuned model.
    """
    prompts: list[Prompt] = []
    mask = session.find_mask(number, prompts, start, label).mask
    found = [dsc(mask, truth)]
    for _ in range(clicks):
        click = _next_click(session, number, mask, truth)
        if click is not None:
            prompts.append(click)
            mask = session.find_mask(number, prompts, start, label).mask
        found.append(dsc(mask, truth))
    return found


def _next_click(session: CorrectionSession, number: int, mask: Mask, truth: Mask) -> Point | None:
    missing, extra = _depth(truth & ~mask), _depth(mask & ~truth)
    positive = bool(missing.max() >= extra.max())
    depth = missing if positive else extra
    if not depth.max():
        return None
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return Point(at=session.stack.voxel(number, float(row), float(column)), positive=positive)


def _depth(error: Mask) -> NDArray[np.float64]:
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    return depth
