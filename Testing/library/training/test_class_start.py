"""The linear map that a class decoder begins with, from the regression to the model's file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.class_mask_decoder import ClassMaskDecoder
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.training.class_start import begin_with_slices, fitted_map
from Testing.support.training_slices import a_slice

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


def test_a_map_separates_what_is_linear_and_leaves_out_what_is_unknown() -> None:
    classes = torch.zeros(8, 8, dtype=torch.long)
    classes[2:6, 2:4], classes[2:6, 5:7] = 1, 2
    features = torch.randn(5, 8, 8) * 0.1
    features[0] += classes == 1
    features[1] += classes == 2
    masks = torch.stack([(classes == number).float() for number in range(3)])
    # Four times as fine as the features, as the square is finer than the embedding.
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    weight, bias = fitted_map([features], [masks])
    logits = torch.einsum("kc,chw->khw", weight, features) + bias[:, None, None]
    assert torch.equal(logits.argmax(0), classes)
    misleading = -10 * features
    nowhere = torch.zeros_like(masks)
    again = fitted_map([features, misleading], [masks, nowhere])
    assert torch.allclose(again[0], weight, atol=1e-4) and torch.allclose(again[1], bias, atol=1e-4)


def test_a_class_without_a_position_gets_nothing() -> None:
    masks = torch.zeros(3, 8, 8)
    masks[0, :, :4], masks[1, :, 4:] = 1, 1
    weight, bias = fitted_map([torch.randn(5, 8, 8)], [masks])
    assert torch.isfinite(weight).all() and not weight[2].any() and abs(float(bias[2])) < 1e-6


def test_a_network_finds_a_labelled_square_before_the_first_step() -> None:
    image, target = np.full((64, 64), 0.2, np.float16), np.zeros((64, 64), np.uint8)
    image[16:40, 24:48], target[16:40, 24:48] = 0.9, 1
    shown = replace(a_slice({1}, count=2, side=64), image=image, target=target)
    network = build("lite_medsam", 64)
    segmenter = AutomaticSegmenter(network, 1)
    begin_with_slices(network, [shown])
    assert isinstance(network.mask_decoder, ClassMaskDecoder)
    pixels = torch.from_numpy(image).float().expand(1, 3, 64, 64)
    with torch.no_grad():
        found = segmenter.eval()(pixels)[0].argmax(1)[0].numpy() == 1
        network.mask_decoder.begin_with(torch.zeros(2, 512), torch.zeros(2))
        without = segmenter(pixels)[0].argmax(1)[0].numpy() == 1
    dsc, before = (
        2 * (each & (target == 1)).sum() / (each.sum() + 576) for each in (found, without)
    )
    assert dsc > 0.8 and before < 0.6
