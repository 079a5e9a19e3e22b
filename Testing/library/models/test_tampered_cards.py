"""Tuned models that somebody changed, or that were damaged: refused by the field that cannot be."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive.protocol import SESSION_FILE, SessionSettings
from SAMFineTuneLib.interactive.server import CorrectionServer
from SAMFineTuneLib.models.model_file import LabelCard, load_model, read_card
from SAMFineTuneLib.volumes import write_volume
from SAMFineTuneLib.volumes.segment_header import segments
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import head
from Testing.support.tuned_starter import write_model

VOLUME, _LABELS = head()
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "head.safetensors", for_prompts=True)


@pytest.fixture(scope="module")
def card_file(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's card with one small tensor: whoever reads a card reads none of the tensors."""
    path = tmp_path_factory.mktemp("card") / "card.safetensors"
    save_file({"a": torch.zeros(3)}, path, {"samfinetune": json.dumps(card_of(model))})
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "head.nrrd"
    write_volume(path, VOLUME.array, VOLUME.geometry)
    return path


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path / "models"))
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def card_of(model: Path) -> dict[str, Any]:
    with safe_open(model, "pt") as file:
        card: dict[str, Any] = json.loads(file.metadata()["samfinetune"])
    return card


def with_card(model: Path, target: Path, text: str) -> Path:
    """The model with another text for its card; as slow as copying."""
    content = model.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["samfinetune"] = text
    changed = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])
    return target


def changed(model: Path, target: Path, field: str, value: Any) -> Path:
    card = card_of(model)
    *steps, last = [int(each) if each.isdigit() else each for each in field.split(".")]
    place: Any = card
    for step in steps:
        place = place[step]
    place[last] = value
    return with_card(model, target, json.dumps(card))


NAN, INFINITE = float("nan"), float("inf")
SHAPE = {"label": 5, "slices": 3, "parts": 1, "smallest_part": 9.0, "usual_area": 20.0}
WINDOW = "normalisation.window"
TAMPERED = [
    ("labels.0.value", -5),
    ("labels.0.value", 0),
    ("labels.0.value", 2**31),
    ("labels.0.value", 2**40),
    ("labels.0.value", 10**40),
    ("labels.0.value", True),
    ("labels.0.value", 5.5),
    ("labels.0.value", "5"),
    ("labels.1.value", 5),
    ("labels", []),
    ("labels.0.colour", [2.0, 0.0, 0.0]),
    ("labels.0.colour", [0.5, NAN, 0.0]),
    ("labels.0.colour", [0.5, 0.5]),
    ("labels.0.name", 7),
    ("labels.0.terminology", None),
    ("shapes", [SHAPE | {"parts": 0}]),
    ("shapes", [SHAPE | {"slices": 2.5}]),
    ("shapes", [SHAPE | {"usual_area": NAN}]),
    ("shapes", [{"label": 5}]),
    ("axis", "oblique"),
    ("axis", ""),
    ("input_size", 100),
    ("input_size", 0),
    ("input_size", -256),
    ("input_size", 257),
    ("input_size", 10**9),
    ("input_size", 256.5),
    ("backbone", "vit_x"),
    ("backbone", "../../starter"),
    ("checkpoint_sha256", "abc"),
    ("checkpoint_sha256", "../" * 21 + "x"),
    ("strategy.method", "magic"),
    ("strategy.scope", "all"),
    ("strategy.rank", 0),
    ("strategy.rank", -1),
    ("strategy.rank", 10**9),
    ("prompts.strategy.method", "magic"),
    ("prompts.strategy.rank", 10**12),
    ("normalisation.kind", "percentiles"),
    ("normalisation.kind", "none"),
    (WINDOW, None),
    (f"{WINDOW}.low", NAN),
    (f"{WINDOW}.low", 800.0),
    (f"{WINDOW}.low", 900.0),
    (f"{WINDOW}.high", INFINITE),
    (f"{WINDOW}.mean", NAN),
    (f"{WINDOW}.standard_deviation", 0.0),
    (f"{WINDOW}.standard_deviation", -0.1),
    (f"{WINDOW}.curve", []),
    (f"{WINDOW}.curve", [0.0]),
    (f"{WINDOW}.curve", [0.0, NAN, 1.0]),
    (f"{WINDOW}.curve", [0.0, 0.7, 0.5, 1.0]),
    (f"{WINDOW}.curve", [0.0, 40.0]),
    (f"{WINDOW}.curve", [-3.0, 1.0]),
    ("created", "yesterday"),
    ("created", "0001-01-01T00:00:00+00:00"),
    ("created", "9999-12-31T23:59:59+00:00"),
    ("metrics", {"validation_dsc": "good"}),
    ("metrics", {"validation_dsc": 17.0}),
    ("metrics", {"validation_dsc": NAN}),
    ("metrics", {"validation_iou": 1.5}),
    ("metrics", {"validation_nsd": "near"}),
    ("metrics", {"validation_hd95_mm": -0.5}),
    ("metrics", {"validation_hd95_mm": INFINITE}),
    ("metrics", {"nsd_tolerance_mm": True}),
    ("metrics", {"held_out_slices": -1}),
    ("metrics", {"before_going_on": {"validation_dsc": "good"}}),
    ("metrics", {"before_going_on": {"held_out_slices": -1}}),
    ("metrics", {"before_going_on": [0.8]}),
    ("data", {"volumes": "many"}),
    ("data", {"labelled_slices": 1.5}),
    ("temperature", 0.0),
    ("temperature", -1.5),
    ("temperature", NAN),
    ("temperature", INFINITE),
    ("temperature", "1.5"),
    ("temperature", None),
    ("format", "something else"),
    ("format_version", True),
    ("format_version", 0),
    ("format_version", -1),
    ("format_version", 1.5),
]


