"""Labelled slices that are made up, and a starter to fine-tune on slices."""

from __future__ import annotations

import numpy as np
import torch

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow
from SAMFineTuneLib.training.plan import FinetunePlan

WINDOW = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=0.2)


def a_slice(
    classes: set[int], volume: int = 0, number: int = 0, count: int = 3, side: int = 8
) -> LabelledSlice:
    target = np.zeros((side, side), np.uint8)
    for place, each in enumerate(sorted(classes)):
        target[place] = each
    return LabelledSlice(
        image=np.zeros((side, side), np.float16),
        target=target,
        known=np.ones(count, bool),
        window=WINDOW,
        spacing=(1.0, 1.0),
        volume=volume,
        number=number,
    )


def training_set(slices: list[LabelledSlice]) -> TrainingSet:
    labels = [Label(number) for number in range(1, len(slices[0].known))]
    volumes = len({each.volume for each in slices})
    return TrainingSet(slices, labels, "axial", IntensityNormalisation(kind="percentiles"), volumes)


def starter(plan: FinetunePlan, structures: int = 2) -> AutomaticSegmenter:
    torch.manual_seed(plan.seed)
    segmenter = AutomaticSegmenter(build("starter", plan.input_size), structures)
    adapt(segmenter.network, plan.method, plan.scope, plan.rank)
    return segmenter
