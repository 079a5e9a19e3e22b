"""The presets: what each does, and what it costs and needs, without a tensor library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preset = Literal["laptop", "study", "full"]

# Learning rates: the study's for its recipe; LoRaMedNet's, five times as high, where there is
# time for hundreds of steps only.
_STUDY_RATE = 1e-4
_SHORT_RATE = 5e-4


@dataclass(frozen=True)
class Recipe:
    """One preset.

    Attributes:
        summary: what it is for, in words for a list.
        costs: time and memory, in words that follow "costs".
        needs: hardware, in words that follow "needs".
        steps: optimiser steps.
        steps_a_slice: where several volumes are learnt from, as many for each labelled slice and
            no more; None for no such limit.
        minutes: time limit, None for none.
        batch: slices a step.
        learning_rate: of a network that has learnt something before.
        largest_input: side of the square in pixels that is not exceeded; None for the backbone's.
        patience: validations without improvement until it stops; None for never.
        warm_up: steps until the learning rate is reached.
    """

    summary: str
    costs: str
    needs: str
    steps: int
    steps_a_slice: int | None
    minutes: float | None
    batch: int
    learning_rate: float
    largest_input: int | None
    patience: int | None
    warm_up: int


PRESETS: dict[Preset, Recipe] = {
    # Minutes on two CPU cores. The time limit is a safeguard for slower ones: as long as it
    # does not bite, the result depends on the seed alone. What is learnt from several volumes is
    # meant for others, and there 640 steps learn a few slices by heart: five of the hippocampus,
    # in twenty other volumes, mean DSC 0.74 after 320 steps and 0.71 after 640. Where one volume
    # is learnt from it is mostly that volume that is segmented, and they help (a tumour, whole
    # volume: 0.92 and 0.93).
    "laptop": Recipe(
        summary="a few slices of one or some volumes, in minutes and without a GPU",
        costs="about 3 minutes and 1 GB of memory with the starter network",
        needs="two processor cores",
        steps=640,
        steps_a_slice=64,
        minutes=3.2,
        batch=4,
        learning_rate=_SHORT_RATE,
        largest_input=512,
        patience=None,
        warm_up=30,
    ),
    # The study's few-shot recipe: 1000 epochs over 5 slices two at a time, no early stop.
    "study": Recipe(
        summary="a few slices, as in the published study of few-shot fine-tuning",
        costs="2500 steps at full resolution",
        needs="a GPU with 8 GB of memory; on two processor cores it takes about 2.5 hours with "
        "MobileSAM, and far more with larger networks",
        steps=2500,
        steps_a_slice=None,
        minutes=None,
        batch=2,
        learning_rate=_STUDY_RATE,
        largest_input=None,
        patience=None,
        warm_up=200,
    ),
    # Whole data sets: until the held-out volumes no longer improve.
    "full": Recipe(
        summary="a whole data set of labelled volumes, with a GPU",
        costs="up to 20000 steps, which is hours, and ends when held-out volumes no longer improve",
        needs="a GPU with more memory than study, since a step takes four times as many slices",
        steps=20000,
        steps_a_slice=None,
        minutes=None,
        batch=8,
        learning_rate=_STUDY_RATE,
        largest_input=None,
        patience=6,
        warm_up=200,
    ),
}
