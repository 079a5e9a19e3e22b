"""Weights bring the normalisation of pixels that they were trained with."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from SAMFineTuneLib.cli.arguments import kind_and_file
from SAMFineTuneLib.models.model_file import load_model, read_card
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.weights_kind import pixels_of
from Testing.support.in_process import shell_of
from Testing.support.synthetic_volumes import head, write_pair


def test_pixels_of_each_kind() -> None:
    assert [pixels_of(kind) for kind in ("sam", "sslsam", "supsam")] == ["sam"] * 3
    assert pixels_of("medsam") == "zero_to_one"
    assert pixels_of("own") is None and pixels_of(None) is None


def test_a_network_is_built_for_the_pixels_of_its_weights() -> None:
    assert build("starter", 256, "sam").spec.normalisation == "sam"
    assert build("starter", 256).spec.normalisation == find("starter").normalisation == "unit"


def test_what_is_typed() -> None:
    assert kind_and_file("medsam:w.pth") == ("medsam", Path("w.pth"))
    assert kind_and_file("own:C:/w.pth") == ("own", Path("C:/w.pth"))
    for text in ("w.pth", "medsam", "medsam:", "foo:w.pth"):
        with pytest.raises(argparse.ArgumentTypeError, match="KIND:FILE"):
            kind_and_file(text)


def test_the_card_says_so_and_the_model_is_loaded_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shell = shell_of(monkeypatch, capfd, tmp_path / "cache")
    volume, labels = write_pair(tmp_path, *head((4, 24, 24)), "head")
    weights, model = find_weights("starter", None), tmp_path / "m.safetensors"
    data = ("--volume", volume, "--segmentation", labels, "--output", model)
    few = ("--steps", 1, "--batch", 1, "--validation", "none")
    ended = shell("finetune", *data, *few, "--initial-weights", f"medsam:{weights}")
    assert ended.code == 0, ended.err
    card = read_card(model)
    assert (card.pixels, card.initial_weights, card.format_version) == ("zero_to_one", "medsam", 3)
    segmenter, _ = load_model(model, lambda card: weights)
    assert segmenter.network.spec.normalisation == "zero_to_one"
    further = tmp_path / "further.safetensors"
    again = ("--volume", volume, "--segmentation", labels, "--output", further)
    ended = shell("finetune", *again, *few, "--initial-model", model)
    assert ended.code == 0 and read_card(further).pixels == "zero_to_one"
    refused = shell("finetune", *data, "--initial-weights", "own:a.pt", "--checkpoint", "b.pt")
    assert refused.code == 2 and "exclude each other" in refused.err
