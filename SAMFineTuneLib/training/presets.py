"""The presets: the settings of each, its costs and what it needs; imports no tensor library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from SAMFineTuneLib.adaptation.method import Method
from SAMFineTuneLib.heads.names import DEFAULT_HEAD, HeadName
from SAMFineTuneLib.networks.spec import PixelNormalisation

Preset = Literal["laptop", "thorough", "study", "full", "loramednet"]
# What slices are changed by: everything that `slices.augmentation` knows, or the four changes of
# LoRaMedNet.
AugmentationName = Literal["all", "four"]

# Learning rates: that of the published study for its recipe; that of LoRaMedNet, which is five
# times as high, where there is time for hundreds of steps only.
_STUDY_RATE = 1e-4
_SHORT_RATE = 5e-4


@dataclass(frozen=True)
class Recipe:
    """The settings of one preset.

    Attributes:
        summary: what it is for, in words for a list.
        costs: time and memory, in words that follow "costs".
        needs: hardware, in words that follow "needs".
        steps: optimiser steps; None where `epochs` says how many.
        steps_a_slice: upper limit of the steps for each labelled slice, where several volumes are
            learnt from; None for no such limit.
        minutes: time limit, None for none.
        batch: slices a step.
        learning_rate: of a network that has learnt something before.
        largest_input: largest side of the square in pixels; None for that of the backbone.
        patience: validations without improvement until it stops; None for never.
        warm_up: steps until the learning rate is reached; 1 for none.
        epochs: how often each slice is drawn, on average; None where `steps` says how long.
        method: of the adaptation; None for what suits the weights.
        head: what is put on the encoder.
        head_depth: of a head that has one.
        pixels: how pixels are normalised; None for what suits the weights.
        betas: of the optimiser, AdamW.
        weight_decay: of the optimiser; with 0 it is Adam.
        falls: whether the learning rate falls to zero, or stays as it is.
        augmentation: how slices are changed.
        unlabelled_examples: whether the other slices of the examples are learnt from without
            labels, unless the user says otherwise.
    """

    summary: str
    costs: str
    needs: str
    steps: int | None
    steps_a_slice: int | None
    minutes: float | None
    batch: int
    learning_rate: float
    largest_input: int | None
    patience: int | None
    warm_up: int
    epochs: int | None = None
    method: Method | None = None
    head: HeadName = DEFAULT_HEAD
    head_depth: int | None = None
    pixels: PixelNormalisation | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.1
    falls: bool = True
    augmentation: AugmentationName = "all"
    unlabelled_examples: bool = False


PRESETS: dict[Preset, Recipe] = {
    # It takes minutes on two CPU cores. The time limit protects slower ones; where it has no
    # effect, the result depends on the seed alone. A model of several volumes is meant for other
    # volumes, and there 640 steps overfit to a few slices: learnt from five slices of the
    # hippocampus, the mean DSC in twenty other volumes was 0.74 after 320 steps and 0.71 after 640.
    # A model of one volume mostly segments that volume, and there more steps help (a tumour in the
    # whole volume: 0.92 and 0.93).
    "laptop": Recipe(
        summary="a few slices of one or some volumes, in minutes and without a GPU",
        costs="about 3 minutes and 1 GB of memory with the starter network",
        needs="two processor cores",
        steps=640,
        steps_a_slice=64,
        minutes=3.2,
        batch=4,
        learning_rate=_SHORT_RATE,
        largest_input=512,
        patience=None,
        warm_up=30,
    ),
    # As laptop, with twice the steps, each of which takes about twice as long, because unlabelled
    # slices are learnt from beside the labelled ones.
    "thorough": Recipe(
        summary="a few slices of one or some volumes, without a GPU, with more time than laptop: "
        "other slices of these volumes are learnt from without labels, too",
        costs="up to 20 minutes and 1.1 GB of memory with the starter network",
        needs="two processor cores",
        steps=1280,
        steps_a_slice=128,
        minutes=15.0,
        batch=4,
        learning_rate=_SHORT_RATE,
        largest_input=512,
        patience=None,
        warm_up=30,
        unlabelled_examples=True,
    ),
    # The few-shot recipe of the study: 1000 epochs over 5 slices in batches of 2, no early stop.
    "study": Recipe(
        summary="a few slices, as in the published study of few-shot fine-tuning",
        costs="2500 steps at full resolution",
        needs="a GPU with 8 GB of memory; on two processor cores it takes about 2.5 hours with "
        "MobileSAM, and far more with larger networks",
        steps=2500,
        steps_a_slice=None,
        minutes=None,
        batch=2,
        learning_rate=_STUDY_RATE,
        largest_input=None,
        patience=None,
        warm_up=200,
    ),
    # Whole data sets: training goes on until the DSC in the held-out volumes no longer improves.
    "full": Recipe(
        summary="a whole data set of labelled volumes, with a GPU",
        costs="up to 20000 steps, which is hours, and ends when held-out volumes no longer improve",
        needs="a GPU with more memory than study, since a step takes four times as many slices",
        steps=20000,
        steps_a_slice=None,
        minutes=None,
        batch=8,
        learning_rate=_STUDY_RATE,
        largest_input=None,
        patience=6,
        warm_up=200,
    ),
    # Hu et al., "Adapting Segment Anything Models to Medical Imaging via Fine-Tuning without Domain
    # Pretraining" (AAAI 2024): LoRA of rank 4 on query and value of every block of the encoder, the
    # convolutional head of depth 4, Adam, no warm-up, 120 epochs.
    "loramednet": Recipe(
        summary="a few labelled volumes, as LoRaMedNet: low-rank updates of the encoder and a "
        "convolutional head",
        costs="120 epochs at full resolution",
        needs="a GPU with 24 GB of memory for the networks of Segment Anything",
        steps=None,
        steps_a_slice=None,
        minutes=None,
        batch=4,
        learning_rate=_SHORT_RATE,
        largest_input=None,
        patience=None,
        warm_up=1,
        epochs=120,
        method="lora",
        head="convnet",
        head_depth=4,
        pixels="unit",
        betas=(0.5, 0.999),
        weight_decay=0.0,
        falls=False,
        augmentation="four",
    ),
}
