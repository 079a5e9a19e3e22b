"""Sites: the places in a network where an adaptation may insert its new modules.

Encoders and mask decoders name their own sites, so that the methods need not know the networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn

AdapterPlace = Literal["attention", "mlp", "conv", "norm"]
LoraPart = Literal["q", "k", "v", "qkv", "o", "mlp", "convolution"]


@dataclass(frozen=True)
class AdapterSite:
    """A child module that an adapter joins.

    Attributes:
        parent: the module whose child is wrapped.
        name: the child's attribute name.
        place: "attention" and "conv" put the adapter, with a skip, behind the child (tokens with
            the channels last; maps with the channels first); "mlp" puts it, scaled, beside the
            child; "norm" puts it, with a skip, in front of the child.
        channels: width of the features that the adapter sees.
        shared: sites of one parent with the same non-empty text share one adapter.
        block: number of the block that the site is in, from 0 in the order of computation.
    """

    parent: nn.Module
    name: str
    place: AdapterPlace
    channels: int
    shared: str = ""
    block: int = 0


@dataclass(frozen=True)
class LoraSite:
    """A linear or convolution layer that gets a low-rank update.

    Attributes:
        parent: the module whose child is wrapped.
        name: the child's attribute name.
        fused_heads: None for a layer that is updated as a whole. Otherwise the layer computes
            query, key and value together, and its outputs are laid out (fused_heads, 3, width):
            1 when all queries come first, the number of heads when the three lie side by side
            in each head. Then each of the three that is chosen gets an update of its own.
        part: what the layer is: projection of query, key or value, or all three together; output
            projection of an attention; one of the layers of an MLP; or a convolution of a network
            without attention.
        block: number of the block that the site is in, from 0 in the order of computation.
    """

    parent: nn.Module
    name: str
    fused_heads: int | None = None
    part: LoraPart = "convolution"
    block: int = 0


@runtime_checkable
class Adaptable(Protocol):
    """An encoder or mask decoder that names its sites, of all blocks; some of them are used."""

    def adapter_sites(self) -> list[AdapterSite]:
        """The sites where the method adapter may insert adapters."""

    def lora_sites(self) -> list[LoraSite]:
        """The layers that the method LoRA may update."""


@runtime_checkable
class KeepsFrozen(Protocol):
    """A mask decoder with parts that never train, whatever the method."""

    def frozen_modules(self) -> list[nn.Module]:
        """These parts."""


def two_way_adapter_sites(transformer: nn.Module) -> list[AdapterSite]:
    """Adapter sites of Segment Anything's two-way transformer (the mask decoder's).

    In each block one adapter works behind both cross attentions, on the sum of attention and
    residual and so in front of the norm that takes it, and another beside the MLP; as in the
    study's implementation (MELBA 2025:006), whose 0.13 million parameters this gives.
    """
    sites: list[AdapterSite] = []
    for number, block in enumerate(_children(transformer, "layers")):
        width = _module(block, "self_attn").get_submodule("q_proj").in_features
        assert isinstance(width, int)
        sites += [
            AdapterSite(block, "norm2", "norm", width, "cross_attention", number),
            AdapterSite(block, "norm4", "norm", width, "cross_attention", number),
            AdapterSite(block, "mlp", "mlp", width, block=number),
        ]
    return sites


def two_way_lora_sites(transformer: nn.Module) -> list[LoraSite]:
    """The projections of every attention of the two-way transformer, and the layers of its MLPs.

    The attention behind the last block counts with that block.
    """
    blocks = _children(transformer, "layers")
    attentions = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
    sites: list[LoraSite] = []
    for number, block in enumerate(blocks):
        for name in attentions:
            sites += _projections(_module(block, name), number)
        sites += mlp_lora_sites(_module(block, "mlp"), ("lin1", "lin2"), number)
    last = _module(transformer, "final_attn_token_to_image")
    return sites + _projections(last, max(0, len(blocks) - 1))


def mlp_lora_sites(mlp: nn.Module, layers: tuple[str, str], block: int) -> list[LoraSite]:
    """Both linear layers of an MLP."""
    return [LoraSite(mlp, name, part="mlp", block=block) for name in layers]


def _projections(attention: nn.Module, block: int) -> list[LoraSite]:
    names: tuple[tuple[LoraPart, str], ...] = (
        ("q", "q_proj"),
        ("k", "k_proj"),
        ("v", "v_proj"),
        ("o", "out_proj"),
    )
    return [LoraSite(attention, name, part=part, block=block) for part, name in names]


def _module(parent: nn.Module, name: str) -> nn.Module:
    return parent.get_submodule(name)


def _children(parent: nn.Module, name: str) -> list[nn.Module]:
    return list(_module(parent, name).children())
