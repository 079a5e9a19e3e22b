"""Weight interpolation (WiSE-FT): weights between those that tuning began with and those it learnt.

In other patients a network that can be asked anything must not forget how. Between the weights that
it began with and those it learnt lie some that do better there than either (Wortsman et al., Robust
fine-tuning of zero-shot models, CVPR 2022).

Where enough slices are held out they say how far to go back; where they are too few, it is half
way, the paper's own share. Where only one volume is learnt from it is mostly that volume that is
corrected, and three quarters are kept. DSC after three clicks of what was learnt, and half way:
hippocampus in other volumes 0.778 and 0.810, sarcoma in other patients 0.706 and 0.762 (untuned
0.814); organs in the same CT 0.921, 0.918 with three quarters and 0.913 half way (some of the
slices of `Testing.benchmarks.click_curves`). Learnt from ten volumes whole, the hippocampus wants
more: 0.886 half way, 0.897 with three quarters and 0.900 with all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from SAMFineTuneLib.training.trained_weights import TrainedWeights

SHARES = (0.5, 0.75, 1.0)
FROM_ONE_VOLUME, FROM_SEVERAL = 0.75, 0.5


class WeightInterpolation:
    """Weights between those that a network has now and those that it will learn.

    Args:
        trained: the tensors that train, as they are at the beginning.
    """

    def __init__(self, trained: TrainedWeights) -> None:
        self._trained = trained
        self._begun = trained.copied()

    def apply(self, learnt: Mapping[str, Tensor], share: float) -> None:
        """Puts a share of what was learnt into the network; 0 is the beginning, 1 all."""
        self._trained.load(
            {name: torch.lerp(self._begun[name], each, share) for name, each in learnt.items()}
        )

    def best_share(self, learnt: Mapping[str, Tensor], worth: Callable[[], float]) -> float:
        """The share of which the network is worth most; of equal ones the smaller.

        Args:
            learnt: the weights.
            worth: measures the network as it stands.
        """

        def worth_of(share: float) -> float:
            self.apply(learnt, share)
            return worth()

        return max(SHARES, key=worth_of)
