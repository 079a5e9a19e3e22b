"""The starter's automatic decoder, which reads the classes off other images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.class_clusters import cluster_counts, cluster_masks
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from Testing.support.pretraining_runs import SIDE, shares_of

pytestmark = pytest.mark.usefixtures("one_thread")


# Parts of a class that look alike


def test_the_clusters_of_a_class_add_up_to_it() -> None:
    features = torch.randn(2, 5, 8, 8)
    shares = torch.rand(2, 3, 8, 8).softmax(1)
    counts = cluster_counts(3)
    assert counts == [12, 4, 4]
    clusters = cluster_masks(features, shares)
    assert clusters.shape == (2, sum(counts), 8, 8)
    assert (clusters >= 0).all()
    for number, part in enumerate(clusters.split(counts, dim=1)):
        assert torch.allclose(part.sum(1), shares[:, number], atol=1e-6)
        assert ((part > 0).sum(1) <= 1).all(), "a pixel's share belongs to one cluster"
        assert (part.flatten(2).sum((0, 2)) > 0).sum() > 1, "a class of many kinds is split"


def test_a_class_that_is_absent_has_empty_clusters() -> None:
    classes = torch.zeros(1, 8, 8, dtype=torch.long)
    classes[:, :4] = 2
    parts = cluster_masks(torch.randn(1, 5, 8, 8), shares_of(classes, 3)).split([12, 4, 4], dim=1)
    assert parts[0].any() and not parts[1].any() and parts[2].any()


def test_two_groups_of_features_are_told_apart() -> None:
    """A wall and a lumen: no cluster of the class has pixels of both."""
    classes = torch.ones(1, 12, 12, dtype=torch.long)
    features = 0.1 * torch.randn(1, 5, 12, 12)
    features[:, 0, 3:9, 3:9] += 10
    lumen = torch.zeros(12, 12, dtype=torch.bool)
    lumen[3:9, 3:9] = True
    structure = cluster_masks(features, shares_of(classes, 2))[0, 12:]
    for cluster in structure:
        assert not (cluster[lumen].any() and cluster[~lumen].any())
    assert structure[:, lumen].any() and structure[:, ~lumen].any()


def test_as_many_groups_as_clusters_get_a_cluster_each() -> None:
    rows = torch.arange(12) // 3
    features = 0.1 * torch.randn(1, 4, 12, 12) + 5 * torch.eye(4)[rows].T[None, :, :, None]
    structure = cluster_masks(features, shares_of(torch.ones(1, 12, 12, dtype=torch.long), 2))[0]
    found = {tuple(each.nonzero()[:, 0].unique().tolist()) for each in structure[12:] if each.any()}
    assert found == {(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)}


def test_fewer_pixels_than_clusters_get_a_cluster_each_at_most() -> None:
    classes = torch.zeros(1, 8, 8, dtype=torch.long)
    classes[0, 2, 3] = classes[0, 6, 6] = 1
    parts = cluster_masks(torch.randn(1, 5, 8, 8), shares_of(classes, 2))[0, 12:]
    assert parts.flatten(1).sum(1).sort().values.tolist() == [0, 0, 1, 1]


# The automatic decoder


CLASSES = 4


@pytest.fixture
def decoder(network: SamNetwork) -> ContextMaskDecoder:
    assert isinstance(network.context_decoder, ContextMaskDecoder)
    return network.context_decoder


@pytest.fixture
def positions(network: SamNetwork) -> Tensor:
    encoder: Any = network.prompt_encoder
    encoded: Tensor = encoder.pe_layer((SIDE, SIDE))[None]
    return encoded


@pytest.fixture
def dense(network: SamNetwork) -> Tensor:
    encoder: Any = network.prompt_encoder
    weight: Tensor = encoder.no_mask_embed.weight
    return weight.reshape(1, -1, 1, 1)


def quarters() -> Tensor:
    """Class numbers (1, S, S): a square in four quarters."""
    classes = torch.zeros(1, 16 * SIDE, 16 * SIDE, dtype=torch.long)
    half = 8 * SIDE
    classes[:, :half, half:] = 1
    classes[:, half:, :half] = 2
    classes[:, half:, half:] = 3
    return classes


def features_of(classes: Tensor) -> FeatureState:
    """Features in which each class has a direction of its own, at every stride."""
    generator = torch.Generator().manual_seed(0)

    def at(stride: int, channels: int) -> Tensor:
        directions = 10 * torch.randn(CLASSES, channels, generator=generator)
        return directions[classes[:, ::stride, ::stride]].permute(0, 3, 1, 2)

    return FeatureState(at(16, 128), (at(4, 48), at(8, 96)))


def random_features(count: int) -> FeatureState:
    sizes = ((128, SIDE), (48, 4 * SIDE), (96, 2 * SIDE))
    x, stride4, stride8 = (torch.randn(count, channels, side, side) for channels, side in sizes)
    return FeatureState(x, (stride4, stride8))


@torch.no_grad()
def test_a_context_has_tokens_prototypes_and_places(
    decoder: ContextMaskDecoder, positions: Tensor
) -> None:
    context = decoder.form_context(random_features(2), positions, shares_of(quarters(), 4)[[0, 0]])
    clusters = 12 + 3 * 4
    assert context.counts == [12, 4, 4, 4]
    assert context.tokens.shape == (4, 128)
    assert [each.shape for each in context.prototypes] == [(clusters, 32), (clusters, 48), (24, 64)]
    assert context.places.shape == (clusters, 128)
    assert context.present.shape == (clusters,) and context.present.dtype == torch.bool
    assert context.present.any()


@torch.no_grad()
def test_images_that_say_nothing_about_a_class_do_not_count_for_it(
    decoder: ContextMaskDecoder, positions: Tensor
) -> None:
    features = random_features(2)
    shares = shares_of(quarters(), CLASSES)
    silent = torch.cat([shares, torch.zeros_like(shares)])
    both = decoder.form_context(features, positions, silent)
    first = FeatureState(features.x[:1], tuple(each[:1] for each in features.skips))
    alone = decoder.form_context(first, positions, shares)
    for here, there in zip(_tensors(both), _tensors(alone), strict=True):
        assert torch.allclose(here.float(), there.float(), atol=1e-5)


def _tensors(context: ClassContext) -> list[Tensor]:
    return [context.tokens, *context.prototypes, context.places, context.present]


@torch.no_grad()
def test_the_same_image_is_segmented_as_it_is_labelled_by_likeness_alone(
    decoder: ContextMaskDecoder, positions: Tensor
) -> None:
    classes = quarters()
    features = features_of(classes)
    context = decoder.form_context(features, positions, shares_of(classes, CLASSES))
    similarities = decoder.similarities(features, positions, context)
    assert similarities.shape == (1, CLASSES, 3, 4 * SIDE, 4 * SIDE)
    assert torch.equal(similarities.sum(2).argmax(1), classes[:, ::4, ::4])
    # At the finest stride no other stride helps, at every pixel.
    assert torch.equal(similarities[:, :, 0].argmax(1), classes[:, ::4, ::4])


@torch.no_grad()
def test_what_looks_like_a_class_is_found_where_it_is(
    decoder: ContextMaskDecoder, positions: Tensor
) -> None:
    """Turned upside down, the classes are found by their looks and not by their places."""
    classes = quarters()
    context = decoder.form_context(features_of(classes), positions, shares_of(classes, CLASSES))
    turned = classes.flip(1)
    found = decoder.similarities(features_of(turned), positions, context).sum(2).argmax(1)
    assert float((found == turned[:, ::4, ::4]).float().mean()) > 0.95


@torch.no_grad()
def test_twins_are_told_apart_by_their_places(
    decoder: ContextMaskDecoder, positions: Tensor
) -> None:
    classes = torch.zeros(1, 64, 64, dtype=torch.long)
    classes[:, 16:48, :16], classes[:, 16:48, 48:] = 1, 2
    # Left and right look the same.
    features = features_of(classes.clamp(max=1))
    context = decoder.form_context(features, positions, shares_of(classes, 3))
    found = decoder.similarities(features, positions, context).sum(2).argmax(1)
    for number in (1, 2):
        where = classes[:, ::4, ::4] == number
        assert float((found[where] == number).float().mean()) > 0.9


@torch.no_grad()
def test_classes_in_another_order_give_logits_in_that_order(
    decoder: ContextMaskDecoder, positions: Tensor, dense: Tensor
) -> None:
    labelled, other = random_features(2), random_features(2)
    shares = shares_of(quarters(), CLASSES).repeat(2, 1, 1, 1)
    # Background is another kind of class, and stays.
    order = [0, 3, 1, 2]
    found = []
    for chosen in (list(range(CLASSES)), order):
        context = decoder.form_context(labelled, positions, shares[:, chosen])
        found.append(decoder(other, positions, dense, context))
    (logits, iou_predictions), (turned, turned_iou_predictions) = found
    assert logits.shape == (2, CLASSES, 16, 16) and iou_predictions.shape == (2, CLASSES)
    assert torch.allclose(logits[:, order], turned, atol=1e-4)
    assert torch.allclose(iou_predictions[:, order], turned_iou_predictions, atol=1e-4)
    assert not torch.allclose(logits, turned, atol=1e-2)


def test_a_class_that_no_image_shows_is_finite_and_never_found(
    decoder: ContextMaskDecoder, positions: Tensor, dense: Tensor
) -> None:
    classes = quarters()
    classes[classes == 2] = 0
    features = random_features(1)
    features.x.requires_grad_()
    context = decoder.form_context(features, positions, shares_of(classes, CLASSES))
    assert context.present.split(context.counts)[2].tolist() == [False] * 4
    others = random_features(2)
    likeness = decoder.similarities(others, positions, context)
    assert (likeness[:, 2] == -100).all() and (likeness[:, [0, 1, 3]] > -10).all()
    logits, iou_predictions = decoder(others, positions, dense, context)
    assert logits.isfinite().all() and iou_predictions.isfinite().all()
    assert 2 not in logits.argmax(1).unique().tolist()
    torch.nn.functional.cross_entropy(logits, classes[:, ::4, ::4].repeat(2, 1, 1)).backward()
    for each in (features.x.grad, *(one.grad for one in decoder.parameters())):
        assert each is None or each.isfinite().all()
    decoder.zero_grad(set_to_none=True)


@torch.no_grad()
def test_a_class_can_have_an_output_layer_of_its_own(
    decoder: ContextMaskDecoder, positions: Tensor, dense: Tensor
) -> None:
    features = random_features(1)
    context = decoder.form_context(features, positions, shares_of(quarters(), CLASSES))
    shared, _ = decoder(features, positions, dense, context)
    same = torch.nn.ModuleList([decoder.output_mlp] * CLASSES)
    assert torch.allclose(decoder(features, positions, dense, context, same)[0], shared, atol=1e-5)
    own = torch.nn.ModuleList([decoder.output_mlp] * (CLASSES - 1) + [torch.nn.Linear(128, 32)])
    changed = decoder(features, positions, dense, context, own)[0]
    assert torch.allclose(changed[:, :-1], shared[:, :-1], atol=1e-5)
    assert not torch.allclose(changed[:, -1], shared[:, -1], atol=1e-3)
