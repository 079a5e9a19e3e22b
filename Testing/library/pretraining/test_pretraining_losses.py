"""What the pre-training minimises, and which parameters that reaches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from SAMFineTuneLib.networks.starter.network import build_starter
from SAMFineTuneLib.networks.starter.refining_block import RefiningBlock
from SAMFineTuneLib.pretraining.synthetic.context_task import context_loss
from SAMFineTuneLib.pretraining.synthetic.episode import Episode, draw_episode
from SAMFineTuneLib.pretraining.synthetic.prompt_task import Rounds, choose_masks, prompt_loss
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.loss import PartialLabelLoss
from SAMFineTuneLib.training.mask_loss import mask_loss, thinned
from Testing.support.pretraining_runs import SIDE, WITHOUT_EFFECT, shares_of

pytestmark = pytest.mark.usefixtures("one_thread")


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
    iou_predictions = torch.tensor([[0.3]])
    loss, dsc = mask_loss(coarse, iou_predictions, masks)
    assert float(loss) == pytest.approx(float(mask_loss(fine, iou_predictions, masks)[0]))
    assert dsc.tolist() == [1]


def test_thinning_keeps_the_middle_of_a_mask() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[0, 10:20, 6:12] = 1
    centres = []
    for seed in range(200):
        thin = thinned(mask, RandomSource((seed,)))
        assert thin.shape == (1, 16, 16)
        places = thin[0].nonzero().float()
        centres.append((places.mean(0) + 0.5) * 2)
    mean = torch.stack(centres).mean(0)
    torch.testing.assert_close(mean, torch.tensor([15.0, 9.0]), atol=0.15, rtol=0)


def an_episode(seed: int = 1, count: int = 4) -> Episode:
    return draw_episode(RandomSource((seed,)), count, 16 * SIDE)


def features_by(network: SamNetwork, episode: Episode) -> FeatureState:
    images = episode.images[:, None].expand(-1, 3, -1, -1)
    return PromptedSegmenter(network).encode(images)


def prompted(
    network: SamNetwork, episode: Episode, rounds: int = 3, passed_over: int = 0
) -> tuple[Tensor, list[Tensor]]:
    random = RandomSource((0,))
    masks = choose_masks([episode], random)
    assert masks.flatten(1).any(1).all(), "choose an episode that shows something everywhere"
    segmenter = PromptedSegmenter(network)
    features = features_by(network, episode)
    return prompt_loss(segmenter, features, masks, Rounds(rounds, passed_over), random)


def test_chosen_masks_are_structures_of_their_images() -> None:
    episodes = [an_episode(seed) for seed in range(6)]
    masks = choose_masks(episodes, RandomSource((0,)))
    assert masks.shape == (24, 64, 64) and masks.dtype == torch.bool
    labels = torch.cat([each.labels for each in episodes])
    pairs = [set(pair) for each in episodes for pair in each.pairs]
    for mask, image in zip(masks, labels, strict=True):
        if mask.any():
            assert 0.0008 < float(mask.float().mean()) < 0.5
            inside = set(image[mask].tolist())
            assert -1 not in inside and (len(inside) == 1 or inside in pairs)
    assert masks.flatten(1).any(1).sum() >= 20
    assert not torch.equal(masks, choose_masks(episodes, RandomSource((1,))))


def test_what_is_outside_the_frame_is_no_structure() -> None:
    labels = torch.full((20, 64, 64), -1)
    labels[:, :, 25:45], labels[:, :, 45:] = 0, 1
    episode = replace(an_episode(), labels=labels, pairs=[])
    masks = choose_masks([episode], RandomSource((0,)))
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
        "SAMFineTuneLib.training.prompt_rounds.thinned", lambda masks, random: masks
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
    unlabelled = thinned(episode.classes[episode.labelled :], RandomSource((0,)))
    target = shares_of(unlabelled, episode.class_count)
    decoder = network.context_decoder
    right, undecided, wrong = 40 * target, 0 * target, 40 * target.roll(1, dims=1)
    answers = ((right, right), (right, undecided), (undecided, right), (wrong, wrong))
    network.context_decoder = knowing = Knowing()
    try:
        losses, scores = [], []
        for knowing.answer, knowing.likeness in answers:
            loss, dsc = context_loss(
                network, features, episode, PartialLabelLoss(), RandomSource((0,))
            )
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
            network, features_by(network, episode), episode, PartialLabelLoss(), RandomSource((1,))
        )
        assert loss.isfinite() and context.isfinite()
        (loss + context).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.endswith(WITHOUT_EFFECT):
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
    automatic = context_loss(network, features, episode, PartialLabelLoss(), RandomSource((0,)))[0]
    assert touched(automatic) == {"image_encoder", "context_decoder", "no mask"}
    by_prompts = prompted(network, episode, rounds=2)[0]
    assert touched(by_prompts) == {"image_encoder", "mask_decoder", "prompt_encoder", "no mask"}
    network.zero_grad(set_to_none=True)
