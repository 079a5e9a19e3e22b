"""The tensors that a fine-tune changes, and the optimiser that changes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.training.eager_adamw import EagerAdamW

_LARGEST_GRADIENT = 1.0


class TrainedWeights:
    """Those parameters of a network that require gradients, with AdamW.

    Args:
        network: adapted, on its device.
        weight_decay: of weights; biases, norms and tokens' one-dimensional kin have none.
    """

    def __init__(self, network: nn.Module, weight_decay: float) -> None:
        self._trained = {
            name: each for name, each in network.named_parameters() if each.requires_grad
        }
        decayed = [each for each in self._trained.values() if each.ndim > 1]
        others = [each for each in self._trained.values() if each.ndim <= 1]
        self._optimiser = EagerAdamW(
            [
                {"params": decayed, "weight_decay": weight_decay},
                {"params": others, "weight_decay": 0.0},
            ]
        )

    def descend(self, loss: Tensor, learning_rate: float, step: int) -> None:
        """One optimiser step.

        Args:
            loss: a scalar with gradients.
            learning_rate: of this step.
            step: its number from 1, for words.

        Raises:
            InputError: the loss or a gradient is no number.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self._trained.values(), _LARGEST_GRADIENT)
        if not torch.isfinite(gradient):
            raise InputError(
                f"the fine-tune diverged at step {step}: its loss is no number",
                "lower the learning rate",
                code="diverged",
            )
        self._optimiser.step()

    def copied(self) -> dict[str, Tensor]:
        """Copies on the CPU, by name."""
        return {name: each.detach().cpu().clone() for name, each in self._trained.items()}

    def fits(self, weights: dict[str, Tensor]) -> bool:
        """Whether these are copies of a network of this shape, and not of an older program's."""
        shapes = {name: each.shape for name, each in weights.items()}
        return shapes == {name: each.shape for name, each in self._trained.items()}

    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes the values of copies."""
        with torch.no_grad():
            for name, tensor in weights.items():
                self._trained[name].copy_(tensor)

    def optimiser_state(self) -> dict[str, Any]:
        """What `load_optimiser` takes."""
        return self._optimiser.state_dict()

    def load_optimiser(self, state: dict[str, Any]) -> None:
        """Goes on with the averages of an earlier run."""
        self._optimiser.load_state_dict(state)
