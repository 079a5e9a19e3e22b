"""Tuned models as ONNX files: what they compute, what they tell, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.prompted_from_tensors import PromptedFromTensors
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.models import onnx_export
from SAMFineTuneLib.models.model_file import load_model, read_card
from SAMFineTuneLib.models.onnx_export import description_of, export_onnx
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.prompts.prompt_set import PADDING, PromptSet
from Testing.support.tuned_starter import write_model

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

POINTS = torch.tensor([[[8.5, 13.0], [30.0, 40.5]]])
LABELS = torch.tensor([[1, 0]])
BOX, NO_BOX = torch.tensor([[6.0, 7.0, 40.0, 50.0]]), torch.full((1, 4), torch.nan)
PROMPTS = {
    "points and box": (POINTS, LABELS, BOX),
    "points": (POINTS, LABELS, NO_BOX),
    "box": (POINTS[:, :1], torch.full((1, 1), PADDING), BOX),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small_inputs: None) -> Path:
    return write_model(
        tmp_path_factory.mktemp("tuned") / "m.safetensors", for_prompts=True, input_size=64
    )


@pytest.mark.parametrize("backbone", ["starter", "vit_t"])
def test_prompts_as_tensors_have_the_masks_of_prompts(backbone: str, small_inputs: None) -> None:
    torch.manual_seed(0)
    segmenter = PromptedSegmenter(build(backbone, 64)).eval()
    alone = PromptedFromTensors(segmenter).eval()
    image = torch.randn(1, 3, 64, 64)
    for points, labels, box in PROMPTS.values():
        given = labels[0] != PADDING
        prompts = PromptSet(points[:, given], labels[:, given], box)
        with torch.no_grad():
            expected = segmenter.decode(segmenter.encode(image), prompts)
            found = alone(image, points, labels, box)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_without_the_packages_it_is_refused_in_words(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed: onnx onnxruntime") as refused:
        export_onnx(model, tmp_path / "m.onnx", lambda card: model)
    assert refused.value.code == "missing_package"


def test_what_cannot_be_exported_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: name)
    plain = write_model(tmp_path / "plain.safetensors", for_prompts=False, input_size=64)
    there = tmp_path / "there.onnx"
    there.write_text("")
    for source, file, code in (
        (plain, "new.onnx", "no_prompt_weights"),
        (model, "there.onnx", "file_exists"),
        (model, "new.pt", "bad_name"),
    ):
        with pytest.raises(InputError) as refused:
            export_onnx(source, tmp_path / file, lambda card: model, prompted=True)
        assert refused.value.code == code
    monkeypatch.setattr(onnx_export, "_NOT_IN_ONNX", read_card(model).head)
    with pytest.raises(InputError, match="has an operation that ONNX files cannot hold"):
        export_onnx(model, tmp_path / "new.onnx", lambda card: model)
    monkeypatch.setattr(onnx_export, "_NOT_IN_ONNX", ())
    monkeypatch.setattr(onnx_export, "_LARGEST_FILE", 1000)
    with pytest.raises(InputError, match="an ONNX file holds 2 GB at most"):
        export_onnx(model, tmp_path / "new.onnx", lambda card: model)


def test_the_file_tells_what_its_numbers_mean(model: Path) -> None:
    card = read_card(model)
    told = description_of(card, prompted=False)
    assert json.loads(told["labels"]) == [
        {"class": 0, "value": 0, "name": "background"},
        {"class": 1, "value": 5, "name": "bright"},
        {"class": 2, "value": 52, "name": "dark"},
    ]
    assert json.loads(told["pixel_normalisation"])["kind"] == "unit"
    assert json.loads(told["intensity_normalisation"])["window"]["low"] == -100
    assert "(1, 3, 64, 64)" in json.loads(told["inputs"])["image"]
    assert json.loads(description_of(card, prompted=True)["labels"]) == []
    only = description_of(card, prompted=False, results=["logits"])
    assert list(json.loads(only["outputs"])) == ["logits"]
    assert "(1, classes, 16, 16)" in json.loads(only["outputs"])["logits"]
    sam = description_of(card.model_copy(update={"pixels": "sam"}), prompted=False)
    assert json.loads(sam["pixel_normalisation"])["mean"] == [123.675, 116.28, 103.53]


def test_the_command_takes_one_kind_of_file(model: Path, tmp_path: Path) -> None:
    for words in ([], ["a", "--onnx", "b.onnx"], ["a", "--prompted"]):
        assert cli.main(["models", "export", str(model), *words]) == 2


def test_another_program_computes_the_same(model: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    exported = export_onnx(model, tmp_path / "m.onnx", lambda card: model)
    assert exported.largest_difference <= 1e-4
    session = runtime.InferenceSession(str(exported.file))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = load_model(model, lambda card: model)[0](image)
    for found, true in zip(session.run(None, {"image": image.numpy()}), expected, strict=True):
        np.testing.assert_allclose(found, true.numpy(), atol=1e-4)
    properties = {each.key: each.value for each in onnx.load(str(exported.file)).metadata_props}
    assert properties["task"] == "automatic" and "card" in properties


def test_another_program_answers_prompts(model: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    exported = export_onnx(model, tmp_path / "p.onnx", lambda card: model, prompted=True)
    session = runtime.InferenceSession(str(exported.file))
    image = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    masks: list[Any] = []
    for prompts in PROMPTS.values():
        given = dict(zip(exported.inputs, (image, *(x.numpy() for x in prompts)), strict=True))
        masks.append(session.run(None, given)[0])
    assert all(mask.shape == (1, 1, 16, 16) and np.isfinite(mask).all() for mask in masks)
    assert not np.allclose(masks[0], masks[1])
