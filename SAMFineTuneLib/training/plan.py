"""The plan of a fine-tune: every setting, from the user's choices, the preset and the examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from SAMFineTuneLib.adaptation.places import USUAL_PLACES, Places, settled_places
from SAMFineTuneLib.adaptation.strategy import Method, Scope
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.heads.names import DEFAULT_HEAD, HEADS, HeadName, settled_depth
from SAMFineTuneLib.networks.spec import PixelNormalisation, find
from SAMFineTuneLib.prompts.mode import PromptMode
from SAMFineTuneLib.training.choices import FinetuneChoices
from SAMFineTuneLib.training.presets import PRESETS, AugmentationName, Recipe

# Learning rate of a network that starts from random weights, wholly or in its decoder.
_SCRATCH_RATE = 1e-3

# Steps of the tuning for prompts, as a share of those of the automatic fine-tune. It starts from a
# decoder that knows prompts already, and a step, with several rounds of prompts, takes longer.
_PROMPT_STEPS = 0.375

# Share of a preset's steps that going on from its model makes at least: with fewer, the short
# warm-up would be most of them.
_FURTHER_STEPS = 0.25

# Pixels between the sides of the square input that are chosen from.
_INPUT_STEP = 64


@dataclass(frozen=True)
class FinetunePlan:
    """All settings of a fine-tune.

    Attributes:
        backbone: name of the network; see `networks.spec`.
        method: how weights change.
        scope: which part of the network changes.
        rank: of LoRA's updates.
        input_size: side of the square in pixels.
        steps: optimiser steps; None for as many as fit into the time.
        prompt_steps: steps of the tuning for prompts; None for as many as fit into its time.
        minutes: time limit, None for none.
        batch: slices in each step.
        learning_rate: highest of the schedule.
        warm_up: steps until it is reached.
        weight_decay: of AdamW.
        patience: validations without improvement until it stops; None for never.
        seed: of all random numbers.
        pretrained: whether encoder and decoder start from weights that have learnt something.
        pixels: how pixels are normalised for these weights; None as usual for the backbone.
        head: what is put on the encoder; see `heads.names`.
        head_depth: of a head that has one; None for the others.
        betas: of AdamW.
        falls: whether the learning rate falls to zero, or stays as it is.
        augmentation: how slices are changed; see `training.presets`.
        places: where adapters and low-rank updates go.
        prompt_mode: which simulated prompts the tuning for prompts learns from.
        unlabelled_batch: unlabelled slices in each step, beside the others; 0 for none.
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
    pixels: PixelNormalisation | None = None
    head: HeadName = DEFAULT_HEAD
    head_depth: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    falls: bool = True
    augmentation: AugmentationName = "all"
    places: Places = USUAL_PLACES
    prompt_mode: PromptMode = "correction"
    unlabelled_batch: int = 0


