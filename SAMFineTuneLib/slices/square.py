"""Mapping a slice to the model's square and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SquareFit:
    """How a slice of rows × columns lies on the model's square of `size` pixels.

    The longer physical side fills the square; the slice keeps its physical proportions (a pixel of
    1 × 6.5 mm becomes 6.5 times as tall as wide), begins at the square's first row and column, and
    background fills the rest, as in Segment Anything. Pixel centres are at half-integers, so the
    square's pixel x shows the slice's coordinate x / columns_scale.

    Args:
        rows: slice height in pixels.
        columns: slice width in pixels.
        spacing: mm between rows and between columns.
        size: side of the square in pixels.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    size: int

    @property
    def rows_on_square(self) -> int:
        """Rows of the square that the slice covers."""
        return self._extent(self.rows * self.spacing[0])

    @property
    def columns_on_square(self) -> int:
        """Columns of the square that the slice covers."""
        return self._extent(self.columns * self.spacing[1])

    def _extent(self, millimetres: float) -> int:
        longest = max(self.rows * self.spacing[0], self.columns * self.spacing[1])
        return max(1, round(self.size * millimetres / longest))

    def sampling_grid(self, displaced: Tensor | None = None) -> Tensor:
        """The position in the slice that each pixel of the square samples, for `grid_sample`.

        Args:
            displaced: (S, S, 2) positions (x, y) on the square, in units of its side from -1 to 1,
                to sample instead of the regular ones (augmentation).

        Returns:
            (S, S, 2) in grid_sample's units, -1 … 1 from edge to edge of the slice.
        """
        positions = square_positions(self.size) if displaced is None else displaced
        scale = torch.tensor([self.size / self.columns_on_square, self.size / self.rows_on_square])
        return (positions + 1) * scale - 1

    def image_to_square(self, image: Tensor, displaced: Tensor | None = None) -> Tensor:
        """Image (rows, columns) to (S, S), bilinear; outside the slice its lowest value.

        An image with channels, (channels, rows, columns), becomes (channels, S, S), each channel
        with its own lowest value.
        """
        return self._sample(image, displaced, "bilinear", image.amin((-2, -1), keepdim=True))

    def mask_to_square(self, mask: Tensor, displaced: Tensor | None = None) -> Tensor:
        """Integer mask (rows, columns) to (S, S), nearest neighbour; outside the slice 0.

        With no displacement and a square at least as fine as the slice, `mask_to_slice` gives
        the mask back exactly.
        """
        background = torch.zeros(1)
        return self._sample(mask.float(), displaced, "nearest", background).round().to(mask.dtype)

    def _sample(
        self, pixels: Tensor, displaced: Tensor | None, mode: str, outside: Tensor
    ) -> Tensor:
        grid = self.sampling_grid(displaced)
        # grid_sample pads with zeros, so the value outside has to be zero while sampling.
        shifted = (pixels - outside).float().reshape(1, -1, *pixels.shape[-2:])
        sampled = F.grid_sample(shifted, grid[None], mode=mode, align_corners=False)
        return sampled.reshape(*pixels.shape[:-2], *sampled.shape[-2:]) + outside

    def logits_to_slice(self, logits: Tensor) -> Tensor:
        """Logits (B, C, h, w) of the whole square to (B, C, rows, columns), bilinear.

        The mask decoder's h and w are below S; sampling goes straight from them to the slice.
        """
        share_of_rows = self.rows_on_square / self.size
        share_of_columns = self.columns_on_square / self.size
        y = (torch.arange(self.rows, device=logits.device) + 0.5) / self.rows * 2 * share_of_rows
        x = (
            (torch.arange(self.columns, device=logits.device) + 0.5)
            / self.columns
            * 2
            * share_of_columns
        )
        grid = torch.stack(torch.meshgrid(x - 1, y - 1, indexing="xy"), dim=-1)
        grid = grid.to(logits.dtype).expand(len(logits), -1, -1, -1)
        return F.grid_sample(
            logits, grid, mode="bilinear", padding_mode="border", align_corners=False
        )

    def mask_to_slice(self, mask: Tensor) -> Tensor:
        """Integer mask on the square (S, S) to (rows, columns), nearest neighbour."""
        y = _nearest_index(self.rows, self.rows_on_square)
        x = _nearest_index(self.columns, self.columns_on_square)
        return mask[y][:, x]


def mask_shares(mask: NDArray[np.bool_], fit: SquareFit, side: int) -> Tensor:
    """Share of each pixel (1, 1, side, side) of a coarser square that a mask (rows, columns) fills.

    Args:
        mask: on the slice.
        fit: how the slice lies on the square.
        side: of the coarser square, such as that of the mask decoder; it divides that of the fit.
    """
    square = fit.mask_to_square(torch.from_numpy(np.ascontiguousarray(mask)).int()).float()
    return F.avg_pool2d(square[None, None], fit.size // side)


def square_positions(size: int) -> Tensor:
    """Pixel centres (S, S, 2) of the square as (x, y), -1 … 1 from edge to edge."""
    centres = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)


def _nearest_index(pixels: int, pixels_on_square: int) -> Tensor:
    centres = (torch.arange(pixels) + 0.5) * pixels_on_square / pixels
    return centres.floor().long().clamp_(0, pixels_on_square - 1)
