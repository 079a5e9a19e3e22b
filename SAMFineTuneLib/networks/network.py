"""A segmentation network in the shape of the Segment Anything Model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from SAMFineTuneLib.networks.staged_encoder import StagedEncoder

if TYPE_CHECKING:
    from SAMFineTuneLib.networks.spec import BackboneSpec

EMBEDDING_CHANNELS = 256


class SamNetwork(nn.Module):
    """Image encoder, prompt encoder and mask decoder under the names of the official checkpoints.

    The keys of this module's `state_dict` are the keys of the backbone's checkpoint, until an
    adaptation inserts modules or a head takes the mask decoder's place.

    Args:
        spec: the backbone's description; see `BackboneSpec`.
        input_size: side S of the square images in pixels.
        image_encoder: (B, 3, S, S) to an embedding (B, C, S/p, S/p) and skips, where p is the
            spec's patch size; C is 256 in Segment Anything.
        prompt_encoder: Segment Anything's prompt encoder, built for the same S.
        mask_decoder: Segment Anything's mask decoder, or the head that replaces it.
        context_decoder: the backbone's second decoder, for the automatic task; None if there is one
            decoder for both tasks, as in Segment Anything.
    """

    image_encoder: StagedEncoder
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    context_decoder: nn.Module | None

    def __init__(
        self,
        spec: BackboneSpec,
        input_size: int,
        image_encoder: StagedEncoder,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        context_decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.input_size = input_size
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.context_decoder = context_decoder

    @property
    def embedding_size(self) -> int:
        """Side of the embedding."""
        return self.input_size // self.spec.patch_size

    @property
    def mask_size(self) -> int:
        """Side of the masks that the decoders give and take."""
        return self.input_size // self.spec.mask_stride
