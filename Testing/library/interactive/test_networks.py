"""The networks of a correction: with and without a tuned model, and what they make of slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.interactive.networks import (
    AUTOMATIC,
    PROMPTED,
    CorrectionNetworks,
    SliceEncoders,
    load_networks,
    margin_of,
)
from SAMFineTuneLib.interactive.propagation import propagate
from SAMFineTuneLib.interactive.protocol import Box, Point, SessionSettings
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.prediction import uncertainty
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume
from Testing.support.synthetic_volumes import geometry_of, head
from Testing.support.tuned_starter import write_model

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

VOLUME, LABELS = head()
BOX = Box(corners=((4, 10, 6), (24, 38, 6)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, small_inputs: None) -> dict[bool, Path]:
    """By whether they have weights for prompts."""
    folder = tmp_path_factory.mktemp("models")
    return {each: write_model(folder / f"{each}.safetensors", each, 64) for each in (False, True)}


def settings(**fields: Any) -> SessionSettings:
    return SessionSettings(volume=Path("unused"), device="cpu", **fields)


@pytest.mark.parametrize(
    ("longest", "size"), [(48, 256), (256, 256), (257, 320), (512, 512), (4000, 512)]
)
def test_without_a_model_the_starter_sees_slices_at_their_own_size(longest: int, size: int) -> None:
    networks = load_networks(settings(), longest)
    assert networks.prompted.network.input_size == size
    assert networks.automatic is None and networks.card is None and not networks.tuned
    assert networks.structures == {} and networks.normalisation is None
    assert not networks.prompted.training


@pytest.mark.parametrize("for_prompts", [False, True])
def test_a_tuned_model_brings_both_networks(models: dict[bool, Path], for_prompts: bool) -> None:
    networks = load_networks(settings(model=models[for_prompts]), 48)
    assert networks.tuned == for_prompts
    assert networks.structures == {5: "bright", 52: "dark"}
    assert networks.automatic is not None
    assert not networks.automatic.training and not networks.prompted.training
    session = SliceCorrector(VOLUME, "axial", networks)
    found = session.find_mask(6, [BOX], start="model", label=52)
    assert found.mask.shape == (48, 48)
    # Weights for prompts are those of the file; without them the backbone's own answer.
    untuned = load_networks(settings(), 48)
    own = dict(untuned.prompted.network.mask_decoder.named_parameters())
    theirs = dict(networks.prompted.network.mask_decoder.named_parameters())
    same = all(torch.equal(each, theirs[name]) for name, each in own.items() if name in theirs)
    assert same != for_prompts


def test_models_differ_in_their_identity(models: dict[bool, Path]) -> None:
    chosen: list[dict[str, Any]] = [{}, *({"model": each} for each in models.values())]
    assert len({load_networks(settings(**each), 48).identity for each in chosen}) == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": Path("/absent/model.safetensors")}, "no_such_file"),
        ({"backbone": "vit_zzz"}, None),
        ({"checkpoint": Path("/absent/weights.pt")}, None),
    ],
)
def test_what_is_not_there_is_refused(fields: dict[str, Any], code: str | None) -> None:
    with pytest.raises(InputError) as caught:
        load_networks(settings(**fields), 48)
    assert caught.value.remedy and code in (None, caught.value.code)


def test_the_mask_of_a_class_is_where_it_wins() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 16, 16, generator=generator)
    for structure in range(4):
        margin = margin_of(logits, structure)
        assert margin.shape == (2, 1, 16, 16)
        assert torch.equal(margin[:, 0] > 0, logits.argmax(1) == structure)


def test_the_models_mask_is_that_of_its_own_segmentation(models: dict[bool, Path]) -> None:
    networks = load_networks(settings(model=models[True]), 48)
    session = SliceCorrector(VOLUME, "axial", networks)
    logits = session.worker.features(AUTOMATIC, 6).x.float()
    best = session.fit.logits_to_slice(logits)[0].argmax(0).numpy()
    for value, structure in ((5, 1), (52, 2)):
        found = session.find_mask(6, [], start="model", label=value)
        # Margins between pixels differ a little from logits between pixels.
        assert (found.mask != (best == structure)).mean() < 0.02
        assert 0 <= found.confidence <= 1
    with pytest.raises(InputError) as caught:
        session.find_mask(6, [], start="model", label=7)
    assert caught.value.code == "no_label" and "bright" in caught.value.message


def test_doubtful_slices_are_those_embedded_so_far(models: dict[bool, Path]) -> None:
    session = SliceCorrector(VOLUME, "axial", load_networks(settings(model=models[True]), 48))
    assert session.doubtful_slices(None) == []
    for number in (2, 7, 9):
        session.worker.look_at(number)
    for label in (None, 5, 52):
        ranking = session.doubtful_slices(label)
        assert sorted(each.number for each in ranking) == [2, 7, 9]
        doubts = [each.uncertainty for each in ranking]
        assert doubts == sorted(doubts, reverse=True) and 0 <= doubts[-1] <= doubts[0] <= 1
        assert session.doubtful_slices(label) == ranking
    with pytest.raises(InputError):
        session.doubtful_slices(7)


def test_a_model_is_less_sure_at_a_higher_temperature(
    models: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks stay as they are."""
    # Nobody trained this model, and it claims next to nothing.
    monkeypatch.setattr(uncertainty, "_CLAIM", 0.001)
    networks = load_networks(settings(model=models[True]), 48)
    assert networks.card is not None and networks.temperature == 1.0
    card = networks.card.model_copy(update={"temperature": 4.0})
    hotter = replace(networks, card=card)
    plain, tempered = (SliceCorrector(VOLUME, "axial", each) for each in (networks, hotter))
    before, after = (each.find_mask(6, [], start="model", label=5) for each in (plain, tempered))
    assert np.array_equal(before.mask, after.mask) and torch.equal(before.logits, after.logits)
    assert after.confidence < before.confidence
    for each in (plain, tempered):
        each.worker.look_at(6)
    for label in (None, 52):
        one, other = (each.doubtful_slices(label)[0] for each in (plain, tempered))
        assert one.number == other.number == 6 and other.uncertainty > one.uncertainty
    assert load_networks(settings(), 48).temperature == 1.0


