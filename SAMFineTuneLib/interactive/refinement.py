"""Refines a mask by prompts, one after another, each of which corrects the mask before it.

A mask is a function of the prompts and of the mask that they correct, and of nothing else: the
same prompts give the same mask after an undo, after a prompt was moved, and in another worker.

A mask that was there before the first prompt is the user's, and so is one that several prompts
have shaped. In such a mask a click changes only the region that it points at: the connected region
of difference in which it lies, as in FocalClick's progressive merge (Chen et al., CVPR 2022), and
only within a distance that is in proportion to the click's depth, which is its distance from the
pixels that are already as the click says. A tuned model's own mask is kept in the same way, but
only while it is nearly right: a click whose depth is nearly the thickness of the mask shows that it
is not, and then the network's new mask replaces it. A click always has its effect, at least in a
small disc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, POSITIVE, PromptSet
from SAMFineTuneLib.slices.square import SquareFit, mask_shares

# How far from a click the region that it points at may lie, in pixels of the mask decoder.
_NEAR = 1.5
# Radius of the disc in which a click always has its effect, as a share of the square's side.
_OBEYED = 0.012
# A click changes a kept mask within this multiple of its depth, plus a distance in pixels of the
# mask decoder.
_DEPTHS, _LEAST_REACH = 1.5, 0.5
# A tuned model's mask is not nearly right if a click is deeper than this share of its thickness.
# 0.5 was tried too: it helps more where the model fails, and harms small organs that it finds.
_FAR_OFF = 0.8
# If there was no mask before the first prompt, this many prompts may change all of it; from then on
# it is kept.
FREE_PROMPTS = 3
# The least distance of an implied point from a negative click, as a share of the square's side.
_AWAY = 0.06
# Islands and holes below this share of the mask's area are specks.
_SPECK = 0.03
# The magnitude of the logits of a mask that is known rather than computed; a network's own logits
# seldom exceed it.
_SURE = 4.0

Decoder = Callable[[PromptSet], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SquarePoint:
    """A click on the square: x and y in its pixels."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class SquareBox:
    """A box on the square: its sides in the square's pixels."""

    left: float
    top: float
    right: float
    bottom: float


SquarePrompt = SquarePoint | SquareBox


@dataclass(frozen=True, eq=False)
class RefinedMask:
    """A mask after zero or more prompts.

    Attributes:
        logits: (1, 1, s, s) of the mask on the square, s the side of the mask decoder's masks.
        mask: (rows, columns) bool on the slice's own pixels.
        confidence: the IoU of the mask that the network predicts, from 0 to 1.
    """

    logits: Tensor
    mask: NDArray[np.bool_]
    confidence: float


def mask_logits(mask: NDArray[np.bool_], fit: SquareFit, side: int) -> Tensor:
    """A mask (rows, columns) as a mask prompt (1, 1, side, side)."""
    return (mask_shares(mask, fit, side) * 2 - 1) * _SURE


def unrefined(mask: NDArray[np.bool_], fit: SquareFit, side: int) -> RefinedMask:
    """A mask that is there before the first prompt.

    Args:
        mask: (rows, columns).
        fit: how the slice lies on the square.
        side: of the mask decoder's masks.
    """
    return RefinedMask(mask_logits(mask, fit, side), mask, 1.0)


def refine(
    decode: Decoder,
    fit: SquareFit,
    prompts: Sequence[SquarePrompt],
    before: RefinedMask | None,
    keep: bool,
) -> RefinedMask:
    """The mask after one more prompt.

    Args:
        decode: gives logits (1, 1, s, s) and the predicted IoU (1, 1) from prompts.
        fit: how the slice lies on the square.
        prompts: all prompts so far; the last is new.
        before: the mask before the new prompt; None if there was none.
        keep: whether everything that the new prompt does not point at has to stay as it was.
    """
    logits, iou_predictions = decode(_as_asked(prompts, before, fit.size))
    newest = prompts[-1]
    if keep and before is not None and isinstance(newest, SquarePoint):
        logits = _only_there(logits, before.logits, newest, fit.size)
    logits = _obeyed(logits, prompts, fit.size)
    mask = _on_slice(logits, fit)
    if not keep:
        mask = _without_specks(mask, prompts, fit)
    elif before is not None:
        mask = _finest(mask, before, newest, fit)
    mask = _with_clicked_pixels(mask, prompts, fit)
    return RefinedMask(logits, mask, float(iou_predictions.reshape(-1)[0].clamp(0, 1)))


