"""How a structure looks in this very volume, learnt from its accepted slices in a moment.

Each place of a slice has the features that the image encoder made of it. A linear map from these
to "inside" and "outside" is fitted to the accepted slices by ridge regression (Hoerl and Kennard
1970), which is one small system of equations: no training, and nothing that needs a tuned model.
What it is asked to tell apart is the structure from its surroundings, so it looks no farther.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class Appearance:
    """Tells a structure from its surroundings on any slice of a session.

    Args:
        session: the open volume.
        accepted: slice number -> mask (rows, columns) that is right; one at least is not empty.
    """

    def __init__(self, session: CorrectionSession, accepted: Mapping[int, Mask]) -> None:
        self._session = session
        samples = [self._samples(number, mask) for number, mask in accepted.items() if mask.any()]
        features = torch.cat([each for each, _ in samples])
        sides = torch.cat([each for _, each in samples])
        self._mean, self._deviation = features.mean(0), features.std(0) + 1e-6
        self._map = _ridge(self._scaled(features), sides)

    def logits(self, number: int) -> NDArray[np.float32]:
        """(rows, columns), above 0 where the slice looks like the structure."""
        features = self._features(number)
        side = features.shape[-1]
        scores = self._scaled(features.flatten(1).T) @ self._map
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

    def _scaled(self, features: Tensor) -> Tensor:
        """(N, C) to (N, C + 1) of unit variance and a constant."""
        scaled = (features - self._mean) / self._deviation
        return torch.cat([scaled, torch.ones(len(scaled), 1, dtype=scaled.dtype)], dim=1)


def _maps(state: FeatureState) -> tuple[Tensor, ...]:
    return (state.x, *state.skips)


def _at(side: int, features: Tensor) -> Tensor:
    maps = functional.interpolate(features.float(), (side, side), mode="bilinear")[0]
    return maps / (maps.square().mean().sqrt() + 1e-6)


def _ridge(features: Tensor, sides: Tensor) -> Tensor:
    """The map (C + 1,) of features (N, C + 1), inside and outside counting the same."""
    inside = sides > 0
    weights = torch.where(
        inside, 0.5 / inside.sum().clamp(min=1), 0.5 / (~inside).sum().clamp(min=1)
    )
    normal = (features * weights[:, None]).T @ features
    penalty = torch.full((features.shape[1],), _RIDGE, dtype=features.dtype)
    # The constant is free.
    penalty[-1] = 0
    return torch.linalg.solve(
        normal + torch.diag(penalty), (features * (weights * sides)[:, None]).sum(0)
    )
