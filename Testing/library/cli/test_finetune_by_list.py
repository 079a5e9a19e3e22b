"""`finetune --list`, from the options to the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from SAMFineTuneLib.models.model_file import read_card
from Testing.support.in_process import Shell, shell_of
from Testing.support.listed_pictures import data_set, write_list

ONE_STEP = ("--steps", 1, "--batch", 1, "--device", "cpu")


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_a_model_from_a_list(shell: Shell, tmp_path: Path) -> None:
    data_set(tmp_path, 4)
    training = write_list(tmp_path / "train.csv", ["p0", "p1", "p2"])
    validation = write_list(tmp_path / "val.csv", ["p3"])
    (tmp_path / "images" / "p1.png").write_bytes(b"not a picture")
    model, job = tmp_path / "m.safetensors", tmp_path / "job"
    words = ("finetune", "--list", training, "--validation-list", validation, "--output", model)
    refused = shell(*words, *ONE_STEP)
    assert refused.code == 2
    assert "train.csv, line 2" in refused.err
    assert "--skip-unreadable" in refused.err
    # More than one step, so that the final pass would begin, in which held-out slices join.
    steps = ("--steps", 3, "--batch", 1, "--device", "cpu")
    done = shell(*words, *steps, "--skip-unreadable", "--job", job)
    assert done.code == 0, done.err
    assert "prepare the images 4 of 4" in done.err
    assert "1 slice held out (by validation list)" in done.err
    assert len(done.result["skipped"]) == 1
    card = read_card(model)
    assert card.data == {
        "volumes": 3,
        "labelled_slices": 3,
        "empty_slices": 0,
        "skipped_rows": 1,
        "validation_list_slices": 1,
    }
    assert card.metrics["held_out"] == "validation list"
    assert card.metrics["held_out_joined_after_measurement"] is False
    assert not (job / "prepared").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--list", "l.csv", "--volume", "v.nrrd"), "--list excludes --volume"),
        (("--list", "l.csv", "--examples", "e.json"), "--list excludes --examples"),
        (("--list", "l.csv", "--axis", "axial"), "--list excludes --axis"),
        (("--list", "l.csv", "--empty", "outside"), "--list excludes --empty"),
        (("--volume", "v.nrrd", "--images", "x"), "--images goes with --list"),
        (("--validation-list", "l.csv"), "--validation-list goes with --list"),
        (("--volume", "v.nrrd", "--skip-unreadable"), "--skip-unreadable goes with --list"),
        (("--list", "no.csv"), "no.csv cannot be read"),
    ],
)
def test_options_that_do_not_fit(
    words: tuple[str, ...], told: str, shell: Shell, tmp_path: Path
) -> None:
    ended = shell("finetune", *words, "--output", tmp_path / "m.safetensors")
    assert ended.code == 2
    assert told in ended.err


def test_the_model_does_not_replace_a_list(shell: Shell, tmp_path: Path) -> None:
    path = data_set(tmp_path, 2).rename(tmp_path / "l.safetensors")
    ended = shell("finetune", "--list", path, "--output", path, *ONE_STEP)
    assert ended.code == 2
    assert "a list" in ended.err
