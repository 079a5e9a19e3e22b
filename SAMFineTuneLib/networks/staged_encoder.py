"""An image encoder as a sequence of stages, so that its frozen first stages are computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class FeatureState(NamedTuple):
    """The state between two stages: everything that the later stages need.

    Before the first stage `x` is the image batch (B, 3, S, S). After the last one it is the
    embedding (B, C, S/p, S/p), where p is the backbone's patch size, and `skips` are the
    high-resolution features, finest first. Segment Anything's encoders have C = 256 and no skips.
    For a head that looks at the image, the last skip is the image itself
    (`StagedEncoder.image_side`).
    """

    x: Tensor
    skips: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One step of an encoder.

    Attributes:
        name: the step in the encoder's own terms, such as "blocks.3".
        uses: the modules and single parameters that the step computes with.
        run: the step itself.
    """

    name: str
    uses: tuple[nn.Module | nn.Parameter, ...]
    run: Callable[[FeatureState], FeatureState]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that the step computes with, those of inserted modules included."""
        for used in self.uses:
            if isinstance(used, nn.Parameter):
                yield used
            else:
                yield from used.parameters()

    def trains(self) -> bool:
        """Whether a gradient step could change what this stage computes."""
        return any(parameter.requires_grad for parameter in self.parameters())


class StagedEncoder(nn.Module, ABC):
    """Base of the image encoders.

    The stages are looked up anew at every call of `stages`, so that modules inserted by an
    adaptation are found in the stage they were inserted in.

    Attributes:
        skip_channels: channels of the high-resolution features, finest first.
        image_side: where it is given, `run` puts the image, with this side in pixels, behind the
            other skips, so that it is cached and joined into batches with the features.
    """

    skip_channels: tuple[int, ...] = ()
    image_side: int | None = None

    @abstractmethod
    def stages(self) -> list[Stage]:
        """The steps in the order in which they run."""

    def run(self, state: FeatureState, start: int, stop: int) -> FeatureState:
        """Runs the stages start … stop - 1 on the state before stage `start`."""
        beside: tuple[Tensor, ...] = ()
        if self.image_side is not None:
            # No stage sees the image beside the features.
            image = _resized(state.x, self.image_side) if start == 0 else state.skips[-1]
            beside = (image,)
            state = FeatureState(state.x, () if start == 0 else state.skips[:-1])
        for stage in self.stages()[start:stop]:
            state = stage.run(state)
        return FeatureState(state.x, state.skips + beside)

    def forward(self, images: Tensor) -> FeatureState:
        """The state after the last stage, from a normalised image batch (B, 3, S, S)."""
        return self.run(FeatureState(images), 0, len(self.stages()))

    def frozen_prefix(self) -> int:
        """Number of leading stages that no gradient step can change."""
        count = 0
        for stage in self.stages():
            if stage.trains():
                break
            count += 1
        return count


def _resized(images: Tensor, side: int) -> Tensor:
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def joined(states: Sequence[FeatureState], device: torch.device) -> FeatureState:
    """The states of single images joined to the state of a batch, float32 on a device."""

    def batch(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat(tuple(tensors)).to(device).float()

    skips = zip(*(state.skips for state in states), strict=True)
    return FeatureState(batch(state.x for state in states), tuple(batch(each) for each in skips))


def chosen(state: FeatureState, images: slice | Tensor) -> FeatureState:
    """The state of some images of a batch, chosen by a slice or a boolean mask."""
    return FeatureState(state.x[images], tuple(each[images] for each in state.skips))


def on_features(module: Callable[[Tensor], Tensor]) -> Callable[[FeatureState], FeatureState]:
    """Turns a module of tensors into a step on states, which leaves the skips as they are."""
    return lambda state: FeatureState(module(state.x), state.skips)
