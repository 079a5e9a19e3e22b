"""The weights that come with the program, and how a fine-tune begins with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.context_class_decoder import ContextClassDecoder
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.starter.class_clusters import cluster_counts
from SAMFineTuneLib.networks.starter.context_decoder import ContextMaskDecoder
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.training.slice_context import context_of_slices
from SAMFineTuneLib.weights import choice as weights
from SAMFineTuneLib.weights.availability import list_backbones
from SAMFineTuneLib.weights.choice import bundled_path, find_weights
from SAMFineTuneLib.weights.official import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=0.25)
BUNDLED = BACKBONES["starter"].bundled
assert BUNDLED is not None


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program now looks for its weights; there is nothing yet."""
    monkeypatch.setattr(weights, "_BUNDLE_FOLDER", tmp_path)
    assert BUNDLED is not None
    return tmp_path / BUNDLED.file_name


def pretrained() -> SamNetwork:
    network = build("starter", 256)
    load_checkpoint(network, find_weights("starter", None))
    return network.eval()


def ring(number: int, **changes: Any) -> LabelledSlice:
    """A bright disc, class 1, in a darker ring, class 2, on a dark ground."""
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(x, y) + number
    target = np.where(radius < 10, 1, np.where(radius < 20, 2, 0)).astype(np.uint8)
    noise = np.random.default_rng(number).normal(0, 0.02, target.shape)
    image = (np.choose(target, [0.2, 0.9, 0.5]) + noise).astype(np.float16)
    content = {
        "image": image,
        "target": target,
        "known": np.ones(3, dtype=bool),
        "window": WINDOW,
        "spacing": (1.0, 1.0),
        "volume": 0,
        "number": number,
    }
    return LabelledSlice(**{**content, **changes})


def square_of(each: LabelledSlice) -> Tensor:
    pixels = torch.from_numpy(each.image).float()
    square = torch.nn.functional.interpolate(pixels[None, None], (256, 256), mode="bilinear")
    normal = (square - WINDOW.mean) / WINDOW.standard_deviation
    return normal.expand(-1, 3, -1, -1)


def predicted(segmenter: AutomaticSegmenter, each: LabelledSlice) -> np.ndarray:
    with torch.no_grad():
        logits, _ = segmenter.eval()(square_of(each))
    found: np.ndarray = logits[0].argmax(0).numpy()
    return found


# The file


def test_the_shipped_weights_are_whole_and_small() -> None:
    path = find_weights("starter", None)
    assert path == bundled_path(BACKBONES["starter"].bundled)  # type: ignore[arg-type]
    assert path.stat().st_size <= 12_000_000
    network = pretrained()
    assert sum(each.numel() for each in network.parameters()) <= 5_000_000
    assert all(each.isfinite().all() for each in network.state_dict().values())


def test_missing_weights_are_said_so_and_random_ones_offered(bundle: Path) -> None:
    with pytest.raises(InputError, match="missing") as caught:
        find_weights("starter", None)
    assert str(bundle) in caught.value.message
    assert "random weights" in str(caught.value) and caught.value.code == "bundle_unusable"
    assert not next(each for each in list_backbones() if each.name == "starter").present


def test_damaged_weights_are_refused(bundle: Path) -> None:
    content = bytearray(_shipped().read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        find_weights("starter", None)
    bundle.write_bytes(_shipped().read_bytes())
    assert find_weights("starter", None) == bundle


def _shipped() -> Path:
    assert BUNDLED is not None
    return Path(weights.__file__).parent / BUNDLED.file_name


# The context


@torch.no_grad()
def test_five_slices_tell_the_pretrained_decoder_what_to_find() -> None:
    network = pretrained()
    slices = [ring(number) for number in range(5)]
    context = context_of_slices(network, slices, 3)
    assert context is not None and context.tokens.shape[0] == 3
    assert [each.shape[0] for each in context.prototypes] == 3 * [sum(cluster_counts(3))]
    decoder, prompts = network.context_decoder, cast(Any, network.prompt_encoder)
    assert isinstance(decoder, ContextMaskDecoder)
    dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
    features = network.image_encoder(square_of(ring(6)))
    logits, _ = decoder(features, prompts.get_dense_pe(), dense, context)
    found = logits[0].argmax(0)
    assert [found[32, 32], found[32, 41], found[2, 2]] == [1, 2, 0]


def test_a_tuned_decoder_has_classes_of_the_context_and_outlines_of_the_prompt_decoder() -> None:
    network = pretrained()
    outlining, own = network.mask_decoder, network.context_decoder
    assert isinstance(outlining, StarterMaskDecoder) and isinstance(own, ContextMaskDecoder)
    context = context_of_slices(network, [ring(0)], 3)
    assert context is not None
    AutomaticSegmenter(network, 2, context)
    tuned = network.mask_decoder
    assert isinstance(tuned, ContextClassDecoder) and network.context_decoder is None
    for name in ("transformer", "iou_token", "blocks16", "output_upscaling"):
        assert getattr(tuned, name) is getattr(outlining, name)
    assert len(tuned.blocks16) == len(outlining.blocks16) > 0 == len(own.blocks16)
    torch.testing.assert_close(tuned.tokens.detach(), context.tokens)
    for mine, given in zip(tuned.prototypes, context.prototypes, strict=True):
        torch.testing.assert_close(mine.detach(), given)
    for layer, compared in zip(tuned.compared, own.compared, strict=True):
        torch.testing.assert_close(layer.weight, compared.weight)


@torch.no_grad()
def test_refining_blocks_of_the_prompt_decoder_have_their_say() -> None:
    network = pretrained()
    segmenter = AutomaticSegmenter(network, 2, context_of_slices(network, [ring(0)], 3)).eval()
    decoder = network.mask_decoder
    assert isinstance(decoder, ContextClassDecoder)
    image = square_of(ring(1))
    whole, _ = segmenter(image)
    decoder.blocks16 = torch.nn.Sequential()
    without, _ = segmenter(image)
    assert not torch.allclose(whole, without, atol=0.1)


def test_an_unknown_class_is_learnt_from_the_slices_that_know_it() -> None:
    network = pretrained()
    unknown = np.array([True, True, False])
    doubtful = ring(0, known=unknown, target=np.where(ring(0).target == 2, 0, ring(0).target))
    with_doubt = context_of_slices(network, [doubtful, ring(1)], 3)
    without = context_of_slices(network, [ring(1)], 3)
    assert with_doubt is not None and without is not None
    # Class 2 and the background are told by the second slice alone, class 1 by both.
    torch.testing.assert_close(with_doubt.tokens[[0, 2]], without.tokens[[0, 2]])
    assert not torch.allclose(with_doubt.tokens[1], without.tokens[1])


def test_other_backbones_take_no_context() -> None:
    assert context_of_slices(build("vit_t", 256), [ring(0)], 3) is None


@pytest.mark.parametrize("method", ["vanilla", "adapter", "lora"])
def test_an_adapted_decoder_begins_with_the_context(method: Any) -> None:
    network = pretrained()
    context = context_of_slices(network, [ring(0)], 3)
    segmenter = AutomaticSegmenter(network, 2, context)
    before = predicted(segmenter, ring(3))
    adapt(network, method, "encoder_decoder", 4)
    assert np.array_equal(predicted(segmenter, ring(3)), before)
    trained = {name for name, each in segmenter.named_parameters() if each.requires_grad}
    assert {"network.mask_decoder.tokens", "network.mask_decoder.places"} <= trained
    assert not any(name.startswith("network.prompt_encoder") for name in trained)
