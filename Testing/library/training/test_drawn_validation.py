"""Measuring with the study's prompts, which are all given at once, and the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prompts.prompt_set import POSITIVE, PromptSet
from SAMFineTuneLib.training import shown_structures
from SAMFineTuneLib.training.drawn_validation import measure_drawn
from Testing.support.training_slices import a_slice

SIDE = 32


@dataclass
class Seen:
    """The prompts that a pretended network was given."""

    prompts: list[PromptSet]


class TwoMasks(nn.Module):
    """Gives the upper half and the left half of the square, whatever it is asked."""

    def __init__(self, seen: Seen, masks: int) -> None:
        super().__init__()
        self.network = SimpleNamespace(input_size=SIDE)
        self.weight = nn.Parameter(torch.zeros(1))
        self._seen, self._masks = seen, masks

    def decode_all(self, features: FeatureState, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        self._seen.prompts.append(prompts)
        logits = torch.full((len(prompts.boxes), 2, SIDE, SIDE), -1.0)
        logits[:, 0, : SIDE // 2] = 1
        logits[:, 1, :, : SIDE // 2] = 1
        return logits[:, : self._masks], torch.zeros(len(logits), self._masks)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    state = FeatureState(torch.zeros(1, 1, 2, 2))
    monkeypatch.setattr(shown_structures, "embed", lambda *arguments: state)
    return Seen([])


def left_half() -> Any:
    shown = a_slice({1}, side=SIDE)
    shown.target[:] = 0
    shown.target[:, : SIDE // 2] = 1
    return shown


def test_the_oracle_takes_the_mask_that_is_most_like_the_truth(seen: Seen) -> None:
    network: Any = TwoMasks(seen, masks=2)
    measured = measure_drawn(network, [left_half()], "box", with_oracle=True)
    # Of the true left half a quarter of the square is in the upper half, too.
    assert measured == {"box": pytest.approx(0.5, abs=0.02), "oracle": pytest.approx(1, abs=0.02)}
    assert set(measure_drawn(network, [left_half()], "box")) == {"box"}
    single: Any = TwoMasks(seen, masks=1)
    assert set(measure_drawn(single, [left_half()], "box", with_oracle=True)) == {"box"}


def test_every_region_gets_a_prompt_of_the_mode_and_the_same_at_every_call(seen: Seen) -> None:
    shown = a_slice({1}, side=SIDE)
    shown.target[:] = 0
    shown.target[2:12, 2:12] = shown.target[20:30, 16:30] = 1
    network: Any = TwoMasks(seen, masks=1)
    for mode in ("box", "point", "point"):
        measure_drawn(network, [shown], mode)
    boxed, pointed, again = seen.prompts
    assert boxed.further_boxes is not None and not boxed.boxes.isnan().any()
    assert not (boxed.labels == POSITIVE).any()
    assert int((pointed.labels == POSITIVE).sum()) == 2 and pointed.boxes.isnan().all()
    assert torch.equal(pointed.points, again.points)
    inside = [shown.target[int(y), int(x)] for x, y in pointed.points[0].tolist()]
    assert np.all(inside)


def test_segment_anythings_decoder_gives_four_masks_and_the_first_is_the_answer() -> None:
    torch.manual_seed(0)
    segmenter = PromptedSegmenter(build("lite_medsam", 128))
    with torch.inference_mode():
        features = segmenter.encode(torch.randn(1, 3, 128, 128))
        prompts = PromptSet.none(1).with_points(torch.full((1, 2), 40.0), torch.tensor([POSITIVE]))
        every, predictions = segmenter.decode_all(features, prompts)
        first, prediction = segmenter.decode(features, prompts)
    assert every.shape[:2] == predictions.shape == (1, 4)
    assert torch.equal(first, every[:, :1]) and torch.equal(prediction, predictions[:, :1])
