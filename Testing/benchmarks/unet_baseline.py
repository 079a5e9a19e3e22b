"""A 2-D U-Net trained from scratch on the same slices, by the same loop, for the same time.

MONAI's BasicUNet (Ronneberger et al. 2015, with instance normalisation and leaky ReLU) takes the
place of the SAM-shaped network in the library's own fine-tune: the same slices and sampler, the
same augmentation, loss (Dice + cross entropy, unknown labels counted as background), held-out
slices, AdamW with warm-up and half a cosine. Different are the network, the square (128 pixels
unless told otherwise: as fine as the slices are, so that no step is wasted on interpolated pixels),
the batch (8) and the number of steps, which is whatever fits into the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.models.model_file import LabelCard, ModelCard, Strategy
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.staged_encoder import (
    FeatureState,
    Stage,
    StagedEncoder,
    on_features,
)
from SAMFineTuneLib.prediction.volume_prediction import predict_volume
from SAMFineTuneLib.training.fine_tuning import FineTuning, signature_of
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.validation_split import split
from SAMFineTuneLib.volumes import Labelmap, Volume
from Testing.support.job_records import choices_of

_CHANNELS = (32, 32, 64, 128, 256, 32)
_BATCH = 8
_LEARNING_RATE = 1e-3
DEFAULT_SIZE = 128


class UnetStage(StagedEncoder):
    """The whole U-Net as the one stage of an encoder: what it gives are class scores."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.unet = BasicUNet(2, in_channels=3, out_channels=classes, features=_CHANNELS)

    def stages(self) -> list[Stage]:
        return [Stage("unet", (self.unet,), on_features(self.unet))]


class UnetSegmenter(AutomaticSegmenter):
    """A U-Net with the surface of a SAM-shaped segmenter; it predicts no mask quality."""

    def __init__(self, structures: int, size: int) -> None:
        nn.Module.__init__(self)
        self.network = SamNetwork(
            BACKBONES["starter"], size, UnetStage(structures + 1), nn.Identity(), nn.Identity()
        )

    def decode(self, features: FeatureState) -> tuple[Tensor, Tensor]:
        """Class scores (B, classes, S, S), and zeros in place of IoU predictions."""
        return features.x, torch.zeros(features.x.shape[:2], device=features.x.device)


@dataclass(frozen=True)
class TrainedUnet:
    """A U-Net with what `predict_volume` needs beside it.

    Attributes:
        segmenter: in eval mode.
        card: axis, labels and normalisation.
        description: of what was trained and how long.
    """

    segmenter: UnetSegmenter
    card: ModelCard
    description: dict[str, Any]

    def segment(self, volume: Volume) -> Labelmap:
        """Labels on the volume's grid."""
        return predict_volume(self.segmenter, self.card, volume, batch=_BATCH).labelmap


def train_unet(
    sources: list[Example], seconds: float, size: int, seed: int, folder: Path
) -> TrainedUnet:
    """Trains a U-Net on examples.

    Args:
        sources: as given to `finetune`.
        seconds: wall time, reading the images not counted.
        size: side of the square in pixels, a multiple of 16.
        seed: of everything random.
        folder: for checkpoints.
    """
    examples = load_examples(sources)
    choices = choices_of(
        minutes=seconds / 60, batch=_BATCH, learning_rate=_LEARNING_RATE, input_size=size, seed=seed
    )
    plan = replace(settle(choices, examples, pretrained=False), backbone="U-Net")
    torch.manual_seed(seed)
    segmenter = UnetSegmenter(len(examples.labels), size)
    held_out = split(examples.slices, seed)
    tuning = FineTuning(
        segmenter, examples, held_out, plan, folder, signature_of(plan, examples, "random"), Watch()
    )
    cpu_started = time.process_time()
    outcome = tuning.run()
    parameters = sum(each.numel() for each in segmenter.parameters())
    description = {
        "network": "BasicUNet",
        "parameters": parameters,
        "size": size,
        "batch": _BATCH,
        "learning_rate": _LEARNING_RATE,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        # Nearly twice the seconds on two cores; less tells that the machine was shared.
        "cpu_seconds": time.process_time() - cpu_started,
        "validation_dsc": outcome.validation.mean if outcome.validation else None,
    }
    return TrainedUnet(segmenter, _card(examples, size), description)


def _card(examples: TrainingSet, size: int) -> ModelCard:
    return ModelCard(
        backbone="U-Net",
        checkpoint_sha256=None,
        strategy=Strategy(method="vanilla", scope="encoder_decoder", rank=1),
        labels=[LabelCard(value=each.value, name=each.name) for each in examples.labels],
        axis=examples.axis,
        normalisation=examples.normalisation,
        input_size=size,
    )
