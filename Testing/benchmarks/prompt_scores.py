"""DSC of a promptable network on single slices, by what the simulated user did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from Testing.benchmarks.embedded_volume import EmbeddedVolume
from Testing.benchmarks.simulated_user import Answer, SimulatedUser
from Testing.benchmarks.single_slices import TargetVolume

GOOD = 0.9
_CLICKS = 10
_CLICKS_SHOWN = (1, 2, 3, 5, _CLICKS)
_CORRECTIONS_SHOWN = (1, 3)
_BATCH = 16


@dataclass(frozen=True)
class TargetScore:
    """DSC of one structure on one slice.

    Attributes:
        pixels: of the target, on the slice.
        filled_box: of the jittered box itself, filled.
        clicks: after 1, 2, … clicks.
        box: after the jittered box and 0, 1, … clicks.
        tight_box: after the box around the target, edge to edge.
    """

    data_set: str
    volume: str
    structure: str
    slice: int
    pixels: int
    filled_box: float
    clicks: list[float]
    box: list[float]
    tight_box: float

    @property
    def clicks_to_good(self) -> int:
        """How many clicks it takes; one more than were made where they did not suffice."""
        good = [number for number, dsc in enumerate(self.clicks, start=1) if dsc >= GOOD]
        return good[0] if good else _CLICKS + 1

    def columns(self) -> dict[str, float]:
        """What is reported of it."""
        return {
            "filled box": self.filled_box,
            "box": self.box[0],
            **{_clicks(number): self.clicks[number - 1] for number in _CLICKS_SHOWN},
            **{f"box + {number}": self.box[number] for number in _CORRECTIONS_SHOWN},
            f"clicks to {GOOD:.2f}": float(self.clicks_to_good),
            "never": float(self.clicks_to_good > _CLICKS),
        }


def _clicks(number: int) -> str:
    return "1 click" if number == 1 else f"{number} clicks"


def mean_columns(scores: Sequence[TargetScore]) -> dict[str, float]:
    """Of every column the mean."""
    columns = [score.columns() for score in scores]
    return {name: float(np.mean([each[name] for each in columns])) for name in columns[0]}


def score_volume(segmenter: PromptedSegmenter, volume: TargetVolume) -> Iterator[TargetScore]:
    """The score of every target of a volume."""
    embedded = EmbeddedVolume(segmenter, volume)
    for start in range(0, len(volume.targets), _BATCH):
        targets = volume.targets[start : start + _BATCH]
        user = embedded.user(targets)
        filled = dice_of(user.filled_boxes(), user.truth)
        clicks = _dsc(user, islice(user.clicks(), _CLICKS))
        box = _dsc(user, islice(user.box_and_clicks(), max(_CORRECTIONS_SHOWN) + 1))
        tight = dice_of(user.in_tight_boxes(), user.truth)
        for place, target in enumerate(targets):
            yield TargetScore(
                volume.data_set,
                volume.name,
                target.structure,
                target.slice,
                int(target.mask.sum()),
                float(filled[place]),
                clicks[:, place].tolist(),
                box[:, place].tolist(),
                float(tight[place]),
            )


def _dsc(user: SimulatedUser, answers: Iterator[Answer]) -> Tensor:
    """(rounds, B)."""
    return torch.stack([dice_of(answer.masks, user.truth) for answer in answers])


def dice_of(masks: Tensor, truth: Tensor) -> Tensor:
    """DSC (B,) of masks (B, rows, columns), none of whose truths is empty."""
    both = (masks & truth).sum((1, 2))
    return 2 * both / (masks.sum((1, 2)) + truth.sum((1, 2)))
