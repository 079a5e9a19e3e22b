"""Synthetic anatomies: label maps of slices through random tissues and organs.

An anatomy is a function of the position (x, y) and the depth z. Slices through it at several
depths, each with a deformation of its own, show the same structures in different sizes, or not at
all beyond their ends, as slices of one volume or of several patients do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.random_source import RandomSource

# Number of maps that make the edges of shapes uneven.
_WOBBLES = 4
# Resolution of an anatomy's smooth maps, and their extent: x and y from -1.5 to 1.5.
_MAP_SIZE, _MAP_EXTENT = 48, 1.5
_MOST_LABELS = 40


@dataclass
class Anatomy:
    """Slices of an anatomy.

    Attributes:
        labels: (N, S, S) label of each pixel.
        count: number of labels.
        organs: labels of organs and their parts; the others are tissues between them.
        pairs: pairs of labels (outer, inner) of which one lies in the other.
    """

    labels: Tensor
    count: int
    organs: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)


class AnatomyDrawing:
    """Draws one anatomy at given positions.

    Args:
        random: source of all random numbers.
        places: (N, S, S, 2) coordinates (x, y) of each pixel in the anatomy; about -1 … 1.
        depths: (N,) depth of each slice, -1 … 1.
    """

    def __init__(self, random: RandomSource, places: Tensor, depths: Tensor) -> None:
        self._random = random
        self._x, self._y = places.unbind(-1)
        self._depths = depths[:, None, None]
        tissues = random.whole(1, 6)
        maps = self._maps(places, tissues + _WOBBLES)
        self._wobbles = maps[tissues:]
        offsets = random.normal(tissues) * 0.4
        labels = _number_of_largest(maps[:tissues] + offsets[:, None, None, None])
        self.anatomy = Anatomy(labels, tissues)

    def draw(self) -> Anatomy:
        """Draws tissues, sometimes a body's outline, then organs, each over those before it."""
        random = self._random
        if random.happens(0.5):
            self._draw_body()
        for _ in range(random.whole(2, 9)):
            self._draw_organ()
        return self.anatomy

    def _maps(self, places: Tensor, count: int) -> Tensor:
        """Smooth maps (count, N, S, S) that vary with position and with depth."""
        random = self._random
        points = (3, 4, 5, 7, 10)[random.whole(0, 4)]
        stacks = [random.smooth(count, points, _MAP_SIZE) for _ in range(2)]
        if random.happens(0.3):
            stacks = [each + 0.3 * random.smooth(count, 20, _MAP_SIZE) for each in stacks]
        slices, rows, columns = places.shape[:3]
        grid = (places / _MAP_EXTENT).reshape(1, slices * rows, columns, 2)
        sampled = functional.grid_sample(
            torch.cat(stacks)[None], grid, padding_mode="reflection", align_corners=False
        ).reshape(2, count, slices, rows, columns)
        turn = self._depths * random.between(0.3, 1.5)
        return torch.cos(turn) * sampled[0] + torch.sin(turn) * sampled[1]

    def _new_label(self) -> int:
        self.anatomy.count += 1
        return self.anatomy.count - 1

    def _draw_body(self) -> None:
        """Draws air around the body, and up to three layers under the skin."""
        random = self._random
        width, height = random.between(0.7, 1.1), random.between(0.6, 1.0)
        power = random.between(2.0, 4.0)
        wobble = self._wobbles[0] * random.between(0.0, 0.1)
        field = (self._x / width).abs() ** power + (self._y / height).abs() ** power + wobble
        edge = 1.0
        for _ in range(random.whole(0, 3)):
            inner = edge * random.between(0.7, 0.95)
            layer = (field < edge) & (field >= inner)
            if random.happens(0.3):
                # The layer has gaps, as ribs have.
                layer &= torch.cos(torch.atan2(self._y, self._x) * random.whole(4, 14)) > 0
            self.anatomy.labels[layer] = self._new_label()
            edge = inner
        self.anatomy.labels[field >= 1.0] = self._new_label()

    def _draw_organ(self) -> None:
        if self.anatomy.count > _MOST_LABELS:
            return
        random = self._random
        shape = _Shape.drawn(random)
        inside = self._field(shape, mirrored=False)
        label = self._paint(inside < 1)
        self._draw_parts(inside, label)
        if random.happens(0.25):
            # A mirrored organ on the other side looks the same and is another structure.
            twin = self._field(shape, mirrored=True)
            twin_label = self._paint(twin < 1)
            self._draw_parts(twin, twin_label)

    def _paint(self, where: Tensor) -> int:
        label = self._new_label()
        self.anatomy.labels[where] = label
        self.anatomy.organs.append(label)
        return label

    def _draw_parts(self, inside: Tensor, outer: int) -> None:
        """Draws a core, a wall, or lesions, or nothing."""
        random = self._random
        kind = random.between(0, 1)
        if kind < 0.3:
            part = inside < random.between(0.15, 0.8)
        elif kind < 0.4:
            part = (inside < 1) & (inside > random.between(0.55, 0.85))
        elif kind < 0.5:
            wobble = self._wobbles[random.whole(0, _WOBBLES - 1)]
            part = (inside < 0.8) & (wobble > random.between(0.8, 1.6))
        else:
            return
        self.anatomy.pairs.append((outer, self._paint(part)))

    def _field(self, shape: _Shape, mirrored: bool) -> Tensor:
        """A function (N, S, S) that is below 1 inside the shape."""
        x = -self._x if mirrored else self._x
        depth = self._depths
        moved_x = x - shape.x - depth * shape.drift_x
        moved_y = self._y - shape.y - depth * shape.drift_y
        u = moved_x * math.cos(shape.angle) + moved_y * math.sin(shape.angle)
        v = moved_y * math.cos(shape.angle) - moved_x * math.sin(shape.angle)
        if shape.bend:
            v = v + shape.bend * (u * u / shape.length - shape.length * 0.3)
        if shape.waves:
            v = v + shape.waves * shape.length * torch.sin(4 * u / shape.length)
        # The slices of a ball shrink to nothing at its ends; those of a tube hardly shrink.
        remaining = (1 - ((depth - shape.depth) / shape.reach) ** 2).clamp(min=1e-3)
        scale = remaining**shape.taper
        ratio_u, ratio_v = u / (shape.length * scale), v / (shape.width * scale)
        if shape.power == 2.0:
            field = ratio_u.square() + ratio_v.square()
        else:
            field = ratio_u.abs() ** shape.power + ratio_v.abs() ** shape.power
        if shape.bite:
            bitten = (ratio_u - shape.bite).square() + (ratio_v - shape.bite).square() < 0.5
            field = field + bitten
        wobble = self._wobbles[shape.wobble % _WOBBLES]
        return field + shape.unevenness * wobble + (remaining <= 1e-3) * 10.0


