"""What the computer has, told on any machine, and the preset that suits."""

from __future__ import annotations

import builtins
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from SAMFineTuneLib import cli
from SAMFineTuneLib.hardware import Device, find_hardware
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.training.presets import PRESETS
from SAMFineTuneLib.weights.availability import list_backbones

GIB = 1024**3


def fake_torch(cards: dict[str, int], mps: int | None = None, **changed: Any) -> SimpleNamespace:
    """A torch that finds CUDA cards (name -> memory) or Apple's GPU."""
    properties = [SimpleNamespace(name=name, total_memory=size) for name, size in cards.items()]
    cuda = SimpleNamespace(
        is_available=lambda: bool(properties),
        device_count=lambda: len(properties),
        get_device_properties=properties.__getitem__,
    )
    apple = SimpleNamespace(is_available=lambda: mps is not None)
    parts = {
        "__version__": "2.9",
        "cuda": cuda,
        "backends": SimpleNamespace(mps=apple),
        "mps": SimpleNamespace(recommended_max_memory=lambda: mps),
    }
    return SimpleNamespace(**{**parts, **changed})


@pytest.fixture
def torch_is(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda module: monkeypatch.setitem(sys.modules, "torch", module)


def raising(*_: Any) -> Any:
    raise RuntimeError("CUDA driver version is insufficient\nfor the runtime")


def test_this_machine_is_told_as_one_json_object(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hardware"]) == 0
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert set(told) == {
        *("processors", "memory_bytes", "devices", "torch", "problems", "preset", "why")
    }
    assert told["processors"] >= 1 and told["memory_bytes"] > GIB // 4
    assert told["devices"][-1]["name"] == "cpu"
    assert told["torch"] and told["preset"] in PRESETS and told["why"] in err


@pytest.mark.parametrize(
    ("cards", "preset", "words"),
    [
        ({}, "laptop", "no GPU"),
        ({"GeForce RTX 3050": 4 * GIB}, "laptop", "GeForce RTX 3050 has 4.3 GB"),
        ({"Quadro P4000": int(7.93 * 10**9)}, "study", "Quadro P4000 has 7.9 GB"),
        ({"H100": 80 * GIB}, "study", "H100"),
        ({"small": 2 * GIB, "large": 24 * GIB}, "study", "large"),
    ],
)
def test_the_preset_follows_the_gpu(
    cards: dict[str, int], preset: str, words: str, torch_is: Any
) -> None:
    torch_is(fake_torch(cards))
    found = find_hardware()
    assert found.preset == preset and words in found.why
    assert [device.name for device in found.devices] == [
        *(f"cuda:{number}" for number in range(len(cards))),
        "cpu",
    ]
    assert found.problems == []


def test_apple_s_gpu_is_found_with_or_without_its_memory(torch_is: Any) -> None:
    torch_is(fake_torch({}, mps=11 * GIB))
    found = find_hardware()
    assert found.devices[0] == Device("mps", "Apple GPU", 11 * GIB) and found.preset == "study"
    old = fake_torch({}, mps=11 * GIB)
    del old.mps
    torch_is(old)
    found = find_hardware()
    assert found.devices[0] == Device("mps", "Apple GPU", None) and found.preset == "laptop"
    assert "unknown amount" in found.why


def test_a_driver_that_does_not_fit_is_a_problem_and_no_failure(torch_is: Any) -> None:
    cuda = SimpleNamespace(is_available=raising, device_count=raising)
    torch_is(fake_torch({}, cuda=cuda))
    found = find_hardware()
    assert [device.name for device in found.devices] == ["cpu"] and found.preset == "laptop"
    (problem,) = found.problems
    assert "CUDA driver version is insufficient for the runtime" in problem


def test_apple_s_gpu_that_does_not_answer_is_a_problem(torch_is: Any) -> None:
    broken = fake_torch({}, mps=1)
    broken.mps = SimpleNamespace(recommended_max_memory=raising)
    torch_is(broken)
    found = find_hardware()
    assert len(found.devices) == 1 and "MPS" in found.problems[0]


@pytest.mark.parametrize("error", [ImportError("No module named 'torch'"), OSError("a DLL")])
def test_without_torch_the_rest_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise error
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    code = cli.main(["hardware"])
    monkeypatch.undo()
    told = json.loads(capfd.readouterr().out)
    assert code == 0 and told["torch"] is None and told["preset"] == "laptop"
    assert str(error) in told["problems"][0] and told["memory_bytes"] > 0


def test_every_preset_of_a_job_says_what_it_costs_and_needs() -> None:
    assert set(PRESETS) == {"laptop", "thorough", "study", "full", "loramednet"}
    for name, recipe in PRESETS.items():
        for text in (recipe.summary, recipe.costs, recipe.needs):
            assert text and text == text.strip() and not text.endswith(".")
        job = {
            "examples": [{"volume": "/v", "segmentation": "/s"}],
            "output": "/m.safetensors",
            "preset": name,
        }
        assert FinetuneJob.model_validate(job).preset == name


def test_every_backbone_is_listed_with_the_state_of_its_weights(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path))
    listed = {each.name: each for each in list_backbones()}
    assert list(listed) == list(BACKBONES) and next(iter(listed)) == "starter"
    starter = listed["starter"]
    assert starter.present and starter.bytes == 0
    tiny = listed["vit_t"]
    assert not tiny.present and tiny.bytes_present == 0 and tiny.bytes > 40_000_000
    assert all(each.description and each.licence for each in listed.values())
    (tmp_path / "checkpoints").mkdir()
    with (tmp_path / "checkpoints" / "mobile_sam.pt.part").open("wb") as file:
        file.truncate(1000)
    tiny = next(each for each in list_backbones() if each.name == "vit_t")
    assert not tiny.present and tiny.bytes_present == 1000
    (tmp_path / "checkpoints" / "mobile_sam.pt.part").unlink()
    with (tmp_path / "checkpoints" / "mobile_sam.pt").open("wb") as file:
        file.truncate(tiny.bytes)
    assert next(each for each in list_backbones() if each.name == "vit_t").present
