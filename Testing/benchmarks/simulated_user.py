"""A simulated user who points at structures on slices until told to stop.

Prompts live on the network's square, and so do the errors from which clicks are drawn; the masks
that come back are on the slices' own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prompts.prompt_set import POSITIVE, PromptSet
from SAMFineTuneLib.prompts.simulated import (
    boxes_around,
    correcting_points,
    jittered,
    points_within,
)
from SAMFineTuneLib.slices.square import SquareFit
from Testing.benchmarks.single_slices import Target

# Deviation of a box's sides as a share of its width and height; not cut off at any distance.
_JITTER = 0.1


class Answer(NamedTuple):
    """What the network made of some prompts.

    Attributes:
        prompts: all prompts so far, of B targets.
        masks: (B, rows, columns) bool.
    """

    prompts: PromptSet
    masks: Tensor


class SimulatedUser:
    """Knows the true masks of some slices of one volume, and points at them.

    Args:
        segmenter: the network.
        features: of the targets' slices, in their order.
        fit: of the slices on the square.
        targets: B of them.
    """

    def __init__(
        self,
        segmenter: PromptedSegmenter,
        features: FeatureState,
        fit: SquareFit,
        targets: Sequence[Target],
    ) -> None:
        self._segmenter = segmenter
        self._features = features
        self._fit = fit
        self.truth = torch.from_numpy(np.stack([target.mask for target in targets]))
        self._square = torch.stack([fit.mask_to_square(mask.int()) for mask in self.truth]) > 0
        noise = torch.from_numpy(np.stack([target.jitter for target in targets])).float()
        self.boxes = jittered(boxes_around(self._square), _JITTER, noise, largest=math.inf)

    def clicks(self) -> Iterator[Answer]:
        """The middle of the structure, then the middle of the largest error, over and over."""
        points, _ = points_within(self._square, torch.zeros(self._square.shape))
        labels = torch.full((len(points),), POSITIVE)
        return self._prompt(PromptSet.none(len(points)).with_points(points, labels))

    def box_and_clicks(self) -> Iterator[Answer]:
        """The jittered box, then clicks into the largest error."""
        none = PromptSet.none(len(self.boxes))
        return self._prompt(PromptSet(none.points, none.labels, self.boxes))

    def in_tight_boxes(self) -> Tensor:
        """The masks (B, rows, columns) from the boxes around the structures, edge to edge."""
        none = PromptSet.none(len(self.boxes))
        boxes = boxes_around(self._square)
        return self.masks(self.logits(PromptSet(none.points, none.labels, boxes)))

    def filled_boxes(self) -> Tensor:
        """The masks (B, rows, columns) of a network that knows nothing but the box."""
        fit = self._fit
        y = (torch.arange(fit.rows) + 0.5) * fit.rows_on_square / fit.rows
        x = (torch.arange(fit.columns) + 0.5) * fit.columns_on_square / fit.columns
        left, top, right, bottom = (side[:, None] for side in self.boxes.unbind(1))
        rows, columns = (y >= top) & (y <= bottom), (x >= left) & (x <= right)
        return rows[:, :, None] & columns[:, None, :]

    def logits(self, prompts: PromptSet) -> Tensor:
        """The network's answer, (B, 1, s, s) on the square."""
        logits, _ = self._segmenter.decode(self._features, prompts)
        return logits

    def masks(self, logits: Tensor) -> Tensor:
        """(B, rows, columns) bool on the slices."""
        return self._fit.logits_to_slice(logits)[:, 0] > 0

    def _prompt(self, prompts: PromptSet) -> Iterator[Answer]:
        size = self._square.shape[-2:]
        while True:
            logits = self.logits(prompts)
            yield Answer(prompts, self.masks(logits))
            found = functional.interpolate(logits, size, mode="bilinear")[:, 0] > 0
            click = correcting_points(found, self._square, torch.zeros(self._square.shape))
            prompts = prompts.with_mask(logits).with_points(*click)