def encoders(volume: Volume = VOLUME, axis: str = "axial", **fields: Any) -> SliceEncoders:
    networks = load_networks(settings(**fields), 48)
    return SliceEncoders(networks, volume, SliceStack.of(volume, axis))


def test_the_signature_tells_what_would_change_features(models: dict[bool, Path]) -> None:
    moved = VOLUME.array.copy()
    moved[3, 20, 20] += 1
    spaced = geometry_of(VOLUME.array.shape, (1.0, 1.2, 3.0))  # type: ignore[arg-type]
    signatures = [
        encoders().signature(),
        encoders(axis="coronal").signature(),
        encoders(model=models[False]).signature(),
        encoders(model=models[True]).signature(),
        encoders(replace(VOLUME, array=moved)).signature(),
        encoders(replace(VOLUME, geometry=spaced)).signature(),
    ]
    assert len(set(signatures)) == 6
    assert encoders().signature() == signatures[0]
    assert all(each.isalnum() for each in signatures)


def test_features_on_the_disk_are_those_of_the_same_image_alone(tmp_path: Path) -> None:
    networks = load_networks(settings(), 48)
    SliceCorrector(VOLUME, "axial", networks, tmp_path).worker.look_at(4)
    again = SliceCorrector(VOLUME, "axial", networks, tmp_path)
    assert (PROMPTED, 4) in again._cache
    other = replace(VOLUME, array=np.ascontiguousarray(VOLUME.array[:, ::-1]))
    assert (PROMPTED, 4) not in SliceCorrector(other, "axial", networks, tmp_path)._cache


def test_a_network_of_segment_anything_does_all_of_it() -> None:
    """It has no features beside its embedding, and a decoder for one image at a time."""
    torch.manual_seed(0)
    prompted = PromptedSegmenter(build("vit_t", 256).eval())
    networks = CorrectionNetworks(prompted, None, None, False, "random", torch.device("cpu"))
    session = SliceCorrector(VOLUME, "axial", networks)
    found = session.find_mask(
        6, [Point(at=(16, 24, 6)), Point(at=(40, 40, 6), positive=False), BOX]
    )
    assert found.mask[24, 16] and not found.mask[40, 40]
    while session.worker.done < 2:
        session.worker.advance()
    accepted = {number: LABELS.array[number] == 5 for number in (4, 6)}
    assert list(propagate(session, accepted, None, outward=0, between=True).masks) == [5]
