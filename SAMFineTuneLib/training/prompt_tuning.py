"""The tuning for prompts: a second set of weights, learnt from simulated prompts.

The study that the project follows tunes one network for each of the two tasks, because a single
network for both is worse at each (Gu et al., MELBA 2025:006). Its simulated prompt is a jittered
box or a point well inside a random object. Here further clicks into the error of the previous mask
follow, with that mask as the mask prompt, as in the training of Segment Anything. Half of the
slices start from a corrupted mask, because users correct masks. The study's own prompts, all given
at once, can be chosen instead (`FinetunePlan.prompt_mode`).

Where all weights train, the result is interpolated between the initial and the learnt weights
(`weight_interpolation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.prompts.region_prompts import region_prompts
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.loop import Ending, TrainingLoop, Watch, device_of
from SAMFineTuneLib.training.mask_loss import mask_loss
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds
from SAMFineTuneLib.training.prompt_targets import (
    choose_structures,
    prompts_on_corrupted_masks,
    prompts_on_nothing,
)
from SAMFineTuneLib.training.prompted_validation import measure_with_prompts
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_state import PROMPT_STATE_FILE, TrainingState
from SAMFineTuneLib.training.validation_split import ValidationSplit
from SAMFineTuneLib.training.weight_interpolation import (
    FROM_ONE_VOLUME,
    FROM_SEVERAL,
    WeightInterpolation,
)

PHASE = "prompts"
ROUNDS = 3
# Share of slices on which the simulated user starts from a corrupted mask.
_FROM_MASK = 0.5
# How often rounds after the first one are passed over without learning from them, and how many at
# most. Without later rounds the network does not learn to improve its mask after many clicks.
_LATER, _MOST_PASSED = 0.4, 4
# Share of the tuning after which the held-out slices are learnt from as well, where they are too
# few to choose by, because one of five slices is a fifth of all labels. The reported figures are
# measured before. Hippocampus, five slices, DSC in other volumes after one, three and ten clicks:
# 0.759, 0.861 and 0.935 without the fifth slice, 0.775, 0.864 and 0.937 with it.
_JOIN_FROM = 0.3
# Number of held-out slices, at most, by which the share of the learnt weights is chosen.
_MOST_TO_CHOOSE_BY = 32


@dataclass(frozen=True)
class PromptOutcome:
    """The outcome of the tuning, beside the weights in the network.

    Attributes:
        steps: optimiser steps taken.
        seconds: time they took, without interruptions.
        loss: running mean over the last steps.
        ending: why it ended.
        share: share of the learnt weights in the interpolation, 1 where nothing is interpolated.
        measured: DSC on the held-out slices by prompt; empty where none is held out.
        held_out_joined: whether the held-out slices were learnt from after that measurement.
    """

    steps: int
    seconds: float
    loss: float
    ending: Ending
    share: float
    measured: dict[str, float]
    held_out_joined: bool


class PromptTuning:
    """Tunes a network for prompts, in place.

    Args:
        segmenter: the network, adapted, on its device.
        examples: the slices.
        split: which of them are held out.
        plan: all settings.
        folder: for checkpoints and cached features.
        signature: of this tuning; a checkpoint with another signature is ignored.
        watch: by which the caller follows and stops it; its `validated` is never called.
    """

    def __init__(
        self,
        segmenter: PromptedSegmenter,
        examples: TrainingSet,
        split: ValidationSplit,
        plan: FinetunePlan,
        folder: Path,
        signature: str,
        watch: Watch,
    ) -> None:
        self._segmenter = segmenter
        self._plan = plan
        trained = TrainedWeights(segmenter, plan.weight_decay)
        # The effect of an adapter is not linear in its weights: half of them is not half of the
        # effect.
        interpolates = plan.pretrained and plan.method == "vanilla"
        # The study takes what was learnt as it is.
        interpolates = interpolates and plan.prompt_mode == "correction"
        # Created before a checkpoint is read, because it copies the initial weights.
        self._interpolation = WeightInterpolation(trained) if interpolates else None
        self._loop = TrainingLoop(
            segmenter, trained, plan, folder, PROMPT_STATE_FILE, signature, watch
        )
        self._device = device_of(segmenter)
        self._share = FROM_ONE_VOLUME if examples.labelled_volumes == 1 else FROM_SEVERAL
        self._slices = examples.slices
        self._split = split
        self._chooses = split.can_choose(self._slices)
        self._pool = self._pool_of_phase()
        self._sampler = SliceSampler(
            segmenter,
            self._slices,
            plan.seed,
            samples=plan.batch * (plan.steps or 10**6),
            cache_folder=folder / "prompt_features",
            normalisation=examples.normalisation,
            minutes=plan.minutes,
        )

    @property
    def resumed_at(self) -> int:
        """The step at which an earlier run was interrupted; 0 for a new one."""
        return self._loop.resumed_at

    def run(self) -> PromptOutcome:
        """Runs to the end; then the network holds the tuned weights.

        Raises:
            whatever `watch.check` raises, after saving a checkpoint.
        """
        return self._outcome(self._loop.run(self))

    def save(self) -> None:
        """Writes a checkpoint, from which another run resumes."""
        self._loop.save()

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        self._loop.forget()

    def before_step(self) -> None:
        """Lets the held-out slices join where this is due."""
        if self._is_joining_due():
            self._join()

    def loss_of_step(self, step: int) -> Tensor | None:
        """The loss of rounds of simulated prompts; None where no slice shows a structure."""
        batch = self._sampler.batch(self._pool, self._plan.batch, step)
        random = RandomSource((self._plan.seed, 4, step), self._device)
        masks = self._structures(batch.target, batch.known, random)
        shown = masks.flatten(1).any(1)
        # Augmentation may shift the only structure of a slice out of the square.
        if not shown.any():
            return None
        encoder = self._segmenter.network.image_encoder
        with autocast(self._device):
            features = encoder.run(
                chosen(batch.state, shown), self._sampler.start_stage, len(encoder.stages())
            )
            return self._loss(features, masks[shown], random)

    def phase(self) -> str:
        """The name of the phase, for progress reports."""
        return PHASE

    def latest_validation(self) -> float | None:
        """None, because nothing is validated during the tuning."""
        return None

    def after_step(self) -> None:
        """Does nothing, because nothing is measured during the tuning."""

    def release(self) -> None:
        """Deletes cached features."""
        self._sampler.remove_cache()

    @property
    def _state(self) -> TrainingState:
        return self._loop.state

    def _pool_of_phase(self) -> SlicePool:
        joined = self._split.validation if self._state.final_pass else []
        positions = sorted([*self._split.training, *joined])
        # Prompts need a structure to point at.
        return SlicePool(
            self._slices, [each for each in positions if self._slices[each].is_labelled]
        )

    def _is_joining_due(self) -> bool:
        if self._state.final_pass or not self._split.joins_at_the_end:
            return False
        waits = bool(self._split.validation) and not self._chooses
        return waits and self._loop.schedule.progress >= _JOIN_FROM

    def _join(self) -> None:
        learnt = self._set_aside()
        self._interpolate(learnt)
        self._state.best = self._measured()
        self._loop.trained.load(learnt)
        self._loop.put_aside = None
        self._segmenter.train()
        self._state.final_pass = True
        self._pool = self._pool_of_phase()

    def _set_aside(self) -> dict[str, Tensor]:
        """The learnt weights, which checkpoints keep while the network holds interpolated ones."""
        learnt = self._loop.trained.copied()
        self._loop.put_aside = learnt
        return learnt

    def _outcome(self, ending: Ending) -> PromptOutcome:
        learnt = self._set_aside()
        if self._chooses and self._interpolation is not None:
            self._share = self._interpolation.best_share(learnt, self._worth)
        self._interpolate(learnt)
        joined = self._state.final_pass
        measured = self._state.best if joined else self._measured()
        self._segmenter.eval()
        self.release()
        return PromptOutcome(
            steps=self._loop.schedule.step,
            seconds=self._loop.schedule.elapsed_s,
            loss=self._state.recent_loss,
            ending=ending,
            share=1.0 if self._interpolation is None else self._share,
            measured=measured,
            held_out_joined=joined,
        )

    def _interpolate(self, learnt: Mapping[str, Tensor]) -> None:
        if self._interpolation is not None:
            self._interpolation.apply(learnt, self._share)

    def _measured(self, most: int | None = None) -> dict[str, float]:
        """DSC by prompt on the held-out labelled slices, or on `most` of them, evenly spaced."""
        held_out = self._split.labelled_held_out(self._slices)
        if most is not None and len(held_out) > most:
            held_out = [held_out[each * len(held_out) // most] for each in range(most)]
        mode = self._plan.prompt_mode
        return measure_with_prompts(self._segmenter, held_out, mode, self._check_cancelled)

    def _worth(self) -> float:
        """Quality of the network with its present weights, by the prompts that it is tuned for."""
        mode = self._plan.prompt_mode
        by = ("1 click", "3 clicks") if mode == "correction" else (mode,)
        measured = self._measured(_MOST_TO_CHOOSE_BY)
        # Nothing is measured where all held-out structures are smaller than a pixel of the square.
        return sum(measured.get(name, 0.0) for name in by)

    def _structures(self, target: Tensor, known: Tensor, random: RandomSource) -> Tensor:
        if self._plan.prompt_mode == "correction":
            return choose_structures(target, known, random)
        # Each region of a structure gets its own prompt.
        return choose_structures(target, known, random, one_part=0.0)

    def _loss(self, features: FeatureState, masks: Tensor, random: RandomSource) -> Tensor:
        mode = self._plan.prompt_mode
        if mode == "correction":
            return self._loss_of_corrections(features, masks, random)
        drawn = region_prompts(masks, random, mode)
        logits, iou_predictions = self._segmenter.decode(features, drawn.prompts)
        return mask_loss(logits, iou_predictions, drawn.masks)[0]

    def _loss_of_corrections(
        self, features: FeatureState, masks: Tensor, random: RandomSource
    ) -> Tensor:
        """Mean over slices that start without a mask and slices that start from a corrupted one."""
        from_mask = random.each_between(0, 1, len(masks)) < _FROM_MASK
        total = torch.zeros((), device=masks.device)
        stride = self._segmenter.network.spec.mask_stride
        on_corrupted = partial(prompts_on_corrupted_masks, stride=stride)
        starts = ((~from_mask, prompts_on_nothing), (from_mask, on_corrupted))
        for group, start in starts:
            if group.any():
                own = masks[group]
                prompts = start(own, random)
                passed_over = random.whole(1, _MOST_PASSED) if random.happens(_LATER) else 0
                loss, _ = loss_of_rounds(
                    self._segmenter,
                    chosen(features, group),
                    own,
                    prompts,
                    ROUNDS,
                    random,
                    passed_over,
                )
                total = total + loss * len(own) / len(masks)
        return total

    def _check_cancelled(self) -> None:
        self._loop.check_cancelled(self)
