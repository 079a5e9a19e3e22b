"""The masked autoencoder of encoders with convolutions: mask tokens stand in place.

Convolutions need the whole square, so masked patches stay in it (as in SimMIM, Xie et al. 2022):
their pixels are set to 0, and a learnt token takes their place in the first feature map. A light
decoder predicts pixels from the embedding, and is not kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.pretraining.masked.autoencoder import MaskedAutoencoder
from SAMFineTuneLib.pretraining.masked.patches import patches_of

_WIDTH = 256
_TOKEN_DEVIATION = 0.02


class InPlaceAutoencoder(MaskedAutoencoder):
    """Encodes the square with mask tokens, and decodes its embedding.

    Args:
        network: whose encoder's first stage gives a map (B, C, h, w).
        patch: side of a patch in pixels; a multiple of the first feature map's stride.
        width: of the decoder.
    """

    def __init__(self, network: SamNetwork, patch: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.network = network
        self.patch = patch
        encoder = network.image_encoder
        with torch.no_grad():
            device = next(encoder.parameters()).device
            blank = torch.zeros(1, 3, network.input_size, network.input_size, device=device)
            first = encoder.run(FeatureState(blank), 0, 1).x
            embedding = encoder.run(FeatureState(first), 1, len(encoder.stages())).x
        self.mask_token = nn.Parameter(torch.zeros(1, first.shape[1], 1, 1, device=device))
        nn.init.normal_(self.mask_token, std=_TOKEN_DEVIATION)
        self._stride = network.input_size // int(embedding.shape[-1])
        self.decoder = nn.Sequential(
            nn.Conv2d(embedding.shape[1], width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 3 * self._stride**2, 1),
            nn.PixelShuffle(self._stride),
        ).to(device)
        network.requires_grad_(False)
        for stage in encoder.stages():
            for parameter in stage.parameters():
                parameter.requires_grad_(True)

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        """Predicted patches (B, N, patch · patch · 3) from the square with mask tokens."""
        count = images.shape[-1] // self.patch
        hidden = masked.reshape(-1, 1, count, count).to(images.dtype)
        # The first convolutions reach over the edges of a patch, so masked pixels are hidden from
        # them as well.
        visible = images * (1 - functional.interpolate(hidden, images.shape[-2:]))
        encoder = self.network.image_encoder
        state = encoder.run(FeatureState(visible), 0, 1)
        here = functional.interpolate(hidden, state.x.shape[-2:]).to(state.x.dtype)
        x = state.x * (1 - here) + self.mask_token.to(state.x.dtype) * here
        embedding = encoder.run(FeatureState(x, state.skips), 1, len(encoder.stages())).x
        return patches_of(self.decoder(embedding), self.patch)