@pytest.mark.parametrize(("field", "value"), TAMPERED, ids=lambda each: str(each)[:24])
def test_a_field_that_cannot_be_is_named(
    field: str, value: Any, card_file: Path, tmp_path: Path
) -> None:
    path = changed(card_file, tmp_path / "changed.safetensors", field, value)
    with pytest.raises(InputError) as refused:
        read_card(path)
    said = refused.value
    assert said.code == "bad_model" and said.remedy and len(str(said)) < 400
    named = field.split(".")[-1] if field != "metrics" and field != "data" else next(iter(value))
    assert path.name in said.message and named in said.message, said.message


def test_a_card_of_an_older_program_has_temperature_1(card_file: Path, tmp_path: Path) -> None:
    card = card_of(card_file)
    del card["temperature"]
    path = with_card(card_file, tmp_path / "old.safetensors", json.dumps(card))
    assert read_card(path).temperature == 1.0


def test_a_number_beyond_all_versions_is_a_newer_format(card_file: Path, tmp_path: Path) -> None:
    path = changed(card_file, tmp_path / "changed.safetensors", "format_version", 10**300)
    with pytest.raises(InputError) as refused:
        read_card(path)
    assert refused.value.code == "newer_format" and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels.0.value", 2**31 - 1),
        ("labels.0.value", 1),
        ("labels.0.colour", [0, 1, 0.5]),
        ("labels.0.colour", None),
        ("axis", "widest"),
        ("input_size", 1024),
        ("metrics", {"validation_dsc": None}),
        ("metrics", {"validation_nsd": 1.0, "validation_hd95_mm": None}),
        ("metrics", {"validation_hd95_mm": 312.5, "nsd_tolerance_mm": 2.0}),
        ("temperature", 2),
        ("temperature", 0.75),
        ("created", "2024-05-06T07:08:09Z"),
        (f"{WINDOW}.curve", [0.0, 0.5, 0.5, 1.0]),
    ],
)
def test_a_field_that_can_be_is_taken(
    field: str, value: Any, card_file: Path, tmp_path: Path
) -> None:
    read_card(changed(card_file, tmp_path / "changed.safetensors", field, value))


def test_texts_are_of_one_line_and_of_a_length_that_can_be_shown(
    card_file: Path, tmp_path: Path
) -> None:
    path = changed(
        card_file, tmp_path / "a.safetensors", "labels.0.name", "left\n\tlung\x00\u2028 x"
    )
    assert read_card(path).labels[0].name == "left lung  x"
    path = changed(card_file, tmp_path / "b.safetensors", "labels.0.name", "n" * 100_000)
    assert read_card(path).labels[0].name == "n" * 1000
    path = changed(card_file, tmp_path / "c.safetensors", "labels.0.terminology", "t" * 100_000)
    assert read_card(path).labels[0].terminology == ""
    # What a fine-tune writes, it reads.
    assert LabelCard(value=1, name="two  blanks ü 肝").name == "two  blanks ü 肝"


def test_a_colour_that_is_no_number_is_not_learnt_from_a_segmentation() -> None:
    """It would be written into the card, and the model refused after all the work."""
    header = {"Segment0_LabelValue": "3", "Segment0_Color": "nan 0.5 0.5", "Segment0_Name": "a"}
    assert segments(header).colours == {} and segments(header).names == {3: "a"}


