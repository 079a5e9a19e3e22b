"""What the heads around Segment Anything's two-way transformer have in common."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import (
    AdapterSite,
    LoraSite,
    two_way_adapter_sites,
    two_way_lora_sites,
)

# Breaks the symmetry between copies of one pretrained tensor, as a share of its deviation.
_NOISE = 0.02


class TwoWayHead(nn.Module):
    """A head with the transformer and the upscaling of a mask decoder.

    Attributes:
        transformer: the two-way transformer; adapters and low-rank updates are inserted in it.
        blocks16: what refines its output at the embedding's resolution; empty in Segment Anything.
        output_upscaling: from the embedding's resolution to one four times as fine.
    """

    transformer: nn.Module
    blocks16: nn.Module
    output_upscaling: nn.Module

    def adapter_sites(self) -> list[AdapterSite]:
        """The two-way transformer's adapter sites."""
        return two_way_adapter_sites(self.transformer)

    def lora_sites(self) -> list[LoraSite]:
        """The two-way transformer's query and value layers."""
        return two_way_lora_sites(self.transformer)

    def decoded(
        self, embedding: Tensor, positions: Tensor, tokens: Tensor, skips: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Tokens after they have seen the image, and features of the image that has seen them.

        Args:
            embedding: (B, C, h, w).
            positions: positional encoding (1, C, h, w).
            tokens: (B, N, C).
            skips: high-resolution features of an encoder that has them.

        Returns:
            (B, N, C) and (B, channels, 4h, 4w).
        """
        tokens_out, source = self.transformer(
            embedding, positions.expand(len(embedding), -1, -1, -1), tokens
        )
        source = self.blocks16(source.transpose(1, 2).reshape(embedding.shape))
        upscaled = self.output_upscaling(source, skips) if skips else self.output_upscaling(source)
        return tokens_out, upscaled


def refining_part(decoder: Any) -> nn.Module:
    """What refines the output of a decoder's transformer; empty where it has no such part."""
    part: nn.Module = getattr(decoder, "blocks16", nn.Sequential())
    return part


def upscaled_width(decoder: Any) -> int:
    """Channels of what a decoder's upscaling gives, which its output layers are made for."""
    width: int = decoder.output_hypernetworks_mlps[0].layers[-1].out_features
    return width


def noisy_copies(tensor: Tensor, count: int) -> Tensor:
    """(count, N, C) copies of a pretrained tensor (N, C) with a little noise, without gradients."""
    single = tensor.detach()[None]
    spread = single.std() if single.numel() > 1 else single.abs()
    noise = torch.randn(count, *tensor.shape, device=tensor.device)
    return single + noise * _NOISE * spread


def resized_output(mlp: Any, outputs: int) -> nn.Module:
    """A copy of an MLP with a new last layer of so many outputs."""
    resized: nn.Module = copy.deepcopy(mlp)
    layers: Any = resized.get_submodule("layers")
    last = layers[-1]
    layers[-1] = nn.Linear(last.in_features, outputs, device=last.weight.device)
    return resized
