"""The settings of a pre-training by prompts on labelled data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.pretraining.starting_weights import StartingWeights

# Steps until the learning rate is reached, and AdamW's weight decay, as in the study's code.
WARM_UP_STEPS = 200
WEIGHT_DECAY = 0.1


@dataclass(frozen=True)
class LabelledChoices:
    """What the user chooses.

    Attributes:
        lists: of the data sets to learn from.
        weights: to begin with.
        validation_lists: to measure on; where none is given, a part of each data set is held out.
        skip_unreadable: whether to go on without files that cannot be read.
        input_size: side of the square input in pixels; None for that of the backbone.
        epochs: at most so many.
        minutes: time in all; None for no limit.
        patience: epochs without improvement after which it stops.
        batch: slices in each step of each process.
        learning_rate: after the warm-up.
        seed: of all random numbers.
        precision: "fp32", or "bf16" for mixed precision.
    """

    lists: tuple[Path, ...]
    weights: StartingWeights
    validation_lists: tuple[Path, ...] = ()
    skip_unreadable: bool = False
    input_size: int | None = None
    epochs: int = 100
    minutes: float | None = None
    patience: int = 5
    batch: int = 3
    learning_rate: float = 1e-4
    seed: int = 0
    precision: str = "fp32"


@dataclass(frozen=True)
class LabelledPlan:
    """What the choices come to with these data sets and processes.

    Attributes:
        backbone: of the network.
        input_size: side of the square input in pixels.
        pixels: how pixels are normalised.
        slices: labelled slices to learn from.
        epoch_steps: steps in which each of them is seen once.
        epochs: at most so many.
        minutes: time in all; None for no limit.
        patience: epochs without improvement after which it stops.
        batch: slices in each step of each process.
        learning_rate: after the warm-up.
        seed: of all random numbers.
        precision: "fp32" or "bf16".
        kind: of the pre-training.
    """

    backbone: str
    input_size: int
    pixels: str
    slices: int
    epoch_steps: int
    epochs: int
    minutes: float | None
    patience: int
    batch: int
    learning_rate: float
    seed: int
    precision: str
    kind: str = "prompts"

    def rate_at(self, step: int) -> float:
        """The learning rate of a step: it rises, and then stays, as the end is not known."""
        return self.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS)


def settle(choices: LabelledChoices, input_size: int, slices: int, processes: int) -> LabelledPlan:
    """The plan for so many slices and processes."""
    return LabelledPlan(
        backbone=choices.weights.backbone,
        input_size=input_size,
        pixels=choices.weights.pixels,
        slices=slices,
        epoch_steps=-(-slices // (choices.batch * processes)),
        epochs=choices.epochs,
        minutes=choices.minutes,
        patience=choices.patience,
        batch=choices.batch,
        learning_rate=choices.learning_rate,
        seed=choices.seed,
        precision=choices.precision,
    )
