"""Numbers that cannot be meant are refused, with the bound, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from Testing.support.in_process import Shell, shell_of


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: Any, capfd: Any) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("--batch", 10**9, "512"),
        ("--batch", 0, "1"),
        ("--steps", 10**30, "10000000"),
        ("--steps", -1, "1"),
        ("--minutes", "1e300", "44640"),
        ("--minutes", "inf", "finite"),
        ("--minutes", "nan", "finite"),
        ("--lr", "1e6", "10"),
        ("--rank", 10**9, "256"),
        ("--seed", 2**40, "4294967296"),
        ("--input-size", 10**6, "1024"),
    ],
)
def test_a_fine_tune(option: str, value: object, bound: str, shell: Shell, tmp_path: Path) -> None:
    files = ("--volume", "v.nii", "--segmentation", "s.nii", "--output", tmp_path / "m.safetensors")
    ended = shell("finetune", *files, option, value)
    assert ended.code == 2 and len(ended.error_lines) == 1, ended.err
    assert option in ended.err and bound in ended.err


def test_an_apply_and_an_evaluation(shell: Shell) -> None:
    files = ("--model", "m.safetensors", "--volume", "v.nii", "--output", "o.nii")
    ended = shell("apply", *files, "--batch", 10**9)
    assert ended.code == 2 and "--batch" in ended.err and "512" in ended.err
    files = ("--prediction", "p.nii", "--reference", "r.nii")
    ended = shell("evaluate", *files, "--tolerance", "1e9")
    assert ended.code == 2 and "--tolerance" in ended.err and "10000" in ended.err


@pytest.mark.parametrize("option", ["--steps", "--episodes", "--images"])
def test_a_pretraining(option: str, shell: Shell, tmp_path: Path) -> None:
    files = ("--folder", tmp_path / "f", "--output", tmp_path / "w.safetensors")
    ended = shell("pretrain", "prompts", *files, option, 10**30)
    assert ended.code == 2 and option in ended.err and "1000000000" in ended.err


@pytest.mark.parametrize(("option", "bound"), [("--classes", "10000"), ("--rank", "256")])
@pytest.mark.parametrize("value", [0, 10**9])
def test_a_description(option: str, bound: str, value: int, shell: Shell) -> None:
    ended = shell("describe", option, value)
    assert ended.code == 2 and option in ended.err and bound in ended.err