def is_far_off(before: RefinedMask, newest: SquarePrompt, size: int) -> bool:
    """Whether a prompt shows that the mask before it is not nearly right.

    Args:
        before: the mask before the prompt.
        newest: the prompt.
        size: side of the square in pixels.
    """
    if not isinstance(newest, SquarePoint):
        return False
    was = (before.logits[0, 0] > 0).numpy()
    thickness = float(ndimage.distance_transform_edt(np.pad(was, 1)).max())
    return _depth_in_error(was, newest, size) > _FAR_OFF * thickness


def _as_asked(prompts: Sequence[SquarePrompt], before: RefinedMask | None, size: int) -> PromptSet:
    """The prompts for the network: those given, and a point that the mask before them implies.

    A network that was trained to begin with a click into the structure or a box finds nothing from
    negative clicks alone. So if there is no positive prompt, a positive point in the middle of the
    mask that they correct is added.
    """
    if before is None:
        return prompt_set(prompts, None)
    positive = [each for each in prompts if not isinstance(each, SquarePoint) or each.positive]
    implied = [] if positive else _middle(before.logits, prompts, size)
    return prompt_set([*implied, *prompts], before.logits)


def _middle(logits: Tensor, prompts: Sequence[SquarePrompt], size: int) -> list[SquarePrompt]:
    """A positive point deep in a mask and away from negative clicks; none if no pixel is left."""
    inside = (logits[0, 0] > 0).numpy()
    side = len(inside)
    for each in prompts:
        if isinstance(each, SquarePoint):
            inside = inside & ~_disc(each, side, size, _AWAY * side)
    if not inside.any():
        return []
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    scale = size / side
    return [SquarePoint((float(column) + 0.5) * scale, (float(row) + 0.5) * scale, True)]


def prompt_set(prompts: Sequence[SquarePrompt], mask: Tensor | None) -> PromptSet:
    """Prompts on one image in the network's form; of several boxes only the last one counts."""
    points = [each for each in prompts if isinstance(each, SquarePoint)]
    boxes = [each for each in prompts if isinstance(each, SquareBox)]
    places = torch.tensor([[[each.x, each.y] for each in points]]).reshape(1, len(points), 2)
    labels = [[POSITIVE if each.positive else NEGATIVE for each in points]]
    box = [torch.nan] * 4
    if boxes:
        box = [boxes[-1].left, boxes[-1].top, boxes[-1].right, boxes[-1].bottom]
    return PromptSet(
        places.float(),
        torch.tensor(labels, dtype=torch.long).reshape(1, len(points)),
        torch.tensor([box]),
        mask,
    )


def _on_slice(logits: Tensor, fit: SquareFit) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (fit.logits_to_slice(logits)[0, 0] > 0).numpy()
    return mask


def _finest(
    mask: NDArray[np.bool_], before: RefinedMask, newest: SquarePrompt, fit: SquareFit
) -> NDArray[np.bool_]:
    """The new mask where it was changed, and the mask before elsewhere.

    So unchanged parts keep detail that is finer than the pixels of the square. Such detail is
    replaced too if it contradicts a click and lies at the click or at a pixel that was changed: a
    click can then remove a speck that is too small for the square, and no single pixels are left
    around a region that was removed.
    """
    changed = mask != _on_slice(before.logits, fit)
    if isinstance(newest, SquarePoint):
        changed[_pixel(newest, fit)] = True
        stride = fit.size // before.logits.shape[-1]
        finest = stride * max(fit.rows / fit.rows_on_square, fit.columns / fit.columns_on_square)
        changed |= _around(changed, _NEAR * finest) & (before.mask != newest.positive)
    return np.where(changed, mask, before.mask)


