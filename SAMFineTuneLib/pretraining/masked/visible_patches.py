"""The masked autoencoder of Segment Anything's vision transformers (He et al. 2022).

Only visible patches pass the encoder's blocks. Windows and relative positions need the whole
square, so each block attends plainly to all visible patches, as such encoders were pre-trained
before windows were added; the tables of relative positions stay as they are. The decoder is the
original's, and is not kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import SamVitEncoder
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.pretraining.masked.autoencoder import MaskedAutoencoder

_DEPTH, _WIDTH, _HEADS = 8, 512, 16
_TOKEN_DEVIATION = 0.02


class VisiblePatchAutoencoder(MaskedAutoencoder):
    """Encodes the visible patches, and decodes them with tokens in place of the masked ones.

    Args:
        network: with a `SamVitEncoder`.
        depth: blocks of the decoder.
        width: of the decoder.
        heads: of its attention.
    """

    positions: Tensor

    def __init__(
        self, network: SamNetwork, depth: int = _DEPTH, width: int = _WIDTH, heads: int = _HEADS
    ) -> None:
        super().__init__()
        encoder = network.image_encoder
        assert isinstance(encoder, SamVitEncoder)
        self.network = network
        self.patch = int(encoder.patch_embed.proj.kernel_size[0])
        side = network.input_size // self.patch
        channels = int(encoder.pos_embed.shape[-1])
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.narrowed = nn.Linear(channels, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sine_positions(side, width)[None], persistent=False)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        self.pixels = nn.Linear(width, self.patch**2 * 3)
        _initialise(self)
        network.requires_grad_(False)
        for part in (encoder.patch_embed, encoder.blocks):
            part.requires_grad_(True)
        encoder.pos_embed.requires_grad_(True)
        for block in encoder.blocks:
            for table in ("rel_pos_h", "rel_pos_w"):
                if hasattr(block.attn, table):
                    getattr(block.attn, table).requires_grad_(False)

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        """Predicted patches (B, N, patch · patch · 3) from the visible ones."""
        # Visible patches first, each group in its order.
        order = masked.to(torch.uint8).argsort(dim=1, stable=True)
        visible = order[:, : int((~masked[0]).sum())]
        encoder: Any = self.network.image_encoder
        embedded = encoder.stages()[0].run(FeatureState(images)).x.flatten(1, 2)
        x = _chosen(embedded, visible)
        for block in encoder.blocks:
            x = _plain_block(block, x)
        x = self.narrowed(self.norm(x))
        hidden = self.mask_token.to(x.dtype).expand(len(x), masked.shape[1] - x.shape[1], -1)
        x = _chosen(torch.cat([x, hidden], dim=1), order.argsort(dim=1)) + self.positions
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.pixels(self.last_norm(x))
        return predicted


class DecoderBlock(nn.Module):
    """A block of a vision transformer (Dosovitskiy et al. 2020), with attention to all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        x = x + self.proj(_attention(self.qkv(self.norm1(x)), self.heads))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def sine_positions(side: int, width: int) -> Tensor:
    """Fixed positions (side · side, width): sine and cosine of rows and columns, at equal parts."""
    quarter = width // 4
    frequencies = 1.0 / 10_000 ** (torch.arange(quarter) / quarter)
    angles = torch.arange(side)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = line[None].expand(side, -1, -1)
    rows = line[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=2).reshape(side * side, width)


def _plain_block(block: Any, x: Tensor) -> Tensor:
    """An encoder's block on tokens (B, N, C), without windows and relative positions."""
    attention = block.attn
    attended = _attention(attention.qkv(block.norm1(x)), attention.num_heads)
    x = x + attention.proj(attended)
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def _attention(qkv: Tensor, heads: int) -> Tensor:
    """Attention of tokens (B, N, 3 · C), queries first, to each other: (B, N, C)."""
    split = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(*split.unbind(0))
    return attended.transpose(1, 2).flatten(2)


def _chosen(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (B, N, C) at places (B, M): (B, M, C)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def _initialise(added: VisiblePatchAutoencoder) -> None:
    """The original's initial weights, for what is added to the encoder."""
    nn.init.normal_(added.mask_token, std=_TOKEN_DEVIATION)
    parts = (added.narrowed, *added.blocks.modules(), added.pixels)
    for module in parts:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
