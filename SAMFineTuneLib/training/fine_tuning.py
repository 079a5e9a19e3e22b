"""The fine-tune itself: steps, validations, weights to keep, and what survives an interruption."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.training.examples import TrainingSet
from SAMFineTuneLib.training.loss import PartialLabelLoss
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_state import TrainingState, forget_state, load_state
from SAMFineTuneLib.training.validation import Validation, ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit

# The held-out slices join for the last part: with five labelled slices one of them is a fifth of
# all that is known. What is reported was measured before they joined.
_FINAL_PASS_FROM = 0.6
# Where they are too few to choose weights by, they join sooner: only what is reported needs them,
# and what joins when the learning rate has fallen is hardly learnt. Five slices of the hippocampus,
# 150 steps, DSC in twenty other volumes: 0.69 when one joins at 60 %, 0.74 at 30 %, 0.74 when
# nothing is held out (means of both parts and their union, seeds 0 and 1).
_FINAL_PASS_OF_FEW_FROM = 0.3
VALIDATIONS = 20
_SAVE_EVERY_S = 30.0
# The first comes sooner: what fails on a machine fails early, and a short fine-tune has one too.
_FIRST_SAVE_S = 6.0
_WORST = -1.0

Ending = Literal["complete", "time limit", "early stop", "finished on request"]


@dataclass(frozen=True)
class ProgressReport:
    """Where a fine-tune stands; `validation_dsc` is the latest, None before the first."""

    step: int
    steps: int
    phase: str
    eta_s: float | None
    loss: float
    validation_dsc: float | None


@dataclass(frozen=True)
class Watch:
    """How the outside follows and steers a fine-tune.

    Attributes:
        report: called after every step.
        validated: called after a validation whose weights are kept for now, with the network.
        check: may raise to stop without a result.
        finish: whether to stop now and keep the best.
    """

    report: Callable[[ProgressReport], None] = lambda report: None
    validated: Callable[[AutomaticSegmenter, int], None] = lambda segmenter, step: None
    check: Callable[[], None] = lambda: None
    finish: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class FinetuneOutcome:
    """What came of a fine-tune, beside the weights in the network.

    Attributes:
        steps: optimiser steps taken.
        seconds: spent on them, interruptions not counted.
        loss: mean over the last steps.
        validation: DSC on the held-out slices of the weights that were kept, the best ones where
            enough is held out to tell, else the latest; None without validation.
        best_step: when they were reached.
        held_out_joined: whether the held-out slices were learnt from after that measurement.
        ending: why it ended.
        history: one entry a validation: step, loss, validation_dsc.
        cached_variants: augmented variants of each slice whose features were cached.
    """

    steps: int
    seconds: float
    loss: float
    validation: ValidationDsc | None
    best_step: int | None
    held_out_joined: bool
    ending: Ending
    history: list[dict[str, float | int | None]]
    cached_variants: int


class FineTuning:
    """Fine-tunes an adapted network, in place.

    Args:
        segmenter: the network, adapted, on its device.
        examples: the slices.
        split: which of them are held out.
        plan: everything else.
        folder: where checkpoints and cached features go.
        signature: what this fine-tune is; a checkpoint of another one is ignored.
        watch: how the outside follows.
    """

    def __init__(
        self,
        segmenter: AutomaticSegmenter,
        examples: TrainingSet,
        split: ValidationSplit,
        plan: FinetunePlan,
        folder: Path,
        signature: str,
        watch: Watch,
    ) -> None:
        self._segmenter = segmenter
        self._slices = examples.slices
        self._split = split
        self._plan = plan
        self._folder = folder
        self._watch = watch
        self._trained = TrainedWeights(segmenter, plan.weight_decay)
        self._device = next(segmenter.parameters()).device
        self._loss = PartialLabelLoss()
        held_out = [self._slices[position] for position in split.validation]
        self._validation = (
            Validation(segmenter, held_out, plan.batch, folder / "held_out") if held_out else None
        )
        # Where too few are held out, the latest weights are kept.
        self._chooses = split.can_choose(self._slices)
        self._final_pass_from = _FINAL_PASS_FROM if self._chooses else _FINAL_PASS_OF_FEW_FROM
        self._state = self._resumed(signature)
        self._recent_loss = self._state.recent_loss
        self._pool = self._pool_of_phase()
        self._sampler = SliceSampler(
            segmenter,
            self._slices,
            plan.seed,
            samples=plan.batch * (plan.steps or 10**6),
            cache_folder=folder / "features",
            calibrated=examples.normalisation.kind == "calibrated",
        )
        self._schedule = Schedule(plan, self._state.step, self._state.elapsed_s)

    @property
    def resumed_at(self) -> int:
        """The step that an earlier run had come to; 0 for a new fine-tune."""
        return self._state.step

    def run(self) -> FinetuneOutcome:
        """Runs to the end and leaves the weights to keep in the network.

        Raises:
            whatever `watch.check` raises, after saving a checkpoint.
        """
        self._segmenter.train()
        if self._was_interrupted_in_validation():
            self._validate()
        save_at = time.monotonic() + min(_FIRST_SAVE_S, _SAVE_EVERY_S)
        ending: Ending = "complete"
        # One step at least, however short the time: no step makes no model.
        while self._schedule.step == 0 or self._schedule.progress < 1:
            self._check_cancelled()
            if self._watch.finish():
                ending = "finished on request"
                break
            if self._validates and not self._state.final_pass and self._is_out_of_patience():
                ending = "early stop"
                break
            if self._validates and self._is_final_pass_due():
                self._begin_final_pass()
            self._step()
            if self._is_validation_due():
                self._validate()
            if time.monotonic() > save_at:
                self.save()
                save_at = time.monotonic() + _SAVE_EVERY_S
        if ending == "complete" and self._schedule.was_cut_short:
            ending = "time limit"
        return self._outcome(ending)

    @property
    def _validates(self) -> bool:
        return self._validation is not None

    def _pool_of_phase(self) -> SlicePool:
        joined = self._split.validation if self._state.final_pass else []
        return SlicePool(self._slices, sorted([*self._split.training, *joined]))

    def _step(self) -> None:
        batch = self._sampler.batch(self._pool, self._plan.batch, self._schedule.step)
        encoder = self._segmenter.network.image_encoder
        with autocast(self._device):
            features = encoder.run(batch.state, self._sampler.start_stage, len(encoder.stages()))
            logits, overlaps = self._segmenter.decode(features)
        loss = self._loss(logits, overlaps, batch.target, batch.known)
        step = self._schedule.step + 1
        self._trained.descend(loss, self._schedule.learning_rate(), step)
        self._schedule.step = step
        self._note(loss.item())

    def _note(self, loss: float) -> None:
        first = math.isnan(self._recent_loss)
        self._recent_loss = loss if first else 0.95 * self._recent_loss + 0.05 * loss
        history = self._state.history
        self._watch.report(
            ProgressReport(
                step=self._schedule.step,
                steps=self._schedule.expected_steps,
                phase="final pass" if self._state.final_pass else "fine-tune",
                eta_s=self._schedule.remaining_s,
                loss=self._recent_loss,
                validation_dsc=history[-1]["validation_dsc"] if history else None,
            )
        )

    def _is_validation_due(self) -> bool:
        if not self._validates or self._state.final_pass:
            return False
        learning_steps = self._schedule.expected_steps * self._final_pass_from
        every = max(1, round(learning_steps / VALIDATIONS))
        return self._schedule.step % every == 0

    def _was_interrupted_in_validation(self) -> bool:
        history = self._state.history
        validated = history[-1]["step"] if history else 0
        return self.resumed_at > 0 and validated != self.resumed_at and self._is_validation_due()

    def _is_final_pass_due(self) -> bool:
        return not self._state.final_pass and self._schedule.progress >= self._final_pass_from

    def _is_out_of_patience(self) -> bool:
        patience = self._plan.patience
        return patience is not None and self._state.validations_since_best >= patience

    def _validate(self) -> None:
        assert self._validation is not None
        measured = self._validation.measure(self._check_cancelled)
        mean = measured.mean
        self._state.history.append(
            {"step": self._schedule.step, "loss": self._recent_loss, "validation_dsc": mean}
        )
        better = mean is not None and mean > self._state.best.get("mean", _WORST)
        if mean is not None and (better or not self._chooses):
            self._state.best = {
                "mean": mean,
                "step": self._schedule.step,
                "by_class": measured.by_class,
            }
            self._state.best_weights = self._trained.copied()
            self._state.validations_since_best = 0
            self._watch.validated(self._segmenter, self._schedule.step)
        else:
            self._state.validations_since_best += 1

    def _begin_final_pass(self) -> None:
        if not self._state.history or self._state.history[-1]["step"] != self._schedule.step:
            self._validate()
        self._trained.load(self._state.best_weights)
        self._state.final_pass = True
        self._pool = self._pool_of_phase()

    def _outcome(self, ending: Ending) -> FinetuneOutcome:
        joined = self._state.final_pass
        if self._validates and not joined:
            if not self._state.history:
                self._validate()
            self._trained.load(self._state.best_weights)
        self._segmenter.eval()
        self._remove_caches()
        best = self._state.best
        return FinetuneOutcome(
            steps=self._schedule.step,
            seconds=self._schedule.elapsed_s,
            loss=self._recent_loss,
            validation=ValidationDsc(best["by_class"]) if best else None,
            best_step=best["step"] if best else None,
            held_out_joined=joined,
            ending=ending,
            history=self._state.history,
            cached_variants=self._sampler.cached_variants,
        )

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        forget_state(self._folder)

    def _remove_caches(self) -> None:
        self._sampler.remove_cache()
        if self._validation is not None:
            self._validation.remove_cache()

    def _check_cancelled(self) -> None:
        try:
            self._watch.check()
        except Exception:
            self.save()
            self._remove_caches()
            raise

    def save(self) -> None:
        """Writes a checkpoint, from which another run goes on."""
        state = self._state
        state.step = self._schedule.step
        state.elapsed_s = self._schedule.elapsed_s
        state.recent_loss = self._recent_loss
        state.weights = self._trained.copied()
        state.optimiser = self._trained.optimiser_state()
        state.save(self._folder)

    def _resumed(self, signature: str) -> TrainingState:
        state = load_state(self._folder, signature)
        if state is None or not self._trained.fits(state.weights):
            return TrainingState(signature)
        self._trained.load(state.weights)
        self._trained.load_optimiser(state.optimiser)
        return state


def signature_of(plan: FinetunePlan, examples: TrainingSet, start: str) -> str:
    """Text that differs when a checkpoint would not fit.

    Args:
        start: what the network's weights were before the first step.
    """
    content = hashlib.sha256()
    for each in examples.slices:
        content.update(repr((each.volume, each.number, each.image.shape)).encode())
        for part in (each.image, each.target, each.known):
            content.update(part.tobytes())
    labels = [label.value for label in examples.labels]
    return repr((start, sorted(asdict(plan).items()), content.hexdigest(), labels))
