"""Measures a fine-tune of few slices by shorter ones, each without some of the slices.

One held-out slice of five tells by chance how good a model is: where it lies at the end of a
structure, a model was said to have a DSC of 0.07 that had 0.70 in other volumes. Here every volume
(or slice, where one volume is labelled) is measured by a network that has not seen it. These
networks make fewer steps, from fewer slices, than the model that they speak for, which is likely to
be a little better.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

from SAMFineTuneLib.evaluation.known_mean import mean_of_known
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.training.fine_tuning import FineTuning
from SAMFineTuneLib.training.folds import Fold, Folds, leave_out
from SAMFineTuneLib.training.held_out_distances import HeldOutDistances, distances_between
from SAMFineTuneLib.training.loop import ProgressReport, Watch
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.validation import Validation, ValidationDsc, dsc_of
from SAMFineTuneLib.training.validation_split import ValidationSplit

# With so many labelled slices, a share of them that is held out tells enough.
FEW_SLICES = 8
# The fine-tunes of a cross-validation together make this share of the steps of the one that they
# speak for, and take this share of its time at most.
_SHARE_OF_STEPS = 0.6
_SHARE_OF_TIME = 1 / 3
_FEWEST_STEPS = 24
_MOST_FOLDS = FEW_SLICES - 1
# The interval holds the mean with this probability, if the scores are distributed normally.
_CONFIDENCE = 0.95
_PHASE = "measure"

Predictions = list[tuple[LabelledSlice, np.ndarray]]


@dataclass(frozen=True)
class CrossValidated:
    """What a cross-validation measured.

    Attributes:
        folds: which slices were left out together.
        steps: of each of its fine-tunes, at most.
        scores: of each group that was left out.
        distances: over all slices.
        slices: how many slices were measured.
    """

    folds: Folds
    steps: int | None
    scores: list[ValidationDsc]
    distances: HeldOutDistances
    slices: int

    @property
    def dsc(self) -> ValidationDsc:
        """The mean over the groups, by class."""
        classes = self.scores[0].by_class
        return ValidationDsc(
            {each: mean_of_known(score.by_class[each] for score in self.scores) for each in classes}
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean DSC of other volumes, or slices, lies with a probability of 95 %.

        By Student's distribution, from the means of the groups; None where a single group has one.
        """
        means = [mean for score in self.scores if (mean := score.mean) is not None]
        if len(means) < 2:
            return None
        quantile = float(stdtrit(len(means) - 1, (1 + _CONFIDENCE) / 2))
        half = quantile * float(np.std(means, ddof=1)) / math.sqrt(len(means))
        middle = float(np.mean(means))
        return max(0.0, middle - half), min(1.0, middle + half)


class CrossValidation:
    """Fine-tunes without some of the slices, and measures on these.

    Args:
        tuning: the fine-tune that is measured; its cached features are used.
        examples: all slices.
        plan: of that fine-tune.
        adapted: makes the network to train, adapted and on its device, from the slices that its
            decoder may start from.
        folder: for files; it is deleted at the end.
        watch: by which the caller follows and stops it.
    """

    def __init__(
        self,
        tuning: FineTuning,
        examples: TrainingSet,
        plan: FinetunePlan,
        adapted: Callable[[Sequence[LabelledSlice]], AutomaticSegmenter],
        folder: Path,
        watch: Watch,
    ) -> None:
        self._tuning = tuning
        self._examples = examples
        self._adapted = adapted
        self._folder = folder
        self._watch = watch
        self._folds = leave_out(examples.slices, plan.seed, _MOST_FOLDS)
        self._plan = _shorter(plan, max(1, len(self._folds.folds)))

    def run(self) -> CrossValidated | None:
        """Measures every group; None where none can be left out, or the user asks to finish.

        Raises:
            whatever `watch.check` raises.
        """
        measured: list[Predictions] = []
        try:
            for number, fold in enumerate(self._folds.folds):
                if self._watch.finish():
                    return None
                measured += self._measured(number, fold)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if not measured or self._watch.finish():
            return None
        classes = len(self._examples.labels) + 1
        everything = [each for group in measured for each in group]
        return CrossValidated(
            self._folds,
            self._plan.steps,
            [dsc_of(group, classes) for group in measured],
            distances_between(everything),
            len(everything),
        )

    def _measured(self, number: int, fold: Fold) -> Iterator[Predictions]:
        slices = self._examples.slices
        # The numbers that this fold draws must not change what is drawn after it.
        with torch.random.fork_rng():
            torch.manual_seed(self._plan.seed)
            segmenter = self._adapted([slices[position] for position in fold.training])
            tuning = FineTuning(
                segmenter,
                self._examples,
                ValidationSplit(fold.training, [], "none"),
                self._plan,
                self._folder / f"fold_{number}",
                "",
                self._watch_of(number),
                features_of=self._tuning,
            )
            tuning.run()
        for group in fold.left_out:
            left_out = [slices[position] for position in group]
            validation = Validation(
                segmenter, left_out, self._plan.batch, self._folder / f"left_out_{number}"
            )
            yield list(validation.predictions(self._watch.check))
            validation.remove_cache()

    def _watch_of(self, number: int) -> Watch:
        count = len(self._folds.folds)

        def report(progress: ProgressReport) -> None:
            done = number * progress.steps + progress.step
            eta_s = None
            if progress.eta_s is not None and progress.step:
                each_s = progress.eta_s / max(1, progress.steps - progress.step)
                eta_s = each_s * (count * progress.steps - done)
            self._watch.report(
                replace(
                    progress, step=done, steps=count * progress.steps, phase=_PHASE, eta_s=eta_s
                )
            )

        return Watch(report=report, check=self._watch.check, finish=self._watch.finish)


def is_worthwhile(examples: TrainingSet) -> bool:
    """Whether so few slices are labelled that a held-out share of them tells next to nothing."""
    if examples.listed is not None and examples.listed.held_out is not None:
        return False
    return sum(each.is_labelled for each in examples.slices) < FEW_SLICES


def _shorter(plan: FinetunePlan, folds: int) -> FinetunePlan:
    changes: dict[str, Any] = {"patience": None, "unlabelled_batch": 0}
    if plan.steps is not None:
        steps = max(_FEWEST_STEPS, round(_SHARE_OF_STEPS * plan.steps / folds))
        changes["steps"] = min(plan.steps, steps)
        changes["warm_up"] = min(plan.warm_up, max(1, changes["steps"] // 10))
    if plan.minutes is not None:
        changes["minutes"] = _SHARE_OF_TIME * plan.minutes / folds
    return replace(plan, **changes)
