"""The pre-training of the starter network: its parts, its losses, its files, its command."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.registry import build
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.class_clusters import cluster_counts, cluster_masks
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from SAMFineTuneLib.networks.starter.encoder import give_initial_scale
from SAMFineTuneLib.networks.starter.network import build_starter
from SAMFineTuneLib.networks.starter.refining_block import RefiningBlock
from SAMFineTuneLib.pretraining import run as run_module
from SAMFineTuneLib.pretraining import saved
from SAMFineTuneLib.pretraining import training as training_module
from SAMFineTuneLib.pretraining.context_task import context_loss
from SAMFineTuneLib.pretraining.episode import Episode, draw_episode
from SAMFineTuneLib.pretraining.plan import PretrainingPlan
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.prompt_task import Rounds, choose_masks, prompt_loss
from SAMFineTuneLib.pretraining.run import run_pretraining
from SAMFineTuneLib.pretraining.saved import load_state, save_state, save_weights
from SAMFineTuneLib.pretraining.training import Pretraining
from SAMFineTuneLib.random_source import Chance
from SAMFineTuneLib.training.loss import PartialLabelLoss
from SAMFineTuneLib.training.mask_loss import mask_loss, thinned
from SAMFineTuneLib.weights.official import load_checkpoint

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
# Six images a step.
TINY = PretrainingPlan(steps=4, episodes=1, images=1, sizes=(64,), warm_up=2)
QUICKLY = ("--episodes", "1", "--images", "1", "--sizes", "64", "--device", "cpu")

pytestmark = pytest.mark.usefixtures("two_threads")


# Parts of a class that look alike


def shares_of(classes: Tensor, count: int) -> Tensor:
    """Class numbers (N, H, W) as shares (N, K, H, W)."""
    return torch.nn.functional.one_hot(classes, count).permute(0, 3, 1, 2).float()


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


SIDE = 4
CLASSES = 4


@pytest.fixture(scope="module")
def network() -> SamNetwork:
    torch.manual_seed(0)
    return build_starter(16 * SIDE)


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
    (logits, overlaps), (turned, turned_overlaps) = found
    assert logits.shape == (2, CLASSES, 16, 16) and overlaps.shape == (2, CLASSES)
    assert torch.allclose(logits[:, order], turned, atol=1e-4)
    assert torch.allclose(overlaps[:, order], turned_overlaps, atol=1e-4)
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
    logits, overlaps = decoder(others, positions, dense, context)
    assert logits.isfinite().all() and overlaps.isfinite().all()
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


# What is minimised


def test_mask_loss_is_cross_entropy_dice_and_a_tenth_of_the_overlap_error() -> None:
    logits = torch.tensor([[[[2.0, -1.0], [0.5, -3.0]]]])
    masks = torch.tensor([[[True, False], [False, False]]])
    loss, dsc = mask_loss(logits, torch.tensor([[0.9]]), masks)
    shares = [1 / (1 + math.exp(-each)) for each in (2.0, -1.0, 0.5, -3.0)]
    entropy = -(math.log(shares[0]) + sum(math.log(1 - each) for each in shares[1:])) / 4
    dice = 1 - (2 * shares[0] + 1) / (sum(shares) + 1 + 1)
    # Two pixels are found, one of them true: an overlap of a half.
    assert float(loss) == pytest.approx(entropy + dice + 0.1 * (0.9 - 0.5) ** 2, abs=1e-6)
    assert dsc.tolist() == pytest.approx([2 / 3])


def test_mask_loss_of_the_true_mask_is_nearly_nothing() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, :, 4:] = True, True
    right = (masks.float() * 60 - 30)[:, None]
    loss, dsc = mask_loss(right, torch.ones(2, 1), masks)
    assert float(loss) < 1e-5 and dsc.tolist() == [1, 1]
    half, dsc = mask_loss(torch.cat([right[:1], -right[1:]]), torch.ones(2, 1), masks)
    assert dsc.tolist() == [1, 0]
    # One in two masks: Dice 1, overlap off by 1, and cross entropy 30.
    assert float(half) == pytest.approx(0.5 * (30 + 32 / 33 * 1 + 2 / 33 * 0.5 + 0.1), rel=0.02)


def test_coarse_logits_are_interpolated_between_the_middles_of_pixels() -> None:
    masks = torch.tensor([[[True, True, False, False]]])
    coarse = torch.tensor([[[[3.0, -1.0]]]])
    fine = torch.tensor([[[[3.0, 2.0, 0.0, -1.0]]]])
    overlaps = torch.tensor([[0.3]])
    loss, dsc = mask_loss(coarse, overlaps, masks)
    assert float(loss) == pytest.approx(float(mask_loss(fine, overlaps, masks)[0]))
    assert dsc.tolist() == [1]


def test_thinning_keeps_the_middle_of_a_mask() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[0, 10:20, 6:12] = 1
    centres = []
    for seed in range(200):
        thin = thinned(mask, Chance((seed,)))
        assert thin.shape == (1, 16, 16)
        places = thin[0].nonzero().float()
        centres.append((places.mean(0) + 0.5) * 2)
    mean = torch.stack(centres).mean(0)
    torch.testing.assert_close(mean, torch.tensor([15.0, 9.0]), atol=0.15, rtol=0)


def an_episode(seed: int = 1, count: int = 4) -> Episode:
    return draw_episode(Chance((seed,)), count, 16 * SIDE)


def features_by(network: SamNetwork, episode: Episode) -> FeatureState:
    images = episode.images[:, None].expand(-1, 3, -1, -1)
    return PromptedSegmenter(network).encode(images)


def prompted(
    network: SamNetwork, episode: Episode, rounds: int = 3, passed_over: int = 0
) -> tuple[Tensor, list[Tensor]]:
    chance = Chance((0,))
    masks = choose_masks([episode], chance)
    assert masks.flatten(1).any(1).all(), "choose an episode that shows something everywhere"
    segmenter = PromptedSegmenter(network)
    features = features_by(network, episode)
    return prompt_loss(segmenter, features, masks, Rounds(rounds, passed_over), chance)


def test_chosen_masks_are_structures_of_their_images() -> None:
    episodes = [an_episode(seed) for seed in range(6)]
    masks = choose_masks(episodes, Chance((0,)))
    assert masks.shape == (24, 64, 64) and masks.dtype == torch.bool
    labels = torch.cat([each.labels for each in episodes])
    pairs = [set(pair) for each in episodes for pair in each.pairs]
    for mask, image in zip(masks, labels, strict=True):
        if mask.any():
            assert 0.0008 < float(mask.float().mean()) < 0.5
            inside = set(image[mask].tolist())
            assert -1 not in inside and (len(inside) == 1 or inside in pairs)
    assert masks.flatten(1).any(1).sum() >= 20
    assert not torch.equal(masks, choose_masks(episodes, Chance((1,))))


def test_what_is_outside_the_frame_is_no_structure() -> None:
    labels = torch.full((20, 64, 64), -1)
    labels[:, :, 25:45], labels[:, :, 45:] = 0, 1
    episode = replace(an_episode(), labels=labels, pairs=[])
    masks = choose_masks([episode], Chance((0,)))
    chosen = {tuple(labels[0][mask].unique().tolist()) for mask in masks}
    assert chosen == {(0,), (1,)}


def test_prompt_loss_has_a_dsc_for_every_round(network: SamNetwork) -> None:
    with torch.no_grad():
        loss, scores = prompted(network, an_episode(), rounds=2)
        again, _ = prompted(network, an_episode(), rounds=2)
    assert loss.isfinite() and float(loss) > 0.5 and float(again) == float(loss)
    assert [each.shape for each in scores] == [(4,), (4,)]
    assert all(((each >= 0) & (each <= 1)).all() for each in scores)


def test_rounds_that_are_passed_over_come_before_the_last_ones(
    network: SamNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        _, all_learnt = prompted(network, an_episode(), rounds=4)
        _, some = prompted(network, an_episode(), rounds=2, passed_over=2)
    assert len(some) == 2 and torch.equal(some[0], all_learnt[0])
    # With all of every mask looked at, the last answer is the same.
    monkeypatch.setattr(
        "SAMFineTuneLib.training.prompt_rounds.thinned", lambda masks, chance: masks
    )
    with torch.no_grad():
        _, all_learnt = prompted(network, an_episode(), rounds=4)
        _, some = prompted(network, an_episode(), rounds=2, passed_over=2)
    assert torch.equal(some[1], all_learnt[3]) and not torch.equal(some[1], all_learnt[1])


class Knowing(ContextMaskDecoder):
    """Answers as it is told to, and notes what it was shown."""

    answer: Tensor
    likeness: Tensor

    def form_context(
        self, features: FeatureState, positions: Tensor, masks: Tensor
    ) -> ClassContext:
        self.labelled, self.masks = features, masks
        return super().form_context(features, positions, masks)

    def forward(self, features: FeatureState, *_: object) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        self.others = features
        return self.answer, torch.ones(self.answer.shape[:2])

    def similarities(self, *_: object) -> Tensor:
        return self.likeness[:, :, None]


def test_context_loss_is_least_for_the_right_answer(network: SamNetwork) -> None:
    episode = next(
        each for each in map(an_episode, range(20)) if each.classes[each.labelled :].sum() > 200
    )
    features = features_by(network, episode)
    unlabelled = thinned(episode.classes[episode.labelled :], Chance((0,)))
    target = shares_of(unlabelled, episode.class_count)
    decoder = network.context_decoder
    right, undecided, wrong = 40 * target, 0 * target, 40 * target.roll(1, dims=1)
    answers = ((right, right), (right, undecided), (undecided, right), (wrong, wrong))
    network.context_decoder = knowing = Knowing()
    try:
        losses, scores = [], []
        for knowing.answer, knowing.likeness in answers:
            loss, dsc = context_loss(network, features, episode, PartialLabelLoss(), Chance((0,)))
            losses.append(float(loss))
            scores.append(float(dsc))
    finally:
        network.context_decoder = decoder
    assert losses[0] < 0.01 and losses == sorted(losses)
    assert scores[:2] == [1, 1] and scores[2] < 1 and scores[3] < 0.1
    assert losses[1] / losses[2] == pytest.approx(0.4, rel=1e-3), "likeness counts two fifths"
    labelled = episode.labelled
    assert torch.equal(knowing.labelled.x, features.x[:labelled])
    assert torch.equal(knowing.masks.argmax(1), episode.classes[:labelled])
    assert torch.equal(knowing.others.x, features.x[labelled:])
    assert torch.equal(knowing.others.skips[1], features.skips[1][labelled:])


# No step changes these: a key's bias adds the same to every score of a query, and what is added
# to every class alike changes no probability.
_WITHOUT_EFFECT = ("k_proj.bias", "context_decoder.refinement.2.bias")


def test_both_losses_reach_every_parameter() -> None:
    network = build_starter(16 * SIDE)
    for each in network.modules():
        # A new refining block passes on what it gets; one that has learnt something does not.
        if isinstance(each, RefiningBlock):
            torch.nn.init.normal_(each.conv2.weight, std=0.05)
    # Of several, so that there are boxes, points and clicks of both kinds.
    for seed in (1, 2):
        episode = an_episode(seed)
        loss, _ = prompted(network, episode)
        context, _ = context_loss(
            network, features_by(network, episode), episode, PartialLabelLoss(), Chance((1,))
        )
        assert loss.isfinite() and context.isfinite()
        (loss + context).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.endswith(_WITHOUT_EFFECT):
            assert parameter.grad.abs().max() > 1e-7, name


def test_each_task_has_a_decoder_of_its_own(network: SamNetwork) -> None:
    """They share the encoder and nothing else but what stands for no mask."""
    episode = an_episode()

    def touched(loss: Tensor) -> set[str]:
        network.zero_grad(set_to_none=True)
        loss.backward()
        return {
            name.split(".")[0] if name != "prompt_encoder.no_mask_embed.weight" else "no mask"
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }

    features = features_by(network, episode)
    automatic = context_loss(network, features, episode, PartialLabelLoss(), Chance((0,)))[0]
    assert touched(automatic) == {"image_encoder", "context_decoder", "no mask"}
    by_prompts = prompted(network, episode, rounds=2)[0]
    assert touched(by_prompts) == {"image_encoder", "mask_decoder", "prompt_encoder", "no mask"}
    network.zero_grad(set_to_none=True)


# The plan


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    plan = PretrainingPlan(steps=1000, learning_rate=0.01, warm_up=100, decay=0.2)
    assert plan.rate_at(0) == pytest.approx(0.0001)
    assert plan.rate_at(49) == pytest.approx(0.005)
    assert {plan.rate_at(step) for step in (99, 100, 500, 800)} == {0.01}
    assert plan.rate_at(900) == pytest.approx(0.005)
    assert plan.rate_at(999) == pytest.approx(0.01 / 200)
    assert plan.rate_at(1000) == 0
    longer = replace(plan, steps=5000)
    assert longer.rate_at(900) == 0.01, "with more steps it falls later"
    assert replace(plan, decay=0.0).rate_at(999) == 0.01


def test_larger_images_are_fewer() -> None:
    plan = PretrainingPlan(images=8)
    assert [plan.images_at(size) for size in (64, 128, 160, 192, 256, 512)] == [12, 12, 8, 6, 3, 3]
    assert PretrainingPlan(images=16).images_at(256) == 6


# The training


def started(plan: PretrainingPlan = TINY) -> Pretraining:
    return Pretraining(plan, CPU, ProcessGroup(CPU))


def weights_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in network.state_dict().items()}


def test_the_network_is_small(network: SamNetwork) -> None:
    count = sum(each.numel() for each in network.parameters())
    assert 1_000_000 < count <= 5_000_000


def test_training_goes_on_from_a_state_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noting(chance: Chance, count: int, size: int) -> Episode:
        seen.append(draw_episode(chance, count, size))
        return seen[-1]

    monkeypatch.setattr(training_module, "draw_episode", noting)
    whole = started()
    before = weights_of(whole.network)
    reports, weights, averages = [], [], []
    first_layer = "image_encoder.stride2.0.weight"

    def after_step(report: Any) -> bool:
        reports.append(report)
        weights.append(whole.network.get_parameter(first_layer).detach().clone())
        averages.append(whole.averaged.get_parameter(first_layer).detach().clone())
        if report.step == 2:
            save_state(tmp_path, whole.state())
        return False

    whole.run(after_step)
    assert torch.equal(averages[0], weights[0])
    assert torch.allclose(averages[1], 0.998 * weights[0] + 0.002 * weights[1], atol=1e-7)
    pictures = [each.images for each in seen]
    assert not any(torch.equal(pictures[0], each) for each in pictures[1:]), "never the same twice"
    for name, each in whole.network.named_parameters():
        if not name.endswith(_WITHOUT_EFFECT):
            assert not torch.equal(each, before[name]), name
    assert [each.step for each in reports] == [1, 2, 3, 4]
    assert [each.images for each in reports] == [6, 12, 18, 24]
    assert all(math.isfinite(each.loss) for each in reports)

    state = load_state(tmp_path)
    assert state is not None
    resumed = started()
    resumed.restore(state)
    assert (resumed.step, resumed.images) == (2, 12)
    resumed.run(lambda report: False)
    assert _without_time(resumed) == _without_time(whole)
    for one, other in ((resumed.network, whole.network), (resumed.averaged, whole.averaged)):
        expected = weights_of(other)
        for name, each in weights_of(one).items():
            assert torch.equal(each, expected[name]), name


def _without_time(training: Pretraining) -> Any:
    return replace(training.report(), seconds=0.0)


def test_a_training_stops_when_it_is_told_to() -> None:
    training = started(replace(TINY, steps=50))
    training.run(lambda report: True)
    assert training.step == 1


def test_another_seed_begins_with_other_weights() -> None:
    one, same, other = started(), started(), started(replace(TINY, seed=1))
    name = "image_encoder.stride2.0.weight"
    first = one.network.get_parameter(name)
    assert torch.equal(first, same.network.get_parameter(name))
    assert not torch.equal(first, other.network.get_parameter(name))


# The files


def test_weights_that_cannot_be_written_are_told_and_leave_nothing(
    network: SamNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write") as refused:
        save_weights(tmp_path / "file" / "w.safetensors", network, {})
    assert refused.value.code == "cannot_write"

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(saved, "save_file", full)
    with pytest.raises(InputError, match=r"cannot write .*w\.safetensors"):
        save_weights(tmp_path / "w.safetensors", network, {})
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_state_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, {"step": 1})

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="cannot write") as refused:
        save_state(tmp_path, {"step": 2})
    assert refused.value.code == "cannot_write"
    assert load_state(tmp_path) == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        saved.log(tmp_path / "file", {"step": 1})


def test_where_there_is_no_state_there_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "nowhere") is None


# The command


class Shell:
    """`pretrain prompts` in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def __call__(self, *words: object, folder: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        place = ["--folder", folder or self._folder / "run"]
        given = [] if "--output" in words else ["--output", self._folder / "w.safetensors"]
        command = ["pretrain", "prompts", *place, *given, *QUICKLY, *words]
        self._capsys.readouterr()
        code = cli.main([str(each) for each in command])
        return (code, *self._capsys.readouterr())

    def refusal(self, *words: object, folder: Path | None = None) -> str:
        code, out, err = self(*words, folder=folder)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_the_command_trains_logs_goes_on_and_leaves_weights(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_LOG_EVERY_STEPS", 1)
    folder, output = tmp_path / "run", tmp_path / "new" / "w.safetensors"
    words = ("--output", output, "--seed", 3)
    code, out, err = shell(*words, "--steps", 2, "--snapshots", 12)
    assert code == 0
    result = json.loads(out)
    assert result["weights"] == str(output) and (result["step"], result["images"]) == (2, 12)
    assert len(err.splitlines()) == 2 and err.startswith("step 1, 6 images")
    assert (folder / "images_12.safetensors").is_file()

    code, out, err = shell(*words, "--steps", 3)
    assert code == 0 and (json.loads(out)["step"], json.loads(out)["images"]) == (3, 18)
    assert err.splitlines()[0] == "going on at step 2"
    entries = [json.loads(line) for line in (folder / saved.LOG_FILE).read_text().splitlines()]
    assert [each["step"] for each in entries] == [1, 2, 3]
    assert all(math.isfinite(value) for each in entries for value in each.values())
    assert sorted(each.name for each in folder.iterdir()) == [
        "images_12.safetensors",
        "pretraining.jsonl",
        "pretraining.pt",
    ]
    _check_weights(output, folder)
    state = load_state(folder)
    assert state is not None and [each["from_step"] for each in state["stages"]] == [0, 2]
    _refuses_what_does_not_fit(shell, folder)


def _check_weights(output: Path, folder: Path) -> None:
    """Half precision, with a card, and the running average of the training."""
    assert output.stat().st_size <= 12e6
    with safe_open(output, "pt") as file:
        card = json.loads(file.metadata()[saved.CARD_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {each.dtype for each in tensors.values()} == {torch.float16}
    assert card["licence"] == "Apache-2.0" and "synthetic" in card["data"]
    assert (card["steps"], card["images"], card["seed"]) == (3, 18, 3)
    first, second = card["stages"]
    assert (first["from_step"], first["plan"]["steps"], first["processes"]) == (0, 2, 1)
    assert (second["from_step"], second["plan"]["steps"]) == (2, 3)
    network = build("starter", 256)
    loaded = load_checkpoint(network, output)
    assert loaded.path == output
    state = load_state(folder)
    assert state is not None
    averaged = build("starter", 256)
    averaged.load_state_dict({name: state["average"]["module." + name] for name in tensors})
    for name, each in averaged.state_dict().items():
        if name.startswith("image_encoder") and each.ndim == 4:
            direction = torch.cosine_similarity(each.flatten(), tensors[name].float().flatten(), 0)
            assert float(direction) > 0.9999, name
        else:
            assert torch.equal(tensors[name], each.half()), name
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = [each.image_encoder(image).x for each in (network, averaged)]
    torch.testing.assert_close(*same, atol=0.03, rtol=0.03)


def test_the_encoder_is_brought_back_to_its_first_scale(network: SamNetwork) -> None:
    grown = copy.deepcopy(network.image_encoder)
    with torch.no_grad():
        for each in grown.modules():
            if isinstance(each, torch.nn.Conv2d):
                each.weight.mul_(3.0)
    give_initial_scale(grown)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            grown(image).x, network.image_encoder(image).x, atol=1e-4, rtol=1e-3
        )
    for (name, each), (_, first) in zip(
        grown.named_parameters(),
        build("starter", 64 * 4).image_encoder.named_parameters(),
        strict=True,
    ):
        if each.ndim == 4:
            ratio = each.detach().norm() / first.detach().norm()
            assert float(ratio) == pytest.approx(1, abs=0.1), name


def _refuses_what_does_not_fit(shell: Shell, folder: Path) -> None:
    """A folder with a state of seed 3 and three steps."""
    line = shell.refusal("--steps", 9, "--seed", 4, folder=folder)
    assert "seed 3 there, 4 here" in line and "--folder" in line
    state = load_state(folder)
    assert state is not None
    renamed = {"another." + name: each for name, each in state["network"].items()}
    for wrong in ({**state, "network": renamed}, {"stages": state["stages"]}, [1, 2]):
        save_state(folder, wrong)  # type: ignore[arg-type]
        assert "pretraining.pt is damaged" in shell.refusal("--seed", 3, folder=folder)


def test_a_run_goes_on_under_another_plan_and_stops_when_its_time_is_over(tmp_path: Path) -> None:
    training = started()
    training.run(lambda report: True)
    save_state(tmp_path / "run", training.state())
    said: list[str] = []
    plan = replace(TINY, steps=50, learning_rate=1e-4)
    found = run_pretraining(
        plan, tmp_path / "run", tmp_path / "w.safetensors", "cpu", 1e-9, say=said.append
    )
    assert said == ["going on at step 1"]
    assert found is not None and found["step"] == 2
    assert (tmp_path / "w.safetensors").is_file()


def test_an_interrupted_run_goes_on_at_the_very_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The request comes in the middle of a step; that one is taken and saved."""
    said: list[str] = []
    requests = iter((signal.SIGTERM, signal.SIGINT))

    def interrupted(*words: Any) -> Episode:
        os.kill(os.getpid(), next(requests))
        return draw_episode(*words)

    monkeypatch.setattr(training_module, "draw_episode", interrupted)
    folder, output = tmp_path / "run", tmp_path / "w.safetensors"
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(replace(TINY, steps=50), folder, output, "cpu", say=said.append)
        assert said[-1] == f"interrupted; the same command goes on at step {step}"
        state = load_state(folder)
        assert state is not None and state["step"] == step
    assert not output.exists() and not (folder / "worker.pid").exists()
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_one_run_at_a_time_in_a_folder(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (folder / "worker.pid").write_text(str(other.pid))
        line = shell.refusal("--steps", 1, folder=folder)
        assert f"process {other.pid} is doing the job" in line
        assert not (folder / saved.STATE_FILE).exists()
    finally:
        other.communicate(b"\n", timeout=20)
    assert shell("--steps", 1, folder=folder)[0] == 0


def test_a_training_begins_with_earlier_weights(shell: Shell, tmp_path: Path) -> None:
    """Their images count on, their stages stay in the card, and what they lack is new."""
    earlier = tmp_path / "earlier.safetensors"
    assert shell("--output", earlier, "--steps", 1, "--seed", 3)[0] == 0
    tensors, card = saved.read_weights(earlier)
    older = {name: each for name, each in tensors.items() if ".blocks16." not in name}
    save_file(older, earlier, metadata={saved.CARD_KEY: json.dumps(card)})
    output = tmp_path / "later.safetensors"
    words = ("--initial", earlier, "--output", output, "--seed", 4)
    code, out, err = shell(*words, "--steps", 1, folder=tmp_path / "second")
    assert code == 0 and json.loads(out)["images"] == 12
    assert err.startswith("starting from earlier.safetensors, 6 images; 14 tensors are new")
    later, card = saved.read_weights(output)
    assert [stage["plan"]["seed"] for stage in card["stages"]] == [3, 4]
    assert (card["images"], card["seed"]) == (12, 4) and set(later) == set(tensors)
    # One tiny step from there, not from random weights.
    for name in ("mask_decoder.mask_tokens.weight", "context_decoder.base_tokens.weight"):
        assert torch.allclose(later[name], tensors[name], atol=0.02), name

    code, out, err = shell(*words, "--steps", 2, folder=tmp_path / "second")
    assert code == 0 and err.startswith("going on at step 1; earlier.safetensors is where")


def test_what_are_no_weights_is_refused_as_a_beginning(shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    absent = tmp_path / "absent.safetensors"
    assert f"there is no file {absent}" in shell.refusal("--initial", absent)
    for path in (other, empty):
        assert f"{path} holds no weights of the starter" in shell.refusal("--initial", path)
    save_file({"x": torch.zeros(2)}, other, metadata={saved.CARD_KEY: "{}"})
    assert "does not fit the starter network" in shell.refusal("--initial", other)


def test_a_damaged_state_is_refused(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "run" / saved.STATE_FILE
    path.parent.mkdir()
    for content in (b"", b"no archive at all", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        line = shell.refusal()
        assert str(path) in line and "remove it" in line
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--steps", "0"], ["--steps", "'0'"]),
        (["--steps", "1e3"], ["--steps", "whole number"]),
        (["--minutes", "0"], ["--minutes", "above 0"]),
        (["--minutes", "nan"], ["--minutes"]),
        (["--episodes", "0"], ["--episodes"]),
        (["--images", "-1"], ["--images"]),
        (["--sizes", "100"], ["--sizes", "'100'", "multiple of 16"]),
        (["--sizes", "128", "72"], ["--sizes", "'72'"]),
        (["--sizes", "48"], ["--sizes", "from 64"]),
        (["--sizes", "0"], ["--sizes"]),
        (["--sizes"], ["--sizes"]),
        (["--lr", "-0.1"], ["--lr", "above 0"]),
        (["--lr", "0"], ["--lr"]),
        (["--lr", "inf"], ["--lr"]),
        (["--lr", "quick"], ["--lr", "'quick'"]),
        (["--decay", "1.5"], ["--decay", "from 0 to 1"]),
        (["--seed", "-1"], ["--seed"]),
        (["--seed", str(2**63)], ["--seed"]),
        (["--snapshots", "0"], ["--snapshots"]),
        (["--precision", "fp8"], ["--precision"]),
        (["--device", "tpu"], ["--device", "'tpu'"]),
        (["--output", "w.pt"], ["--output", ".safetensors"]),
    ],
)
def test_bad_values_are_refused_before_anything_is_made(
    words: list[str], parts: list[str], shell: Shell, tmp_path: Path
) -> None:
    line = shell.refusal(*words)
    assert all(part in line for part in parts), line
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused_before_the_training(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the training has begun")

    monkeypatch.setattr(run_module, "run_pretraining", never)
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    output = tmp_path / "file" / "w.safetensors"
    assert str(output) in shell.refusal("--output", output)
    assert "is a folder" in shell.refusal("--output", tmp_path / "folder.safetensors")
    assert str(tmp_path / "file") in shell.refusal(folder=tmp_path / "file")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(shell: Shell) -> None:
    assert "CUDA was asked for" in shell.refusal("--device", "cuda")


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "python -m SAMFineTuneLib pretrain prompts" in text.split("example", 1)[1]
    assert all(len(line) <= 100 for line in text.splitlines())


# Several processes

# The command, and behind it what this process has.
_TELLING = """
import hashlib, json, os, sys
from pathlib import Path
from SAMFineTuneLib import cli
from SAMFineTuneLib.pretraining import training

inner = training.Pretraining.run

def run(self, after_step):
    inner(self, after_step)
    digest = hashlib.sha256()
    for each in self.network.state_dict().values():
        digest.update(each.numpy().tobytes())
    found = {"weights": digest.hexdigest(), "loss": self.report().loss}
    Path(os.environ["TOLD"], os.environ["RANK"]).write_text(json.dumps(found))

training.Pretraining.run = run
sys.exit(cli.main())
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without processes")
def test_two_processes_train_one_network_and_tell_one_result(tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(_TELLING)
    (tmp_path / "told").mkdir()
    output = tmp_path / "w.safetensors"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("-m", "telling", "pretrain", "prompts", "--steps", "2", *QUICKLY),
            *("--folder", str(tmp_path / "run"), "--output", str(output)),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "TOLD": str(tmp_path / "told"),
            "OMP_NUM_THREADS": "1",
        },
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["step"], result["images"]) == (2, 2 * 2 * 6)
    first, second = (json.loads((tmp_path / "told" / rank).read_text()) for rank in "01")
    assert first["weights"] == second["weights"]
    assert first["loss"] != second["loss"], "but each saw images of its own"
    with safe_open(output, "pt") as file:
        assert json.loads(file.metadata()[saved.CARD_KEY])["stages"][0]["processes"] == 2


def test_alone_nothing_is_waited_for() -> None:
    alone = ProcessGroup(CPU)
    assert (alone.rank, alone.size, alone.is_first) == (0, 1, True)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    alone.average_gradients([parameter])
    assert parameter.grad.tolist() == [1, 2]
    answers: list[Callable[[], bool]] = [lambda: alone.any(True), lambda: alone.any(False)]
    assert [each() for each in answers] == [True, False]
    alone.close()
