"""Low-rank adaptation: a frozen weight W becomes W + B A, with A and B of a small rank.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". B starts at zero, so that an
adapted network at first computes what it computed before. Usually the update is not scaled, as in
SAMed (Zhang and Liu 2023); its scale is what Hu et al. call alpha / rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import LoraSite


class LowRank(nn.Module):
    """The product B A of one update, without bias, times a constant scale."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, inputs) to the update (…, outputs)."""
        update: Tensor = self.up(self.down(x))
        return _scaled(update, self.scale)


class LoraLinear(nn.Module):
    """A linear layer with a low-rank update of its whole weight."""

    def __init__(self, wrapped: nn.Linear, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.update = LowRank(wrapped.in_features, wrapped.out_features, rank, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, inputs) to (…, outputs)."""
        y: Tensor = self.wrapped(x)
        return y + self.update(x)


class LoraFusedAttention(nn.Module):
    """A layer that computes query, key and value at once, with updates of some of the three.

    Args:
        wrapped: linear layer whose outputs are laid out (heads, 3, width).
        heads: 1 when all queries come first, then all keys, then all values.
        rank: rank of each update.
        parts: which of "q", "k" and "v" are updated.
        scale: factor of the updates.
    """

    def __init__(
        self,
        wrapped: nn.Linear,
        heads: int,
        rank: int,
        parts: Sequence[str] = ("q", "v"),
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if wrapped.out_features % (3 * heads):
            raise ValueError(f"{wrapped.out_features} outputs are not {heads} heads of q, k, v")
        self.wrapped = wrapped
        self.heads = heads
        inputs, width = wrapped.in_features, wrapped.out_features // 3
        self.query = LowRank(inputs, width, rank, scale) if "q" in parts else None
        self.key = LowRank(inputs, width, rank, scale) if "k" in parts else None
        self.value = LowRank(inputs, width, rank, scale) if "v" in parts else None

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, inputs) to (…, 3 · width), in the layout of the wrapped layer."""
        query, key, value = self.wrapped(x).unflatten(-1, (self.heads, 3, -1)).unbind(-2)
        query = self._updated(query, self.query, x)
        key = self._updated(key, self.key, x)
        value = self._updated(value, self.value, x)
        return torch.stack((query, key, value), dim=-2).flatten(-3)

    def _updated(self, outputs: Tensor, update: LowRank | None, x: Tensor) -> Tensor:
        return outputs if update is None else outputs + update(x).unflatten(-1, (self.heads, -1))


class LoraConv2d(nn.Module):
    """A convolution with a low-rank update.

    The update is a convolution of the same kernel to `rank` channels, and a 1 × 1 convolution.
    """

    def __init__(self, wrapped: nn.Conv2d, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
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
        return y + _scaled(self.up(self.down(x)), self.scale)


def insert_lora(
    sites: list[LoraSite],
    rank: int,
    parts: Sequence[str] = ("q", "v"),
    scale: float = 1.0,
) -> None:
    """Wraps every site's layer; the new parameters require gradients, the others do not change.

    Args:
        sites: the layers.
        rank: of the updates.
        parts: which of "q", "k" and "v" get one where a layer computes all three.
        scale: factor of the updates.
    """
    for site in sites:
        layer = getattr(site.parent, site.name)
        with torch.device(layer.weight.device):
            updated = _updated(layer, site, rank, parts, scale).to(layer.weight.dtype)
        setattr(site.parent, site.name, updated)


def _updated(
    layer: nn.Module, site: LoraSite, rank: int, parts: Sequence[str], scale: float
) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return LoraConv2d(layer, rank, scale)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"no low-rank update for a {type(layer).__name__}")
    if site.fused_heads is None:
        return LoraLinear(layer, rank, scale)
    return LoraFusedAttention(layer, site.fused_heads, rank, parts, scale)


def _scaled(update: Tensor, scale: float) -> Tensor:
    return update if scale == 1.0 else scale * update
