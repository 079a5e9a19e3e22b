"""The methods that insert nothing, and train a small kind of parameters that the network has.

* norm: weights and biases of the normalisation layers (Basu et al. 2023, "Strong Baselines for
  Parameter Efficient Few-Shot Fine-tuning").
* bias: the biases of all layers, those of normalisation layers among them (Ben Zaken et al. 2021,
  "BitFit"). A table of biases for relative positions is no bias of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from SAMFineTuneLib.networks.network import SamNetwork

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
# Segment Anything has a class of its own for maps, in a package whose import is delayed.
_NORM_OF_MAPS = "LayerNorm2d"


def train_selected(network: SamNetwork, method: str, scope: str) -> None:
    """Makes the method's parameters require gradients, in the mask decoder or in both parts."""
    for module in _modules(network, scope):
        for parameter in _selected(module, method):
            parameter.requires_grad_(True)


def _modules(network: SamNetwork, scope: str) -> Iterator[nn.Module]:
    """Every module of the parts; of an encoder, what its stages compute with."""
    used: Iterable[nn.Module | nn.Parameter] = [network.mask_decoder]
    if scope == "encoder_decoder":
        stages = network.image_encoder.stages()
        used = [*used, *(each for stage in stages for each in stage.uses)]
    for part in used:
        if isinstance(part, nn.Module):
            yield from part.modules()


def _selected(module: nn.Module, method: str) -> Iterator[nn.Parameter]:
    if method == "norm":
        if isinstance(module, _NORMS) or type(module).__name__ == _NORM_OF_MAPS:
            yield from module.parameters(recurse=False)
        return
    bias = getattr(module, "bias", None)
    if isinstance(bias, nn.Parameter):
        yield bias
