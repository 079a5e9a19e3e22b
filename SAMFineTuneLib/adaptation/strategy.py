"""Adapts a network by a method and a scope, which say what is inserted and which parameters train.

The study of fine-tuning strategies (MELBA 2025:006) compares the first three methods in two scopes,
and names the other two as the cheapest ones.
"""

from __future__ import annotations

from torch import nn

from SAMFineTuneLib.adaptation.adapter import Adapter, insert_adapters
from SAMFineTuneLib.adaptation.chosen_sites import chosen_adapter_sites, chosen_lora_sites
from SAMFineTuneLib.adaptation.lora import LoraConv2d, LowRank, insert_lora
from SAMFineTuneLib.adaptation.method import METHODS, SCOPES
from SAMFineTuneLib.adaptation.method import Method as Method
from SAMFineTuneLib.adaptation.method import Scope as Scope
from SAMFineTuneLib.adaptation.places import USUAL_PLACES, Places
from SAMFineTuneLib.adaptation.selected_parameters import train_selected
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.adaptation_sites import (
    KeepsFrozen,
)
from SAMFineTuneLib.networks.network import SamNetwork

DEFAULT_RANK = 4


def adapt(
    network: SamNetwork,
    method: Method,
    scope: Scope,
    rank: int = DEFAULT_RANK,
    places: Places = USUAL_PLACES,
) -> None:
    """Changes a network in place; afterwards only the parameters that train require gradients.

    To be called after the weights are loaded and the head has replaced the mask decoder. At first
    the adapted network computes what it computed before.

    * vanilla: the whole mask decoder trains, and in the larger scope the whole image encoder.
    * adapter: adapters after attentions and beside MLPs, in the blocks that `places` names.
    * lora: low-rank updates of the layers that `places` names, usually query and value.
    * norm: the parameters of normalisation layers.
    * bias: the biases of all layers.

    With all but vanilla the mask decoder's parts outside its transformer (class tokens, output
    layers) train too, so that a head without a transformer trains as a whole. The prompt encoder
    never trains, nor do the parts that a head keeps frozen.

    Args:
        network: the network; its image encoder names its sites. Its mask decoder names them too, or
            has a `transformer` like Segment Anything's.
        method: how the network is changed; see above.
        scope: "decoder" leaves the image encoder as it is.
        rank: rank of the low-rank updates; the other methods ignore it.
        places: where adapters and updates go; methods that insert neither ignore it.

    Raises:
        InputError: the method or the scope is unknown, the rank is below 1, or the network has no
            such block.
        ValueError: the network is adapted already.
    """
    _check(method, scope, rank)
    _set_up(network, method, scope, rank, places)
    if isinstance(network.mask_decoder, KeepsFrozen):
        for part in network.mask_decoder.frozen_modules():
            part.requires_grad_(False)


def _set_up(network: SamNetwork, method: Method, scope: Scope, rank: int, places: Places) -> None:
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
        insert_adapters(chosen_adapter_sites(network, scope, places))
    elif method == "lora":
        sites = chosen_lora_sites(network, scope, places)
        insert_lora(sites, rank, places.lora_parts, places.lora_scale)
    else:
        train_selected(network, method, scope)


def adapt_for_prompts(
    network: SamNetwork,
    method: Method,
    scope: Scope,
    rank: int = DEFAULT_RANK,
    places: Places = USUAL_PLACES,
    prompt_encoder_fixed: bool = False,
) -> None:
    """As `adapt`, for a network that finds masks from prompts with its own decoder.

    With vanilla the prompt encoder trains too, unless `prompt_encoder_fixed` says otherwise, as in
    the published study; with the other methods it stays frozen. A decoder for the automatic task,
    if the backbone has one, is removed: the network is for prompts alone.
    """
    network.context_decoder = None
    adapt(network, method, scope, rank, places)
    if method == "vanilla" and not prompt_encoder_fixed:
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
