"""A fine-tune that tunes for prompts as well, from the shell to the model's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.models.model_file import ModelCard, load_model, load_prompted, read_card
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.training.prompt_tuning import PromptTuning
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from SAMFineTuneLib.worker.events import Progress, parse_line
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    volume, labelmap = head((6, 40, 40))
    return write_pair(tmp_path, volume, keep_slices(labelmap, [1, 2, 3, 4]), "head")


def options(pair: tuple[Path, Path], model: Path, *more: object) -> tuple[object, ...]:
    files = ("--volume", pair[0], "--segmentation", pair[1], "--output", model)
    return ("finetune", *files, "--prompts", "--steps", 4, "--batch", 2, *more)


def prompt_weights(model: Path) -> dict[str, Tensor]:
    return {name: each for name, each in load_file(model).items() if name.startswith("prompts.")}


def starter_path(card: ModelCard) -> Path:
    return find_weights(card.backbone, None)


def test_a_job_gives_both_sets_and_says_what_they_are_worth(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model, job = tmp_path / "m.safetensors", tmp_path / "job"
    ended = shell(*options(pair, model, "--job", job))
    assert ended.code == 0, ended.err
    prompted = ended.result["metrics"]["prompted"]
    assert prompted["measured_with"] == "simulated prompts made from the true masks"
    for scores in (prompted, prompted["before_tuning"]):
        assert all(0 <= scores[name] <= 1 for name in ("box", "1 click", "3 clicks"))
    assert ended.result["metrics"]["validation_dsc"] != prompted["box"]
    assert ended.result["prompts"]["training"]["steps"] == 2
    told = [parse_line(line) for line in (job / "events.jsonl").read_text().splitlines()]
    steps = [(each.phase, each.step) for each in told if isinstance(each, Progress)]
    assert steps[-1] == ("prompts", 2) and steps[0][0] == "fine-tune"
    _, card, tuned = load_prompted(model, starter_path)
    assert tuned and card.format_version == 2 and card.prompts is not None
    assert card.metrics["prompted"] == prompted
    load_model(model, starter_path)
    assert not list((job / "checkpoint").glob("*.pt"))

    # A warm start goes on from them, with the network as it was adapted.
    again = tmp_path / "again.safetensors"
    ended = shell(*options(pair, again, "--initial-model", model))
    assert ended.code == 0, ended.err
    earlier, later = prompt_weights(model), prompt_weights(again)
    assert earlier.keys() == later.keys()
    moved = [name for name in earlier if not torch.equal(earlier[name], later[name])]
    assert moved
    untouched = PromptedSegmenter(build("starter", 64))
    load_checkpoint(untouched.network, find_weights("starter", None))
    began = {f"prompts.{name}": each for name, each in untouched.state_dict().items()}
    away = [
        sum(float((later[name] - from_there[name]).square().sum()) for name in moved)
        for from_there in (earlier, began)
    ]
    assert away[0] < away[1], "nearer to the earlier model than to the backbone"


def test_the_studys_prompts_are_learnt_from_and_measured_with(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    ended = shell(*options(pair, tmp_path / "m.safetensors", "--prompt-mode", "box"))
    assert ended.code == 0, ended.err
    prompted = ended.result["metrics"]["prompted"]
    assert prompted["mode"] == "box" and 0 < prompted["box"] <= 1
    # The starter gives one mask, so that there is none to choose by the truth.
    assert set(prompted["before_tuning"]) == {"box"}
    own = ended.result["prompts"]
    assert own["mode"] == "box" and own["training"]["share_of_what_was_learnt"] == 1
    # The prompt encoder stays as it was.
    untouched = PromptedSegmenter(build("starter", 64))
    load_checkpoint(untouched.network, find_weights("starter", None))
    segmenter, _, tuned = load_prompted(tmp_path / "m.safetensors", starter_path)
    assert tuned
    began, learnt = dict(untouched.named_parameters()), dict(segmenter.named_parameters())
    moved = {name for name, each in learnt.items() if not torch.equal(each, began[name])}
    assert moved and not any("prompt_encoder" in name for name in moved)


def test_a_mode_of_prompts_without_prompts_is_refused(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    files = ("--volume", pair[0], "--segmentation", pair[1], "--output", tmp_path / "m.safetensors")
    ended = shell("finetune", *files, "--prompt-mode", "box")
    assert ended.code == 2 and "goes with" in ended.err


def test_an_interrupted_second_part_does_not_lose_the_first(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, job = tmp_path / "m.safetensors", tmp_path / "job"
    real = PromptTuning.loss_of_step

    def dies(tuning: PromptTuning, step: int) -> Tensor | None:
        if step == 1:
            (job / "cancel").touch()
            tuning._check_cancelled()
        return real(tuning, step)

    monkeypatch.setattr(PromptTuning, "loss_of_step", dies)
    ended = shell(*options(pair, model, "--job", job))
    assert ended.code == 3 and not model.exists()
    assert (job / "checkpoint" / "training.pt").is_file()
    monkeypatch.setattr(PromptTuning, "loss_of_step", real)
    (job / "cancel").unlink()
    (job / "events.jsonl").unlink()
    ended = shell("run", job)
    assert model.is_file(), ended.err
    told = [parse_line(line) for line in (job / "events.jsonl").read_text().splitlines()]
    phases = {each.phase for each in told if isinstance(each, Progress)}
    assert phases == {"prompts"}, "the automatic weights were there"
    assert read_card(model).training["steps"] == 4


def test_finishing_before_the_second_part_leaves_it_out(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model, job = tmp_path / "m.safetensors", tmp_path / "job"
    job.mkdir()
    (job / "finish").touch()
    ended = shell(*options(pair, model, "--job", job))
    assert ended.code == 0, ended.err
    card = read_card(model)
    assert card.prompts is None and card.format_version == 1 and "prompted" not in card.metrics
    assert "the model has none of its own" in ended.err


def test_segment_anything_is_tuned_with_its_plan(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "mobile_sam.pt"
    torch.save(build("vit_t", 64).state_dict(), weights)
    model = tmp_path / "m.safetensors"
    more = ("--backbone", "vit_t", "--checkpoint", weights)
    ended = shell(*options(pair, model, *more, "--method", "lora", "--validation", "none"))
    assert ended.code == 0, ended.err
    assert ended.result["prompts"]["strategy"]["method"] == "lora"
    assert ended.result["metrics"]["prompted"] is None, "nothing is held out"
    assert load_prompted(model, lambda card: weights)[2]
    kept = prompt_weights(model)
    assert any("image_encoder" in name for name in kept)
    assert not any("patch_embed" in name or "prompt_encoder" in name for name in kept)
