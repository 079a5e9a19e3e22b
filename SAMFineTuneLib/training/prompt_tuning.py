"""The second fine-tune: own weights for prompts, learnt from a simulated user.

The study that the project follows tunes one network for each of the two tasks, since one for both
is worse at each (Gu et al., MELBA 2025:006). Its simulated prompts are a jittered box or a point
well inside a random object. Here further clicks follow, into the error of the mask before, with
that mask as the mask prompt, as Segment Anything was trained; and half of the slices start from
a wrong mask, since that is what a user corrects.

Where all weights train, the result lies between those it began with and those it learnt
(`weight_interpolation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.random_source import Chance
from SAMFineTuneLib.training.loop import Ending, TrainingLoop, Watch, device_of
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds
from SAMFineTuneLib.training.prompt_targets import (
    choose_structures,
    prompts_on_nothing,
    prompts_on_wrong_masks,
)
from SAMFineTuneLib.training.prompted_validation import measure_prompted
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_set import TrainingSet
from SAMFineTuneLib.training.training_state import PROMPT_STATE_FILE, TrainingState
from SAMFineTuneLib.training.validation_split import ValidationSplit
from SAMFineTuneLib.training.weight_interpolation import (
    FROM_ONE_VOLUME,
    FROM_SEVERAL,
    WeightInterpolation,
)

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
        trained = TrainedWeights(segmenter, plan.weight_decay)
        # An adapter is no weight of the network by itself: half of one is not half of its effect.
        interpolates = plan.pretrained and plan.method == "vanilla"
        # Made before a checkpoint is read: it keeps the weights that the tuning began with.
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
            calibrated=examples.normalisation.kind == "calibrated",
        )

    @property
    def resumed_at(self) -> int:
        """The step that an earlier run had come to; 0 for a new one."""
        return self._loop.resumed_at

    def run(self) -> PromptOutcome:
        """Runs to the end, and leaves the tuned weights in the network.

        Raises:
            whatever `watch.check` raises, after saving a checkpoint.
        """
        return self._outcome(self._loop.run(self))

    def save(self) -> None:
        """Writes a checkpoint, from which another run goes on."""
        self._loop.save()

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        self._loop.forget()

    def before_step(self) -> None:
        """Lets the held-out slices join, where it is time to."""
        if self._is_joining_due():
            self._join()

    def loss_of_step(self, step: int) -> Tensor | None:
        """The loss of a simulated user's rounds; None where no structure is in the picture."""
        batch = self._sampler.batch(self._pool, self._plan.batch, step)
        chance = Chance((self._plan.seed, 4, step), self._device)
        masks = choose_structures(batch.target, batch.known, chance)
        shown = masks.flatten(1).any(1)
        # Augmentation may move the only structure of a slice out of the picture.
        if not shown.any():
            return None
        encoder = self._segmenter.network.image_encoder
        with autocast(self._device):
            features = encoder.run(
                chosen(batch.state, shown), self._sampler.start_stage, len(encoder.stages())
            )
            return self._loss(features, masks[shown], chance)

    def phase(self) -> str:
        """What the user is told."""
        return PHASE

    def latest_validation(self) -> float | None:
        """Nothing is validated while it learns."""
        return None

    def after_step(self) -> None:
        """Nothing is measured while it learns."""

    def release(self) -> None:
        """Deletes cached features."""
        self._sampler.remove_cache()

    @property
    def _state(self) -> TrainingState:
        return self._loop.state

    def _pool_of_phase(self) -> SlicePool:
        joined = self._split.validation if self._state.final_pass else []
        positions = sorted([*self._split.training, *joined])
        # A slice that shows nothing gives nothing to point at.
        return SlicePool(
            self._slices, [each for each in positions if self._slices[each].is_labelled]
        )

    def _is_joining_due(self) -> bool:
        waits = bool(self._split.validation) and not self._chooses and not self._state.final_pass
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
        """What was learnt; a checkpoint keeps it while the network holds only a part of it."""
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

    def _check_cancelled(self) -> None:
        self._loop.check_cancelled(self)
