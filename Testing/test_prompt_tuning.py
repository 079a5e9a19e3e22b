"""Tuned for prompts: Segment Anything's own masks from prompts, and weights that give better."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from SAMFineTuneLib.backbones.definitions import segment_anything_modeling
from SAMFineTuneLib.backbones.registry import build
from SAMFineTuneLib.backbones.staged_encoder import FeatureState
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, PADDING, POSITIVE, PromptSet

pytestmark = pytest.mark.usefixtures("two_threads")


# Segment Anything's networks


class _Embedded(nn.Module):
    """In an image encoder's place: gives embeddings that are known."""

    img_size = 1024

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, images: Tensor) -> Tensor:
        return self.embeddings


@pytest.fixture(scope="module")
def vit_t() -> PromptedSegmenter:
    torch.manual_seed(0)
    return PromptedSegmenter(build("vit_t", 1024).eval())


def as_sam_takes_them(prompts: PromptSet) -> dict[str, Tensor]:
    """One image's prompts in the official terms: indices of pixels, and nothing for none."""
    record = {}
    given = prompts.labels[0] != PADDING
    if given.any():
        record["point_coords"] = prompts.points[:, given] - 0.5
        record["point_labels"] = prompts.labels[:, given]
    if prompts.boxed:
        record["boxes"] = prompts.boxes - 0.5
    if prompts.mask is not None:
        record["mask_inputs"] = prompts.mask
    return record


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_masks_are_those_of_the_official_model(vit_t: PromptedSegmenter, masked: bool) -> None:
    """A batch of a point, points and a box, a box, and no prompt, against `Sam.forward`."""
    network: Any = vit_t.network
    embeddings = torch.randn(4, 256, 64, 64)
    nothing = [torch.nan] * 4
    prompts = PromptSet(
        points=torch.tensor([[[300.5, 200.5], [40.5, 900.5]]]).repeat(4, 1, 1),
        labels=torch.tensor(
            [[POSITIVE, PADDING], [NEGATIVE, POSITIVE], [PADDING, PADDING], [PADDING, PADDING]]
        ),
        boxes=torch.tensor(
            [nothing, [100.0, 150.0, 600.0, 420.0], [9.0, 8.0, 70.0, 60.0], nothing]
        ),
        mask=4 * torch.randn(4, 1, 256, 256) if masked else None,
    )
    sam = segment_anything_modeling().Sam(
        _Embedded(embeddings), network.prompt_encoder, network.mask_decoder
    )
    images = [
        {"image": torch.zeros(3, 1024, 1024), "original_size": (1024, 1024)}
        | as_sam_takes_them(prompts.of_image(number))
        for number in range(4)
    ]
    expected = sam(images, multimask_output=False)
    logits, overlaps = vit_t.decode(FeatureState(embeddings), prompts)
    assert logits.shape == (4, 1, 256, 256) and overlaps.shape == (4, 1)
    for number, official in enumerate(expected):
        assert torch.equal(logits[number], official["low_res_logits"][0])
        assert torch.equal(overlaps[number], official["iou_predictions"][0])


@pytest.mark.parametrize("name", ["vit_t", "vit_b"])
@torch.no_grad()
def test_segment_anything_answers_at_other_sizes(name: str) -> None:
    segmenter = PromptedSegmenter(build(name, 256).eval())
    features = segmenter.encode(torch.randn(2, 3, 256, 256))
    prompts = PromptSet.none(2).with_points(
        torch.tensor([[30.5, 40.5], [200.5, 90.5]]), torch.tensor([POSITIVE, POSITIVE])
    )
    first, _ = segmenter.decode(features, prompts)
    second, overlaps = segmenter.decode(features, prompts.with_mask(first))
    assert first.shape == second.shape == (2, 1, 64, 64) and overlaps.shape == (2, 1)
    assert first.isfinite().all() and second.isfinite().all()
    assert not torch.allclose(first, second, atol=1e-3), "the previous mask is heard"
