"""Masks of single slices from prompts: the open volume, its embedded slices and the networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive.bounded_cache import BoundedCache
from SAMFineTuneLib.interactive.embedding_cache import EmbeddingCache
from SAMFineTuneLib.interactive.networks import (
    AUTOMATIC,
    PROMPTED,
    CorrectionNetworks,
    SliceEncoders,
    margin_of,
)
from SAMFineTuneLib.interactive.protocol import Prompt, Start
from SAMFineTuneLib.interactive.refinement import (
    FREE_PROMPTS,
    RefinedMask,
    SquarePrompt,
    is_far_off,
    refine,
    unrefined,
)
from SAMFineTuneLib.interactive.slice_frame import SliceFrame
from SAMFineTuneLib.interactive.slice_work import SliceWorker
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prediction.uncertainty import at_temperature, slice_uncertainty
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume

# Masks are kept for each sequence of prompts so far: a further prompt then costs one pass of the
# decoder, and an undo none.
_REFINED_BYTES, _FEWEST_REFINED = 128 << 20, 20

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DoubtfulSlice:
    """A slice, and how uncertain the tuned model is of it, as `slice_uncertainty` defines it."""

    number: int
    uncertainty: float


class SliceCorrector:
    """Finds and corrects masks on single slices of one volume.

    Masks are (rows, columns) bool, with rows and columns as `SliceStack` orients slices.

    Args:
        volume: the image.
        axis: "axial", "coronal" or "sagittal".
        networks: the networks that find the masks.
        cache_folder: for embeddings; None keeps them in memory alone.
        warn: called with a text about something that the user may not have expected.

    Raises:
        InputError: the volume has the same value in every voxel.
    """

    def __init__(
        self,
        volume: Volume,
        axis: str,
        networks: CorrectionNetworks,
        cache_folder: Path | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.networks = networks
        self.stack = SliceStack.of(volume, axis)
        encoders = SliceEncoders(networks, volume, self.stack)
        self.fit: SquareFit = encoders.fit
        self.levels = encoders.levels
        self._frame = SliceFrame(self.stack, self.fit)
        signature = encoders.signature() if cache_folder is not None else ""
        self._cache = EmbeddingCache(cache_folder, signature, warn)
        self.worker = SliceWorker(encoders.works, len(self.stack), self._cache)
        self._refined: BoundedCache[tuple[object, ...], RefinedMask] = BoundedCache(
            _REFINED_BYTES, _bytes_of, _FEWEST_REFINED
        )
        self._doubts: dict[tuple[int, int | None], float] = {}

    def find_mask(
        self,
        number: int,
        prompts: Sequence[Prompt],
        start: Start = "nothing",
        label: int | None = None,
        given: Mask | None = None,
    ) -> RefinedMask:
        """The mask of a structure on a slice from all prompts given there.

        Args:
            number: number of the slice.
            prompts: in the order in which they were given.
            start: the mask that the prompts correct.
            label: the structure's number in the tuned model, for `start` "model".
            given: the mask, for `start` "given".

        Raises:
            InputError: the slice or a prompt lies outside the volume, a box has no area, or the
                tuned model knows no such structure.
        """
        self.require_slice(number)
        on_square = [self._frame.on_square(each, number) for each in prompts]
        key: tuple[object, ...] = (number, start, label, _digest(given))
        now = self._start(number, start, label, given)

        def decode(prompts: PromptSet) -> tuple[Tensor, Tensor]:
            return self.decode(number, prompts)

        for count in range(1, len(on_square) + 1):
            key = (*key, on_square[count - 1])
            known = self._refined.get(key)
            if known is None:
                keep = self._keeps(start, now, on_square[:count])
                known = refine(decode, self.fit, on_square[:count], now, keep)
                self._refined.put(key, known)
            now = known
        return now if now is not None else self._empty()

    def _keeps(
        self, start: Start, before: RefinedMask | None, prompts: Sequence[SquarePrompt]
    ) -> bool:
        """Whether the latest prompt may change only the region that it points at."""
        if before is None or start == "nothing":
            return len(prompts) > FREE_PROMPTS
        return start == "given" or not is_far_off(before, prompts[-1], self.fit.size)

    @torch.inference_mode()
    def decode(self, number: int, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """The mask logits (1, 1, s, s) and the predicted IoU (1, 1) from prompts on one slice."""
        device = self.networks.device
        features = _on(device, self.worker.features(PROMPTED, number))
        given = PromptSet(
            prompts.points.to(device),
            prompts.labels.to(device),
            prompts.boxes.to(device),
            None if prompts.mask is None else prompts.mask.to(device),
        )
        with autocast(device):
            logits, iou_predictions = self.networks.prompted.decode(features, given)
        return logits.float().cpu(), iou_predictions.float().cpu()

    def model_logits(self, number: int, label: int) -> Tensor:
        """The tuned model's mask logits (1, 1, s, s) of a structure, found without prompts."""
        return margin_of(self._class_logits(number), self._class_of(label))

    def doubtful_slices(self, label: int | None) -> list[DoubtfulSlice]:
        """The slices embedded so far, ordered so that the tuned model's least certain come first.

        Args:
            label: number of the structure in question; None for all structures together.

        Raises:
            InputError: there is no tuned model, or it does not find such a structure.
        """
        self._require_model()
        if label is not None:
            self._class_of(label)
        found = [
            DoubtfulSlice(number, self._doubt(number, label)) for number in self.worker.done_slices
        ]
        return sorted(found, key=lambda each: -each.uncertainty)

    def require_slice(self, number: int) -> None:
        """Raises InputError for a slice number that the volume does not have."""
        if not 0 <= number < len(self.stack):
            raise InputError(
                f"there is no {self.stack.name} slice {number}; "
                f"they are numbered from 0 to {len(self.stack) - 1}",
                "give another number",
                code="no_such_slice",
            )

    def finds(self, label: int | None) -> bool:
        """Whether the tuned model knows a structure of this number."""
        return label in self.networks.structures

    def _start(
        self, number: int, start: Start, label: int | None, given: Mask | None
    ) -> RefinedMask | None:
        if start == "nothing":
            return None
        if start == "given":
            assert given is not None
            return unrefined(given, self.fit, self._mask_size)
        if label is None:
            raise InputError(
                "the tuned model's own mask was asked for, but no structure was named",
                f"name one of {self.networks.structures}",
                code="no_label",
            )
        logits = self.model_logits(number, label)
        mask: Mask = (self.fit.logits_to_slice(logits)[0, 0] > 0).numpy()
        shares = _either(logits.sigmoid())
        tempered = at_temperature(shares, self.networks.temperature)
        return RefinedMask(logits, mask, 1 - slice_uncertainty(tempered, shares)[0])

    def _doubt(self, number: int, label: int | None) -> float:
        """How uncertain the model is of a slice.

        It is computed once and kept, because every ranking asks for all slices again.
        """
        if (number, label) not in self._doubts:
            shares = self.fit.logits_to_slice(self._class_logits(number)).softmax(1)
            tempered = at_temperature(shares, self.networks.temperature)
            if label is not None:
                own = self._class_of(label)
                shares, tempered = (_either(each[:, own, None]) for each in (shares, tempered))
            self._doubts[number, label] = slice_uncertainty(tempered, shares)[0]
        return self._doubts[number, label]

    def _class_logits(self, number: int) -> Tensor:
        self._require_model()
        return self.worker.features(AUTOMATIC, number).x.float()

    def _class_of(self, label: int) -> int:
        values = list(self.networks.structures)
        if label not in values:
            raise InputError(
                f"the tuned model finds no structure {label}; it finds {self.networks.structures}",
                "start from the segment or from nothing",
                code="no_label",
            )
        return values.index(label) + 1

    def _require_model(self) -> None:
        if self.networks.automatic is None:
            raise InputError(
                "this needs a tuned model, and the session has none",
                "fine-tune one first, or start from the segment or from nothing",
                code="no_model",
            )

    @property
    def _mask_size(self) -> int:
        return self.networks.prompted.network.mask_size

    def _empty(self) -> RefinedMask:
        side = self._mask_size
        mask = np.zeros((self.fit.rows, self.fit.columns), dtype=bool)
        return RefinedMask(torch.full((1, 1, side, side), -4.0), mask, 1.0)


def _either(shares: Tensor) -> Tensor:
    """Probabilities (B, 1, …) of a structure to those of anything else and of it (B, 2, …)."""
    return torch.cat([1 - shares, shares], dim=1)


def _bytes_of(refined: RefinedMask) -> int:
    return refined.mask.nbytes + refined.logits.numel() * refined.logits.element_size()


def _on(device: torch.device, state: FeatureState) -> FeatureState:
    return FeatureState(
        state.x.to(device).float(), tuple(each.to(device).float() for each in state.skips)
    )


def _digest(mask: Mask | None) -> bytes:
    return b"" if mask is None else hashlib.blake2b(np.packbits(mask).tobytes()).digest()
