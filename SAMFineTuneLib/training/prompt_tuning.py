"""The second fine-tune: own weights for prompts, learnt from a simulated user.

The study that the project follows tunes one network for each of the two tasks, since one for both
is worse at each (Gu et al., MELBA 2025:006). Its simulated prompts are a jittered box or a point
well inside a random object. Here further clicks follow, into the error of the mask before, with
that mask as the mask prompt, as Segment Anything was trained; and half of the slices start from
a wrong mask, since that is what a user corrects.

Where all weights train, the result lies between those it began with and those it learnt
(`part_way`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
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
from SAMFineTuneLib.training.part_way import FROM_ONE_VOLUME, FROM_SEVERAL, PartWay
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds
from SAMFineTuneLib.training.prompt_targets import (
    choose_structures,
    prompts_on_nothing,
    prompts_on_wrong_masks,
)
from SAMFineTuneLib.training.prompted_validation import measure_prompted
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
# Held-out slices that are too few to choose by join here: of five slices one is a fifth. What is
# reported was measured before. Hippocampus, five slices, DSC in other volumes after one, three and
# ten clicks: 0.759, 0.861 and 0.935 without the fifth, 0.775, 0.864 and 0.937 with it.
_JOIN_FROM = 0.3
# So many held-out slices choose the share of what was learnt.
_MOST_TO_CHOOSE_BY = 32
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
        share: of what was learnt that is kept, 1 for all.
        measured: DSC on the held-out slices by what the simulated user did, empty without any.
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
        self._part_way = PartWay(self._trained) if mixes else None
        self._share = FROM_ONE_VOLUME if examples.labelled_volumes == 1 else FROM_SEVERAL
        self._learnt: dict[str, Tensor] | None = None
        self._slices = examples.slices
        self._split = split
        self._chooses = split.can_choose(self._slices)
        self._state = self._resumed(signature)
        self._pool = self._pool_of_phase()
        self._sampler = SliceSampler(
            segmenter,
            self._slices,
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
            if self._is_joining_due():
                self._join()
            self._step()
            if time.monotonic() > save_at:
                self.save()
                save_at = time.monotonic() + _SAVE_EVERY_S
        return self._outcome(ending)

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

    def _pool_of_phase(self) -> SlicePool:
        joined = self._split.validation if self._state.final_pass else []
        positions = sorted([*self._split.training, *joined])
        # A slice that shows nothing gives nothing to point at.
        return SlicePool(
            self._slices, [each for each in positions if self._slices[each].is_labelled]
        )

    def _is_joining_due(self) -> bool:
        waits = bool(self._split.validation) and not self._chooses and not self._state.final_pass
        return waits and self._schedule.progress >= _JOIN_FROM

    def _join(self) -> None:
        self._learnt = self._trained.copied()
        self._go_part_way(self._learnt)
        self._state.best = self._measured()
        self._trained.load(self._learnt)
        self._learnt = None
        self._segmenter.train()
        self._state.final_pass = True
        self._pool = self._pool_of_phase()

    def _outcome(self, ending: Ending) -> PromptOutcome:
        # A checkpoint keeps what was learnt, of which a part goes into the network.
        self._learnt = self._trained.copied()
        if self._chooses and self._part_way is not None:
            self._share = self._part_way.best_share(self._learnt, self._worth)
        self._go_part_way(self._learnt)
        joined = self._state.final_pass
        measured = self._state.best if joined else self._measured()
        self._segmenter.eval()
        self._sampler.remove_cache()
        return PromptOutcome(
            steps=self._schedule.step,
            seconds=self._schedule.elapsed_s,
            loss=self._state.recent_loss,
            ending=ending,
            share=1.0 if self._part_way is None else self._share,
            measured=measured,
            held_out_joined=joined,
        )

    def _go_part_way(self, learnt: Mapping[str, Tensor]) -> None:
        if self._part_way is not None:
            self._part_way.go(learnt, self._share)

    def _measured(self, most: int | None = None) -> dict[str, float]:
        """On the held-out labelled slices, or on so many of them, evenly spaced."""
        held_out = self._split.labelled_held_out(self._slices)
        if most is not None and len(held_out) > most:
            held_out = [held_out[each * len(held_out) // most] for each in range(most)]
        return measure_prompted(self._segmenter, held_out, self._check_cancelled)

    def _worth(self) -> float:
        """Of the network as it stands, where a user clicks up to three times."""
        measured = self._measured(_MOST_TO_CHOOSE_BY)
        # Nothing is measured where all that is held out is finer than a pixel of the square.
        return measured.get("1 click", 0.0) + measured.get("3 clicks", 0.0)

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
