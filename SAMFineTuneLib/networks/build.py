"""The network of a backbone, by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import build_sam_vit
from SAMFineTuneLib.networks.spec import PixelNormalisation, find
from SAMFineTuneLib.networks.starter.network import build_starter
from SAMFineTuneLib.networks.tiny_vit import build_lite_medsam, build_tiny_vit

_BUILDERS: dict[str, Callable[[int], SamNetwork]] = {
    "starter": build_starter,
    "lite_medsam": build_lite_medsam,
    "vit_t": build_tiny_vit,
    **{name: partial(build_sam_vit, name) for name in ("vit_b", "vit_l", "vit_h")},
}


def build(name: str, input_size: int, pixels: PixelNormalisation | None = None) -> SamNetwork:
    """The network of a backbone with random weights, on the default device.

    Under `torch.device("meta")` it costs no memory, and its parameters can be counted; the first
    time, it takes PyTorch 3 s to load what its random numbers need there.

    Args:
        name: a key of `BACKBONES`.
        input_size: side of the square input images in pixels.
        pixels: how pixels are normalised, where weights take them otherwise than the backbone does.

    Raises:
        InputError: there is no such backbone, the network cannot take this size, or the package
            that defines the network is not installed.
    """
    spec = find(name)
    if input_size not in spec.input_sizes:
        sizes = spec.input_sizes
        raise InputError(
            f"input size {input_size} does not suit backbone {name}",
            f"Choose a multiple of {sizes.step} from {sizes[0]} to {sizes[-1]}",
            code="input_size",
        )
    network = _BUILDERS[name](input_size)
    if pixels is not None:
        network.spec = replace(network.spec, normalisation=pixels)
    return network
