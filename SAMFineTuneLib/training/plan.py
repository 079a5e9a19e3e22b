"""What a preset comes to for given examples: every choice of a fine-tune, settled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from SAMFineTuneLib.adaptation.strategy import Method, Scope
from SAMFineTuneLib.training.examples import TrainingSet
from SAMFineTuneLib.training.presets import PRESETS, Preset, Recipe

# Learning rate of a network that starts from random weights, wholly or in its decoder.
_SCRATCH_RATE = 1e-3

# Of the steps, those of the tuning for prompts. It starts from a decoder that knows prompts
# already, and a step, with several rounds of prompts, takes longer.
_PROMPT_STEPS = 0.375

# Sides of the square input in pixels: the smallest, its step, what Segment Anything was trained
# at, and beyond what the starter's features see too little of a structure.
_SMALLEST_INPUT, _INPUT_STEP, _SAM_INPUT, _STARTER_INPUT = 256, 64, 1024, 512


@dataclass(frozen=True)
class FinetunePlan:
    """A fine-tune with nothing left open.

    Attributes:
        backbone: name in the registry.
        method: how weights change.
        scope: which part of the network changes.
        rank: of LoRA's updates.
        input_size: side of the square in pixels.
        steps: optimiser steps, None for as many as fit into the time.
        prompt_steps: of the tuning for prompts, None for as many as fit into its time.
        minutes: time limit, None for none.
        batch: slices a step.
        learning_rate: highest of the schedule.
        warm_up: steps until it is reached.
        weight_decay: AdamW's.
        patience: validations without improvement until it stops; None for never.
        seed: of everything random.
        pretrained: whether encoder and decoder start from weights that have learnt something.
    """

    backbone: str
    method: Method
    scope: Scope
    rank: int
    input_size: int
    steps: int | None
    prompt_steps: int | None
    minutes: float | None
    batch: int
    learning_rate: float
    warm_up: int
    weight_decay: float
    patience: int | None
    seed: int
    pretrained: bool


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; None and "auto" leave it to the preset."""

    preset: Preset = "laptop"
    backbone: str = "starter"
    method: Method | Literal["auto"] = "auto"
    scope: Scope | Literal["auto"] = "auto"
    rank: int = 4
    input_size: int | Literal["auto"] = "auto"
    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    learning_rate: float | None = None
    seed: int = 0


def settle(wishes: Wishes, examples: TrainingSet, pretrained: bool) -> FinetunePlan:
    """Fills in what the user left open.

    Adapters and low-rank updates presuppose a network that has learnt something: with random
    weights all of it trains. Naming steps or minutes lifts the preset's limit of the other kind.
    """
    recipe = PRESETS[wishes.preset]
    neither = wishes.steps is None and wishes.minutes is None
    steps = _steps_of_preset(recipe, examples) if neither else wishes.steps
    # The simulated user's clicks differ every time: few slices are not so soon learnt by heart.
    for_prompts = recipe.steps if neither else wishes.steps
    method: Method = (
        wishes.method if wishes.method != "auto" else ("adapter" if pretrained else "vanilla")
    )
    rate = recipe.learning_rate if pretrained else _SCRATCH_RATE
    return FinetunePlan(
        backbone=wishes.backbone,
        method=method,
        scope="encoder_decoder" if wishes.scope == "auto" else wishes.scope,
        rank=wishes.rank,
        input_size=_input_size(wishes, examples, recipe.largest_input),
        steps=steps,
        prompt_steps=None if for_prompts is None else math.ceil(_PROMPT_STEPS * for_prompts),
        minutes=recipe.minutes if neither else wishes.minutes,
        batch=wishes.batch or recipe.batch,
        learning_rate=wishes.learning_rate or rate,
        # A short fine-tune would else be over before it is warm.
        warm_up=recipe.warm_up if steps is None else min(recipe.warm_up, max(1, steps // 10)),
        weight_decay=0.1,
        patience=recipe.patience,
        seed=wishes.seed,
        pretrained=pretrained,
    )


def _steps_of_preset(recipe: Recipe, examples: TrainingSet) -> int:
    if examples.labelled_volumes == 1 or recipe.steps_a_slice is None:
        return recipe.steps
    labelled = sum(each.is_labelled for each in examples.slices)
    return min(recipe.steps, recipe.steps_a_slice * labelled)


def _input_size(wishes: Wishes, examples: TrainingSet, largest: int | None) -> int:
    """The smallest size that shows every pixel of a slice, within the backbone's range."""
    if wishes.input_size != "auto":
        return wishes.input_size
    if wishes.backbone == "starter":
        ceiling = min(largest or _STARTER_INPUT, _STARTER_INPUT)
    elif largest is None:
        # As the study did, whatever the slices' size.
        return _SAM_INPUT
    else:
        ceiling = largest
    longest = max(max(each.image.shape) for each in examples.slices)
    fitting = -(-longest // _INPUT_STEP) * _INPUT_STEP
    return min(max(_SMALLEST_INPUT, fitting), ceiling)
