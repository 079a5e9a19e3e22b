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
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

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
_MOST_FOLDS = 3
# The interval holds the mean with this probability, if the scores are distributed normally.
_CONFIDENCE = 0.95
_PHASE = "measure"

Predictions = list[tuple[LabelledSlice, np.ndarray]]


@dataclass(frozen=True)
class CrossValidated:
    """What a cross-validation measured.

    The DSC is that over the pixels of all slices together, as the DSC of a volume is: the mean over
    slices would count the small ends of a structure, where the DSC is low, as much as its middle.

    Attributes:
        folds: which slices were left out together.
        steps: of each of its fine-tunes, at most.
        measured: of each group that was left out, its slices with the class numbers (rows, columns)
            that were predicted.
        classes: background included.
    """

    folds: Folds
    steps: int | None
    measured: Sequence[Predictions]
    classes: int

    @cached_property
    def dsc(self) -> ValidationDsc:
        """By class, over all slices."""
        return dsc_of(chain.from_iterable(self.measured), self.classes)

    @cached_property
    def distances(self) -> HeldOutDistances:
        """The distances between outlines on all slices."""
        return distances_between(chain.from_iterable(self.measured))

    @property
    def slices(self) -> int:
        """How many slices were measured."""
        return sum(len(group) for group in self.measured)

    @property
    def by_group(self) -> list[float | None]:
        """The mean DSC of each group."""
        return [dsc_of(group, self.classes).mean for group in self.measured]

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean DSC lies with a probability of 95 %, as far as few groups can tell.

        By the jackknife (Tukey 1958): how much the DSC changes when a group is left out. None where
        there are fewer than two groups.
        """
        middle, count = self.dsc.mean, len(self.measured)
        if middle is None or count < 2:
            return None
        without = [self._mean_without(number) for number in range(count)]
        known = [each for each in without if each is not None]
        squares = float(np.sum((np.array(known) - np.mean(known)) ** 2))
        error = math.sqrt((count - 1) / count * squares)
        half = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2)) * error
        return max(0.0, middle - half), min(1.0, middle + half)

    def _mean_without(self, number: int) -> float | None:
        others = [group for place, group in enumerate(self.measured) if place != number]
        return dsc_of(chain.from_iterable(others), self.classes).mean


class CrossValidation:
    """Fine-tunes without some of the slices, and measures on these.

    Args:
        tuning: the fine-tune that is measured; its cached features are used and then deleted.
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
            self._tuning.remove_features()
        if not measured or self._watch.finish():
            return None
        return CrossValidated(
            self._folds, self._plan.steps, measured, len(self._examples.labels) + 1
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
