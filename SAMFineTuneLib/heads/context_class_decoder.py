"""The starter network's automatic decoder, tuned to the classes of one task.

The description of the classes from labelled slices (`ClassContext`) becomes parameters, which the
fine-tune trains further: it starts close to a solution, and not with random tokens.

The layers that draw outlines are taken from the decoder for prompts: its transformer, its refining
blocks and its upscaling. It was pretrained to find the mask of any object that a prompt points at,
and most of what that takes, such as finding edges, is useful without prompts too. Compared with new
layers this adds 0.03 DSC in other volumes for a hippocampus learnt from five slices (figures in
starter.md).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import (
    AdapterSite,
    LoraSite,
    two_way_adapter_sites,
    two_way_lora_sites,
)
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.class_clusters import cluster_counts
from SAMFineTuneLib.networks.starter.context_decoder import (
    COMPARED_CHANNELS,
    ClassContext,
    ContextMaskDecoder,
)
from SAMFineTuneLib.networks.starter.encoder import EMBEDDING_CHANNELS
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder


class ContextClassDecoder(ContextMaskDecoder):
    """A context decoder whose context is a set of parameters, with an output layer for each class.

    Args:
        decoder: the context decoder whose output layers and similarities are copied.
        outlining: the decoder for prompts whose transformer, refining blocks and upscaling are
            taken over; it cannot be used afterwards.
        structures: number of classes without background.
        context: the description of the classes; None sets random values, for weights that are
            loaded next.
    """

    def __init__(
        self,
        decoder: ContextMaskDecoder,
        outlining: StarterMaskDecoder,
        structures: int,
        context: ClassContext | None,
    ) -> None:
        device = decoder.sharpness.device
        with torch.device(device):
            super().__init__()
            # PyTorch refuses to load into tensors without memory (device "meta").
            if device.type != "meta":
                self.load_state_dict(decoder.state_dict())
            given = context or _empty(structures + 1)
        self.transformer = outlining.transformer
        self.iou_token = outlining.iou_token
        self.blocks16 = outlining.blocks16
        self.output_upscaling = outlining.output_upscaling
        self.output_mlps = nn.ModuleList(
            copy.deepcopy(self.output_mlp) for _ in range(structures + 1)
        )
        # These layers are needed only to form a context.
        del self.output_mlp, self.token_mlp, self.base_tokens
        self.tokens = nn.Parameter(given.tokens.detach().clone())
        self.prototypes = nn.ParameterList(each.detach().clone() for each in given.prototypes)
        self.places = nn.Parameter(given.places.detach().clone())
        self.present: Tensor
        self.register_buffer("present", given.present.clone())

    def forward(  # type: ignore[override]
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Class logits (B, classes, 4h, 4w), background first, and IoU predictions.

        See `ContextMaskDecoder.forward`.
        """
        context = ClassContext(self.tokens, tuple(self.prototypes), self.places, self.present)
        return super().forward(features, positions, dense_prompt, context, self.output_mlps)

    def adapter_sites(self) -> list[AdapterSite]:
        """The two-way transformer's adapter sites."""
        return two_way_adapter_sites(self.transformer)

    def lora_sites(self) -> list[LoraSite]:
        """The two-way transformer's query and value layers."""
        return two_way_lora_sites(self.transformer)


def _empty(classes: int) -> ClassContext:
    clusters = sum(cluster_counts(classes))
    return ClassContext(
        torch.randn(classes, EMBEDDING_CHANNELS),
        tuple(torch.randn(clusters, width) for width in COMPARED_CHANNELS),
        torch.randn(clusters, EMBEDDING_CHANNELS),
        torch.ones(clusters, dtype=torch.bool),
    )
