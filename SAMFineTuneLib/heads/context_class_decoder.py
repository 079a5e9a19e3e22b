"""The starter network's automatic decoder, tuned to the classes of one task.

What labelled slices say of the classes (`ClassContext`) becomes parameters, and a fine-tune goes on
from there: it starts near the answer and not from tokens that mean nothing.

How outlines are drawn comes from the decoder for prompts: its transformer, its refining blocks and
its upscaling. Masks of anything that is pointed at are what it was pretrained for, and the larger
part of that, where an edge is, holds without prompts too. Learnt from five slices of the
hippocampus it brings 0.03 DSC in other volumes, beside new parts (figures in starter.md).
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
    """A context decoder that has its context within, and an output layer for each class.

    Args:
        decoder: whose classes, output layers and similarities are copied.
        outlining: whose transformer, refining blocks and upscaling are taken over; it is of no
            use afterwards.
        structures: number of classes beside background.
        context: of the classes; None leaves it empty, for weights that are loaded next.
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
            # Loading into tensors without memory ("meta") is refused, and would copy nothing.
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
        # What forms a context has done its work.
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
