"""Cards of tuned models that say what cannot be: refused in words that name the field."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Shell, shell_of
from synthetic_volumes import head, write_pair
from tuned_starter import write_model

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.model_file import read_card

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sound.safetensors"
    return write_model(path, for_prompts=False)


def tampered(source: Path, target: Path, change: Change) -> Path:
    """The model with another card, and all of its tensors."""
    content = source.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    card = json.loads(header["__metadata__"]["samfinetune"])
    change(card)
    header["__metadata__"]["samfinetune"] = json.dumps(card)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return target


WINDOW = {"low": 0.0, "high": 1.0, "curve": [0.0, 1.0], "mean": 0.5, "standard_deviation": 0.2}
CHANGES: dict[str, tuple[Change, str]] = {
    "a label below zero": (lambda card: card["labels"][0].update(value=-5), "labels.0.value"),
    "background as a label": (lambda card: card["labels"][0].update(value=0), "labels.0.value"),
    "a label beyond all": (lambda card: card["labels"][1].update(value=2**40), "labels.1.value"),
    "a label twice": (lambda card: card["labels"][1].update(value=5), "twice"),
    "no label": (lambda card: card.update(labels=[]), "labels"),
    "a colour beyond white": (
        lambda card: card["labels"][0].update(colour=[2.0, 0.0, 0.0]),
        "labels.0.colour",
    ),
    "a name without end": (lambda card: card["labels"][0].update(name="x" * 10**6), "name"),
    "no such axis": (lambda card: card.update(axis="upwards"), "axis"),
    "no such method": (lambda card: card["strategy"].update(method="magic"), "strategy.method"),
    "no such scope": (lambda card: card["strategy"].update(scope="all"), "strategy.scope"),
    "a huge rank": (lambda card: card["strategy"].update(rank=10**9), "strategy.rank"),
    "a huge input": (lambda card: card.update(input_size=2**20), "input_size"),
    "an odd input": (lambda card: card.update(input_size=257), "input_size"),
    "a window of nothing": (
        lambda card: card.update(
            normalisation={"kind": "calibrated", "window": {**WINDOW, "high": 0.0}}
        ),
        "normalisation.window",
    ),
    "a window of no numbers": (
        lambda card: card.update(
            normalisation={"kind": "calibrated", "window": {**WINDOW, "low": float("nan")}}
        ),
        "normalisation.window.low",
    ),
    "a falling curve": (
        lambda card: card.update(
            normalisation={"kind": "calibrated", "window": {**WINDOW, "curve": [1.0, 0.0]}}
        ),
        "curve",
    ),
    "CT without its window": (
        lambda card: card.update(normalisation={"kind": "calibrated"}),
        "normalisation",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_field_is_named(name: str, sound: Path, tmp_path: Path) -> None:
    change, words = CHANGES[name]
    path = tampered(sound, tmp_path / "m.safetensors", change)
    with pytest.raises(InputError, match="damaged card") as caught:
        read_card(path)
    assert words in str(caught.value) and caught.value.remedy


def test_a_card_that_is_only_written_anew_is_read(sound: Path, tmp_path: Path) -> None:
    path = tampered(sound, tmp_path / "m.safetensors", lambda card: None)
    assert read_card(path) == read_card(sound)


def test_commands_refuse_it(sound: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    shell: Shell = shell_of(monkeypatch, capfd, tmp_path / "cache")
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path / "models"))
    volume, labelmap = head((4, 32, 32))
    image, _ = write_pair(tmp_path, volume, labelmap, "head")
    path = tampered(sound, tmp_path / "bad.safetensors", CHANGES["a label below zero"][0])
    output = tmp_path / "out.nii.gz"
    for words in (
        ("apply", "--model", path, "--volume", image, "--output", output),
        ("models", "import", path),
    ):
        ended = shell(*words)
        assert ended.code == 2 and "labels.0.value" in ended.err, ended.err
    assert not output.exists()
    (tmp_path / "models").mkdir(exist_ok=True)
    path.rename(tmp_path / "models" / "bad.safetensors")
    ended = shell("models", "list")
    assert ended.code == 0 and "labels.0.value" in ended.err
