"""Episodes: some images in which structures are labelled, others in which they are to be found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from SAMFineTuneLib.pretraining.anatomy import Anatomy, AnatomyDrawing
from SAMFineTuneLib.pretraining.appearance import draw_images
from SAMFineTuneLib.random_source import Chance
from SAMFineTuneLib.slices.square import square_positions

# A structure must show this share of an image's pixels somewhere, to be learnt from.
_LEAST_SHARE = 0.0008
_LEAST_BACKGROUND = 0.05
_TRIES = 20
_MOST_CLASSES = 4


@dataclass(frozen=True)
class Episode:
    """One synthetic structure set in several images.

    Attributes:
        images: (N, S, S), about zero mean and unit deviation.
        labels: (N, S, S), every label of the anatomy; -1 where an image shows no anatomy.
        classes: (N, S, S) the classes to be found, 0 for background.
        class_count: background included.
        labelled: how many of the images, the first ones, are labelled.
        pairs: labels that lie in one another, (outer, inner).
    """

    images: Tensor
    labels: Tensor
    classes: Tensor
    class_count: int
    labelled: int
    pairs: list[tuple[int, int]]


def draw_episode(chance: Chance, count: int, size: int) -> Episode:
    """An episode of `count` images of `size` × `size` pixels, 1 to 5 of them labelled.

    Raises:
        RuntimeError: no anatomy with a structure that can be learnt was found in many tries.
    """
    for _ in range(_TRIES):
        one_volume = chance.happens(0.5)
        anatomy = _slices(chance, count, size, one_volume)
        labelled = chance.whole(1, min(5, count - 1))
        images, seen = draw_images(anatomy, chance, one_volume)
        labels = torch.where(seen, anatomy.labels, -1)
        lut = _class_of_label(anatomy, labels, labelled, chance)
        if lut is None:
            continue
        classes = lut[labels.clamp(min=0)] * seen
        return Episode(images, labels, classes, int(lut.max()) + 1, labelled, anatomy.pairs)
    raise RuntimeError("no synthetic anatomy showed a structure")


def _slices(chance: Chance, count: int, size: int, one_volume: bool) -> Anatomy:
    """The same anatomy at several depths, moved and deformed."""
    device = chance.device
    places = square_positions(size).to(device)
    how_far = 0.35 if one_volume else 1.0
    turns = chance.normal(count) * 0.2 * how_far
    scales = torch.exp(chance.normal(count) * 0.15 * how_far)
    stretch = torch.exp(chance.normal(count) * 0.08 * how_far)
    cosines, sines = torch.cos(turns), torch.sin(turns)
    matrices = torch.stack(
        [cosines * scales * stretch, -sines * scales, sines * scales, cosines * scales / stretch],
        dim=1,
    ).reshape(count, 1, 2, 2)
    shifts = chance.normal(count, 1, 1, 2) * 0.1 * how_far
    # All images share a view of the anatomy: a zoom, a turn and a place in it.
    zoom = chance.scale_between(0.5, 1.2)
    turn = chance.between(-math.pi, math.pi) if chance.happens(0.3) else 0.0
    view = zoom * torch.tensor(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], device=device
    )
    centre = torch.tensor([chance.between(-1, 1), chance.between(-1, 1)], device=device) * max(
        0.0, 1 - zoom
    )
    moved = torch.matmul(places.reshape(1, -1, 2) @ view.T, matrices[:, 0].transpose(1, 2))
    moved = moved.reshape(count, size, size, 2) + shifts + centre
    elastic = chance.smooth(2 * count, chance.whole(4, 7), size).reshape(count, 2, size, size)
    moved = moved + chance.between(0.005, 0.06) * elastic.permute(0, 2, 3, 1) * zoom
    extent = chance.between(0.2, 1.2)
    depths = chance.each_between(-extent, extent, count) + chance.between(-0.5, 0.5)
    return AnatomyDrawing(chance, moved, depths).draw()


def _class_of_label(
    anatomy: Anatomy, labels: Tensor, labelled: int, chance: Chance
) -> Tensor | None:
    """Class of each label (count,), or None where a class is not seen well enough."""
    # Labels are -1 … count - 1; one more than a label is an index.
    shown = torch.bincount(labels[:labelled].flatten() + 1, minlength=anatomy.count + 1)[1:]
    # A class that fills a labelled image nearly whole is no structure.
    pixels = labels[:labelled].numel()
    fits = (shown > _LEAST_SHARE * pixels) & (shown < 0.6 * pixels)
    visible = set(fits.nonzero().flatten().tolist())
    organs = [each for each in anatomy.organs if each in visible]
    wanted = organs if organs and chance.happens(0.9) else sorted(visible)
    if not wanted:
        return None
    inner_of = dict(anatomy.pairs)
    lut = torch.zeros(anatomy.count, dtype=torch.long)
    number = 0
    for position in chance.permutation(len(wanted))[: chance.whole(1, _MOST_CLASSES)]:
        label = wanted[position]
        if lut[label]:
            continue
        number += 1
        lut[label] = number
        inner = inner_of.get(label)
        # An organ with its core, or what lies around it.
        if inner is not None and not lut[inner] and chance.happens(0.5):
            lut[inner] = number
    # Background must be seen as well, or nothing tells what the classes are not.
    background = int(shown.cpu()[lut == 0].sum())
    return lut.to(labels.device) if background > _LEAST_BACKGROUND * pixels else None