def test_a_key_that_stands_there_twice_is_refused(card_file: Path, tmp_path: Path) -> None:
    text = json.dumps(card_of(card_file))
    twice = text[:-1] + ', "axis": "coronal"}'
    with pytest.raises(InputError, match="damaged card"):
        read_card(with_card(card_file, tmp_path / "card.safetensors", twice))
    header = b'{"__metadata__":{"samfinetune":"{}"},"__metadata__":{"samfinetune":"{}"}}'
    path = tmp_path / "header.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="not a tuned model"):
        read_card(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 10_000, '{"format_version":' + "9" * 10_000 + "}", "{}", "7", ""]
)
def test_texts_that_are_no_card_are_refused(text: str, card_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_card(with_card(card_file, tmp_path / "no.safetensors", text))
    assert refused.value.code == "bad_model"


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 100_000_001, 0, 1, 10**7])
def test_a_header_longer_than_the_file_is_refused_at_once(length: int, tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"__metadata__":{}}' * 3)
    with pytest.raises(InputError) as refused:
        read_card(path)
    assert refused.value.code == "bad_model"


@pytest.mark.parametrize(
    "offsets", [[0, 2**62], [2**62, 0], [-4, 4], [0, 1e300], [0], "ab", [4, 0]]
)
def test_offsets_that_cannot_be_are_refused(offsets: Any, model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(each for each in header if each != "__metadata__")
    header[name]["data_offsets"] = offsets
    text = json.dumps(header).encode()
    path = tmp_path / "offsets.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(InputError) as refused:
        load_model(path, lambda card: Path("none"))
    assert refused.value.code == "bad_model"


FLOAT = "network.mask_decoder.tokens"


@pytest.mark.parametrize(
    "kind", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint8]
)
def test_a_tensor_of_another_type_is_named(kind: torch.dtype, model: Path, tmp_path: Path) -> None:
    path = with_tensor(model, tmp_path, lambda tensor: tensor.to(kind))
    with pytest.raises(InputError) as refused:
        load_model(path, lambda card: Path("none"))
    assert refused.value.code == "bad_model" and FLOAT in refused.value.message


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE, 1e300])
def test_a_tensor_of_what_is_no_number_is_named(value: float, model: Path, tmp_path: Path) -> None:
    """Also where it becomes one only in the network's own precision."""
    path = with_tensor(model, tmp_path, lambda tensor: torch.full_like(tensor.double(), value))
    with pytest.raises(InputError) as refused:
        load_model(path, lambda card: Path("none"))
    assert refused.value.code == "bad_model" and FLOAT in refused.value.message


def with_tensor(model: Path, folder: Path, change: Any) -> Path:
    tensors = load_file(model)
    assert FLOAT in tensors
    tensors[FLOAT] = change(tensors[FLOAT]).contiguous()
    path = folder / "tensor.safetensors"
    save_file(tensors, path, {"samfinetune": json.dumps(card_of(model))})
    return path


def test_every_command_refuses_such_a_model_in_words(
    model: Path, volume: Path, tmp_path: Path, shell: Shell
) -> None:
    path = changed(model, tmp_path / "changed.safetensors", "labels.0.value", -5)
    output = tmp_path / "out.nii.gz"
    for words in (
        ("apply", "--model", path, "--volume", volume, "--output", output),
        ("models", "import", path),
    ):
        ended = shell(*words)
        assert ended.code == 2, ended.err
        (line,) = ended.error_lines
        assert "labels[0].value is -5" in line and "from 1 to 2147483647" in line
    assert not output.exists()
    library = tmp_path / "models"
    library.mkdir()
    path.rename(library / "liver.safetensors")
    ended = shell("models", "list")
    assert ended.code == 0 and "labels[0].value is -5" in ended.out
    ended = shell("models", "export", "liver", tmp_path / "exported.safetensors")
    assert ended.code == 2 and "labels[0].value is -5" in ended.err
    assert not (tmp_path / "exported.safetensors").exists()


def test_a_correction_refuses_such_a_model(model: Path, volume: Path, tmp_path: Path) -> None:
    path = changed(model, tmp_path / "changed.safetensors", "labels.1.value", 2**40)
    settings = SessionSettings(volume=volume, model=path, device="cpu")
    (tmp_path / SESSION_FILE).write_text(settings.model_dump_json(), encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\[1\]\.value is 1099511627776"):
        CorrectionServer(tmp_path, lambda message: None, list)
