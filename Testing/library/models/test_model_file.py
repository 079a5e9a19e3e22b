"""The tuned model's file: what is in it, what it gives back, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from SAMFineTuneLib.adaptation.strategy import adapt, adapt_for_prompts
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.models import model_file
from SAMFineTuneLib.models.model_file import (
    LabelCard,
    ModelCard,
    PromptCard,
    Strategy,
    load_model,
    load_prompted,
    read_card,
    save_model,
)
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.prompts.prompt_set import POSITIVE, PromptSet
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow
from SAMFineTuneLib.weights.official import load_checkpoint

WINDOW = IntensityWindow(low=-100, high=300, mean=0.4, standard_deviation=0.2)


pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


def a_card(backbone: str, method: str, sha256: str | None, **more: Any) -> ModelCard:
    return ModelCard(
        backbone=backbone,
        checkpoint_sha256=sha256,
        strategy=Strategy(method=method, scope="encoder_decoder", rank=4),
        labels=[LabelCard(value=5, name="liver", colour=(1.0, 0.5, 0.0)), LabelCard(value=52)],
        axis="axial",
        normalisation=IntensityNormalisation(kind="calibrated", window=WINDOW),
        input_size=64,
        **more,
    )


def no_checkpoint(card: ModelCard) -> Path:
    raise AssertionError("a model that started from random weights needs no checkpoint")


Segmenter = TypeVar("Segmenter", AutomaticSegmenter, PromptedSegmenter)


def move(segmenter: Segmenter) -> Segmenter:
    """Every tensor that trains moves, as training would."""
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return segmenter.eval()


def output_of(segmenter: AutomaticSegmenter) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        logits: Tensor = segmenter(torch.randn(1, 3, 64, 64, generator=generator))[0]
    return logits


@pytest.fixture(scope="module")
def starter_model(
    tmp_path_factory: pytest.TempPathFactory, small_inputs: None
) -> tuple[Path, AutomaticSegmenter]:
    torch.manual_seed(0)
    segmenter = AutomaticSegmenter(build("starter", 64), 2)
    adapt(segmenter.network, "vanilla", "encoder_decoder", 4)
    path = tmp_path_factory.mktemp("starter") / "models" / "tuned.safetensors"
    save_model(path, move(segmenter), a_card("starter", "vanilla", None))
    return path, segmenter


@pytest.fixture(scope="module")
def official_files(
    tmp_path_factory: pytest.TempPathFactory, small_inputs: None
) -> tuple[Path, Path]:
    """Two checkpoints of vit_t with random weights in the official layout."""
    folder = tmp_path_factory.mktemp("official")
    for seed, name in enumerate(("mobile_sam.pt", "other.pt")):
        torch.manual_seed(seed)
        torch.save(build("vit_t", 64).state_dict(), folder / name)
    return folder / "mobile_sam.pt", folder / "other.pt"


@pytest.fixture(scope="module")
def lora_model(
    official_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, AutomaticSegmenter]:
    network = build("vit_t", 64)
    sha256 = load_checkpoint(network, official_files[0]).sha256
    segmenter = AutomaticSegmenter(network, 2)
    adapt(network, "lora", "encoder_decoder", 4)
    path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    save_model(path, move(segmenter), a_card("vit_t", "lora", sha256))
    return path, segmenter


def test_a_model_from_random_weights_comes_back_whole(starter_model: Any) -> None:
    path, segmenter = starter_model
    torch.manual_seed(99)
    loaded, card = load_model(path, no_checkpoint)
    assert torch.equal(output_of(loaded), output_of(segmenter))
    assert not loaded.training
    assert card == read_card(path)
    assert [label.value for label in card.labels] == [5, 52]
    assert card.labels[0].colour == (1.0, 0.5, 0.0) and card.normalisation.window == WINDOW
    assert card.format_version == 1, "older programs read it"
    assert "torch" in card.versions
    assert list(path.parent.iterdir()) == [path], "no part file is left"


def test_a_model_of_an_older_program_has_no_linear_map(
    lora_model: Any, official_files: tuple[Path, Path], tmp_path: Path
) -> None:
    path, segmenter = lora_model
    assert read_card(path).format_version == 4
    tensors = {name: each for name, each in load_file(path).items() if "linear_" not in name}
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["samfinetune"])
    del header["normalisation"]["curve"]
    for version in (1, 4):
        text = json.dumps({**header, "format_version": version})
        save_file(tensors, tmp_path / f"{version}.safetensors", metadata={"samfinetune": text})
    loaded, _ = load_model(tmp_path / "1.safetensors", lambda card: official_files[0])
    as_then = copy.deepcopy(segmenter)
    with torch.no_grad():
        for name, parameter in as_then.named_parameters():
            if "mask_decoder.linear_" in name:
                parameter.zero_()
    assert torch.equal(output_of(loaded), output_of(as_then))
    with pytest.raises(InputError, match=r"lacks .*linear_bias"):
        load_model(tmp_path / "4.safetensors", lambda card: official_files[0])


def test_a_model_from_a_checkpoint_holds_changed_tensors_alone(
    lora_model: Any, official_files: tuple[Path, Path]
) -> None:
    path, segmenter = lora_model
    trained = {name for name, each in segmenter.named_parameters() if each.requires_grad}
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == trained
    assert path.stat().st_size < 0.15 * official_files[0].stat().st_size
    torch.manual_seed(99)
    asked = []

    def find(card: ModelCard) -> Path:
        asked.append(card.backbone)
        return official_files[0]

    loaded, _ = load_model(path, find)
    assert asked == ["vit_t"]
    assert torch.equal(output_of(loaded), output_of(segmenter))
    # And it differs from the network that was not tuned.
    network = build("vit_t", 64)
    load_checkpoint(network, official_files[0])
    torch.manual_seed(99)
    untuned = AutomaticSegmenter(network, 2).eval()
    assert not torch.allclose(output_of(untuned), output_of(segmenter))


def refusal(path: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as refused:
        load_model(path, options.pop("find_checkpoint", no_checkpoint), **options)
    assert path.name in str(refused.value) or options
    assert refused.value.remedy and "\n" not in str(refused.value)
    return refused.value


def test_other_weights_than_it_was_tuned_from_are_refused(
    lora_model: Any, official_files: tuple[Path, Path]
) -> None:
    with pytest.raises(InputError) as refused:
        load_model(lora_model[0], lambda card: official_files[1])
    assert refused.value.code == "other_checkpoint"
    assert "other.pt" in str(refused.value) and "vit_t" in str(refused.value)


def test_a_model_of_another_backbone_is_refused(starter_model: Any) -> None:
    error = refusal(starter_model[0], expected_backbone="vit_b")
    assert error.code == "other_backbone"
    assert "starter" in error.message and "vit_b" in error.message


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    """A copy whose card says something else."""
    card = json.loads(read_card(source).model_dump_json()) | changes
    save_file(load_file(source), target, metadata={"samfinetune": json.dumps(card)})
    return target


def test_a_newer_format_is_refused(starter_model: Any, tmp_path: Path) -> None:
    newer = rewritten(starter_model[0], tmp_path / "newer.safetensors", format_version=5)
    error = refusal(newer)
    assert error.code == "newer_format" and "version 5" in error.message
    assert "update" in error.remedy


def test_a_card_of_the_same_format_may_say_more(starter_model: Any, tmp_path: Path) -> None:
    more = rewritten(starter_model[0], tmp_path / "more.safetensors", remark="of a later version")
    assert read_card(more).backbone == "starter"


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "vit_x"},
        {"labels": [{"value": 1}]},
        {"labels": "liver"},
        {"strategy": {"method": "lora", "scope": "encoder_decoder", "rank": 4}},
        {"strategy": {"method": "magic", "scope": "encoder_decoder", "rank": 4}},
        {"input_size": 100},
        {"format_version": "one"},
        {"backbone": "vit_t"},
    ],
)
def test_a_card_that_does_not_fit_its_tensors_is_refused(
    changes: dict[str, Any], starter_model: Any, tmp_path: Path
) -> None:
    path = rewritten(starter_model[0], tmp_path / "wrong.safetensors", **changes)
    with pytest.raises(InputError) as refused:
        load_model(path, no_checkpoint)
    assert refused.value.remedy


def test_a_tensor_too_many_or_of_another_shape_is_named(starter_model: Any, tmp_path: Path) -> None:
    source = starter_model[0]
    metadata = {"samfinetune": read_card(source).model_dump_json()}
    tensors = load_file(source)
    more = tmp_path / "more.safetensors"
    save_file({**tensors, "surplus": torch.zeros(1)}, more, metadata=metadata)
    assert "surplus" in refusal(more).message
    name = "network.mask_decoder.tokens"
    reshaped = tmp_path / "reshaped.safetensors"
    save_file({**tensors, name: torch.zeros(2, 2)}, reshaped, metadata=metadata)
    assert name in refusal(reshaped).message and "(2, 2)" in refusal(reshaped).message


def test_a_tensor_that_holds_what_is_no_number_is_refused(
    starter_model: Any, tmp_path: Path
) -> None:
    tensors = load_file(starter_model[0])
    with safe_open(starter_model[0], "pt") as file:
        metadata = file.metadata()
    name = sorted(tensors)[7]
    tensors[name].view(-1)[-1] = float("nan")
    path = tmp_path / "flipped.safetensors"
    save_file(tensors, path, metadata)
    found = refusal(path)
    assert found.code == "bad_model" and "is damaged" in found.message and name in found.message


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-3, 0.01, 0.5, 0.999999])
def test_a_truncated_file_is_refused(share: float, starter_model: Any, tmp_path: Path) -> None:
    content = starter_model[0].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path).code == "bad_model"


@pytest.mark.parametrize(
    "content",
    [
        b"not a model at all, just words",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04" + bytes(60),
        bytes(100),
        b"\xff" * 100,
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (20).to_bytes(8, "little") + b'{"__metadata__": 7 }',
        (24).to_bytes(8, "little") + b'{"a": {"data_offsets":1}}'[:24],
        (8).to_bytes(8, "little") + b'{"a": 3}',
        (26).to_bytes(8, "little") + b'{"__metadata__":{"a": "b"}}'[:26],
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
    ],
)
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.safetensors"
    path.write_bytes(content)
    assert refusal(path).code == "bad_model"


@pytest.mark.parametrize("byte", [0, 3, 9, 40, 200, 900])
def test_a_damaged_header_is_refused(byte: int, starter_model: Any, tmp_path: Path) -> None:
    content = bytearray(starter_model[0].read_bytes())
    content[byte] ^= 0x80
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    assert refusal(path).code == "bad_model"


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.safetensors").code == "no_such_file"
    assert refusal(tmp_path).code == "no_such_file"


def test_a_safetensors_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    assert "not a tuned model" in refusal(path).message


def test_a_model_that_cannot_be_written_is_said_so(starter_model: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError) as refused:
        save_model(blocked / "m.safetensors", starter_model[1], a_card("starter", "vanilla", None))
    assert "m.safetensors" in str(refused.value) and refused.value.remedy


def test_a_full_disk_leaves_nothing(
    starter_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a limit on a file's size, which fails a write as a full disk does."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"the model before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(InputError) as refused:
            save_model(path, starter_model[1], a_card("starter", "vanilla", None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "space" in refused.value.remedy and "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the model before"


# Weights for prompts


def answer_of(segmenter: PromptedSegmenter) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    click = PromptSet.none(1).with_points(torch.tensor([[20.5, 22.5]]), torch.tensor([POSITIVE]))
    with torch.no_grad():
        features = segmenter.encode(torch.randn(1, 3, 64, 64, generator=generator))
        logits: Tensor = segmenter.decode(features, click)[0]
    return logits


def tuned_for_prompts(network: SamNetwork, method: Any) -> PromptedSegmenter:
    segmenter = PromptedSegmenter(network)
    adapt_for_prompts(network, method, "encoder_decoder", 4)
    return move(segmenter)


def prompt_card(method: str) -> PromptCard:
    strategy = Strategy(method=method, scope="encoder_decoder", rank=4)
    return PromptCard(strategy=strategy, training={"steps": 7})


@pytest.fixture(scope="module")
def both_sets(
    starter_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, AutomaticSegmenter, PromptedSegmenter]:
    torch.manual_seed(5)
    prompted = tuned_for_prompts(build("starter", 64), "vanilla")
    path = tmp_path_factory.mktemp("both") / "both.safetensors"
    card = a_card("starter", "vanilla", None, prompts=prompt_card("vanilla"))
    save_model(path, starter_model[1], card, prompted)
    return path, starter_model[1], prompted


def test_both_sets_come_back_from_one_file(both_sets: Any) -> None:
    path, automatic, prompted = both_sets
    torch.manual_seed(99)
    loaded, card = load_model(path, no_checkpoint)
    assert torch.equal(output_of(loaded), output_of(automatic))
    answering, same_card, tuned = load_prompted(path, no_checkpoint)
    assert torch.equal(answer_of(answering), answer_of(prompted))
    assert tuned and same_card == card and not answering.training
    assert card.format_version == 2 and card.prompts == prompt_card("vanilla")
    with safe_open(path, "pt") as file:
        assert not [name for name in file.keys() if "context_decoder" in name]  # noqa: SIM118


def test_a_program_that_knows_no_prompts_says_that_it_is_too_old(
    both_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "FORMAT_VERSION", 1)
    assert refusal(both_sets[0]).code == "newer_format"


def test_prompt_weights_of_a_checkpoint_are_changed_tensors_alone(
    official_files: tuple[Path, Path], tmp_path: Path
) -> None:
    networks = [build("vit_t", 64) for _ in range(2)]
    loaded_weights = [load_checkpoint(each, official_files[0]) for each in networks]
    sha256 = loaded_weights[0].sha256
    automatic = AutomaticSegmenter(networks[0], 2)
    adapt(networks[0], "lora", "encoder_decoder", 4)
    prompted = tuned_for_prompts(networks[1], "adapter")
    path = tmp_path / "both.safetensors"
    card = a_card("vit_t", "lora", sha256, prompts=prompt_card("adapter"))
    save_model(path, move(automatic), card, prompted)
    trained = {name for name, each in prompted.named_parameters() if each.requires_grad}
    with safe_open(path, "pt") as file:
        names = set(file.keys())
    assert {name[8:] for name in names if name.startswith("prompts.")} == trained
    loaded, _, tuned = load_prompted(path, lambda card: official_files[0])
    assert tuned and torch.equal(answer_of(loaded), answer_of(prompted))
    assert torch.equal(
        output_of(load_model(path, lambda card: official_files[0])[0]), output_of(automatic)
    )
    with pytest.raises(InputError) as refused:
        load_prompted(path, lambda card: official_files[1])
    assert refused.value.code == "other_checkpoint"


def test_without_prompt_weights_the_backbone_answers(
    lora_model: Any, official_files: tuple[Path, Path]
) -> None:
    network = build("vit_t", 64)
    load_checkpoint(network, official_files[0])
    found, card, tuned = load_prompted(lora_model[0], lambda card: official_files[0])
    assert not tuned and card == read_card(lora_model[0])
    assert torch.equal(answer_of(found), answer_of(PromptedSegmenter(network.eval())))


def test_prompt_weights_that_do_not_fit_are_named(both_sets: Any, tmp_path: Path) -> None:
    source = both_sets[0]
    tensors = load_file(source)
    name = "prompts.network.mask_decoder.iou_token.weight"

    def refused(content: dict[str, Tensor], card: ModelCard) -> str:
        path = tmp_path / "wrong.safetensors"
        save_file(content, path, metadata={"samfinetune": card.model_dump_json()})
        with pytest.raises(InputError) as refusal:
            load_prompted(path, no_checkpoint)
        assert refusal.value.code == "bad_model" and refusal.value.remedy
        return refusal.value.message

    card = read_card(source)
    less = {key: each for key, each in tensors.items() if key != name}
    assert f"lacks {name}" in refused(less, card)
    assert f"{name} is (3, 3)" in refused({**tensors, name: torch.zeros(3, 3)}, card)
    assert "prompts.more" in refused({**tensors, "prompts.more": torch.zeros(1)}, card)
    # And a card that does not know of them.
    silent = tmp_path / "silent.safetensors"
    plain = card.model_copy(update={"prompts": None})
    save_file(tensors, silent, metadata={"samfinetune": plain.model_dump_json()})
    assert "unknown tensor prompts." in refusal(silent).message


def test_card_and_networks_have_to_agree(both_sets: Any, tmp_path: Path) -> None:
    _, automatic, prompted = both_sets
    with pytest.raises(ValueError, match="do not agree"):
        save_model(
            tmp_path / "m.safetensors", automatic, a_card("starter", "vanilla", None), prompted
        )


def test_a_card_that_would_build_another_network_is_refused(
    starter_model: Any, tmp_path: Path
) -> None:
    """The file would be written, and could not be loaded."""
    segmenter, card = starter_model[1], a_card("starter", "vanilla", None)
    for changed in (
        {"labels": card.labels[:1]},
        {"strategy": card.strategy.model_copy(update={"method": "lora"})},
    ):
        other = card.model_copy(update=changed)
        with pytest.raises(ValueError, match="does not describe the network"):
            save_model(tmp_path / "m.safetensors", segmenter, other)
    assert list(tmp_path.iterdir()) == []
