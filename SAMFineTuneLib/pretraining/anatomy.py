"""Synthetic anatomies: label maps of slices through tissues and organs that never existed.

An anatomy is a function of place (x, y) and depth z. Slices through it at several depths, each
seen under a deformation of its own, show the same structures as slices of one volume, or of
several patients, do: larger here, smaller there, and gone beyond their ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.random_source import Chance

# Maps that shapes take their uneven edges from.
_WOBBLES = 4
# Resolution at which an anatomy's smooth maps are kept, for x and y from -1.5 to 1.5.
_MAP_SIZE, _MAP_EXTENT = 48, 1.5
_MOST_LABELS = 40


@dataclass
class Anatomy:
    """Slices of an anatomy.

    Attributes:
        labels: (N, S, S) label of each pixel.
        count: how many labels there are.
        organs: labels of organs and their parts; the others are tissues between them.
        pairs: labels that lie in one another, (outer, inner).
    """

    labels: Tensor
    count: int
    organs: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)


class AnatomyDrawing:
    """Draws one anatomy on given places.

    Args:
        chance: everything random.
        places: (N, S, S, 2) coordinates (x, y) of each pixel in the anatomy; about -1 … 1.
        depths: (N,) depth of each slice, -1 … 1.
    """

    def __init__(self, chance: Chance, places: Tensor, depths: Tensor) -> None:
        self._chance = chance
        self._x, self._y = places.unbind(-1)
        self._depths = depths[:, None, None]
        tissues = chance.whole(1, 6)
        maps = self._maps(places, tissues + _WOBBLES)
        self._wobbles = maps[tissues:]
        offsets = chance.normal(tissues) * 0.4
        labels = _number_of_largest(maps[:tissues] + offsets[:, None, None, None])
        self.anatomy = Anatomy(labels, tissues)

    def draw(self) -> Anatomy:
        """Tissues, then perhaps a body's outline, then organs, each over what was there."""
        chance = self._chance
        if chance.happens(0.5):
            self._draw_body()
        for _ in range(chance.whole(2, 9)):
            self._draw_organ()
        return self.anatomy

    def _maps(self, places: Tensor, count: int) -> Tensor:
        """Smooth maps (count, N, S, S) that change with depth as they do from place to place."""
        chance = self._chance
        points = (3, 4, 5, 7, 10)[chance.whole(0, 4)]
        stacks = [chance.smooth(count, points, _MAP_SIZE) for _ in range(2)]
        if chance.happens(0.3):
            stacks = [each + 0.3 * chance.smooth(count, 20, _MAP_SIZE) for each in stacks]
        slices, rows, columns = places.shape[:3]
        grid = (places / _MAP_EXTENT).reshape(1, slices * rows, columns, 2)
        sampled = functional.grid_sample(
            torch.cat(stacks)[None], grid, padding_mode="reflection", align_corners=False
        ).reshape(2, count, slices, rows, columns)
        turn = self._depths * chance.between(0.3, 1.5)
        return torch.cos(turn) * sampled[0] + torch.sin(turn) * sampled[1]

    def _new_label(self) -> int:
        self.anatomy.count += 1
        return self.anatomy.count - 1

    def _draw_body(self) -> None:
        """Air around everything, and up to three layers under the skin."""
        chance = self._chance
        width, height = chance.between(0.7, 1.1), chance.between(0.6, 1.0)
        power = chance.between(2.0, 4.0)
        wobble = self._wobbles[0] * chance.between(0.0, 0.1)
        field = (self._x / width).abs() ** power + (self._y / height).abs() ** power + wobble
        edge = 1.0
        for _ in range(chance.whole(0, 3)):
            inner = edge * chance.between(0.7, 0.95)
            layer = (field < edge) & (field >= inner)
            if chance.happens(0.3):
                # A ring with gaps, as ribs are.
                layer &= torch.cos(torch.atan2(self._y, self._x) * chance.whole(4, 14)) > 0
            self.anatomy.labels[layer] = self._new_label()
            edge = inner
        self.anatomy.labels[field >= 1.0] = self._new_label()

    def _draw_organ(self) -> None:
        if self.anatomy.count > _MOST_LABELS:
            return
        chance = self._chance
        shape = _Shape.random(chance)
        inside = self._field(shape, mirrored=False)
        label = self._paint(inside < 1)
        self._draw_parts(inside, label)
        if chance.happens(0.25):
            # The other side's twin looks the same and is another structure.
            twin = self._field(shape, mirrored=True)
            twin_label = self._paint(twin < 1)
            self._draw_parts(twin, twin_label)

    def _paint(self, where: Tensor) -> int:
        label = self._new_label()
        self.anatomy.labels[where] = label
        self.anatomy.organs.append(label)
        return label

    def _draw_parts(self, inside: Tensor, outer: int) -> None:
        """Perhaps a core, a wall, or lesions."""
        chance = self._chance
        kind = chance.between(0, 1)
        if kind < 0.3:
            part = inside < chance.between(0.15, 0.8)
        elif kind < 0.4:
            part = (inside < 1) & (inside > chance.between(0.55, 0.85))
        elif kind < 0.5:
            wobble = self._wobbles[chance.whole(0, _WOBBLES - 1)]
            part = (inside < 0.8) & (wobble > chance.between(0.8, 1.6))
        else:
            return
        self.anatomy.pairs.append((outer, self._paint(part)))

    def _field(self, shape: _Shape, mirrored: bool) -> Tensor:
        """Below 1 inside the shape, (N, S, S)."""
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
        # A ball's slices shrink to nothing at its ends, a tube's stay.
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
    """An ellipse, tube, band or crescent; lengths in halves of the image's side."""

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
    def random(cls, chance: Chance) -> _Shape:
        """A random one."""
        kind = chance.between(0, 1)
        size = chance.scale_between(0.035, 0.5)
        tube = kind < 0.2
        band = 0.2 <= kind < 0.3
        ratio = chance.scale_between(0.05, 0.2) if tube or band else chance.scale_between(0.35, 1)
        length = chance.between(0.3, 0.9) if tube or band else size
        return cls(
            x=chance.between(-0.8, 0.8),
            y=chance.between(-0.8, 0.8),
            drift_x=chance.between(-0.12, 0.12),
            drift_y=chance.between(-0.12, 0.12),
            angle=chance.between(0, math.pi),
            length=length,
            width=max(0.02, length * ratio),
            power=2.0 if chance.happens(0.6) else chance.between(1.4, 5.0),
            bend=chance.between(-0.8, 0.8) if chance.happens(0.4) else 0.0,
            waves=chance.between(-0.15, 0.15) if tube else 0.0,
            bite=chance.between(0.4, 0.9) if chance.happens(0.12) else 0.0,
            depth=chance.between(-0.8, 0.8),
            reach=chance.scale_between(0.25, 2.0),
            taper=chance.between(0.15, 0.5),
            wobble=chance.whole(0, _WOBBLES - 1),
            unevenness=chance.between(0.0, 0.35),
        )


def _number_of_largest(maps: Tensor) -> Tensor:
    """As argmax over the first axis, which is slow on a CPU."""
    largest, number = maps[0], torch.zeros(maps.shape[1:], dtype=torch.long, device=maps.device)
    for position, each in enumerate(maps[1:], start=1):
        number = torch.where(each > largest, position, number)
        largest = torch.maximum(largest, each)
    return number
