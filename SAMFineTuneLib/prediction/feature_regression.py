"""The appearance of a structure in one volume, by regression on features of its labelled slices.

An image encoder computes features for every position of a slice. A linear map from these to
"inside" and "outside" is fitted to labelled slices by ridge regression (Hoerl and Kennard 1970),
which takes the solution of one small system of equations and no training. It separates the
structure from its surroundings, so only positions in and around the structure are used.

Only sums of products are kept of each slice, because the regression needs nothing else. So memory
does not grow with the number of positions, and a slice can be left out by leaving out its sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.slices.square import SquareFit, mask_shares

# The regression works on a quarter of the square's side: finer features cost time and memory that a
# linear map gains nothing from.
_COARSER = 4
# Width of the surroundings that are used, as a share of the square's side.
_AROUND = 0.15
# Ridge penalty, for features of unit variance.
_RIDGE = 0.1
# The regression's targets are 1 inside and -1 outside; multiplied by this they are logits.
_SURE = 4.0


def feature_maps(state: FeatureState, size: int) -> Tensor:
    """All features of one slice, (C, s, s) float32 on the CPU, s = `size` / 4."""
    side = size // _COARSER
    return torch.cat([_at(side, each) for each in (state.x, *state.skips)]).cpu()


def _at(side: int, features: Tensor) -> Tensor:
    maps = functional.interpolate(features.float(), (side, side), mode="bilinear")[0]
    return maps / (maps.square().mean().sqrt() + 1e-6)


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """Sums over the positions of one or several slices, separately outside and inside a structure.

    Attributes:
        products: (2, C + 1, C + 1) products of features, and a constant 1, with one another.
        sides: (2, C + 1) products of these with the target, from -1 outside to 1 inside.
    """

    products: Tensor
    sides: Tensor

    @classmethod
    def of(cls, features: Tensor, mask: NDArray[np.bool_], fit: SquareFit) -> FeatureSums:
        """The sums over the positions in and around a mask.

        Args:
            features: (C, s, s) of the slice, from `feature_maps`.
            mask: (rows, columns), not empty.
            fit: of the slice on the square.
        """
        shares = mask_shares(mask, fit, features.shape[-1])[0, 0]
        # Where a structure is smaller than a pixel, the pixel that it fills most counts as inside.
        shares = shares / shares.max()
        distance = ndimage.distance_transform_edt((shares < 0.1).numpy())
        near = torch.from_numpy(distance <= max(4.0, _AROUND * len(shares)))
        extended = _with_constant(features[:, near].T.double())
        sides = (shares[near] * 2 - 1).double()
        halves = [extended[sides <= 0], extended[sides > 0]]
        given = [sides[sides <= 0], sides[sides > 0]]
        return cls(
            torch.stack([each.T @ each for each in halves]),
            torch.stack([each.T @ side for each, side in zip(halves, given, strict=True)]),
        )

    @classmethod
    def total(cls, several: Iterable[FeatureSums]) -> FeatureSums:
        """The sums over several slices, at least one."""
        sums = list(several)
        return cls(
            torch.stack([each.products for each in sums]).sum(0),
            torch.stack([each.sides for each in sums]).sum(0),
        )


@dataclass(frozen=True, eq=False)
class FeatureRegression:
    """Separates a structure from its surroundings on slices of the volume that it was fitted to.

    Attributes:
        weights: (C + 1,), for the features and a constant.
    """

    weights: Tensor

    @classmethod
    def fitted_to(cls, sums: FeatureSums) -> FeatureRegression:
        """The ridge regression, in which inside and outside have equal weight."""
        products, sides = sums.products, sums.sides
        scaling = _scaling(products.sum(0))
        shares = 0.5 / products[:, -1, -1].clamp(min=1)
        normal = scaling @ (products * shares[:, None, None]).sum(0) @ scaling.T
        penalty = torch.full((len(normal),), _RIDGE, dtype=normal.dtype)
        # The constant has no penalty.
        penalty[-1] = 0
        answer = scaling @ (sides * shares[:, None]).sum(0)
        return cls(scaling.T @ torch.linalg.solve(normal + torch.diag(penalty), answer))

    def logits(self, features: Tensor, fit: SquareFit) -> NDArray[np.float32]:
        """(rows, columns), above 0 where a slice with these features looks like the structure."""
        weights = self.weights.float()
        scores = torch.einsum("c,chw->hw", weights[:-1], features) + weights[-1]
        on_square = (_SURE * scores)[None, None]
        found: NDArray[np.float32] = fit.logits_to_slice(on_square)[0, 0].numpy()
        return found


def _with_constant(features: Tensor) -> Tensor:
    """Adds a constant 1 to features: (N, C) to (N, C + 1)."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _scaling(products: Tensor) -> Tensor:
    """The matrix (C + 1, C + 1) that scales features to mean 0 and unit variance."""
    count = products[-1, -1]
    mean = products[-1, :-1] / count
    variance = products.diagonal()[:-1] / count - mean.square()
    deviation = variance.clamp(min=0).sqrt() + 1e-6
    scaling = torch.diag(torch.cat([1 / deviation, deviation.new_ones(1)]))
    scaling[:-1, -1] = -mean / deviation
    return scaling
