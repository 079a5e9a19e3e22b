"""Adapts a network by a method and a scope, which say what is inserted and which parameters train.

The study of fine-tuning strategies (MELBA 2025:006) compares the three methods in two scopes.
"""

from __future__ import annotations

from torch import nn

from SAMFineTuneLib.adaptation.adapter import Adapter, insert_adapters
from SAMFineTuneLib.adaptation.lora import LoraConv2d, LowRank, insert_lora
from SAMFineTuneLib.adaptation.method import METHODS, SCOPES
from SAMFineTuneLib.adaptation.method import Method as Method
from SAMFineTuneLib.adaptation.method import Scope as Scope
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.adaptation_sites import (
    Adaptable,
    AdapterSite,
    KeepsFrozen,
    LoraSite,
    two_way_adapter_sites,
    two_way_lora_sites,
)
from SAMFineTuneLib.networks.network import SamNetwork

DEFAULT_RANK = 4


def adapt(network: SamNetwork, method: Method, scope: Scope, rank: int = DEFAULT_RANK) -> None:
    """Changes a network in place; afterwards only the parameters that train require gradients.

    To be called after the weights are loaded and the head has replaced the mask decoder. At first
    the adapted network computes what it computed before.

    * vanilla: the whole mask decoder trains, and in the larger scope the whole image encoder.
    * adapter: adapters after attentions and beside MLPs.
    * lora: low-rank updates of every attention's query and value.

    With adapter and lora the mask decoder's parts outside its transformer (class tokens, output
    layers) train too, so that a head without a transformer trains as a whole. The prompt encoder
    never trains, nor do the parts that a head keeps frozen.

    Args:
        network: the network; its image encoder names its sites. Its mask decoder names them too, or
            has a `transformer` like Segment Anything's.
        method: how the network is changed; see above.
        scope: "decoder" leaves the image encoder as it is.
        rank: rank of the low-rank updates; the other methods ignore it.

    Raises:
        InputError: the method or the scope is unknown, or the rank is below 1.
        ValueError: the network is adapted already.
    """
    _check(method, scope, rank)
    _set_up(network, method, scope, rank)
    if isinstance(network.mask_decoder, KeepsFrozen):
        for part in network.mask_decoder.frozen_modules():
            part.requires_grad_(False)


def _set_up(network: SamNetwork, method: Method, scope: Scope, rank: int) -> None:
    if any(isinstance(module, Adapter | LowRank | LoraConv2d) for module in network.modules()):
        raise ValueError("the network is adapted already")
    network.requires_grad_(False)
    if method == "vanilla":
        network.mask_decoder.requires_grad_(True)
        if scope == "encoder_decoder":
            _train_stages(network)
        return
    _train_output_parts(network.mask_decoder)
    if method == "adapter":
        insert_adapters(_adapter_sites(network, scope))
    else:
        insert_lora(_lora_sites(network, scope), rank)


def adapt_for_prompts(
    network: SamNetwork, method: Method, scope: Scope, rank: int = DEFAULT_RANK
) -> None:
    """As `adapt`, for a network that finds masks from prompts with its own decoder.

    With vanilla the prompt encoder trains too; with adapter and lora it stays frozen. A decoder for
    the automatic task, if the backbone has one, is removed: the network is for prompts alone.
    """
    network.context_decoder = None
    adapt(network, method, scope, rank)
    if method == "vanilla":
        network.prompt_encoder.requires_grad_(True)


def _check(method: str, scope: str, rank: int) -> None:
    for what, value, allowed in (("method", method, METHODS), ("scope", scope, SCOPES)):
        if value not in allowed:
            raise InputError(
                f"unknown {what} {value!r}",
                f"Choose one of {', '.join(allowed)}",
                "unknown_strategy",
            )
    if rank < 1:
        raise InputError(f"rank {rank} is below 1", "Choose a rank of 1 or more", "bad_rank")


def _train_stages(network: SamNetwork) -> None:
    """Trains only parameters that the stages use: an unused classification head stays frozen."""
    for stage in network.image_encoder.stages():
        for parameter in stage.parameters():
            parameter.requires_grad_(True)


def _train_output_parts(mask_decoder: nn.Module) -> None:
    for name, parameter in mask_decoder.named_parameters():
        parameter.requires_grad_(not name.startswith("transformer."))


def _adapter_sites(network: SamNetwork, scope: str) -> list[AdapterSite]:
    decoder = network.mask_decoder
    if isinstance(decoder, Adaptable):
        sites = decoder.adapter_sites()
    else:
        sites = two_way_adapter_sites(decoder.get_submodule("transformer"))
    return sites + (_encoder(network).adapter_sites() if scope == "encoder_decoder" else [])


def _lora_sites(network: SamNetwork, scope: str) -> list[LoraSite]:
    decoder = network.mask_decoder
    if isinstance(decoder, Adaptable):
        sites = decoder.lora_sites()
    else:
        sites = two_way_lora_sites(decoder.get_submodule("transformer"))
    return sites + (_encoder(network).lora_sites() if scope == "encoder_decoder" else [])


def _encoder(network: SamNetwork) -> Adaptable:
    encoder = network.image_encoder
    if not isinstance(encoder, Adaptable):
        raise TypeError(f"{type(encoder).__name__} names no sites for an adaptation")
    return encoder