def _around(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """The pixels within a distance of a mask that is not empty; only that part is computed."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    margin = int(radius) + 1
    part = (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )
    near = np.zeros_like(mask)
    near[part] = ndimage.distance_transform_edt(~mask[part]) <= radius
    return near


def _with_clicked_pixels(
    mask: NDArray[np.bool_], prompts: Sequence[SquarePrompt], fit: SquareFit
) -> NDArray[np.bool_]:
    """The mask with each click's own pixel set as the click says; later clicks prevail."""
    mask = mask.copy()
    for each in prompts:
        if isinstance(each, SquarePoint):
            mask[_pixel(each, fit)] = each.positive
    return mask


def _pixel(click: SquarePoint, fit: SquareFit) -> tuple[int, int]:
    """Row and column of the slice's pixel in which a click lies."""
    row = int(click.y * fit.rows / fit.rows_on_square)
    column = int(click.x * fit.columns / fit.columns_on_square)
    return min(fit.rows - 1, max(0, row)), min(fit.columns - 1, max(0, column))


def _without_specks(
    mask: NDArray[np.bool_], prompts: Sequence[SquarePrompt], fit: SquareFit
) -> NDArray[np.bool_]:
    """The mask without islands and holes that are tiny beside it and that nobody pointed at."""
    points = [each for each in prompts if isinstance(each, SquarePoint)]
    smallest = _SPECK * int(mask.sum())
    kept = _large_regions(mask, smallest, [each for each in points if each.positive], fit)
    negative = [each for each in points if not each.positive]
    return ~_large_regions(~kept, smallest, negative, fit)


def _large_regions(
    mask: NDArray[np.bool_], smallest: float, points: Sequence[SquarePoint], fit: SquareFit
) -> NDArray[np.bool_]:
    """The connected regions of a mask that are large enough or contain one of the points."""
    regions, count = ndimage.label(mask)
    large = np.bincount(regions.ravel(), minlength=count + 1) >= smallest
    for each in points:
        row = min(fit.rows - 1, int(each.y * fit.rows / fit.rows_on_square))
        column = min(fit.columns - 1, int(each.x * fit.columns / fit.columns_on_square))
        large[regions[row, column]] = True
    large[0] = False
    found: NDArray[np.bool_] = large[regions]
    return found


def _only_there(new: Tensor, old: Tensor, click: SquarePoint, size: int) -> Tensor:
    """The new logits in the region of difference that a click points at, the old ones elsewhere."""
    found, was = (new[0, 0] > 0).numpy(), (old[0, 0] > 0).numpy()
    different = (found != was) & (found == click.positive)
    different &= _disc(click, len(was), size, _reach(was, click, size))
    regions, _ = ndimage.label(different)
    meant = np.unique(regions[_disc(click, different.shape[0], size, _NEAR)])
    region = np.isin(regions, meant[meant > 0])
    if not region.any():
        # Nothing changes: the mask is already as the click says, or the network does not agree.
        return old.clone()
    # The new logits are taken one pixel beyond the region too: the outline lies between pixels, and
    # mixing old and new logits there would make it follow the pixels' edges.
    near = torch.from_numpy(ndimage.binary_dilation(region, iterations=1))
    others = torch.from_numpy((found != was) & ~region)
    return torch.where(near & ~others, new, old)


def _reach(was: NDArray[np.bool_], click: SquarePoint, size: int) -> float:
    """How far from itself a click may change a mask (side, side), in pixels of the mask.

    A user clicks into the middle of what is wrong, so the deeper the click lies inside the mask, or
    outside of it, the larger is the region that the user means. Without a bound, a click beside an
    outline that is right elsewhere would move all of the outline.
    """
    return _DEPTHS * _depth_in_error(was, click, size) + _LEAST_REACH


def _depth_in_error(was: NDArray[np.bool_], click: SquarePoint, size: int) -> float:
    """The distance from a click to the nearest pixel that is already as the click says.

    In pixels of the mask (side, side); the side itself if there is no such pixel.
    """
    side = len(was)
    other = was if click.positive else ~was
    if not other.any():
        return float(side)
    column, row = (min(side - 1, max(0, int(at * side / size))) for at in (click.x, click.y))
    return float(ndimage.distance_transform_edt(~other)[row, column])


def _obeyed(logits: Tensor, prompts: Sequence[SquarePrompt], size: int) -> Tensor:
    """The logits with a small disc around each click set as the click says, where they differ."""
    side = logits.shape[-1]
    for each in prompts:
        if not isinstance(each, SquarePoint):
            continue
        column, row = (min(side - 1, max(0, int(at * side / size))) for at in (each.x, each.y))
        if bool(logits[0, 0, row, column] > 0) == each.positive:
            continue
        disc = torch.from_numpy(_disc(each, side, size, max(0.8, _OBEYED * side)))
        value = _SURE / 2 if each.positive else -_SURE / 2
        logits = torch.where(disc, torch.full_like(logits, value), logits)
    return logits


def _disc(click: SquarePoint, side: int, size: int, radius: float) -> NDArray[np.bool_]:
    """A disc around a click as (side, side) bool; `radius` is in pixels of this array."""
    centres = np.arange(side) + 0.5
    x, y = click.x * side / size, click.y * side / size
    disc: NDArray[np.bool_] = ((centres[None] - x) ** 2 + (centres[:, None] - y) ** 2) <= radius**2
    return disc
