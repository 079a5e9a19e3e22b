"""The project's own small network in the shape of Segment Anything, made for CPUs.

A convolution encoder, Segment Anything's prompt encoder, and two decoders around its two-way
transformer at half the width: one for prompts, one for the automatic task. They share the encoder
and nothing else, since one set of weights for both tasks is worse at each (Gu et al., MELBA
2025:006). Nothing in it depends on the image's size, so one network serves all of them.
"""

from __future__ import annotations

from typing import Any

from SAMFineTuneLib.networks.definitions import segment_anything_modeling
from SAMFineTuneLib.networks.network import PATCH_SIZE, SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.starter.context_decoder import ContextMaskDecoder
from SAMFineTuneLib.networks.starter.encoder import EMBEDDING_CHANNELS, StarterEncoder
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder


def build_starter(input_size: int) -> SamNetwork:
    """The starter network with random weights for square images of `input_size` pixels."""
    side = input_size // PATCH_SIZE
    prompt_encoder = segment_anything_modeling().PromptEncoder(
        embed_dim=EMBEDDING_CHANNELS,
        image_embedding_size=(side, side),
        input_image_size=(input_size, input_size),
        mask_in_chans=16,
    )
    return SamNetwork(
        BACKBONES["starter"],
        input_size,
        StarterEncoder(),
        prompt_encoder,
        StarterMaskDecoder(),
        ContextMaskDecoder(),
    )


def set_input_size(network: SamNetwork, input_size: int) -> None:
    """Makes a starter network take square images of another size, its weights as they are."""
    side = input_size // PATCH_SIZE
    prompt_encoder: Any = network.prompt_encoder
    prompt_encoder.image_embedding_size = (side, side)
    prompt_encoder.input_image_size = (input_size, input_size)
    prompt_encoder.mask_input_size = (4 * side, 4 * side)
    network.input_size = input_size


def renew_context_decoder(network: SamNetwork) -> None:
    """Gives a starter network an automatic decoder that has learnt nothing; others stay.

    A fine-tune begins so, and takes outlines from the decoder for prompts. What the pretrained
    automatic decoder has learnt, to trust that a class looks in all images as it does in the
    labelled ones, keeps it from learning what tells the user's structure apart: a fine-tune that
    begins with it does worse on unseen volumes (figures in starter.md).
    """
    if network.context_decoder is not None:
        device = next(network.parameters()).device
        network.context_decoder = ContextMaskDecoder().to(device)
