"""Episodes: some images with labelled structures, and others in which these are to be segmented."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from SAMFineTuneLib.pretraining.synthetic.anatomy import Anatomy, AnatomyDrawing
from SAMFineTuneLib.pretraining.synthetic.appearance import draw_images
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.slices.square import square_positions

# Smallest share of the labelled images' pixels that a class, and background, must fill.
_LEAST_SHARE = 0.0008
_LEAST_BACKGROUND = 0.05
# Number of anatomies, at most, of which one with a suitable structure is looked for.
_TRIES = 20
_MOST_CLASSES = 4


@dataclass(frozen=True)
class Episode:
    """Several synthetic images of one anatomy.

    Attributes:
        images: (N, S, S), with about zero mean and unit standard deviation.
        labels: (N, S, S), every label of the anatomy; -1 where an image shows no anatomy.
        classes: (N, S, S) the classes to be segmented, 0 for background.
        class_count: number of classes, including background.
        labelled: number of labelled images, which are the first ones.
        pairs: pairs of labels (outer, inner) of which one lies in the other.
    """

    images: Tensor
    labels: Tensor
    classes: Tensor
    class_count: int
    labelled: int
    pairs: list[tuple[int, int]]


def draw_episode(random: RandomSource, count: int, size: int) -> Episode:
    """An episode of `count` images of `size` × `size` pixels, 1 to 5 of them labelled.

    Raises:
        RuntimeError: none of many random anatomies has a suitable structure.
    """
    for _ in range(_TRIES):
        one_volume = random.happens(0.5)
        anatomy = _slices(random, count, size, one_volume)
        labelled = random.whole(1, min(5, count - 1))
        images, seen = draw_images(anatomy, random, one_volume)
        labels = torch.where(seen, anatomy.labels, -1)
        lut = _class_of_label(anatomy, labels, labelled, random)
        if lut is None:
            continue
        classes = lut[labels.clamp(min=0)] * seen
        return Episode(images, labels, classes, int(lut.max()) + 1, labelled, anatomy.pairs)
    raise RuntimeError("no synthetic anatomy showed a structure")


def _slices(random: RandomSource, count: int, size: int, one_volume: bool) -> Anatomy:
    """The same anatomy at several depths, moved and deformed."""
    device = random.device
    places = square_positions(size).to(device)
    how_far = 0.35 if one_volume else 1.0
    turns = random.normal(count) * 0.2 * how_far
    scales = torch.exp(random.normal(count) * 0.15 * how_far)
    stretch = torch.exp(random.normal(count) * 0.08 * how_far)
    cosines, sines = torch.cos(turns), torch.sin(turns)
    matrices = torch.stack(
        [cosines * scales * stretch, -sines * scales, sines * scales, cosines * scales / stretch],
        dim=1,
    ).reshape(count, 1, 2, 2)
    shifts = random.normal(count, 1, 1, 2) * 0.1 * how_far
    # All images share a view of the anatomy, with one zoom, rotation and centre.
    zoom = random.scale_between(0.5, 1.2)
    turn = random.between(-math.pi, math.pi) if random.happens(0.3) else 0.0
    view = zoom * torch.tensor(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], device=device
    )
    centre = torch.tensor([random.between(-1, 1), random.between(-1, 1)], device=device) * max(
        0.0, 1 - zoom
    )
    moved = torch.matmul(places.reshape(1, -1, 2) @ view.T, matrices[:, 0].transpose(1, 2))
    moved = moved.reshape(count, size, size, 2) + shifts + centre
    elastic = random.smooth(2 * count, random.whole(4, 7), size).reshape(count, 2, size, size)
    moved = moved + random.between(0.005, 0.06) * elastic.permute(0, 2, 3, 1) * zoom
    extent = random.between(0.2, 1.2)
    depths = random.each_between(-extent, extent, count) + random.between(-0.5, 0.5)
    return AnatomyDrawing(random, moved, depths).draw()


def _class_of_label(
    anatomy: Anatomy, labels: Tensor, labelled: int, random: RandomSource
) -> Tensor | None:
    """Class of each label (count,); None where no label, or too little background, is visible."""
    # Labels are -1 … count - 1, so 1 is added to make them indices.
    shown = torch.bincount(labels[:labelled].flatten() + 1, minlength=anatomy.count + 1)[1:]
    # A label that fills most of the labelled images is not a structure.
    pixels = labels[:labelled].numel()
    fits = (shown > _LEAST_SHARE * pixels) & (shown < 0.6 * pixels)
    visible = set(fits.nonzero().flatten().tolist())
    organs = [each for each in anatomy.organs if each in visible]
    wanted = organs if organs and random.happens(0.9) else sorted(visible)
    if not wanted:
        return None
    inner_of = dict(anatomy.pairs)
    lut = torch.zeros(anatomy.count, dtype=torch.long)
    number = 0
    for position in random.permutation(len(wanted))[: random.whole(1, _MOST_CLASSES)]:
        label = wanted[position]
        if lut[label]:
            continue
        number += 1
        lut[label] = number
        inner = inner_of.get(label)
        # The class is either an organ with its core, or the organ without it.
        if inner is not None and not lut[inner] and random.happens(0.5):
            lut[inner] = number
    # Background must be visible, too, or the labelled images do not show what is outside of the
    # classes.
    background = int(shown.cpu()[lut == 0].sum())
    return lut.to(labels.device) if background > _LEAST_BACKGROUND * pixels else None
