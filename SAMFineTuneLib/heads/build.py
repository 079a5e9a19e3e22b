"""The head of an automatic segmenter, by its name."""

from __future__ import annotations

import torch
from torch import nn

from SAMFineTuneLib.heads.class_mask_decoder import ClassMaskDecoder
from SAMFineTuneLib.heads.context_class_decoder import ContextClassDecoder
from SAMFineTuneLib.heads.convnet_head import ConvNetHead
from SAMFineTuneLib.heads.linear_head import LinearHead
from SAMFineTuneLib.heads.multimask_decoder import MultimaskDecoder
from SAMFineTuneLib.heads.names import HEADS, HeadName, settled_depth
from SAMFineTuneLib.heads.prompt_network import PromptNetwork
from SAMFineTuneLib.heads.vit_head import VitHead
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder


def put_head(
    network: SamNetwork,
    name: HeadName,
    structures: int,
    context: ClassContext | None = None,
    depth: int | None = None,
) -> None:
    """Puts a head in place of a network's mask decoder, whose parts it takes over.

    Args:
        network: the backbone, changed in place; a second decoder for the automatic task is removed.
        name: a key of `HEADS`.
        structures: number of classes without background.
        context: description of the classes from labelled slices, for a head that begins with one.
        depth: of a head that has one; None for the usual one.
    """
    network.mask_decoder = _head(network, name, structures, context, depth)
    network.context_decoder = None
    if HEADS[name].takes_image:
        network.image_encoder.image_side = network.input_size // 2


def _head(
    network: SamNetwork,
    name: HeadName,
    structures: int,
    context: ClassContext | None,
    depth: int | None,
) -> nn.Module:
    decoder, own = network.mask_decoder, network.context_decoder
    if name == "mask_decoder":
        if isinstance(own, ContextMaskDecoder) and isinstance(decoder, StarterMaskDecoder):
            return ContextClassDecoder(own, decoder, structures, context)
        return ClassMaskDecoder(decoder, structures)
    if name == "multimask":
        return MultimaskDecoder(decoder, structures)
    if name == "vit":
        return VitHead(decoder, structures)
    if name == "linear":
        return LinearHead(decoder, structures)
    if name == "prompt_network":
        return PromptNetwork(network, structures)
    no_mask = network.prompt_encoder.get_parameter("no_mask_embed.weight")
    settled = settled_depth(name, depth)
    assert settled is not None
    with torch.device(no_mask.device):
        return ConvNetHead(
            no_mask.shape[1], network.image_encoder.skip_channels, structures, settled
        )
