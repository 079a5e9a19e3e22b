"""The fine-tune for automatic segmentation: its loss, its validations, and the weights it keeps."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.names import HEADS
from SAMFineTuneLib.slices.augmentation import augmentation_by_four, usual_augmentation
from SAMFineTuneLib.training.consistency import Consistency
from SAMFineTuneLib.training.held_out_distances import HeldOutDistances
from SAMFineTuneLib.training.loop import Ending, TrainingLoop, Watch, device_of
from SAMFineTuneLib.training.loss import HeadLoss
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.teacher import Teacher
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_state import STATE_FILE, TrainingState
from SAMFineTuneLib.training.unlabelled_views import UnlabelledSampler
from SAMFineTuneLib.training.validation import Validation, ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit

# Share of the fine-tune after which the held-out slices are learnt from as well (the final pass),
# because one of five labelled slices is a fifth of all labels. The reported DSC is measured before.
_FINAL_PASS_FROM = 0.6
# Where too few slices are held out to choose weights by, the final pass begins sooner: then they
# are needed for the reported DSC only, and slices that join when the learning rate has fallen are
# hardly learnt. Five slices of the hippocampus, 150 steps, DSC in twenty other volumes: 0.69 when
# the held-out slice joins at 60 %, 0.74 at 30 %, 0.74 when nothing is held out (means of both parts
# and their union, seeds 0 and 1).
_FINAL_PASS_OF_FEW_FROM = 0.3
VALIDATIONS = 20
# Where time is limited, a validation is left out while those before took a larger share of the time
# than this. A slow network of which a whole volume is held out would do little else: LiteMedSAM at
# 256 pixels takes more than a minute to predict one of 35 slices, and has three minutes in all.
_VALIDATING_SHARE = 1 / 3
_WORST = -1.0
# Whose weights were measured: the network's after the latest step, or their running average.
WhoseWeights = Literal["network", "teacher"]
_AUGMENTATIONS = {"all": usual_augmentation, "four": augmentation_by_four}


@dataclass(frozen=True)
class FinetuneOutcome:
    """The outcome of a fine-tune, beside the weights in the network.

    Attributes:
        steps: optimiser steps taken.
        seconds: time they took, without interruptions.
        loss: running mean over the last steps.
        validation: DSC on the held-out slices, of the weights that were kept: the best ones where
            enough slices are held out to choose by, otherwise the latest; None without validation.
        distances: NSD and Hausdorff distance of the same weights on the same slices; None likewise.
        best_step: step of these weights.
        held_out_joined: whether the held-out slices were learnt from after that measurement.
        ending: why it ended.
        history: one entry for each validation: step, loss, validation_dsc.
        cached_variants: augmented variants of each slice whose features were cached.
        weights: whose weights the validation measured; None where there was no choice.
        temperature: the one at which the true classes of the held-out slices are likeliest, of the
            weights and slices that the distances are of; None without validation.
    """

    steps: int
    seconds: float
    loss: float
    validation: ValidationDsc | None
    distances: HeldOutDistances | None
    best_step: int | None
    held_out_joined: bool
    ending: Ending
    history: list[dict[str, float | int | None]]
    cached_variants: int
    weights: WhoseWeights | None = None
    temperature: float | None = None


class FineTuning:
    """Fine-tunes an adapted network, in place.

    Args:
        segmenter: the network, adapted, on its device.
        examples: the slices.
        split: which of them are held out.
        plan: all settings.
        folder: for checkpoints and cached features.
        signature: of this fine-tune; a checkpoint with another signature is ignored.
        watch: by which the caller follows and stops it.
        unlabelled: slices that are learnt from without labels.
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
        unlabelled: Sequence[LabelledSlice] = (),
    ) -> None:
        self._segmenter = segmenter
        self._slices = examples.slices
        self._split = split
        self._plan = plan
        self._watch = watch
        trained = TrainedWeights(segmenter, plan.weight_decay, plan.betas)
        self._loop = TrainingLoop(segmenter, trained, plan, folder, STATE_FILE, signature, watch)
        self._device = device_of(segmenter)
        self._loss = HeadLoss(HEADS[plan.head].loss)
        held_out = [self._slices[position] for position in split.validation]
        self._validation = (
            Validation(segmenter, held_out, plan.batch, folder / "held_out") if held_out else None
        )
        # Where too few slices are held out, the latest weights are kept.
        self._chooses = split.can_choose(self._slices)
        self._final_pass_from = _FINAL_PASS_FROM if self._chooses else _FINAL_PASS_OF_FEW_FROM
        if not split.joins_at_the_end:
            self._final_pass_from = 1.0
        self._validating_s = 0.0
        self._has_foreseen = False
        self._pool = self._pool_of_phase()
        self._sampler = SliceSampler(
            segmenter,
            self._slices,
            plan.seed,
            samples=plan.batch * (plan.steps or 10**6),
            cache_folder=folder / "features",
            normalisation=examples.normalisation,
            augment=_AUGMENTATIONS[plan.augmentation],
            minutes=plan.minutes,
        )
        self._consistency = self._consistency_of(unlabelled, examples)

    @property
    def resumed_at(self) -> int:
        """The step at which an earlier run was interrupted; 0 for a new fine-tune."""
        return self._loop.resumed_at

    def run(self) -> FinetuneOutcome:
        """Runs to the end; then the network holds the weights to keep.

        Raises:
            whatever `watch.check` raises, after saving a checkpoint.
        """
        if self._was_interrupted_in_validation():
            self._validate()
        return self._outcome(self._loop.run(self))

    def save(self) -> None:
        """Writes a checkpoint, from which another run resumes."""
        self._loop.save()

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        self._loop.forget()

    def before_step(self) -> Ending | None:
        """Stops where the DSC no longer improves; begins the final pass when it is due."""
        if not self._validates:
            return None
        if not self._state.final_pass and self._is_out_of_patience():
            return "early stop"
        if self._is_final_pass_due():
            self._begin_final_pass()
        return None

    def loss_of_step(self, step: int) -> Tensor:
        """Dice loss and cross entropy of a batch on its known labels, and on unlabelled slices."""
        unlabelled = None
        if self._consistency is not None:
            # Before the labelled ones, because the network holds the teacher's weights meanwhile,
            # and gradients need the weights that a loss was computed with.
            unlabelled = self._consistency.loss(step, self._loop.schedule.progress)
        batch = self._sampler.batch(self._pool, self._plan.batch, step)
        encoder = self._segmenter.network.image_encoder
        with autocast(self._device):
            features = encoder.run(batch.state, self._sampler.start_stage, len(encoder.stages()))
            found = self._segmenter.masks(features)
        loss: Tensor = self._loss(found, batch.target, batch.known)
        return loss if unlabelled is None else loss + unlabelled

    def phase(self) -> str:
        """The name of the current phase; in the final pass held-out slices are learnt from, too."""
        return "final pass" if self._state.final_pass else "fine-tune"

    def latest_validation(self) -> float | None:
        """DSC of the latest validation; None before the first."""
        history = self._state.history
        latest = history[-1]["validation_dsc"] if history else None
        return None if latest is None else float(latest)

    def after_step(self) -> None:
        """Validates, where a validation is due, and tells once where the time will not suffice."""
        self._foresee()
        if self._is_validation_due():
            self._validate()

    def release(self) -> None:
        """Deletes cached features."""
        self._sampler.remove_cache()
        if self._validation is not None:
            self._validation.remove_cache()

    def _consistency_of(
        self, unlabelled: Sequence[LabelledSlice], examples: TrainingSet
    ) -> Consistency | None:
        """The loss on unlabelled slices, whose teacher follows the loop; None without any."""
        plan = self._plan
        if not plan.unlabelled_batch:
            return None
        teacher = Teacher(self._loop.trained, self._state.teacher)
        self._loop.teacher = teacher
        augment = _AUGMENTATIONS[plan.augmentation]
        sampler = UnlabelledSampler(
            self._segmenter.network, unlabelled, plan.seed, examples.normalisation, augment
        )
        return Consistency(self._segmenter, teacher, sampler, plan.unlabelled_batch, plan.seed)

    @property
    def _state(self) -> TrainingState:
        return self._loop.state

    @property
    def _validates(self) -> bool:
        return self._validation is not None

    def _foresee(self) -> None:
        schedule = self._loop.schedule
        missing = 0 if self._has_foreseen else schedule.missing_steps
        if missing and self._plan.steps is not None:
            self._has_foreseen = True
            minutes = missing * schedule.elapsed_s / schedule.step / 60
            self._watch.foreseen(self._plan.steps - missing, self._plan.steps, minutes)

    def _pool_of_phase(self) -> SlicePool:
        joined = self._split.validation if self._state.final_pass else []
        return SlicePool(self._slices, sorted([*self._split.training, *joined]))

    def _is_validation_due(self) -> bool:
        if not self._validates or self._state.final_pass:
            return False
        learning_steps = self._loop.schedule.expected_steps * self._final_pass_from
        every = max(1, round(learning_steps / VALIDATIONS))
        return self._loop.schedule.step % every == 0 and not self._validates_too_much()

    def _validates_too_much(self) -> bool:
        if self._plan.minutes is None:
            return False
        return self._validating_s > _VALIDATING_SHARE * self._loop.schedule.elapsed_s

    def _was_interrupted_in_validation(self) -> bool:
        history = self._state.history
        validated = history[-1]["step"] if history else 0
        return self.resumed_at > 0 and validated != self.resumed_at and self._is_validation_due()

    def _is_final_pass_due(self) -> bool:
        if self._state.final_pass or not self._split.joins_at_the_end:
            return False
        return self._loop.schedule.progress >= self._final_pass_from

    def _is_out_of_patience(self) -> bool:
        patience = self._plan.patience
        return patience is not None and self._state.validations_since_best >= patience

    @property
    def _measured_weights(self) -> tuple[WhoseWeights, ...]:
        """Whose weights a validation measures: the teacher's too, where the better are chosen."""
        has_teacher = self._chooses and self._loop.teacher is not None
        return ("network", "teacher") if has_teacher else ("network",)

    @contextmanager
    def _holding(self, whose: WhoseWeights) -> Iterator[None]:
        """The network holds these weights; a checkpoint that is saved meanwhile has its own."""
        if whose == "network" or self._loop.teacher is None:
            yield
            return
        self._loop.put_aside = self._loop.trained.copied()
        try:
            with self._loop.teacher.in_network():
                yield
        finally:
            self._loop.put_aside = None

    def _better_weights(self) -> tuple[WhoseWeights, ValidationDsc]:
        """Measures all weights that may be kept; those of the network where none are better."""
        assert self._validation is not None
        found: list[tuple[WhoseWeights, ValidationDsc]] = []
        for whose in self._measured_weights:
            with self._holding(whose):
                found.append((whose, self._validation.measure(self._check_cancelled)))
        return max(found, key=lambda each: _WORST if each[1].mean is None else each[1].mean)

    def _validate(self) -> None:
        began = time.monotonic()
        whose, measured = self._better_weights()
        self._validating_s += time.monotonic() - began
        mean = measured.mean
        step = self._loop.schedule.step
        self._state.history.append(
            {"step": step, "loss": self._state.recent_loss, "validation_dsc": mean}
        )
        self._watch.measured(step, mean)
        better = mean is not None and mean > self._state.best.get("mean", _WORST)
        if mean is not None and (better or not self._chooses):
            self._state.best = {
                "mean": mean,
                "step": self._loop.schedule.step,
                "by_class": measured.by_class,
                "weights": whose,
            }
            self._state.validations_since_best = 0
            with self._holding(whose):
                self._state.best_weights = self._loop.trained.copied()
                self._watch.validated(self._segmenter, self._loop.schedule.step)
        else:
            self._state.validations_since_best += 1

    def _check_cancelled(self) -> None:
        self._loop.check_cancelled(self)

    def _begin_final_pass(self) -> None:
        if not self._state.history or self._state.history[-1]["step"] != self._loop.schedule.step:
            self._validate()
        self._take_best_weights()
        self._state.final_pass = True
        self._pool = self._pool_of_phase()

    def _take_best_weights(self) -> None:
        """Puts the best weights into the network and measures distances and temperature.

        They are measured here only, because a validation every few steps has to be quick, and not
        later, because the held-out slices have not been learnt from yet.
        """
        if self._validation is None or not self._state.best:
            return
        # A checkpoint that is saved meanwhile holds the weights of the latest step.
        self._loop.put_aside = self._loop.trained.copied()
        self._loop.trained.load(self._state.best_weights)
        measured = self._validation.distances_and_temperature(self._check_cancelled)
        distances, self._state.best["temperature"] = measured
        self._state.best["distances"] = asdict(distances)
        self._loop.put_aside = None

    def _outcome(self, ending: Ending) -> FinetuneOutcome:
        joined = self._state.final_pass
        if self._validates and not joined:
            if not self._state.history:
                self._validate()
            self._take_best_weights()
        self._segmenter.eval()
        self.release()
        best = self._state.best
        distances = best.get("distances")
        return FinetuneOutcome(
            steps=self._loop.schedule.step,
            seconds=self._loop.schedule.elapsed_s,
            loss=self._state.recent_loss,
            validation=ValidationDsc(best["by_class"]) if best else None,
            distances=HeldOutDistances(**distances) if distances else None,
            best_step=best["step"] if best else None,
            held_out_joined=joined,
            ending=ending,
            history=self._state.history,
            cached_variants=self._sampler.cached_variants,
            weights=best.get("weights") if len(self._measured_weights) > 1 else None,
            # A checkpoint of an older version has none.
            temperature=best.get("temperature"),
        )


def signature_of(plan: FinetunePlan, examples: TrainingSet, start: str) -> str:
    """Text that identifies a fine-tune; with another text, its checkpoints do not fit.

    Args:
        plan: all settings.
        examples: the slices and labels.
        start: identifies the network's weights before the first step.
    """
    content = hashlib.sha256()
    if examples.listed is not None:
        # The files of a list are known by their sizes and times; they are too many to read.
        content.update(examples.listed.fingerprint.encode())
    for each in [] if examples.listed else examples.slices:
        content.update(repr((each.volume, each.number, each.image.shape)).encode())
        for part in (each.image, each.target, each.known):
            content.update(part.tobytes())
    labels = [label.value for label in examples.labels]
    return repr((start, sorted(asdict(plan).items()), content.hexdigest(), labels))
