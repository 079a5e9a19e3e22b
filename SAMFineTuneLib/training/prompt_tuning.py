"""The second fine-tune: own weights for prompts, learnt from a simulated user.

The study that the project follows tunes one network for each of the two tasks, since one for both
is worse at each (Gu et al., MELBA 2025:006). Its simulated prompts are a jittered box or a point
well inside a random object. Here further clicks follow, into the error of the mask before, with
that mask as the mask prompt, as Segment Anything was trained; and half of the slices start from
a wrong mask, since that is what a user corrects.

Where all weights train, the result lies between those it began with and those it learnt, half way
(Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, whose share that is): in other
patients a network that can be asked anything must not forget how. Where only one volume is learnt
from it is mostly that volume that is corrected, and three quarters are kept. DSC after three clicks
of what was learnt, and half way: hippocampus in other volumes 0.778 and 0.810, sarcoma in other
patients 0.706 and 0.762 (untuned 0.814); organs in the same CT 0.921, 0.918 with three quarters and
0.913 half way (some of the slices of `Testing.benchmarks.click_curves`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from SAMFineTuneLib.backbones.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.chance import Chance
from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.training.examples import TrainingSet
from SAMFineTuneLib.training.fine_tuning import Ending, ProgressReport, Watch
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds
from SAMFineTuneLib.training.prompt_targets import (
    choose_structures,
    prompts_on_nothing,
    prompts_on_wrong_masks,
)
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_state import (
    PROMPT_STATE_FILE,
    TrainingState,
    forget_state,
    load_state,
)
from SAMFineTuneLib.training.validation_split import ValidationSplit

PHASE = "prompts"
ROUNDS = 3
# Slices on which the user starts from a mask that is there already.
_FROM_MASK = 0.5
# How often the rounds behind the first are later ones, and how many are passed over at most:
# without them the network does not learn to go on towards the structure after many clicks.
_LATER, _MOST_PASSED = 0.4, 4
# Of what was learnt, in the weights that are kept: from one volume, and from several.
_LEARNT_FROM_ONE, _LEARNT_FROM_SEVERAL = 0.75, 0.5
_SAVE_EVERY_S = 30.0
_FIRST_SAVE_S = 6.0


@dataclass(frozen=True)
class PromptOutcome:
    """What came of it, beside the weights in the network.

    Attributes:
        steps: optimiser steps taken.
        seconds: spent on them, interruptions not counted.
        loss: mean over the last steps.
        ending: why it ended.
    """

    steps: int
    seconds: float
    loss: float
    ending: Ending


class PromptTuning:
    """Tunes a network for prompts, in place; held-out slices are never learnt from.

    Args:
        segmenter: the network, adapted, on its device.
        examples: the slices.
        split: which of them are held out.
        plan: everything else.
        folder: where checkpoints and cached features go.
        signature: what this fine-tune is; a checkpoint of another one is ignored.
        watch: how the outside follows; there is nothing for its `validated`.
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
        self._folder = folder
        self._watch = watch
        self._device = next(segmenter.parameters()).device
        self._trained = TrainedWeights(segmenter, plan.weight_decay)
        # An adapter is no weight of the network by itself: half of one is not half of its effect.
        mixes = plan.pretrained and plan.method == "vanilla"
        self._begun_with = self._trained.copied() if mixes else None
        self._share = _LEARNT_FROM_ONE if examples.volumes == 1 else _LEARNT_FROM_SEVERAL
        self._learnt: dict[str, Tensor] | None = None
        self._state = self._resumed(signature)
        slices = examples.slices
        # A slice that shows nothing gives nothing to point at.
        self._pool = SlicePool(
            slices, [each for each in split.training if slices[each].is_labelled]
        )
        self._sampler = SliceSampler(
            segmenter,
            slices,
            plan.seed,
            samples=plan.batch * (plan.steps or 10**6),
            cache_folder=folder / "prompt_features",
            calibrated=examples.normalisation.kind == "calibrated",
        )
        self._schedule = Schedule(plan, self._state.step, self._state.elapsed_s)

    @property
    def resumed_at(self) -> int:
        """The step that an earlier run had come to; 0 for a new one."""
        return self._state.step

    def run(self) -> PromptOutcome:
        """Runs to the end, and leaves the tuned weights in the network.

        Raises:
            whatever `watch.check` raises, after saving a checkpoint.
        """
        self._segmenter.train()
        save_at = time.monotonic() + _FIRST_SAVE_S
        ending: Ending = "complete"
        # One step at least, however short the time.
        while self._schedule.step == 0 or self._schedule.progress < 1:
            self._check_cancelled()
            if self._watch.finish():
                ending = "finished on request"
                break
            self._step()
            if time.monotonic() > save_at:
                self.save()
                save_at = time.monotonic() + _SAVE_EVERY_S
        self._go_some_way_back()
        self._segmenter.eval()
        self._sampler.remove_cache()
        return PromptOutcome(
            steps=self._schedule.step,
            seconds=self._schedule.elapsed_s,
            loss=self._state.recent_loss,
            ending=ending,
        )

    def save(self) -> None:
        """Writes a checkpoint, from which another run goes on."""
        state = self._state
        state.step = self._schedule.step
        state.elapsed_s = self._schedule.elapsed_s
        state.weights = self._learnt or self._trained.copied()
        state.optimiser = self._trained.optimiser_state()
        state.save(self._folder, PROMPT_STATE_FILE)

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        forget_state(self._folder, PROMPT_STATE_FILE)

    def _go_some_way_back(self) -> None:
        """Towards the weights that it began with; a checkpoint keeps what was learnt."""
        if self._begun_with is None:
            return
        self._learnt = self._trained.copied()
        self._trained.load(
            {
                name: torch.lerp(self._begun_with[name], learnt, self._share)
                for name, learnt in self._learnt.items()
            }
        )

    def _step(self) -> None:
        step = self._schedule.step
        batch = self._sampler.batch(self._pool, self._plan.batch, step)
        chance = Chance((self._plan.seed, 4, step), self._device)
        masks = choose_structures(batch.target, batch.known, chance)
        shown = masks.flatten(1).any(1)
        # Augmentation may move the only structure of a slice out of the picture.
        if shown.any():
            encoder = self._segmenter.network.image_encoder
            with autocast(self._device):
                features = encoder.run(
                    chosen(batch.state, shown), self._sampler.start_stage, len(encoder.stages())
                )
                loss = self._loss(features, masks[shown], chance)
            self._trained.descend(loss, self._schedule.learning_rate(), step + 1)
            self._note(loss.item())
        self._schedule.step = step + 1
        self._report()

    def _loss(self, features: FeatureState, masks: Tensor, chance: Chance) -> Tensor:
        """Mean over the slices on which the user starts from nothing, and from a mask."""
        from_mask = chance.each_between(0, 1, len(masks)) < _FROM_MASK
        total = torch.zeros((), device=masks.device)
        for group, start in ((~from_mask, prompts_on_nothing), (from_mask, prompts_on_wrong_masks)):
            if group.any():
                own = masks[group]
                prompts = start(own, chance)
                passed_over = chance.whole(1, _MOST_PASSED) if chance.happens(_LATER) else 0
                loss, _ = loss_of_rounds(
                    self._segmenter,
                    chosen(features, group),
                    own,
                    prompts,
                    ROUNDS,
                    chance,
                    passed_over,
                )
                total = total + loss * len(own) / len(masks)
        return total

    def _note(self, loss: float) -> None:
        recent = self._state.recent_loss
        self._state.recent_loss = loss if math.isnan(recent) else 0.95 * recent + 0.05 * loss

    def _report(self) -> None:
        self._watch.report(
            ProgressReport(
                step=self._schedule.step,
                steps=self._schedule.expected_steps,
                phase=PHASE,
                eta_s=self._schedule.remaining_s,
                loss=self._state.recent_loss,
                validation_dsc=None,
            )
        )

    def _check_cancelled(self) -> None:
        try:
            self._watch.check()
        except Exception:
            self.save()
            self._sampler.remove_cache()
            raise

    def _resumed(self, signature: str) -> TrainingState:
        state = load_state(self._folder, signature, PROMPT_STATE_FILE)
        if state is None or not self._trained.fits(state.weights):
            return TrainingState(signature)
        self._trained.load(state.weights)
        self._trained.load_optimiser(state.optimiser)
        return state
