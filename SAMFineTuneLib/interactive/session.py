"""A correction at work: the open volume, its embedded slices, and masks from prompts."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.errors import InputError
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
    Round,
    SquarePrompt,
    is_far_off,
    next_round,
    start_from,
)
from SAMFineTuneLib.interactive.slice_frame import SliceFrame
from SAMFineTuneLib.interactive.slice_work import SliceWorker
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prediction.uncertainty import slice_uncertainty
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume

# Rounds that are known, so that a prompt more costs one round and an undo none.
_ROUNDS_BYTES, _FEWEST_ROUNDS = 128 << 20, 20

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DoubtfulSlice:
    """A slice, and how uncertain the tuned model is of it, as `slice_uncertainty` defines it."""

    number: int
    uncertainty: float


class CorrectionSession:
    """Masks of single slices of one volume.

    Masks are (rows, columns) bool as `SliceStack` turns slices.

    Args:
        volume: the image.
        axis: "axial", "coronal" or "sagittal".
        networks: what answers.
        cache_folder: for embeddings; None keeps them in memory alone.
        warn: told in words what the user may not have expected.

    Raises:
        InputError: the volume has the same value in every voxel.
    """

    def __init__(
        self,
        volume: Volume,
        axis: str,
        networks: CorrectionNetworks,
        cache_folder: Path | None = None,
        warn: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.networks = networks
        self.stack = SliceStack.of(volume, axis)
        encoders = SliceEncoders(networks, volume, self.stack)
        self.fit: SquareFit = encoders.fit
        self._frame = SliceFrame(self.stack, self.fit)
        signature = encoders.signature() if cache_folder is not None else ""
        self._cache = EmbeddingCache(cache_folder, signature, warn)
        self.worker = SliceWorker(encoders.works, len(self.stack), self._cache)
        self._rounds: OrderedDict[tuple[object, ...], Round] = OrderedDict()
        round_bytes = self.fit.rows * self.fit.columns + self.fit.size**2 // 4
        self._rounds_kept = max(_FEWEST_ROUNDS, _ROUNDS_BYTES // round_bytes)
        self._doubts: dict[tuple[int, int | None], float] = {}

    def find_mask(
        self,
        number: int,
        prompts: Sequence[Prompt],
        start: Start = "nothing",
        label: int | None = None,
        given: Mask | None = None,
    ) -> Round:
        """The mask of a structure on a slice from all prompts given there.

        Args:
            number: of the slice.
            prompts: in the order in which they were given.
            start: the mask that they correct.
            label: the structure's number in the tuned model, for `start` "model".
            given: the mask, for `start` "given".

        Raises:
            InputError: a slice or a prompt outside the volume, a box without area, no such
                structure.
        """
        self.require_slice(number)
        on_square = [self._frame.on_square(each, number) for each in prompts]
        key: tuple[object, ...] = (number, start, label, _digest(given))
        now = self._start(number, start, label, given)

        def decode(prompts: PromptSet) -> tuple[Tensor, Tensor]:
            return self.decode(number, prompts)

        for count in range(1, len(on_square) + 1):
            key = (*key, on_square[count - 1])
            known = self._rounds.get(key)
            if known is None:
                keep = self._keeps(start, now, on_square[:count])
                known = next_round(decode, self.fit, on_square[:count], now, keep)
            self._remember(key, known)
            now = known
        return now if now is not None else self._empty()

    def _keeps(self, start: Start, before: Round | None, prompts: Sequence[SquarePrompt]) -> bool:
        """Whether the latest prompt changes only what it points at."""
        if before is None or start == "nothing":
            return len(prompts) > FREE_PROMPTS
        return start == "given" or not is_far_off(before, prompts[-1], self.fit.size)

    @torch.inference_mode()
    def decode(self, number: int, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """Prompts of one slice to mask logits (1, 1, s, s) and the expected overlap (1, 1)."""
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
        """The tuned model's mask logits (1, 1, s, s) of a structure, without any prompt."""
        return margin_of(self._class_logits(number), self._class_of(label))

    def doubtful_slices(self, label: int | None) -> list[DoubtfulSlice]:
        """The slices embedded so far, those first of which the tuned model is least certain.

        Args:
            label: of the structure in question; None for all together.

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
        """Refuses a slice that the volume has not."""
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
    ) -> Round | None:
        if start == "nothing":
            return None
        if start == "given":
            assert given is not None
            return start_from(given, self.fit)
        if label is None:
            raise InputError(
                "the tuned model's own mask was asked for without saying of which structure",
                f"name one of {self.networks.structures}",
                code="no_label",
            )
        logits = self.model_logits(number, label)
        mask: Mask = (self.fit.logits_to_slice(logits)[0, 0] > 0).numpy()
        shares = logits.sigmoid()
        doubt = slice_uncertainty(torch.cat([1 - shares, shares], dim=1))[0]
        return Round(logits, mask, 1 - doubt)

    def _doubt(self, number: int, label: int | None) -> float:
        """Computed once: it is asked for again with every slice that is done."""
        if (number, label) not in self._doubts:
            shares = self.fit.logits_to_slice(self._class_logits(number)).softmax(1)
            if label is not None:
                own = shares[:, self._class_of(label)]
                shares = torch.stack([1 - own, own], dim=1)
            self._doubts[number, label] = slice_uncertainty(shares)[0]
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

    def _empty(self) -> Round:
        side = self.fit.size // 4
        mask = np.zeros((self.fit.rows, self.fit.columns), dtype=bool)
        return Round(torch.full((1, 1, side, side), -4.0), mask, 1.0)

    def _remember(self, key: tuple[object, ...], found: Round) -> None:
        self._rounds[key] = found
        self._rounds.move_to_end(key)
        if len(self._rounds) > self._rounds_kept:
            self._rounds.popitem(last=False)


def _on(device: torch.device, state: FeatureState) -> FeatureState:
    return FeatureState(
        state.x.to(device).float(), tuple(each.to(device).float() for each in state.skips)
    )


def _digest(mask: Mask | None) -> bytes:
    return b"" if mask is None else hashlib.blake2b(np.packbits(mask).tobytes()).digest()
