"""The project's own small network in the shape of Segment Anything, made for CPUs.

A convolution encoder, Segment Anything's prompt encoder, and two decoders around its two-way
transformer at half the width: one for prompts, one for the automatic task. They share the encoder
and nothing else, since one set of weights for both tasks is worse at each (Gu et al., MELBA
2025:006). Nothing in it depends on the image's size, so one network serves all sizes.
"""

from __future__ import annotations

from typing import Any

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import build_prompt_encoder
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.starter.context_decoder import ContextMaskDecoder
from SAMFineTuneLib.networks.starter.encoder import EMBEDDING_CHANNELS, StarterEncoder
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder


def build_starter(input_size: int) -> SamNetwork:
    """The starter network with random weights for square images of `input_size` pixels."""
    spec = BACKBONES["starter"]
    return SamNetwork(
        spec,
        input_size,
        StarterEncoder(),
        build_prompt_encoder(spec, input_size, EMBEDDING_CHANNELS),
        StarterMaskDecoder(),
        ContextMaskDecoder(),
    )


def set_input_size(network: SamNetwork, input_size: int) -> None:
    """Makes a starter network take square images of another size; its weights do not change."""
    side = input_size // network.spec.patch_size
    prompt_encoder: Any = network.prompt_encoder
    prompt_encoder.image_embedding_size = (side, side)
    prompt_encoder.input_image_size = (input_size, input_size)
    prompt_encoder.mask_input_size = (4 * side, 4 * side)
    network.input_size = input_size


def renew_context_decoder(network: SamNetwork) -> None:
    """Replaces a starter network's automatic decoder by one with random weights.

    Networks without such a decoder are left as they are. A fine-tune begins in this way, and takes
    the layers that draw outlines from the decoder for prompts. The pretrained automatic decoder has
    learnt to rely on a class looking in all images as it does in the labelled ones. This keeps it
    from learning what distinguishes the user's structure: a fine-tune that begins with it does
    worse on unseen volumes (figures in starter.md).
    """
    if network.context_decoder is not None:
        device = next(network.parameters()).device
        network.context_decoder = ContextMaskDecoder().to(device)
