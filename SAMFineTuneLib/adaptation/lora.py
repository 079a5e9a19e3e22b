"""Low-rank adaptation: a frozen weight W becomes W + B A, with A and B of a small rank.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". B starts at zero, so that an
adapted network at first computes what it computed before. The update is not scaled, as in SAMed
(Zhang and Liu 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import LoraSite


class LowRank(nn.Module):
    """The product B A of one update, without bias."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, inputs) to the update (…, outputs)."""
        update: Tensor = self.up(self.down(x))
        return update


class LoraLinear(nn.Module):
    """A linear layer with a low-rank update of its whole weight."""

    def __init__(self, wrapped: nn.Linear, rank: int) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.update = LowRank(wrapped.in_features, wrapped.out_features, rank)

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, inputs) to (…, outputs)."""
        y: Tensor = self.wrapped(x)
        return y + self.update(x)


class LoraQueryValue(nn.Module):
    """A layer that computes query, key and value at once, with updates of query and value.

    Args:
        wrapped: linear layer whose outputs are laid out (heads, 3, width).
        heads: 1 when all queries come first, then all keys, then all values.
        rank: rank of each of the two updates.
    """

    def __init__(self, wrapped: nn.Linear, heads: int, rank: int) -> None:
        super().__init__()
        if wrapped.out_features % (3 * heads):
            raise ValueError(f"{wrapped.out_features} outputs are not {heads} heads of q, k, v")
        self.wrapped = wrapped
        self.heads = heads
        width = wrapped.out_features // 3
        self.query = LowRank(wrapped.in_features, width, rank)
        self.value = LowRank(wrapped.in_features, width, rank)

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, inputs) to (…, 3 · width), in the layout of the wrapped layer."""
        query, key, value = self.wrapped(x).unflatten(-1, (self.heads, 3, -1)).unbind(-2)
        query = query + self.query(x).unflatten(-1, (self.heads, -1))
        value = value + self.value(x).unflatten(-1, (self.heads, -1))
        return torch.stack((query, key, value), dim=-2).flatten(-3)


class LoraConv2d(nn.Module):
    """A convolution with a low-rank update.

    The update is a convolution of the same kernel to `rank` channels, and a 1 × 1 convolution.
    """

    def __init__(self, wrapped: nn.Conv2d, rank: int) -> None:
        super().__init__()
        if wrapped.groups != 1 or wrapped.padding_mode != "zeros":
            raise ValueError("only plain convolutions have a low-rank update")
        self.wrapped = wrapped
        self.down = nn.Conv2d(
            wrapped.in_channels,
            rank,
            wrapped.kernel_size,  # type: ignore[arg-type]
            stride=wrapped.stride,  # type: ignore[arg-type]
            padding=wrapped.padding,  # type: ignore[arg-type]
            dilation=wrapped.dilation,  # type: ignore[arg-type]
            bias=False,
        )
        self.up = nn.Conv2d(rank, wrapped.out_channels, 1, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to the maps of the wrapped convolution's shape."""
        y: Tensor = self.wrapped(x)
        return y + self.up(self.down(x))


def insert_lora(sites: list[LoraSite], rank: int) -> None:
    """Wraps every site's layer; the new parameters require gradients, the others do not change."""
    for site in sites:
        layer = getattr(site.parent, site.name)
        with torch.device(layer.weight.device):
            setattr(site.parent, site.name, _updated(layer, site, rank).to(layer.weight.dtype))


def _updated(layer: nn.Module, site: LoraSite, rank: int) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return LoraConv2d(layer, rank)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"no low-rank update for a {type(layer).__name__}")
    if site.fused_heads is None:
        return LoraLinear(layer, rank)
    return LoraQueryValue(layer, site.fused_heads, rank)
