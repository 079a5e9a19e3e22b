"""Networks that are made ready to predict compute what they computed before."""

from __future__ import annotations

import copy

import pytest
import torch

from SAMFineTuneLib.device import ready_to_predict
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.build import build

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@pytest.mark.parametrize("backbone", ["starter", "vit_t", "lite_medsam"])
def test_the_order_of_memory_changes_no_prediction(backbone: str) -> None:
    segmenter = AutomaticSegmenter(build(backbone, 64), 2).eval()
    ready = ready_to_predict(copy.deepcopy(segmenter).train(), torch.device("cpu"))
    assert not ready.training
    convolutions = [each for each in ready.modules() if isinstance(each, torch.nn.Conv2d)]
    last = torch.channels_last
    assert all(each.weight.is_contiguous(memory_format=last) for each in convolutions)
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected, found = segmenter(image)[0], ready(image)[0]
    assert torch.allclose(found, expected, atol=1e-4)
