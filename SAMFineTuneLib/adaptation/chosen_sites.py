"""The sites of a network that an adaptation uses, of all that encoder and decoder name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from SAMFineTuneLib.adaptation.places import DECODER_BLOCKS, ENCODER_BLOCKS, Blocks, Places
from SAMFineTuneLib.adaptation.places import chosen_blocks as numbers_of
from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.adaptation_sites import (
    Adaptable,
    AdapterSite,
    LoraSite,
    two_way_adapter_sites,
    two_way_lora_sites,
)
from SAMFineTuneLib.networks.network import SamNetwork

_Site = TypeVar("_Site", AdapterSite, LoraSite)


def chosen_adapter_sites(network: SamNetwork, scope: str, places: Places) -> list[AdapterSite]:
    """The sites of adapters in the mask decoder and, in the larger scope, in the image encoder.

    Raises:
        InputError: a block that the network does not have.
    """
    decoder = network.mask_decoder
    if isinstance(decoder, Adaptable):
        sites = decoder.adapter_sites()
    else:
        sites = two_way_adapter_sites(decoder.get_submodule("transformer"))
    sites = _in_blocks(sites, places.decoder_adapters, "the mask decoder", DECODER_BLOCKS)
    if scope != "encoder_decoder":
        return sites
    blocks = places.adapter_blocks
    if blocks == "auto":
        blocks = network.spec.usual_adapter_blocks
    return sites + _in_blocks(_encoder(network).adapter_sites(), blocks, _named(network))


def chosen_lora_sites(network: SamNetwork, scope: str, places: Places) -> list[LoraSite]:
    """The layers that get low-rank updates, likewise; in the mask decoder those of every block.

    Raises:
        InputError: a block that the network does not have.
    """
    decoder = network.mask_decoder
    if isinstance(decoder, Adaptable):
        sites = decoder.lora_sites()
    else:
        sites = two_way_lora_sites(decoder.get_submodule("transformer"))
    if scope == "encoder_decoder":
        own = _encoder(network).lora_sites()
        sites = sites + _in_blocks(own, places.lora_blocks, _named(network))
    return [site for site in sites if _is_of(site, places.lora_parts)]


def _is_of(site: LoraSite, parts: Sequence[str]) -> bool:
    if site.part == "qkv":
        return any(part in parts for part in ("q", "k", "v"))
    # A network without attention has convolutions, which all belong to the update.
    return site.part == "convolution" or site.part in parts


def _in_blocks(
    sites: list[_Site], blocks: Blocks, where: str, words: Sequence[str] = ENCODER_BLOCKS
) -> list[_Site]:
    there = max((site.block for site in sites), default=-1) + 1
    try:
        chosen = numbers_of(blocks, there)
    except ValueError:
        assert not isinstance(blocks, str), blocks
        absent = next(number for number in sorted(blocks) if not 0 <= number < there)
        numbered = f", 0 to {there - 1}" if there else ""
        raise InputError(
            f"{where} has {counted(there, 'block')}{numbered}, and no block {absent}",
            f"Choose blocks that it has, or {' or '.join(words)}",
            code="no_such_block",
        ) from None
    return [site for site in sites if site.block in chosen]


def _named(network: SamNetwork) -> str:
    return f"the image encoder of {network.spec.name}"


def _encoder(network: SamNetwork) -> Adaptable:
    encoder = network.image_encoder
    if not isinstance(encoder, Adaptable):
        raise TypeError(f"{type(encoder).__name__} names no sites for an adaptation")
    return encoder
