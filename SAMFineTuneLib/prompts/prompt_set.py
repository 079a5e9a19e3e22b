"""Prompts for a batch of images: points, boxes and the previous mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Labels of points, as Segment Anything numbers them. Padding fills the places of images that have
# fewer points than others of the batch.
POSITIVE, NEGATIVE, PADDING = 1, 0, -1


@dataclass(frozen=True)
class PromptSet:
    """Prompts of B images, one structure each, on the model's square.

    Attributes:
        points: (B, N, 2) positions (x, y) in pixels of the square; pixel centres are at
            half-integers.
        labels: (B, N) POSITIVE, NEGATIVE or PADDING.
        boxes: (B, 4) left, top, right, bottom in the same pixels; NaN in an image without a box.
        mask: (B, 1, s, s) logits of the previous mask, s the network's mask size; None before there
            is one.
        further_boxes: (B, M, 4) boxes around further regions of the same structure, in the same
            pixels; NaN where there are fewer. None where no image has any.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor
    mask: Tensor | None = None
    further_boxes: Tensor | None = None

    @classmethod
    def none(cls, batch: int, device: torch.device | None = None) -> PromptSet:
        """No prompts at all."""
        return cls(
            torch.zeros(batch, 0, 2, device=device),
            torch.zeros(batch, 0, dtype=torch.long, device=device),
            torch.full((batch, 4), torch.nan, device=device),
        )

    @property
    def boxed(self) -> Tensor:
        """(B,) bool, which images have a box."""
        return ~self.boxes.isnan().any(1)

    def with_points(self, points: Tensor, labels: Tensor) -> PromptSet:
        """These prompts with one more point in each image: points (B, 2) and labels (B,)."""
        return PromptSet(
            torch.cat([self.points, points[:, None]], dim=1),
            torch.cat([self.labels, labels[:, None]], dim=1),
            self.boxes,
            self.mask,
            self.further_boxes,
        )

    def of_image(self, number: int) -> PromptSet:
        """The prompts of one image of the batch, as a batch of one."""
        own = slice(number, number + 1)
        mask = None if self.mask is None else self.mask[own]
        further = None if self.further_boxes is None else self.further_boxes[own]
        return PromptSet(self.points[own], self.labels[own], self.boxes[own], mask, further)

    def with_mask(self, mask: Tensor | None) -> PromptSet:
        """These prompts with another previous mask."""
        return PromptSet(self.points, self.labels, self.boxes, mask, self.further_boxes)
