"""Weight interpolation (WiSE-FT) between the weights before a tuning and those after it.

A network that answers prompts on any structure must not lose this ability in other patients when it
is tuned. Some weights between the initial and the tuned ones do better there than either (Wortsman
et al., Robust fine-tuning of zero-shot models, CVPR 2022).

The share of the tuned weights is chosen on the held-out slices where these are enough. Otherwise it
is a half, as in the paper, or three quarters where the tuning learns from one volume only, because
then the corrections are mostly of that volume. Mean DSC after three clicks, for all of what was
learnt and for a half: hippocampus in other volumes 0.778 and 0.810, sarcoma in other patients 0.706
and 0.762 (untuned 0.814); organs in the same CT 0.921 with all, 0.918 with three quarters and 0.913
with a half (on some of the slices of `Testing.benchmarks.click_curves`). Where ten whole volumes
are learnt from, a larger share is better for the hippocampus: 0.886 with a half, 0.897 with three
quarters and 0.900 with all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from SAMFineTuneLib.training.trained_weights import TrainedWeights

SHARES = (0.5, 0.75, 1.0)
FROM_ONE_VOLUME, FROM_SEVERAL = 0.75, 0.5


class WeightInterpolation:
    """Interpolates between the weights that a network has now and those that it will learn.

    Args:
        trained: the tensors that train, with their initial values.
    """

    def __init__(self, trained: TrainedWeights) -> None:
        self._trained = trained
        self._begun = trained.copied()

    def apply(self, learnt: Mapping[str, Tensor], share: float) -> None:
        """Puts interpolated weights into the network: share 0 the initial ones, 1 those learnt."""
        self._trained.load(
            {name: torch.lerp(self._begun[name], each, share) for name, each in learnt.items()}
        )

    def best_share(self, learnt: Mapping[str, Tensor], worth: Callable[[], float]) -> float:
        """The share with which the network is measured best; of equally good ones the smallest.

        Args:
            learnt: the weights that were learnt.
            worth: measures the network with its present weights; the larger the better.
        """

        def worth_of(share: float) -> float:
            self.apply(learnt, share)
            return worth()

        return max(SHARES, key=worth_of)
