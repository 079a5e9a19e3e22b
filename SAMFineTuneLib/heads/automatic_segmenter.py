"""A backbone for the automatic task: images in, class logits out, no prompts."""

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
        structures: number of classes beside background.
        context: what labelled slices say of the classes, for a backbone whose decoder takes it.
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
        # Prompts are for correction; the automatic task leaves their encoder as it was.
        network.prompt_encoder.requires_grad_(False)

    def decode(self, features: FeatureState) -> tuple[Tensor, Tensor]:
        """Encoder output to class logits (B, classes, S/4, S/4) and IoU predictions."""
        prompts: Any = self.network.prompt_encoder
        dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        logits, iou_predictions = self.network.mask_decoder(features, prompts.get_dense_pe(), dense)
        return logits, iou_predictions

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, S, S) to class logits and IoU predictions."""
        return self.decode(self.network.image_encoder(images))
