"""Heads: each learns, trains what it should, is saved and loaded, and refuses other structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.adaptation.strategy import Method, Scope, adapt
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.convnet_head import ConvNetHead
from SAMFineTuneLib.heads.names import HEAD_NAMES, HEADS, HeadName, settled_depth
from SAMFineTuneLib.models.model_file import (
    LabelCard,
    ModelCard,
    Strategy,
    load_model,
    read_card,
    save_model,
)
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import build_mask_decoder, build_prompt_encoder
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.networks.staged_encoder import FeatureState, Stage, StagedEncoder, on_features
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.training.eager_adamw import EagerAdamW
from SAMFineTuneLib.training.loss import HeadLoss
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from Testing.support.job_records import choices_of

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

SIDE = 64
STRUCTURES = 2


def test_names_choices_and_descriptions_are_the_same() -> None:
    assert list(HEADS) == list(HEAD_NAMES) == list(get_args(HeadName))
    assert [settled_depth(name, None) for name in HEAD_NAMES] == [None, None, 2, None, None, None]


def two_slices(structures: int = STRUCTURES) -> tuple[Tensor, Tensor]:
    """Images (2, 3, S, S) with a bright disc and a dark square each, and their class numbers."""
    generator = torch.Generator().manual_seed(5)
    images = 0.3 * torch.randn(2, 1, SIDE, SIDE, generator=generator)
    target = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for number, (row, column) in enumerate(((20, 22), (40, 24))):
        target[number][(rows - row) ** 2 + (columns - column) ** 2 < 15**2] = 1
        target[number, 8 + row // 2 : 32 + row // 2, 40:60] = 2
    images[:, 0][target == 1] += 2
    images[:, 0][target == 2] -= 2
    return images.expand(-1, 3, -1, -1), target.where(target <= structures, 0)


def starter(
    head: HeadName, structures: int = STRUCTURES, pretrained: bool = False
) -> AutomaticSegmenter:
    torch.manual_seed(1)
    network = build("starter", SIDE)
    if pretrained:
        load_checkpoint(network, find_weights("starter", None))
    return AutomaticSegmenter(network, structures, head=head)


def dsc(logits: Tensor, target: Tensor, structures: int) -> list[float]:
    fine = functional.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    found = fine.argmax(1)
    scores = []
    for number in range(1, structures + 1):
        both = ((found == number) & (target == number)).sum()
        scores.append(float(2 * both / ((found == number).sum() + (target == number).sum())))
    return scores


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_a_head_learns_two_slices_by_heart_on_a_frozen_encoder(head: HeadName) -> None:
    # The frozen decoder behind the prompt network is run once for each structure.
    structures = 1 if head == "prompt_network" else STRUCTURES
    segmenter = starter(head, structures, pretrained=True)
    adapt(segmenter.network, "vanilla", "decoder")
    images, target = two_slices(structures)
    known = torch.ones(2, structures + 1, dtype=torch.bool)
    with torch.no_grad():
        features = segmenter.network.image_encoder(images)
    trained = [each for each in segmenter.parameters() if each.requires_grad]
    optimiser = EagerAdamW(trained, 3e-3)
    loss_of = HeadLoss(HEADS[head].loss)
    reached = 0.0
    for _ in range(100):
        found = segmenter.masks(features)
        reached = min(dsc(found.logits, target, structures))
        if reached > 0.95:
            break
        loss = loss_of(found, target, known)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert reached > 0.95


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_gradients_are_only_where_they_should_be(head: HeadName) -> None:
    images, target = two_slices()
    known = torch.ones(1, STRUCTURES + 1, dtype=torch.bool)
    strategies: list[tuple[Method, Scope]] = [
        ("vanilla", "decoder"), ("adapter", "encoder_decoder"), ("lora", "decoder"),
    ]  # fmt: skip
    for method, scope in strategies:
        segmenter = starter(head)
        adapt(segmenter.network, method, scope)
        found = segmenter.masks(segmenter.network.image_encoder(images[:1]))
        HeadLoss(HEADS[head].loss)(found, target[:1], known).backward()
        reached = {name for name, each in segmenter.named_parameters() if each.grad is not None}
        trained = {name for name, each in segmenter.named_parameters() if each.requires_grad}
        assert reached == trained
        expected = {"mask_decoder"} | ({"image_encoder"} if scope == "encoder_decoder" else set())
        assert {name.split(".")[1] for name in trained} == expected, (method, scope)
        if head == "prompt_network":
            assert not any("mask_decoder.decoder" in name for name in trained)
        if method != "vanilla":
            inside = [name for name in trained if ".transformer." in name]
            assert all("adapter" in name or "update" in name for name in inside)
            assert bool(inside) == (head in ("mask_decoder", "multimask", "vit"))


class OnePatch(StagedEncoder):
    """An encoder with the embedding of Segment Anything's and no other likeness."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 256, 16, stride=16)

    def stages(self) -> list[Stage]:
        return [Stage("patches", (self.patches,), on_features(self.patches))]


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_a_head_fits_the_decoder_of_segment_anything(head: HeadName) -> None:
    spec = find("vit_b")
    network = SamNetwork(
        spec, SIDE, OnePatch(), build_prompt_encoder(spec, SIDE), build_mask_decoder()
    )
    segmenter = AutomaticSegmenter(network, STRUCTURES, head=head)
    with torch.no_grad():
        found = segmenter.masks(network.image_encoder(two_slices()[0]))
    assert found.logits.shape == (2, STRUCTURES + 1, SIDE // 4, SIDE // 4)
    assert found.logits.std() > 0
    if found.iou_predictions is not None:
        assert found.iou_predictions.shape == (2, STRUCTURES + 1)


def test_the_best_of_three_masks_is_that_of_the_highest_predicted_overlap() -> None:
    segmenter = starter("multimask")
    with torch.no_grad():
        found = segmenter.masks(segmenter.network.image_encoder(two_slices()[0]))
    assert found.candidates is not None and found.iou_predictions is not None
    assert found.candidates.logits.shape == (2, 3, 3, 16, 16)
    assert torch.equal(found.iou_predictions, found.candidates.iou_predictions.amax(2))
    best = found.candidates.iou_predictions.argmax(2)
    for image in range(2):
        for number in range(3):
            chosen = found.candidates.logits[image, number, best[image, number]]
            assert torch.equal(found.logits[image, number], chosen)


def test_the_image_goes_beside_the_features_whichever_stages_run_at_once() -> None:
    encoder = starter("prompt_network").network.image_encoder
    images = two_slices()[0]
    with torch.no_grad():
        whole = encoder(images)
        state = encoder.run(FeatureState(images), 0, 0)
        for number in range(len(encoder.stages())):
            state = encoder.run(state, number, number + 1)
        plain = starter("linear").network.image_encoder(images)
    assert len(whole.skips) == len(plain.skips) + 1 == 3
    assert whole.skips[-1].shape == (2, 3, SIDE // 2, SIDE // 2)
    for one, other in zip((whole.x, *whole.skips), (state.x, *state.skips), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whole.x, plain.x)


def test_a_convnet_has_the_depths_of_its_study_and_no_other() -> None:
    embedding = FeatureState(torch.randn(1, 16, 4, 4))
    for depth in (2, 3):
        head = ConvNetHead(16, (), 1, depth)
        assert len(head.blocks) == depth
        assert head(embedding, embedding.x, embedding.x).logits.shape == (1, 2, 16, 16)
    with pytest.raises(ValueError, match="depth 5"):
        ConvNetHead(16, (), 1, 5)


# The file


def a_card(head: HeadName, labels: tuple[int, ...] = (5, 52), **more: Any) -> ModelCard:
    return ModelCard(
        backbone="starter",
        checkpoint_sha256=None,
        strategy=Strategy(method="adapter", scope="decoder", rank=4),
        labels=[LabelCard(value=each) for each in labels],
        axis="axial",
        normalisation=IntensityNormalisation(kind="percentiles"),
        input_size=SIDE,
        head=head,
        head_depth=settled_depth(head, None),
        **more,
    )


def saved(head: HeadName, folder: Path) -> tuple[Path, AutomaticSegmenter]:
    segmenter = starter(head)
    adapt(segmenter.network, "adapter", "decoder")
    path = folder / f"{head}.safetensors"
    save_model(path, segmenter.eval(), a_card(head))
    return path, segmenter


def no_checkpoint(card: ModelCard) -> Path:
    raise AssertionError("a starter's file is whole")


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_a_head_is_saved_and_loaded_and_refuses_other_structures(
    head: HeadName, tmp_path: Path
) -> None:
    path, segmenter = saved(head, tmp_path)
    torch.manual_seed(7)
    loaded, card = load_model(path, no_checkpoint)
    assert (card.head, card.head_depth) == (head, settled_depth(head, None))
    assert card.format_version == (1 if head == "mask_decoder" else 4)
    with torch.no_grad():
        assert torch.equal(loaded(two_slices()[0])[0], segmenter(two_slices()[0])[0])

    initial = InitialModel(path, read_card(path), None)
    with pytest.raises(InputError, match="finds labels 5, 52, the examples have 5") as refused:
        initial.load([Label(5)], "starter")
    assert refused.value.code == "other_labels"
    with pytest.raises(ValueError, match="the card does not describe the network"):
        save_model(tmp_path / "three.safetensors", segmenter, a_card(head, (1, 2, 3)))


def test_a_tuned_model_keeps_its_head(tmp_path: Path) -> None:
    path, _ = saved("convnet", tmp_path)
    initial = InitialModel(path, read_card(path), None)
    taken = initial.with_its_strategy(choices_of(initial_model=path))
    assert (taken.head, taken.head_depth) == ("convnet", 2)
    for fields, found in (
        ({"head": "linear"}, "head convnet, not linear"),
        ({"head_depth": 4}, "head depth 2, not 4"),
    ):
        with pytest.raises(InputError, match=found) as refused:
            initial.with_its_strategy(choices_of(initial_model=path, **fields))
        assert refused.value.code == "other_strategy"


@pytest.mark.slow
def test_weights_of_a_checkpoint_stay_out_of_the_file_and_come_back(tmp_path: Path) -> None:
    torch.manual_seed(2)
    official = tmp_path / "mobile_sam.pt"
    torch.save(build("vit_t", SIDE).state_dict(), official)
    for head in ("vit", "prompt_network"):
        network: SamNetwork = build("vit_t", SIDE)
        sha256 = load_checkpoint(network, official).sha256
        segmenter = AutomaticSegmenter(network, STRUCTURES, head=head).eval()
        adapt(network, "adapter", "decoder")
        card = a_card(head).model_copy(update={"backbone": "vit_t", "checkpoint_sha256": sha256})
        path = tmp_path / f"{head}.safetensors"
        save_model(path, segmenter, card)
        assert path.stat().st_size < official.stat().st_size / 3
        loaded, _ = load_model(path, lambda _: official)
        with torch.no_grad():
            assert torch.equal(loaded(two_slices()[0])[0], segmenter(two_slices()[0])[0])
