"""A masked autoencoder: an image encoder with what is added to it for the pre-training."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import SamVitEncoder

# Side of the squares that are masked in images that a convolution sees as a whole, as long as an
# image has no more of them than the original's 14 x 14 by far; a larger image has larger ones.
_SQUARE = 16
_LARGEST_WITH_IT = 512


class MaskedAutoencoder(nn.Module, ABC):
    """Predicts the normalised pixels of all patches from the visible ones.

    The parameters of the encoder that it uses train, as do its own; all others of the network do
    not.

    Attributes:
        network: whose encoder is trained; its state dict is that of the backbone's checkpoint.
        patch: side of a patch in pixels.
    """

    network: SamNetwork
    patch: int

    @abstractmethod
    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        """Predicted patches (B, N, patch · patch · 3).

        Args:
            images: normalised, (B, 3, S, S).
            masked: (B, N) bool, equally many in each image.
        """

    @property
    def patches(self) -> int:
        """N, the number of patches of an image."""
        return int(self.network.input_size // self.patch) ** 2


def build_autoencoder(network: SamNetwork) -> MaskedAutoencoder:
    """The autoencoder for a network: by visible patches alone, or with mask tokens in place."""
    # These import this module.
    from SAMFineTuneLib.pretraining.masked.in_place import InPlaceAutoencoder
    from SAMFineTuneLib.pretraining.masked.visible_patches import VisiblePatchAutoencoder

    if isinstance(network.image_encoder, SamVitEncoder):
        return VisiblePatchAutoencoder(network)
    return InPlaceAutoencoder(network, square_side(network.input_size))


def square_side(input_size: int) -> int:
    """Side of the squares that are masked where mask tokens are in place."""
    doubled = input_size > _LARGEST_WITH_IT and input_size % (2 * _SQUARE) == 0
    return 2 * _SQUARE if doubled else _SQUARE
