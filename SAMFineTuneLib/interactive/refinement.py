"""From prompts to a mask, one prompt after another, each correcting the mask before it.

A mask is a function of the prompts and of the mask that they correct, and of nothing else: the
same prompts give the same mask after an undo, after a prompt was moved, and in another worker.

A mask that was there before the first prompt is the user's, and so is one that several prompts
have shaped: a click changes only what it points at, the connected region of difference that it
lies in, as in FocalClick's progressive merge (Chen et al., CVPR 2022), and no farther than it lies
deep in what is wrong. A tuned model's own mask is kept so too, but only while it is nearly right:
a click nearly as deep in what is wrong as the mask is thick says that it is not, and the network
shapes it anew. A click is always obeyed, in a small disc at the least.
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

# Of the mask decoder's pixels: how far from a click the region may lie that it means.
_NEAR = 1.5
# Radius of the disc in which a click is obeyed, as a share of the square's side.
_OBEYED = 0.012
# How far a click changes a mask that is kept: in depths of the click, and in the decoder's pixels.
_DEPTHS, _LEAST_REACH = 1.5, 0.5
# The share of its thickness by which a tuned model's mask is off where it is not nearly right.
# Half was tried too: it helps more where the model fails, and harms small organs that it finds.
_FAR_OFF = 0.8
# Where nothing was there before, so many prompts shape the mask freely; it is kept from then on.
FREE_PROMPTS = 3
# How far from a negative click an implied point keeps, as a share of the square's side.
_AWAY = 0.06
# Islands and holes below this share of the mask are specks.
_SPECK = 0.03
# Logits of a mask that is known rather than computed; a network's own seldom go beyond.
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
class Round:
    """What is known after some prompts.

    Attributes:
        logits: (1, 1, s, s) of the mask on the square, with s a quarter of its side.
        mask: (rows, columns) bool on the slice's own pixels.
        confidence: the overlap that the network expects of the mask, from 0 to 1.
    """

    logits: Tensor
    mask: NDArray[np.bool_]
    confidence: float


def mask_logits(mask: NDArray[np.bool_], fit: SquareFit) -> Tensor:
    """A mask (rows, columns) as the mask prompt (1, 1, s, s), s a quarter of the square."""
    return (mask_shares(mask, fit) * 2 - 1) * _SURE


def start_from(mask: NDArray[np.bool_], fit: SquareFit) -> Round:
    """The round before the first prompt, where there is a mask already."""
    return Round(mask_logits(mask, fit), mask, 1.0)


def next_round(
    decode: Decoder,
    fit: SquareFit,
    prompts: Sequence[SquarePrompt],
    before: Round | None,
    keep: bool,
) -> Round:
    """The mask after one prompt more.

    Args:
        decode: prompts to logits (1, 1, s, s) and the expected overlap (1, 1).
        fit: of the slice on the square.
        prompts: all so far; the last is new.
        before: what was known before it.
        keep: whether what the new prompt does not point at has to stay as it was.
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
    mask = _told_pixels(mask, prompts, fit)
    return Round(logits, mask, float(iou_predictions.reshape(-1)[0].clamp(0, 1)))


def is_far_off(before: Round, newest: SquarePrompt, size: int) -> bool:
    """Whether a prompt says that the mask before it is not nearly right.

    Args:
        before: what was known.
        newest: the prompt.
        size: side of the square in pixels.
    """
    if not isinstance(newest, SquarePoint):
        return False
    was = (before.logits[0, 0] > 0).numpy()
    thickness = float(ndimage.distance_transform_edt(np.pad(was, 1)).max())
    return _depth_in_error(was, newest, size) > _FAR_OFF * thickness


def _as_asked(prompts: Sequence[SquarePrompt], before: Round | None, size: int) -> PromptSet:
    """The prompts, with what the mask before them implies.

    A network that has learnt to begin with a click into the structure or a box takes negative
    clicks alone for "nothing is here"; the middle of the mask that they correct stands for the
    click that is not there.
    """
    if before is None:
        return prompt_set(prompts, None)
    positive = [each for each in prompts if not isinstance(each, SquarePoint) or each.positive]
    implied = [] if positive else _middle(before.logits, prompts, size)
    return prompt_set([*implied, *prompts], before.logits)


def _middle(logits: Tensor, prompts: Sequence[SquarePrompt], size: int) -> list[SquarePrompt]:
    """A point deep in a mask and away from negative clicks; none where nothing is left of it."""
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
    """Prompts of one image as the network takes them; of several boxes the last one counts."""
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
    mask: NDArray[np.bool_], before: Round, newest: SquarePrompt, fit: SquareFit
) -> NDArray[np.bool_]:
    """What was not changed keeps the detail that it had, which the square is too coarse for.

    Detail that says the opposite of a click goes where it lies at the click or at what the click
    changed: a speck too small for the square can be removed, and what is removed leaves no crumbs.
    """
    changed = mask != _on_slice(before.logits, fit)
    if isinstance(newest, SquarePoint):
        changed[_pixel(newest, fit)] = True
        finest = 4 * max(fit.rows / fit.rows_on_square, fit.columns / fit.columns_on_square)
        changed |= _around(changed, _NEAR * finest) & (before.mask != newest.positive)
    return np.where(changed, mask, before.mask)


def _around(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """The pixels within a distance of a mask that is not empty; computed no farther than that."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    margin = int(radius) + 1
    part = (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )
    near = np.zeros_like(mask)
    near[part] = ndimage.distance_transform_edt(~mask[part]) <= radius
    return near


def _told_pixels(
    mask: NDArray[np.bool_], prompts: Sequence[SquarePrompt], fit: SquareFit
) -> NDArray[np.bool_]:
    """The mask with the pixel of each click on the side that it says, the latest click last."""
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
    """The connected regions of a mask that are large enough or that a point lies in."""
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
        # Nothing to change there: the mask had it already, or the network does not see it.
        return old.clone()
    # The slope around the outline comes along, else the outline would be that of pixels.
    near = torch.from_numpy(ndimage.binary_dilation(region, iterations=1))
    others = torch.from_numpy((found != was) & ~region)
    return torch.where(near & ~others, new, old)


def _reach(was: NDArray[np.bool_], click: SquarePoint, size: int) -> float:
    """How far a click may change a mask (side, side), in its pixels.

    A user clicks into the middle of what is wrong: the deeper that lies in the mask, or outside of
    it, the larger is what they mean. Without a bound a click beside an outline that is good
    elsewhere would move all of it.
    """
    return _DEPTHS * _depth_in_error(was, click, size) + _LEAST_REACH


def _depth_in_error(was: NDArray[np.bool_], click: SquarePoint, size: int) -> float:
    """How far a click lies from what is right by it, in the pixels of a mask (side, side)."""
    side = len(was)
    other = was if click.positive else ~was
    if not other.any():
        return float(side)
    column, row = (min(side - 1, max(0, int(at * side / size))) for at in (click.x, click.y))
    return float(ndimage.distance_transform_edt(~other)[row, column])


def _obeyed(logits: Tensor, prompts: Sequence[SquarePrompt], size: int) -> Tensor:
    """Each click has its own pixel, and a small disc around it, on the side that it says."""
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
    """(side, side) bool around a click, `radius` in these pixels."""
    centres = np.arange(side) + 0.5
    x, y = click.x * side / size, click.y * side / size
    disc: NDArray[np.bool_] = ((centres[None] - x) ** 2 + (centres[:, None] - y) ** 2) <= radius**2
    return disc
