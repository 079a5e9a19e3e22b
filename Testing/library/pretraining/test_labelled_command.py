"""`pretrain prompts`: training on labelled lists, when it stops, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.starter.network import build_starter
from SAMFineTuneLib.pretraining.labelled.data_sets import DataSets, load_data_sets
from SAMFineTuneLib.pretraining.labelled.plan import LabelledChoices, LabelledPlan, settle
from SAMFineTuneLib.pretraining.labelled.training import LabelledPretraining
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.starting_weights import StartingWeights
from SAMFineTuneLib.pretraining.weights_file import CARD_KEY
from SAMFineTuneLib.weights.official import load_checkpoint
from Testing.support.listed_pictures import data_set
from Testing.support.pretraining_runs import CPU

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


def choices_of(*lists: Path, **more: Any) -> LabelledChoices:
    return LabelledChoices(lists, StartingWeights("starter", "random"), batch=1, **more)


def loaded(choices: LabelledChoices, folder: Path) -> DataSets:
    return load_data_sets(choices, folder, SIZE, lambda: None, lambda done, total: None)


def started(data: DataSets, **changed: Any) -> LabelledPretraining:
    plan: LabelledPlan = settle(choices_of(Path("a")), SIZE, len(data.learnt), 1)
    torch.manual_seed(0)
    network = build_starter(SIZE)
    return LabelledPretraining(replace(plan, **changed), network, data, ProcessGroup(CPU), {})


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    """Three pictures of one label, and four with two labels."""
    return data_set(tmp_path / "one", 3), data_set(tmp_path / "two", 4, (1, 2))


def test_a_part_of_each_data_set_is_held_out(lists: tuple[Path, Path], tmp_path: Path) -> None:
    data = loaded(choices_of(*lists), tmp_path / "slices")
    assert [(name, len(slices)) for name, slices in data.measured] == [
        ("train.csv", 1),
        ("train.csv", 1),
    ]
    assert len(data.learnt) == 2 + 3
    other = data_set(tmp_path / "other", 2)
    data = loaded(choices_of(*lists, validation_lists=(other,)), tmp_path / "slices")
    assert (len(data.learnt), [len(slices) for _, slices in data.measured]) == (7, [2])


def test_the_prompt_encoder_stays_and_each_slice_is_seen_once_an_epoch(
    lists: tuple[Path, Path], tmp_path: Path
) -> None:
    training = started(loaded(choices_of(*lists), tmp_path / "slices"), batch=2, epoch_steps=3)
    seen = []
    for training.step in range(6):
        seen.append(training._positions())
    assert sorted({each for step in seen[:3] for each in step}) == [0, 1, 2, 3, 4]
    assert sorted({each for step in seen[3:] for each in step}) == [0, 1, 2, 3, 4]
    assert seen[:3] != seen[3:]
    training.step = 0
    before = {name: each.clone() for name, each in training.network.state_dict().items()}
    training._take_step()
    changed = {
        name.split(".")[0]
        for name, each in training.network.state_dict().items()
        if not torch.equal(each, before[name])
    }
    assert changed == {"image_encoder", "mask_decoder"}


def test_it_stops_without_improvement_and_keeps_the_best_weights(
    lists: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = started(loaded(choices_of(*lists), tmp_path / "slices"), epoch_steps=1, patience=2)
    scores = iter((0.2, 0.5, 0.4, 0.5, 0.9))
    monkeypatch.setattr(training, "_dsc_on", lambda labelled, number: current[0])
    current = [next(scores)]
    name = "mask_decoder.mask_tokens.weight"
    weights = []

    def after_step(report: Any) -> bool:
        weights.append(training.network.get_parameter(name).detach().clone())
        current[0] = next(scores)
        return False

    training.run(after_step)
    report = training.report()
    # The fourth score equals the best one, which is no improvement.
    assert (report.step, report.validation_dsc, report.best_dsc) == (4, 0.5, 0.5)
    training.save(tmp_path / "w.safetensors", [])
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        written = file.get_tensor(name)
        card = json.loads(file.metadata()[CARD_KEY])
    assert torch.equal(written, weights[1]) and not torch.equal(written, weights[3])
    assert card["validation_dsc_with_prompts"] == 0.5


# The command


def shell(capsys: pytest.CaptureFixture[str], folder: Path, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    command = ["pretrain", "prompts", "--folder", folder / "run", "--device", "cpu"]
    command += ["--output", folder / "w.safetensors", *words]
    capsys.readouterr()
    code = cli.main([str(each) for each in command])
    return (code, *capsys.readouterr())


def test_weights_are_made_from_two_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = [data_set(tmp_path / name, 2) for name in ("one", "two")]
    named = ("--list", lists[0], "--list", lists[1], "--batch", 2, "--epochs", 1)
    code, out, err = shell(capsys, tmp_path, *named)
    assert code == 0, err
    result = json.loads(out)
    assert (result["step"], result["epoch"]) == (1, 1.0)
    assert result["best_dsc"] == result["validation_dsc"]
    assert "2 labelled slices of 2 data sets; 2 measured on" in err
    load_checkpoint(build("starter", 256), tmp_path / "w.safetensors")


def test_a_data_set_without_labels_is_refused_by_name(
    lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = data_set(tmp_path / "empty", 2, (0,)).rename(tmp_path / "empty" / "hearts.csv")
    code, out, err = shell(capsys, tmp_path, "--list", lists[0], "--list", empty)
    assert (code, out) == (2, "")
    assert "no mask of hearts.csv shows a label" in err.splitlines()[-1]


def test_nothing_to_hold_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few labelled slices to hold some out"):
        loaded(choices_of(data_set(tmp_path / "one", 1)), tmp_path / "slices")


def test_the_old_words_do_not_mean_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = shell(capsys, tmp_path)
    assert (code, out) == (2, "") and "pretrain synthetic" in err
    assert shell(capsys, tmp_path, "--episodes", 2)[0] == 2
    assert not (tmp_path / "run").exists()
