"""A mask of a slice that is not accepted yet, and what it would change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ProposedMask:
    """A mask, beside what the segment held when it was begun to look for it.

    The user may have painted since; what the mask does not change is not its business.

    Attributes:
        mask: bool (rows, columns).
        base: what the segment held, as `packed`.
    """

    mask: np.ndarray
    base: np.ndarray

    @property
    def changed(self) -> np.ndarray:
        """Where the mask is another than what the segment held: bool (rows, columns)."""
        held = np.unpackbits(self.base, count=self.mask.size).reshape(self.mask.shape)
        return self.mask != held


def packed(mask: np.ndarray) -> np.ndarray:
    """A mask, eight voxels a byte, for those of many slices are kept."""
    return np.packbits(mask)
