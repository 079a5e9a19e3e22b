"""A backbone with a head for the automatic task: from images to class logits, without prompts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from SAMFineTuneLib.heads.class_mask_decoder import ClassMaskDecoder
from SAMFineTuneLib.heads.context_class_decoder import ContextClassDecoder
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder


class AutomaticSegmenter(nn.Module):
    """A backbone with a decoder for the classes of one task.

    Args:
        network: the backbone; its mask decoder is replaced, in place.
        structures: number of classes without background.
        context: description of the classes from labelled slices, for a backbone whose decoder uses
            one.
    """

    def __init__(
        self, network: SamNetwork, structures: int, context: ClassContext | None = None
    ) -> None:
        super().__init__()
        decoder, own = network.mask_decoder, network.context_decoder
        if isinstance(own, ContextMaskDecoder) and isinstance(decoder, StarterMaskDecoder):
            network.mask_decoder = ContextClassDecoder(own, decoder, structures, context)
            network.context_decoder = None
        else:
            network.mask_decoder = ClassMaskDecoder(decoder, structures)
        self.network = network
        # The automatic task has no prompts from which their encoder could learn.
        network.prompt_encoder.requires_grad_(False)

    def decode(self, features: FeatureState) -> tuple[Tensor, Tensor]:
        """Class logits (B, classes, s, s) and IoU predictions from the encoder's output.

        The masks' side s is `network.mask_size`.
        """
        prompts: Any = self.network.prompt_encoder
        dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        logits, iou_predictions = self.network.mask_decoder(features, prompts.get_dense_pe(), dense)
        return logits, iou_predictions

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and IoU predictions from normalised images (B, 3, S, S)."""
        return self.decode(self.network.image_encoder(images))
