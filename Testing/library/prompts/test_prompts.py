"""Prompts: what they are, how they are drawn and simulated, and that the network hears them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.network import build_starter, set_input_size
from SAMFineTuneLib.prompts.prompt_maps import STRIDE, draw_maps
from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, PADDING, POSITIVE, PromptSet
from SAMFineTuneLib.prompts.simulated import (
    boxes_around,
    correcting_points,
    depth_of,
    first_prompts,
    jittered,
    points_within,
)

SIZE = 64
POSITIVE_MAP, NEGATIVE_MAP, BOX_MAP, MASK_MAP = range(4)

pytestmark = pytest.mark.usefixtures("one_thread")


def points(*places: tuple[float, float], labels: tuple[int, ...] = ()) -> PromptSet:
    """Points of one image, positive unless told otherwise."""
    return PromptSet(
        torch.tensor([places]),
        torch.tensor([labels or (POSITIVE,) * len(places)]),
        torch.full((1, 4), torch.nan),
    )


def box(left: float, top: float, right: float, bottom: float) -> PromptSet:
    none = PromptSet.none(1)
    return PromptSet(none.points, none.labels, torch.tensor([[left, top, right, bottom]]))


def disc(x: float, y: float, radius: float, size: int = SIZE) -> Tensor:
    """(S, S) bool."""
    axis = torch.arange(size) + 0.5
    return (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2 < radius**2


def no_noise(masks: Tensor) -> Tensor:
    return torch.zeros(masks.shape)


# What a set of prompts is


def test_no_prompts_are_no_points_and_no_boxes() -> None:
    none = PromptSet.none(3)
    assert none.points.shape == (3, 0, 2) and none.labels.shape == (3, 0)
    assert none.labels.dtype == torch.long
    assert none.boxed.tolist() == [False] * 3 and none.mask is None


def test_points_and_masks_are_added_and_the_rest_stays() -> None:
    first = box(1, 2, 3, 4)
    mask = torch.randn(1, 1, 16, 16)
    second = first.with_mask(mask).with_points(torch.tensor([[5.0, 6.0]]), torch.tensor([NEGATIVE]))
    third = second.with_points(torch.tensor([[7.0, 8.0]]), torch.tensor([POSITIVE]))
    assert third.points.tolist() == [[[5, 6], [7, 8]]]
    assert third.labels.tolist() == [[NEGATIVE, POSITIVE]]
    assert third.mask is mask and torch.equal(third.boxes, first.boxes)
    assert first.points.shape[1] == 0 and first.mask is None, "the old one is as it was"
    assert third.with_mask(None).mask is None


def test_a_box_that_lacks_a_side_is_none() -> None:
    boxes = torch.tensor([[1.0, 2, 3, 4], [torch.nan] * 4, [1, torch.nan, 3, 4]])
    none = PromptSet.none(3)
    assert PromptSet(none.points, none.labels, boxes).boxed.tolist() == [True, False, False]


# Prompts as pictures


def test_a_point_is_a_disc_at_its_place() -> None:
    # The middle of the pixel of row 9 and column 5 at stride 4.
    maps = draw_maps(points((5.5 * STRIDE, 9.5 * STRIDE)), 40)
    assert maps.shape == (1, 4, 40, 40)
    disc_map = maps[0, POSITIVE_MAP]
    assert disc_map[9, 5] == 1 == disc_map.max()
    assert (disc_map == 1).sum() == 1
    assert disc_map[9, 6] == pytest.approx(disc_map[9, 4]) == pytest.approx(disc_map[8, 5])
    assert 0.1 < disc_map[9, 6] < 0.9 and disc_map[9, 15] < 1e-3, "it falls off"
    assert not maps[0, [NEGATIVE_MAP, BOX_MAP, MASK_MAP]].any()


@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (63.5, 0.5), (17.2, 40.9), (39.9, 63.9)])
def test_the_nearest_pixel_of_the_map_is_the_brightest(x: float, y: float) -> None:
    drawn = draw_maps(points((x, y)), SIZE // STRIDE)[0, POSITIVE_MAP]
    assert divmod(int(drawn.argmax()), SIZE // STRIDE) == (y // STRIDE, x // STRIDE)


def test_kinds_of_points_have_maps_of_their_own() -> None:
    prompts = points((10, 10), (30, 30), (50, 10), labels=(POSITIVE, NEGATIVE, POSITIVE))
    maps = draw_maps(prompts, SIZE // STRIDE)[0]
    at = {place: maps[:2, place[1] // STRIDE, place[0] // STRIDE] for place in ((10, 10), (30, 30))}
    assert at[10, 10][POSITIVE_MAP] > 0.9 and at[10, 10][NEGATIVE_MAP] < 1e-6
    assert at[30, 30][POSITIVE_MAP] < 1e-6 and at[30, 30][NEGATIVE_MAP] > 0.9
    assert maps[POSITIVE_MAP, 2, 12] > 0.9, "the other positive one"


def test_padding_draws_nothing() -> None:
    alone = draw_maps(points((10, 10)), SIZE // STRIDE)
    padded = points((10, 10), (40, 40), labels=(POSITIVE, PADDING))
    assert torch.equal(draw_maps(padded, SIZE // STRIDE), alone)
    assert not draw_maps(points((10, 10), labels=(PADDING,)), SIZE // STRIDE).any()


def test_discs_grow_with_the_square() -> None:
    small = draw_maps(points((64.0, 64.0)), 32)[0, POSITIVE_MAP]
    large = draw_maps(points((256.0, 256.0)), 128)[0, POSITIVE_MAP]
    # The volume under the bell, as a share of the square.
    assert large.mean() == pytest.approx(float(small.mean()), rel=0.1)


def test_a_box_is_filled_to_its_edges() -> None:
    drawn = draw_maps(box(8, 12, 24, 20), SIZE // STRIDE)
    expected = torch.zeros(16, 16)
    expected[3:5, 2:6] = 1
    assert torch.equal(drawn[0, BOX_MAP], expected)
    assert not drawn[0, [POSITIVE_MAP, NEGATIVE_MAP, MASK_MAP]].any()


def test_where_there_is_no_box_none_is_drawn() -> None:
    boxes = torch.tensor([[torch.nan] * 4, [0.0, 0, SIZE, SIZE]])
    none = PromptSet.none(2)
    drawn = draw_maps(PromptSet(none.points, none.labels, boxes), SIZE // STRIDE)
    assert not drawn[0].any()
    assert drawn[1, BOX_MAP].all()


def test_the_previous_mask_is_drawn_as_it_is() -> None:
    logits = torch.tensor([0.0, 100.0, -100.0, 1.0]).repeat(4, 1)[None, None]
    drawn = draw_maps(PromptSet.none(1).with_mask(logits), 4)[0, MASK_MAP]
    assert drawn[2].tolist() == pytest.approx([0, 0.5, -0.5, 0.2310586])


# Prompts from true masks


def test_boxes_are_tight_from_edge_to_edge() -> None:
    masks = torch.zeros(4, 20, 30, dtype=torch.bool)
    masks[0, 3:8, 10:13] = True
    masks[1, 3, 29] = True
    masks[2] = True
    masks[3, 2, 4] = masks[3, 17, 22] = True
    expected = [[10, 3, 13, 8], [29, 3, 30, 4], [0, 0, 30, 20], [4, 2, 23, 18]]
    assert boxes_around(masks).tolist() == expected


def test_an_empty_mask_has_no_box() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[1, 2:4, 2:4] = True
    boxes = boxes_around(masks)
    assert boxes[0].isnan().all() and boxes[1].tolist() == [2, 2, 4, 4]


def test_sides_move_by_a_share_of_the_size_within_a_limit() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    assert torch.equal(jittered(boxes, 0.1, torch.zeros(1, 4)), boxes)
    noise = torch.tensor([[1.0, -1, 0.5, 2]])
    assert jittered(boxes, 0.1, noise).tolist() == [[12, 16, 31, 68]]
    assert jittered(boxes, 0.1, noise, largest=3).tolist() == [[12, 17, 31, 63]]


def test_a_jittered_box_keeps_a_pixel_and_stays_near() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(500, 2, generator=generator) * 200
    boxes = torch.cat([low, low + 1 + torch.rand(500, 2, generator=generator) ** 3 * 100], dim=1)
    moved = jittered(boxes, 0.8, torch.randn(500, 4, generator=generator))
    assert (moved[:, 2:] - moved[:, :2] >= 1 - 1e-4).all()
    assert ((moved - boxes).abs()[:, :2] <= 20 + 1e-4).all()
    smallest = moved[:, 2:] - moved[:, :2] <= 1 + 1e-4
    assert 0 < smallest.sum() < 500, "some would have been turned inside out, most not"


def test_what_is_no_box_is_none_when_jittered() -> None:
    moved = jittered(torch.full((1, 4), torch.nan), 0.1, torch.randn(1, 4))
    assert not PromptSet(torch.zeros(1, 0, 2), torch.zeros(1, 0), moved).boxed.any()


def test_depth_is_zero_outside_and_largest_in_the_middle() -> None:
    masks = torch.stack([disc(30.5, 20.5, 6), disc(50, 50, 3)])
    depth = depth_of(masks)
    assert ((depth > 0) == masks).all()
    assert divmod(int(depth[0].argmax()), SIZE) == (20, 30)
    along = depth[0, 20, 30:36]
    assert (along[1:] <= along[:-1]).all() and along[-1] < along[0]
    assert torch.equal(depth_of(masks[1:])[0], depth[1]), "each image by itself"


def test_depth_adds_up_the_filling_of_four_windows() -> None:
    """Compared with windows that are looked at one by one, at the image's edge too."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, 100, 100, generator=generator) < 0.6
    depth = depth_of(mask)[0]
    for y, x in ((0, 0), (50, 50), (99, 3), (40, 97)):
        expected = 0.0
        for half in (1, 3, 8, 20):
            window = mask[0, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
            expected += float(window.sum()) / (2 * half + 1) ** 2
        assert depth[y, x] == pytest.approx(expected * float(mask[0, y, x]), rel=1e-5)


def test_a_point_lies_inside_whatever_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    crescent = disc(32, 32, 20) & ~disc(38, 32, 18)
    specks = torch.rand(SIZE, SIZE, generator=generator) < 0.02
    line = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    line[63, 10:60] = True
    masks = torch.stack([crescent, specks, line])
    evenly = torch.rand(masks.shape, generator=generator)
    for noise in (no_noise(masks), evenly, (~masks).float()):
        places, found = points_within(masks, noise)
        assert found.all()
        assert (places % 1 == 0.5).all(), "the middle of a pixel"
        for mask, (x, y) in zip(masks, places.long().tolist(), strict=True):
            assert mask[y, x]


@pytest.mark.parametrize("radius", [4, 8, 12, 14])
def test_the_deepest_point_of_a_disc_is_about_its_middle(radius: int) -> None:
    masks = torch.stack([disc(40.5, 88.5, radius, 128), disc(20.5, 19.5, radius, 128)])
    places, _ = points_within(masks, no_noise(masks))
    away = (places - torch.tensor([[40.5, 88.5], [20.5, 19.5]])).norm(dim=1)
    assert (away < 0.36 * radius).all()


def test_noise_chooses_among_deep_places() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = disc(32, 32, 15)[None].expand(40, -1, -1)
    places, _ = points_within(masks, torch.rand(masks.shape, generator=generator))
    assert len({tuple(each) for each in places.tolist()}) > 20
    assert ((places - 32).norm(dim=1) < 12).all(), "but none at the edge"


def test_an_empty_mask_has_no_point() -> None:
    masks = torch.stack([disc(20, 20, 5), disc(20, 20, 0)])
    assert points_within(masks, torch.rand(masks.shape))[1].tolist() == [True, False]


def test_the_next_click_lies_in_what_is_missing_or_too_much() -> None:
    whole, left = disc(32.5, 32.5, 12), disc(15.5, 32.5, 5)
    # Missing: nothing found; too much: what is found elsewhere; and right.
    found = torch.stack([disc(0, 0, 0), whole | left, whole])
    true = torch.stack([left, whole, whole])
    places, labels = correcting_points(found, true, no_noise(found))
    assert labels.tolist() == [POSITIVE, NEGATIVE, PADDING]
    assert (places[0] - torch.tensor([15.5, 32.5])).norm() < 2
    x, y = places[1].long().tolist()
    assert left[y, x] and not whole[y, x]


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_larger_error_is_corrected_first(noise: float) -> None:
    small, large = disc(15.5, 40.5, 2.5), disc(45.5, 20.5, 6)
    found = torch.stack([small, large])
    true = torch.stack([large, small])
    generator = torch.Generator().manual_seed(0)
    places, labels = correcting_points(
        found, true, noise * torch.rand(found.shape, generator=generator)
    )
    assert labels.tolist() == [POSITIVE, NEGATIVE]
    for place in places:
        assert (place - torch.tensor([45.5, 20.5])).norm() <= (0 if noise == 0 else 5)


def test_corrections_lead_to_the_true_mask() -> None:
    """Whoever mends the error under each click is done when there are no clicks left."""
    true = disc(20.5, 20.5, 8) | disc(48.5, 40.5, 5)
    parts = [disc(20.5, 20.5, 8), disc(48.5, 40.5, 5), disc(10.5, 50.5, 6)]
    found = disc(10.5, 50.5, 6)
    clicks = []
    for _ in range(4):
        place, label = correcting_points(found[None], true[None], torch.zeros(1, SIZE, SIZE))
        clicks.append(int(label))
        if label == PADDING:
            break
        x, y = place[0].long().tolist()
        part = next(each for each in parts if each[y, x])
        found = found | part if label == POSITIVE else found & ~part
    assert clicks == [POSITIVE, NEGATIVE, POSITIVE, PADDING]
    assert torch.equal(found, true)


def test_first_prompts_are_a_box_or_a_point() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([disc(20, 20, 8), disc(40, 40, 8)]).repeat(10, 1, 1)
    boxed = torch.tensor([True, False]).repeat(10)
    noise = torch.rand(masks.shape, generator=generator)
    prompts = first_prompts(masks, boxed, 0.0, noise)
    assert torch.equal(prompts.boxed, boxed) and prompts.mask is None
    assert torch.equal(prompts.boxes[boxed], boxes_around(masks)[boxed]), "no jitter asked for"
    assert prompts.labels[:, 0].tolist() == [PADDING, POSITIVE] * 10
    for mask, (x, y) in zip(masks, prompts.points[:, 0].long().tolist(), strict=True):
        assert mask[y, x]
    moved = first_prompts(masks, boxed, 0.1, noise).boxes[boxed] - prompts.boxes[boxed]
    # A tenth of 16 pixels.
    assert 1.0 < moved.std() < 2.4 and abs(moved.mean()) < 0.6


# The network and its prompts


@pytest.fixture(scope="module")
def network() -> SamNetwork:
    torch.manual_seed(0)
    return build_starter(SIZE).eval()


@pytest.fixture(scope="module")
def features(network: SamNetwork) -> FeatureState:
    """Of two images."""
    torch.manual_seed(1)
    with torch.no_grad():
        return PromptedSegmenter(network).encode(torch.randn(2, 3, SIZE, SIZE))


def part_of(features: FeatureState, chosen: list[int]) -> FeatureState:
    return FeatureState(features.x[chosen], tuple(each[chosen] for each in features.skips))


@torch.no_grad()
def logits_of(network: SamNetwork, features: FeatureState, prompts: PromptSet) -> Tensor:
    return PromptedSegmenter(network).decode(features, prompts)[0]


def two_images(one: PromptSet, other: PromptSet) -> PromptSet:
    return PromptSet(
        torch.cat([one.points, other.points]),
        torch.cat([one.labels, other.labels]),
        torch.cat([one.boxes, other.boxes]),
    )


@pytest.mark.parametrize("size", [64, 96])
def test_masks_have_stride_4_at_every_size(network: SamNetwork, size: int) -> None:
    set_input_size(network, size)
    segmenter = PromptedSegmenter(network)
    with torch.no_grad():
        found = segmenter.encode(torch.randn(2, 3, size, size))
        prompts = two_images(points((20, 20)), points((30, 9)))
        first, iou_predictions = segmenter.decode(found, prompts)
        second, _ = segmenter.decode(found, prompts.with_mask(first))
    set_input_size(network, SIZE)
    assert first.shape == second.shape == (2, 1, size // 4, size // 4)
    assert iou_predictions.shape == (2, 1)
    assert first.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize(
    "other",
    [
        points((44, 20)),
        points((20, 20), labels=(NEGATIVE,)),
        points((20, 20), (44, 20)),
        box(10, 10, 30, 30),
        points((20, 20)).with_mask(torch.ones(1, 1, 16, 16)),
    ],
    ids=["moved", "negative", "second point", "box", "mask"],
)
def test_another_prompt_gives_another_mask(
    network: SamNetwork, features: FeatureState, other: PromptSet
) -> None:
    one = part_of(features, [0])
    before = logits_of(network, one, points((20, 20)))
    after = logits_of(network, one, other)
    assert (after - before).abs().max() > 0.01 * before.std()
    assert torch.equal(before, logits_of(network, one, points((20, 20)))), "nothing is random"


def test_a_box_and_a_mask_that_differ_are_heard(
    network: SamNetwork, features: FeatureState
) -> None:
    one = part_of(features, [0])
    boxes = [box(8, 8, 30, 30), box(20, 8, 42, 30)]
    masks = [
        points((20, 20)).with_mask((disc(x, 8, 4, 16).float() * 20 - 10)[None, None])
        for x in (4.0, 11.0)
    ]
    for first, second in (boxes, masks):
        one_way, other_way = (logits_of(network, one, each) for each in (first, second))
        assert (one_way - other_way).abs().max() > 0.01 * one_way.std()


def test_prompts_of_one_image_say_nothing_to_another(
    network: SamNetwork, features: FeatureState
) -> None:
    here, there, elsewhere = (points(place) for place in ((20.0, 20.0), (40.0, 9.0), (3.0, 60.0)))
    both = logits_of(network, features, two_images(here, there))
    changed = logits_of(network, features, two_images(here, elsewhere))
    assert torch.allclose(both[0], changed[0], atol=1e-5)
    assert not torch.allclose(both[1], changed[1], atol=1e-3)
    turned = logits_of(network, part_of(features, [1, 0]), two_images(there, here))
    assert torch.allclose(turned.flip(0), both, atol=1e-5)


def test_a_point_and_the_features_under_it_have_one_position(network: SamNetwork) -> None:
    """A pixel centre is at half-integers, for the encoding of a point as for that of a cell."""
    encoder: Any = network.prompt_encoder
    cells = encoder.pe_layer((SIZE // 16, SIZE // 16))
    # The middle of the cell of row 2 and column 1, and the corners of a box.
    tokens = PromptedSegmenter(network)._tokens(points((24, 40)))
    kind = encoder.point_embeddings[POSITIVE].weight[0]
    assert torch.allclose(tokens[0, 0] - kind, cells[:, 2, 1], atol=1e-5)
    corners = PromptedSegmenter(network)._tokens(box(8, 24, 40, 56))[0, -2:]
    for corner, number, (row, column) in zip(corners, (2, 3), ((1, 0), (3, 2)), strict=True):
        kind = encoder.point_embeddings[number].weight[0]
        assert torch.allclose(corner - kind, cells[:, row, column], atol=1e-5)


def test_no_box_is_no_point(network: SamNetwork) -> None:
    encoder: Any = network.prompt_encoder
    tokens = PromptedSegmenter(network)._tokens(points((24, 40), labels=(PADDING,)))
    assert tokens.shape == (1, 4, 128)
    assert torch.equal(tokens[0], encoder.not_a_point_embed.weight.expand(4, -1))


def test_a_place_is_the_same_share_of_every_square(network: SamNetwork) -> None:
    segmenter = PromptedSegmenter(network)
    small = segmenter._tokens(points((16, 40)))
    set_input_size(network, 4 * SIZE)
    large = segmenter._tokens(points((64, 160)))
    set_input_size(network, SIZE)
    assert torch.allclose(small, large, atol=1e-5)


def test_gradients_reach_encoder_decoder_and_prompts(network: SamNetwork) -> None:
    segmenter = PromptedSegmenter(network)
    images = torch.randn(1, 3, SIZE, SIZE, requires_grad=True)
    features = segmenter.encode(images)
    first, _ = segmenter.decode(features, points((20, 20)))
    second, iou_predictions = segmenter.decode(features, points((20, 20)).with_mask(first.detach()))
    (first.square().mean() + second.square().mean() + iou_predictions.sum()).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    chosen = (
        network.image_encoder.get_parameter("stride2.0.weight"),
        network.mask_decoder.get_parameter("mask_tokens.weight"),
        network.mask_decoder.get_parameter("iou_prediction_head.layers.2.weight"),
        network.mask_decoder.get_parameter("maps_at_stride4.weight"),
        network.mask_decoder.get_parameter("maps_at_stride16.0.weight"),
        network.prompt_encoder.get_parameter("mask_downscaling.0.weight"),
        network.prompt_encoder.get_parameter(f"point_embeddings.{POSITIVE}.weight"),
        network.prompt_encoder.get_parameter("no_mask_embed.weight"),
    )
    for each in chosen:
        assert each.grad is not None and each.grad.abs().sum() > 0
    network.zero_grad(set_to_none=True)
