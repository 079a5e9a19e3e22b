"""A backbone with a head for the automatic task: from images to class logits, without prompts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from SAMFineTuneLib.heads.build import put_head
from SAMFineTuneLib.heads.head import ClassMasks
from SAMFineTuneLib.heads.names import DEFAULT_HEAD, HeadName
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext


class AutomaticSegmenter(nn.Module):
    """A backbone with a head for the classes of one task.

    Args:
        network: the backbone; its mask decoder is replaced, in place.
        structures: number of classes without background.
        context: description of the classes from labelled slices, for a head that begins with one.
        head: name of the head; see `heads.names`.
        depth: of a head that has one; None for the usual one.
    """

    def __init__(
        self,
        network: SamNetwork,
        structures: int,
        context: ClassContext | None = None,
        head: HeadName = DEFAULT_HEAD,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        put_head(network, head, structures, context, depth)
        self.network = network
        # The automatic task has no prompts from which their encoder could learn.
        network.prompt_encoder.requires_grad_(False)

    def masks(self, features: FeatureState) -> ClassMasks:
        """All that the head finds in the encoder's output."""
        prompts: Any = self.network.prompt_encoder
        dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return ClassMasks(*self.network.mask_decoder(features, prompts.get_dense_pe(), dense))

    def decode(self, features: FeatureState) -> tuple[Tensor, Tensor | None]:
        """Class logits (B, classes, s, s) and IoU predictions, if any, likewise.

        The masks' side s is `network.mask_size`.
        """
        found = self.masks(features)
        return found.logits, found.iou_predictions

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class logits and IoU predictions from normalised images (B, 3, S, S)."""
        return self.decode(self.network.image_encoder(images))
