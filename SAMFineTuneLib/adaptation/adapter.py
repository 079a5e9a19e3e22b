"""Adapters: narrow two-layer networks that correct the features of a frozen module.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP"; the adapter beside the MLP is
that of AdaptFormer (Chen et al. 2022). The second layer's weights start at zero, so that an adapted
network at first computes what it computed before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import AdapterSite

HIDDEN_FRACTION = 4
MLP_SCALE = 0.5


class Adapter(nn.Module):
    """Two layers: from the channels to a quarter as many, and back.

    Args:
        channels: width of the features.
        maps: whether the channels are the second axis, (B, C, H, W), and not the last one.
    """

    def __init__(self, channels: int, maps: bool = False) -> None:
        super().__init__()
        hidden = max(1, channels // HIDDEN_FRACTION)
        self.down = _layer(channels, hidden, maps)
        self.activation = nn.GELU()
        self.up = _layer(hidden, channels, maps)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """The correction without the features that it is added to."""
        correction: Tensor = self.up(self.activation(self.down(x)))
        return correction


class AdapterBehind(nn.Module):
    """A module whose output passes an adapter with a skip."""

    def __init__(self, wrapped: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.adapter = adapter

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The module's output for these arguments, corrected by the adapter."""
        y: Tensor = self.wrapped(*args, **kwargs)
        return y + self.adapter(y)


class AdapterBeside(nn.Module):
    """A module and an adapter with the same input; half of the adapter's output is added."""

    def __init__(self, wrapped: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """The module's output plus the scaled adapter's, from the same features."""
        y: Tensor = self.wrapped(x)
        return y + MLP_SCALE * self.adapter(x)


class AdapterBefore(nn.Module):
    """A module whose input passes an adapter with a skip.

    Args:
        wrapped: the module.
        adapter: the adapter.
        owned: False if another module already holds the adapter, whose parameters must not appear
            a second time in the state dictionary.
    """

    def __init__(self, wrapped: nn.Module, adapter: Adapter, owned: bool = True) -> None:
        super().__init__()
        self.wrapped = wrapped
        if owned:
            self.adapter = adapter
        # Inside a tuple the module is not registered a second time.
        self._adapter = (adapter,)

    def forward(self, x: Tensor) -> Tensor:
        """The module's output for the features that the adapter has corrected."""
        y: Tensor = self.wrapped(x + self._adapter[0](x))
        return y


def insert_adapters(sites: list[AdapterSite]) -> None:
    """Wraps every site's module; the new parameters require gradients, the others do not change."""
    shared: dict[tuple[int, str], Adapter] = {}
    for site in sites:
        wrapped = getattr(site.parent, site.name)
        key = (id(site.parent), site.shared)
        owned = not site.shared or key not in shared
        if owned:
            adapter = _adapter_like(wrapped, site)
            shared[key] = adapter
        else:
            adapter = shared[key]
        setattr(site.parent, site.name, _joined(site, wrapped, adapter, owned))


def _joined(site: AdapterSite, wrapped: nn.Module, adapter: Adapter, owned: bool) -> nn.Module:
    if site.place == "norm":
        return AdapterBefore(wrapped, adapter, owned)
    if not owned:
        raise ValueError(f"an adapter at place {site.place!r} cannot be shared")
    return (
        AdapterBeside(wrapped, adapter) if site.place == "mlp" else AdapterBehind(wrapped, adapter)
    )


def _adapter_like(wrapped: nn.Module, site: AdapterSite) -> Adapter:
    """An adapter on the device and in the precision of the module that it joins."""
    sample = next(wrapped.parameters())
    with torch.device(sample.device):
        return Adapter(site.channels, maps=site.place == "conv").to(sample.dtype)


def _layer(inputs: int, outputs: int, maps: bool) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1) if maps else nn.Linear(inputs, outputs)
