"""The tensors that a fine-tune trains, with their optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.training.eager_adamw import EagerAdamW
from SAMFineTuneLib.training.weight_decay import decayed_groups

_LARGEST_GRADIENT = 1.0


class TrainedWeights:
    """Those parameters of a network that require gradients, with AdamW.

    Args:
        network: adapted, on its device.
        weight_decay: of tensors with two or more dimensions; see `decayed_groups`.
        betas: of AdamW's two means.
    """

    def __init__(
        self, network: nn.Module, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self._trained = {
            name: each for name, each in network.named_parameters() if each.requires_grad
        }
        groups = decayed_groups(self._trained.values(), weight_decay)
        self._optimiser = EagerAdamW(groups, betas=betas)

    def descend(self, loss: Tensor, learning_rate: float, step: int) -> None:
        """One optimiser step.

        Args:
            loss: a scalar with gradients.
            learning_rate: of this step.
            step: its number, from 1, for the error message.

        Raises:
            InputError: the loss or a gradient is not finite.
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

    @property
    def present(self) -> dict[str, Tensor]:
        """The tensors themselves, by name, as the network holds them, without gradients."""
        return {name: each.detach() for name, each in self._trained.items()}

    def copied(self) -> dict[str, Tensor]:
        """Copies of the tensors on the CPU, by name."""
        return {name: each.detach().cpu().clone() for name, each in self._trained.items()}

    def fits(self, weights: dict[str, Tensor]) -> bool:
        """Whether copies fit this network; those of an older version of the program may not."""
        shapes = {name: each.shape for name, each in weights.items()}
        return shapes == {name: each.shape for name, each in self._trained.items()}

    def load(self, weights: dict[str, Tensor]) -> None:
        """Puts the values of copies into the network."""
        with torch.no_grad():
            for name, tensor in weights.items():
                self._trained[name].copy_(tensor)

    def optimiser_state(self) -> dict[str, Any]:
        """The state of the optimiser, for `load_optimiser`."""
        return self._optimiser.state_dict()

    def load_optimiser(self, state: dict[str, Any]) -> None:
        """Restores the state of the optimiser from an earlier run."""
        self._optimiser.load_state_dict(state)
