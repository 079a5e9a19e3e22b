"""The networks that a correction works with: one for prompts, and one that needs none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.device import autocast, choose_device, ready_to_predict
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.interactive.protocol import SessionSettings
from SAMFineTuneLib.interactive.slice_work import SliceWork, Step
from SAMFineTuneLib.models.model_file import ModelCard, load_model
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.slices.intensity import (
    IntensityNormalisation,
    PixelWindow,
    find_normalisation,
    sample_voxels,
)
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import file_sha256, load_checkpoint

PROMPTED, AUTOMATIC = "prompted", "automatic"
# Increased when a change of the program makes the same weights give other features.
_FEATURES_VERSION = 1


@dataclass(frozen=True, eq=False)
class CorrectionNetworks:
    """The networks of a session, and what is known of them.

    Attributes:
        prompted: finds masks from prompts.
        automatic: the tuned model's automatic part; None without a tuned model.
        card: the tuned model's card; None without a tuned model.
        tuned: whether `prompted` was tuned for prompts.
        identity: a text that differs if the weights differ.
        device: the device on which both networks are.
    """

    prompted: PromptedSegmenter
    automatic: AutomaticSegmenter | None
    card: ModelCard | None
    tuned: bool
    identity: str
    device: torch.device

    @property
    def normalisation(self) -> IntensityNormalisation | None:
        """The normalisation of intensities that the tuned model was trained with."""
        return None if self.card is None else self.card.normalisation

    @property
    def temperature(self) -> float:
        """By which the tuned model's logits are divided to tell how sure it is."""
        return 1.0 if self.card is None else self.card.temperature

    @property
    def structures(self) -> dict[int, str]:
        """Number and name of each structure that the tuned model finds."""
        return {} if self.card is None else {each.value: each.name for each in self.card.labels}


def load_networks(settings: SessionSettings, longest_side: int) -> CorrectionNetworks:
    """The networks of a session, in eval mode on their device.

    Args:
        settings: which model or backbone.
        longest_side: of the slices, in pixels; without a tuned model the input size follows it.

    Raises:
        InputError: the model or the weights cannot be used.
    """
    device = choose_device(settings.device)
    if settings.model is None:
        return _untuned(settings, longest_side, device)

    from SAMFineTuneLib.models.model_file import load_prompted

    def checkpoint(card: ModelCard) -> Path:
        return find_weights(card.backbone, settings.checkpoint)

    automatic, card = load_model(settings.model, checkpoint)
    prompted, _, tuned = load_prompted(settings.model, checkpoint)
    return CorrectionNetworks(
        ready_to_predict(prompted, device),
        ready_to_predict(automatic, device),
        card,
        tuned,
        file_sha256(settings.model),
        device,
    )


def _untuned(
    settings: SessionSettings, longest_side: int, device: torch.device
) -> CorrectionNetworks:
    spec = find(settings.backbone)
    size, fitting = spec.default_input_size, spec.fitting_sizes
    if fitting is not None:
        size = next((each for each in fitting if each >= longest_side), fitting[-1])
    network = build(settings.backbone, size)
    loaded = load_checkpoint(network, find_weights(settings.backbone, settings.checkpoint))
    prompted = ready_to_predict(PromptedSegmenter(network), device)
    return CorrectionNetworks(prompted, None, None, False, loaded.sha256, device)


class SliceEncoders:
    """The steps in which the networks compute the features of each slice of one volume.

    Args:
        networks: the session's networks.
        volume: the image.
        stack: its slices.

    Raises:
        InputError: the volume has the same value in every voxel.
    """

    def __init__(self, networks: CorrectionNetworks, volume: Volume, stack: SliceStack) -> None:
        self._networks = networks
        self._stack = stack
        sample = sample_voxels(volume)
        curve = networks.prompted.network.spec.grey_curve
        normalisation = networks.normalisation or find_normalisation([sample], curve)
        self._window: PixelWindow = normalisation.window_for(sample)
        rows, columns = stack.slice_shape
        size = networks.prompted.network.input_size
        self.fit = SquareFit(rows, columns, stack.pixel_spacing, size)

    @property
    def works(self) -> list[SliceWork]:
        """The features to compute for each slice; their names are PROMPTED and AUTOMATIC."""
        prompted, automatic = self._networks.prompted, self._networks.automatic
        works = [SliceWork(PROMPTED, self._begin(prompted.network), self._stages(prompted.network))]
        if automatic is not None:
            steps = [*self._stages(automatic.network), self._decoding(automatic)]
            works.append(SliceWork(AUTOMATIC, self._begin(automatic.network), steps))
        return works

    def signature(self) -> str:
        """A text that differs if the features would differ; it can be the name of a folder."""
        content = hashlib.sha256()
        array = np.ascontiguousarray(self._stack.array)
        for part in (
            _FEATURES_VERSION,
            self._networks.identity,
            array.dtype.str,
            array.shape,
            self._stack.axis,
            self._stack.geometry,
            self._window,
            self._networks.prompted.network.input_size,
        ):
            content.update(repr(part).encode())
        content.update(array.view(np.uint8).reshape(-1).data)
        return content.hexdigest()[:32]

    def levels(self, number: int) -> NDArray[np.floating]:
        """Grey levels (rows, columns) or (rows, columns, images) of a slice, in their window."""
        return self._window.apply(self._stack[number])

    def _begin(self, network: SamNetwork) -> Callable[[int], FeatureState]:
        def begin(number: int) -> FeatureState:
            image = self.levels(number)
            fit = SquareFit(self.fit.rows, self.fit.columns, self.fit.spacing, network.input_size)
            square = fit.image_to_square(channels_first(image))
            pixels = network_pixels(square, self._window, network.spec.normalisation)
            return FeatureState(pixels[None].to(self._networks.device))

        return begin

    def _stages(self, network: SamNetwork) -> Sequence[Step]:
        device = self._networks.device

        def step(number: int) -> Step:
            def run(state: FeatureState) -> FeatureState:
                with autocast(device):
                    return network.image_encoder.run(state, number, number + 1)

            return run

        return [step(number) for number in range(len(network.image_encoder.stages()))]

    def _decoding(self, automatic: AutomaticSegmenter) -> Step:
        def decode(state: FeatureState) -> FeatureState:
            with autocast(self._networks.device):
                logits, _ = automatic.decode(state)
            return FeatureState(logits)

        return decode


def margin_of(logits: Tensor, structure: int) -> Tensor:
    """The mask logits (B, 1, s, s) of one class from class logits (B, K, s, s).

    They are above 0 where this class has the largest logit.
    """
    others = torch.cat([logits[:, :structure], logits[:, structure + 1 :]], dim=1)
    return logits[:, structure : structure + 1] - others.amax(1, keepdim=True)
