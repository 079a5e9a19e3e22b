"""The settings of a pre-training by masked reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.pretraining.starting_weights import StartingWeights

# The base learning rate is for steps of so many slices (He et al. 2022).
_BASE_BATCH = 256
# The original warms up in 40 of 800 epochs.
WARM_UP = 0.05
MASKED = 0.75
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class MaskedChoices:
    """What the user chooses.

    Attributes:
        images: a folder that is searched, or a list of images.
        skip_unreadable: whether to go on without files that cannot be read.
        weights: to begin with.
        input_size: side of the square input in pixels; None for that of the backbone.
        epochs: how often each slice is learnt from.
        minutes: time in all, within which the learning rate falls to 0; None for no limit.
        batch: slices at once in each process.
        accumulate: batches in each step of the optimiser.
        learning_rate: for steps of 256 slices.
        seed: of all random numbers.
        precision: "fp32", or "bf16" for mixed precision.
    """

    images: Path
    weights: StartingWeights
    skip_unreadable: bool = False
    input_size: int | None = None
    epochs: int = 100
    minutes: float | None = None
    batch: int = 16
    accumulate: int = 1
    learning_rate: float = 1.5e-4
    seed: int = 0
    precision: str = "fp32"


@dataclass(frozen=True)
class MaskedPlan:
    """What the choices come to with these images and processes.

    Attributes:
        backbone: of the network.
        input_size: side of the square input in pixels.
        pixels: how pixels are normalised.
        patch: side of a masked square in pixels.
        slices: how many slices there are.
        steps: steps of the optimiser in all.
        minutes: time in all; None for no limit.
        batch: slices at once in each process.
        accumulate: batches in each step of each process.
        step_slices: slices of a step in all processes.
        learning_rate: the highest one.
        seed: of all random numbers.
        precision: "fp32" or "bf16".
        kind: of the pre-training.
    """

    backbone: str
    input_size: int
    pixels: str
    patch: int
    slices: int
    steps: int
    minutes: float | None
    batch: int
    accumulate: int
    step_slices: int
    learning_rate: float
    seed: int
    precision: str
    kind: str = "mae"


def settle(
    choices: MaskedChoices, input_size: int, patch: int, slices: int, processes: int
) -> MaskedPlan:
    """The plan for so many slices and processes."""
    step_slices = choices.batch * choices.accumulate * processes
    return MaskedPlan(
        backbone=choices.weights.backbone,
        input_size=input_size,
        pixels=choices.weights.pixels,
        patch=patch,
        slices=slices,
        steps=-(-choices.epochs * slices // step_slices),
        minutes=choices.minutes,
        batch=choices.batch,
        accumulate=choices.accumulate,
        step_slices=step_slices,
        learning_rate=choices.learning_rate * step_slices / _BASE_BATCH,
        seed=choices.seed,
        precision=choices.precision,
    )
