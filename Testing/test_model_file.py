"""The tuned model's file: what is in it, what it gives back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.backbones.checkpoints import load_checkpoint
from SAMFineTuneLib.backbones.registry import build
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.model_file import (
    FORMAT_VERSION,
    LabelCard,
    ModelCard,
    Strategy,
    load_model,
    read_card,
    save_model,
)
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow

WINDOW = IntensityWindow(low=-100, high=300, mean=0.4, standard_deviation=0.2)


pytestmark = pytest.mark.usefixtures("two_threads")


def a_card(backbone: str, method: str, sha256: str | None, **more: Any) -> ModelCard:
    return ModelCard(
        backbone=backbone,
        checkpoint_sha256=sha256,
        strategy=Strategy(method=method, scope="encoder_decoder", rank=4),
        labels=[LabelCard(value=5, name="liver", colour=(1.0, 0.5, 0.0)), LabelCard(value=52)],
        axis="axial",
        normalisation=IntensityNormalisation(kind="calibrated", window=WINDOW),
        input_size=256,
        **more,
    )


def no_checkpoint(card: ModelCard) -> Path:
    raise AssertionError("a model that started from random weights needs no checkpoint")


def move(segmenter: AutomaticSegmenter) -> AutomaticSegmenter:
    """Every tensor that trains moves, as training would."""
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return segmenter.eval()


def output_of(segmenter: AutomaticSegmenter) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        logits: Tensor = segmenter(torch.randn(1, 3, 256, 256, generator=generator))[0]
    return logits


@pytest.fixture(scope="module")
def starter_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AutomaticSegmenter]:
    torch.manual_seed(0)
    segmenter = AutomaticSegmenter(build("starter", 256), 2)
    adapt(segmenter.network, "vanilla", "encoder_decoder", 4)
    path = tmp_path_factory.mktemp("starter") / "models" / "tuned.safetensors"
    save_model(path, move(segmenter), a_card("starter", "vanilla", None))
    return path, segmenter


@pytest.fixture(scope="module")
def official_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of vit_t with random weights in the official layout."""
    folder = tmp_path_factory.mktemp("official")
    for seed, name in enumerate(("mobile_sam.pt", "other.pt")):
        torch.manual_seed(seed)
        torch.save(build("vit_t", 1024).state_dict(), folder / name)
    return folder / "mobile_sam.pt", folder / "other.pt"


@pytest.fixture(scope="module")
def lora_model(
    official_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, AutomaticSegmenter]:
    network = build("vit_t", 256)
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
    assert card.format_version == FORMAT_VERSION and "torch" in card.versions
    assert list(path.parent.iterdir()) == [path], "no part file is left"


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
    network = build("vit_t", 256)
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
    newer = rewritten(starter_model[0], tmp_path / "newer.safetensors", format_version=2)
    error = refusal(newer)
    assert error.code == "newer_format" and "version 2" in error.message
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