@dataclass(frozen=True)
class _Shape:
    """An ellipse, tube, band or crescent; lengths are in halves of the image's side."""

    x: float
    y: float
    drift_x: float
    drift_y: float
    angle: float
    length: float
    width: float
    power: float
    bend: float
    waves: float
    bite: float
    depth: float
    reach: float
    taper: float
    wobble: int
    unevenness: float

    @classmethod
    def drawn(cls, random: RandomSource) -> _Shape:
        """A random shape."""
        kind = random.between(0, 1)
        size = random.scale_between(0.035, 0.5)
        tube = kind < 0.2
        band = 0.2 <= kind < 0.3
        ratio = random.scale_between(0.05, 0.2) if tube or band else random.scale_between(0.35, 1)
        length = random.between(0.3, 0.9) if tube or band else size
        return cls(
            x=random.between(-0.8, 0.8),
            y=random.between(-0.8, 0.8),
            drift_x=random.between(-0.12, 0.12),
            drift_y=random.between(-0.12, 0.12),
            angle=random.between(0, math.pi),
            length=length,
            width=max(0.02, length * ratio),
            power=2.0 if random.happens(0.6) else random.between(1.4, 5.0),
            bend=random.between(-0.8, 0.8) if random.happens(0.4) else 0.0,
            waves=random.between(-0.15, 0.15) if tube else 0.0,
            bite=random.between(0.4, 0.9) if random.happens(0.12) else 0.0,
            depth=random.between(-0.8, 0.8),
            reach=random.scale_between(0.25, 2.0),
            taper=random.between(0.15, 0.5),
            wobble=random.whole(0, _WOBBLES - 1),
            unevenness=random.between(0.0, 0.35),
        )


def _number_of_largest(maps: Tensor) -> Tensor:
    """The same as argmax over the first axis, which is slow on a CPU."""
    largest, number = maps[0], torch.zeros(maps.shape[1:], dtype=torch.long, device=maps.device)
    for position, each in enumerate(maps[1:], start=1):
        number = torch.where(each > largest, position, number)
        largest = torch.maximum(largest, each)
    return number
