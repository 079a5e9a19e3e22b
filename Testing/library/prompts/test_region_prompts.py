"""Prompts for every region of a structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import build_mask_decoder, build_prompt_encoder
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.encoder import StarterEncoder
from SAMFineTuneLib.networks.starter.network import build_starter
from SAMFineTuneLib.prompts.prompt_maps import draw_maps
from SAMFineTuneLib.prompts.prompt_set import POSITIVE, PromptSet
from SAMFineTuneLib.prompts.region_prompts import region_prompts
from SAMFineTuneLib.prompts.simulated import boxes_around
from SAMFineTuneLib.random_source import RandomSource

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


def masks_of(*boxes: tuple[int, int, int, int]) -> Tensor:
    """A mask (1, S, S) of rectangles: left, top, right, bottom."""
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask[0, top:bottom, left:right] = True
    return mask


THREE = masks_of((2, 4, 22, 34), (30, 10, 41, 19), (50, 50, 60, 63))


def given(prompts: PromptSet) -> tuple[Tensor, Tensor]:
    """All points and all boxes of one image."""
    boxes = prompts.boxes[:, None]
    if prompts.further_boxes is not None:
        boxes = torch.cat([boxes, prompts.further_boxes], 1)
    return prompts.points[0][prompts.labels[0] == POSITIVE], boxes[0][~boxes[0].isnan().any(1)]


def test_every_region_gets_a_box_or_a_point() -> None:
    counts = []
    for seed in range(60):
        prompts, meant = region_prompts(THREE, RandomSource((seed,)))
        points, boxes = given(prompts)
        assert len(points) + len(boxes) == 3 and torch.equal(meant, THREE)
        counts.append(len(boxes))
    assert 75 <= sum(counts) <= 105, "as many boxes as points"
    assert len(set(counts)) == 4
    assert len(given(region_prompts(THREE, RandomSource((1,)), "box").prompts)[1]) == 3
    assert len(given(region_prompts(THREE, RandomSource((1,)), "point").prompts)[0]) == 3


def test_boxes_are_moved_by_a_tenth_of_their_size_and_at_most_20_pixels() -> None:
    mask = torch.zeros(1, 512, 512, dtype=torch.bool)
    mask[0, 100:500, 50:450] = True
    moved = []
    for seed in range(15):
        prompts = region_prompts(mask, RandomSource((seed,)), "box").prompts
        moved.append(prompts.boxes - boxes_around(mask))
    found = torch.cat(moved).abs()
    assert float(found.max()) == 20
    small = masks_of((10, 20, 30, 40))
    moved = [
        region_prompts(small, RandomSource((seed,)), "box").prompts.boxes - boxes_around(small)
        for seed in range(100)
    ]
    assert float(torch.cat(moved).std()) == pytest.approx(2, rel=0.2)


def test_points_lie_deeper_than_the_median() -> None:
    mask = THREE.clone()
    mask[0, 10:20, 10:15] = False
    parts, _ = ndimage.label(mask[0].numpy())
    depth = ndimage.distance_transform_edt(mask[0].numpy())
    places = set()
    for seed in range(40):
        points, _ = given(region_prompts(mask, RandomSource((seed,)), "point").prompts)
        for x, y in (points - 0.5).int().tolist():
            assert depth[y, x] > np.median(depth[parts == parts[y, x]])
            places.add((x, y))
    assert len(places) > 30


def test_regions_of_a_pixel_have_prompts_and_only_the_largest_of_many() -> None:
    speckled = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    speckled[0, ::4, ::4] = True
    speckled[0, 20:30, 20:30] = True
    prompts, meant = region_prompts(speckled, RandomSource((0,)), "point")
    points, _ = given(prompts)
    assert len(points) == 16
    assert meant[0, 20:30, 20:30].all() and int(ndimage.label(meant[0].numpy())[1]) == 16
    assert all(meant[0, y, x] for x, y in (points - 0.5).int().tolist())


def test_maps_fill_all_boxes() -> None:
    prompts = region_prompts(THREE, RandomSource((0,)), "box").prompts
    boxes = given(prompts)[1]
    box_map = draw_maps(prompts, SIZE // 4)[0, 2]
    alone = [
        draw_maps(PromptSet(prompts.points, prompts.labels, each[None]), SIZE // 4)[0, 2]
        for each in boxes
    ]
    assert torch.equal(box_map, torch.stack(alone).amax(0))
    assert len(boxes) == 3 and all(each.any() for each in alone)


@pytest.mark.parametrize("kind", ["starter", "sam"])
def test_decoders_take_several_boxes_of_an_image(kind: str) -> None:
    """A batch answers as its images do alone, and a further box changes the answer."""
    torch.manual_seed(0)
    network = build_starter(SIZE)
    if kind == "sam":
        # Only the decoders' own embedding is needed.
        network = SamNetwork(
            BACKBONES["vit_b"],
            SIZE,
            StarterEncoder(),
            build_prompt_encoder(BACKBONES["vit_b"], SIZE),
            build_mask_decoder(),
        )
    segmenter = PromptedSegmenter(network).eval()
    both = torch.cat([THREE, masks_of((10, 20, 30, 40))])
    prompts, _ = region_prompts(both, RandomSource((0,)), "box")
    assert prompts.further_boxes is not None and prompts.further_boxes[1].isnan().all()
    with torch.no_grad():
        if kind == "sam":
            features = FeatureState(torch.randn(2, 256, 4, 4))
        else:
            features = segmenter.encode(torch.randn(2, 3, SIZE, SIZE))
        logits, _ = segmenter.decode(features, prompts)
        fewer = PromptSet(prompts.points, prompts.labels, prompts.boxes)
        others, _ = segmenter.decode(features, fewer)
    assert logits.shape == (2, 1, SIZE // 4, SIZE // 4)
    assert not torch.allclose(logits[0], others[0], atol=1e-4)
    if kind == "sam":
        torch.testing.assert_close(logits[1], others[1])
