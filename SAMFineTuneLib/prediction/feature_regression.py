"""How a structure looks in one volume, learnt from its labelled slices in a moment.

Each place of a slice has the features that an image encoder made of it. A linear map from these to
"inside" and "outside" is fitted to labelled slices by ridge regression (Hoerl and Kennard 1970),
which is one small system of equations: no training. What it is asked to tell apart is the
structure from its surroundings, so it looks no farther.

Of each slice only sums of products are kept, which is all that the regression needs: memory does
not grow with the places that were looked at, and a slice is left out by leaving out its sums.
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

# How far around the structure it looks, as a share of the square's side.
_AROUND = 0.15
# Of the ridge, beside features of unit variance.
_RIDGE = 0.1
# "Inside" and "outside" are 1 and -1 to the map; as a logit they are this.
_SURE = 4.0


def feature_maps(state: FeatureState, size: int) -> Tensor:
    """All that an encoder made of one slice, (C, s, s) float32 on the CPU, s = `size` / 4."""
    side = size // 4
    return torch.cat([_at(side, each) for each in (state.x, *state.skips)]).cpu()


def _at(side: int, features: Tensor) -> Tensor:
    maps = functional.interpolate(features.float(), (side, side), mode="bilinear")[0]
    return maps / (maps.square().mean().sqrt() + 1e-6)


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """Of the places of one slice or of several, those outside the structure and those inside.

    Attributes:
        products: (2, C + 1, C + 1) of features and a constant 1 with one another.
        sides: (2, C + 1) of these with how far a place is inside, from -1 to 1.
    """

    products: Tensor
    sides: Tensor

    @classmethod
    def of(cls, features: Tensor, mask: NDArray[np.bool_], fit: SquareFit) -> FeatureSums:
        """Of the places in and around a mask.

        Args:
            features: (C, s, s) of the slice, from `feature_maps`.
            mask: (rows, columns), not empty.
            fit: of the slice on the square.
        """
        shares = mask_shares(mask, fit)[0, 0]
        # What is smaller than the decoder's pixels has its inside there where it fills most.
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
        """Of several slices, one at least, together."""
        sums = list(several)
        return cls(
            torch.stack([each.products for each in sums]).sum(0),
            torch.stack([each.sides for each in sums]).sum(0),
        )


@dataclass(frozen=True, eq=False)
class FeatureRegression:
    """Tells a structure from its surroundings on slices of the volume that it was fitted to.

    Attributes:
        weights: (C + 1,) of features and a constant.
    """

    weights: Tensor

    @classmethod
    def fitted_to(cls, sums: FeatureSums) -> FeatureRegression:
        """The ridge regression, inside and outside counting the same."""
        products, sides = sums.products, sums.sides
        scaling = _scaling(products.sum(0))
        shares = 0.5 / products[:, -1, -1].clamp(min=1)
        normal = scaling @ (products * shares[:, None, None]).sum(0) @ scaling.T
        penalty = torch.full((len(normal),), _RIDGE, dtype=normal.dtype)
        # The constant is free.
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
    """(N, C) to (N, C + 1)."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _scaling(products: Tensor) -> Tensor:
    """(C + 1, C + 1) that makes of features and a constant such of mean 0 and unit variance."""
    count = products[-1, -1]
    mean = products[-1, :-1] / count
    variance = products.diagonal()[:-1] / count - mean.square()
    deviation = variance.clamp(min=0).sqrt() + 1e-6
    scaling = torch.diag(torch.cat([1 / deviation, deviation.new_ones(1)]))
    scaling[:-1, -1] = -mean / deviation
    return scaling
