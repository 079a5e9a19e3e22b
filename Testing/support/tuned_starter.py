"""A tuned model of the starter network that nobody trained: its weights are random."""

from __future__ import annotations

from pathlib import Path

import torch

from SAMFineTuneLib.adaptation.strategy import adapt, adapt_for_prompts
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.models.model_file import LabelCard, ModelCard, PromptCard, Strategy, save_model
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow

WINDOW = IntensityWindow(low=-100, high=800, mean=0.4, standard_deviation=0.2)
STRATEGY = Strategy(method="vanilla", scope="encoder_decoder", rank=4)


def write_model(path: Path, for_prompts: bool, input_size: int = 256) -> Path:
    """A model for the structures of `synthetic_volumes.head`, on axial slices."""
    torch.manual_seed(3)
    automatic = AutomaticSegmenter(build("starter", input_size), 2)
    adapt(automatic.network, "vanilla", "encoder_decoder", 4)
    prompted = None
    if for_prompts:
        prompted = PromptedSegmenter(build("starter", input_size))
        adapt_for_prompts(prompted.network, "vanilla", "encoder_decoder", 4)
    card = ModelCard(
        backbone="starter",
        checkpoint_sha256=None,
        strategy=STRATEGY,
        labels=[LabelCard(value=5, name="bright"), LabelCard(value=52, name="dark")],
        axis="axial",
        normalisation=IntensityNormalisation(kind="calibrated", window=WINDOW),
        input_size=input_size,
        prompts=PromptCard(strategy=STRATEGY) if for_prompts else None,
    )
    save_model(path, automatic, card, prompted)
    return path