def settle(
    choices: FinetuneChoices,
    examples: TrainingSet,
    pretrained: bool,
    pixels: PixelNormalisation | None = None,
    unlabelled: int = 0,
) -> FinetunePlan:
    """Fills in what the user left open.

    Adapters and low-rank updates presuppose a network that has learnt something; with random
    weights the whole network trains. Where the user gives steps or minutes, the preset's limit of
    the other kind does not hold.

    Args:
        choices: what the user chose, such as a `FinetuneJob`.
        examples: what is learnt from; sizes and counts of slices decide what is left open.
        pretrained: whether encoder and decoder start from weights that have learnt something.
        pixels: how pixels are normalised for these weights; None as usual for the backbone.
        unlabelled: how many unlabelled slices are learnt from as well.

    Raises:
        InputError: places that have no effect with the method or the scope.
    """
    recipe = PRESETS[choices.preset]
    neither = choices.steps is None and choices.minutes is None
    batch = choices.batch or recipe.batch
    steps = steps_of_preset(recipe, examples, batch) if neither else choices.steps
    # The simulated user's clicks differ in every step, so that the network does not overfit to a
    # few slices as soon as the automatic fine-tune does: the limit for each slice does not apply.
    for_prompts = (recipe.steps or steps) if neither else choices.steps
    rate = recipe.learning_rate if pretrained or recipe.method else _SCRATCH_RATE
    head = recipe.head if choices.head == "auto" else choices.head
    method, scope = _method(choices, recipe, pretrained), _scope(choices, head)
    return FinetunePlan(
        backbone=choices.backbone,
        method=method,
        scope=scope,
        rank=choices.rank,
        input_size=_input_size(choices, examples, recipe.largest_input),
        steps=steps,
        prompt_steps=None if for_prompts is None else math.ceil(_PROMPT_STEPS * for_prompts),
        minutes=recipe.minutes if neither else choices.minutes,
        batch=batch,
        learning_rate=choices.learning_rate or rate,
        warm_up=warm_up_of(recipe, steps),
        weight_decay=recipe.weight_decay,
        patience=recipe.patience,
        seed=choices.seed,
        pretrained=pretrained,
        pixels=pixels,
        head=head,
        head_depth=settled_depth(head, choices.head_depth or recipe.head_depth),
        betas=recipe.betas,
        falls=recipe.falls,
        augmentation=recipe.augmentation,
        places=settled_places(Places.of(choices), method, scope),
        prompt_mode=choices.prompt_mode,
        # As many as labelled ones: in each step both are seen equally often.
        unlabelled_batch=min(batch, unlabelled),
    )


def steps_of_preset(recipe: Recipe, examples: TrainingSet, batch: int) -> int:
    """Optimiser steps of a preset, for these examples."""
    if recipe.steps is None:
        assert recipe.epochs is not None
        return recipe.epochs * math.ceil(len(examples.learnt_slices) / batch)
    most = most_useful_steps(recipe, examples)
    return recipe.steps if most is None else min(recipe.steps, most)


def most_useful_steps(recipe: Recipe, examples: TrainingSet) -> int | None:
    """Steps beyond which a fine-tune of this preset overfits; None where it is not known to.

    A model of several volumes is meant for others, and learns a few slices by heart in more steps.
    """
    if examples.labelled_volumes == 1 or recipe.steps_a_slice is None:
        return None
    labelled = sum(each.is_labelled for each in examples.learnt_slices)
    return recipe.steps_a_slice * labelled


def fewest_further_steps(recipe: Recipe, examples: TrainingSet, batch: int) -> int:
    """Steps that going on from a model of this preset makes at least."""
    return math.ceil(_FURTHER_STEPS * steps_of_preset(recipe, examples, batch))


def warm_up_of(recipe: Recipe, steps: int | None) -> int:
    """Steps of the warm-up; a short fine-tune would otherwise end before it does."""
    return recipe.warm_up if steps is None else min(recipe.warm_up, max(1, steps // 10))


def _method(choices: FinetuneChoices, recipe: Recipe, pretrained: bool) -> Method:
    if choices.method != "auto":
        return choices.method
    return recipe.method or ("adapter" if pretrained else "vanilla")


def _scope(choices: FinetuneChoices, head: HeadName) -> Scope:
    if choices.scope != "auto":
        return choices.scope
    return "decoder" if HEADS[head].alone else "encoder_decoder"


def _input_size(choices: FinetuneChoices, examples: TrainingSet, largest: int | None) -> int:
    """The smallest size that shows every pixel of a slice, within the backbone's range.

    Small slices are enlarged, as far as the backbone gains by it.
    """
    if choices.input_size != "auto":
        return choices.input_size
    spec = find(choices.backbone)
    if spec.fitting_sizes is None and largest is None:
        # The published study did so too, whatever the size of the slices.
        return spec.default_input_size
    own = spec.fitting_sizes[-1] if spec.fitting_sizes else spec.default_input_size
    ceiling = min(largest or own, own)
    longest = max(max(each.shape) for each in examples.slices)
    enlarged = min(_step_above(spec.enlargement * longest), spec.default_input_size)
    fitting = max(_step_above(longest), enlarged)
    return min(max(spec.smallest_tuned_input, fitting), ceiling)


def _step_above(side: int) -> int:
    return -(-side // _INPUT_STEP) * _INPUT_STEP
