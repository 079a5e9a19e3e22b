"""How a structure looks in this very volume, learnt from its accepted slices in a moment.

Each place of a slice has the features that the image encoder made of it. A linear map from these
to "inside" and "outside" is fitted to the accepted slices by ridge regression (Hoerl and Kennard
1970), which is one small system of equations: no training, and nothing that needs a tuned model.
What it is asked to tell apart is the structure from its surroundings, so it looks no farther.

Of each slice only sums of products are kept, which is all that the regression needs: memory does
not grow with the places that were looked at, and a slice is left out by leaving out its sums.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.backbones.staged_encoder import FeatureState
from SAMFineTuneLib.correction.mask_rounds import mask_shares
from SAMFineTuneLib.correction.networks import PROMPTED
from SAMFineTuneLib.correction.session import CorrectionSession, Mask

# How far around the structure it looks, as a share of the square's side.
_AROUND = 0.15
# Of the ridge, beside features of unit variance.
_RIDGE = 0.1
# "Inside" and "outside" are 1 and -1 to the map; as a logit they are this.
_SURE = 4.0


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of the places of one slice or of several, those outside the structure and those inside.

    Attributes:
        products: (2, C + 1, C + 1) of features and a constant 1 with one another.
        sides: (2, C + 1) of these with how far a place is inside, from -1 to 1.
    """

    products: Tensor
    sides: Tensor

    @classmethod
    def of(cls, features: Tensor, sides: Tensor) -> _Sums:
        """Sums over places with features (N, C) and sides (N,)."""
        extended = _with_constant(features)
        halves = [extended[sides <= 0], extended[sides > 0]]
        given = [sides[sides <= 0], sides[sides > 0]]
        return cls(
            torch.stack([each.T @ each for each in halves]),
            torch.stack([each.T @ side for each, side in zip(halves, given, strict=True)]),
        )


class Appearance:
    """Tells a structure from its surroundings on any slice of a session.

    Args:
        session: the open volume.
        accepted: slice number -> mask (rows, columns) that is right; one at least is not empty.
    """

    def __init__(self, session: CorrectionSession, accepted: Mapping[int, Mask]) -> None:
        self._session = session
        self._sums = {
            number: _Sums.of(*self._samples(number, mask))
            for number, mask in accepted.items()
            if mask.any()
        }
        self._learn()

    def without(self, number: int) -> Appearance:
        """What the other accepted slices teach; one of them at least is not empty."""
        other = copy.copy(self)
        other._sums = {each: sums for each, sums in self._sums.items() if each != number}
        other._learn()
        return other

    def logits(self, number: int) -> NDArray[np.float32]:
        """(rows, columns), above 0 where the slice looks like the structure."""
        features = self._features(number)
        side = features.shape[-1]
        scores = _with_constant(features.flatten(1).T) @ self._map
        on_square = (_SURE * scores).float().reshape(1, 1, side, side)
        found: NDArray[np.float32] = self._session.fit.logits_to_slice(on_square)[0, 0].numpy()
        return found

    def _samples(self, number: int, mask: Mask) -> tuple[Tensor, Tensor]:
        """Features (N, C) of the places in and around a mask, and their sides (N,) from -1 to 1."""
        shares = mask_shares(mask, self._session.fit)[0, 0]
        distance = ndimage.distance_transform_edt((shares < 0.1).numpy())
        near = torch.from_numpy(distance <= max(4.0, _AROUND * len(shares)))
        return self._features(number)[:, near].T, (shares[near] * 2 - 1).double()

    def _features(self, number: int) -> Tensor:
        """(C, s, s) of a slice: all that the encoder made of it, at a quarter of the square."""
        state = self._session.worker.features(PROMPTED, number)
        side = self._session.fit.size // 4
        return torch.cat([_at(side, each) for each in _maps(state)]).double()

    def _learn(self) -> None:
        products = torch.stack([each.products for each in self._sums.values()]).sum(0)
        sides = torch.stack([each.sides for each in self._sums.values()]).sum(0)
        self._map = _ridge(products, sides)


def _with_constant(features: Tensor) -> Tensor:
    """(N, C) to (N, C + 1)."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _maps(state: FeatureState) -> tuple[Tensor, ...]:
    return (state.x, *state.skips)


def _at(side: int, features: Tensor) -> Tensor:
    maps = functional.interpolate(features.float(), (side, side), mode="bilinear")[0]
    return maps / (maps.square().mean().sqrt() + 1e-6)


def _ridge(products: Tensor, sides: Tensor) -> Tensor:
    """The map (C + 1,) of features and a constant, inside and outside counting the same.

    Args:
        products: as in `_Sums`.
        sides: as in `_Sums`.
    """
    scaling = _scaling(products.sum(0))
    weights = 0.5 / products[:, -1, -1].clamp(min=1)
    normal = scaling @ (products * weights[:, None, None]).sum(0) @ scaling.T
    penalty = torch.full((len(normal),), _RIDGE, dtype=normal.dtype)
    # The constant is free.
    penalty[-1] = 0
    answer = scaling @ (sides * weights[:, None]).sum(0)
    return scaling.T @ torch.linalg.solve(normal + torch.diag(penalty), answer)


def _scaling(products: Tensor) -> Tensor:
    """(C + 1, C + 1) that makes of features and a constant such of mean 0 and unit variance."""
    count = products[-1, -1]
    mean = products[-1, :-1] / count
    variance = products.diagonal()[:-1] / count - mean.square()
    deviation = variance.clamp(min=0).sqrt() + 1e-6
    scaling = torch.diag(torch.cat([1 / deviation, deviation.new_ones(1)]))
    scaling[:-1, -1] = -mean / deviation
    return scaling
