"""A head through the commands: tuned, tuned further, applied; and what is refused on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.training import feature_cache
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_a_prompt_network_is_tuned_tuned_further_and_applied(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "_FEWEST_VARIANTS", 1)
    volume, labelmap = head((8, 32, 32))
    pair = write_pair(tmp_path, volume, keep_slices(labelmap, [1, 3, 4, 6]), "patient")
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    data = ("--volume", pair[0], "--segmentation", pair[1], "--steps", 3, "--batch", 2)
    chosen = ("--head", "prompt_network")
    ended = shell("finetune", *data, *chosen, "--output", first)
    assert ended.code == 0, ended.err
    assert "head prompt_network, vanilla, decoder" in ended.err
    assert ended.result["cached_variants"], "the image is cached beside the features"
    further = shell("finetune", *data, "--initial-model", first, "--output", second)
    assert further.code == 0 and read_card(second).head == "prompt_network"
    applied = shell(
        "apply", "--model", second, "--volume", pair[0], "--output", tmp_path / "a.nrrd"
    )
    assert applied.code == 0, applied.err

    other = shell(
        "finetune", *data, "--initial-model", first, "--head", "linear", "--output", second
    )
    assert other.code == 2
    assert "was tuned with head prompt_network, not linear" in other.err
    assert "Leave out --head, or go without --initial-model" in other.err
    depth = shell("finetune", *data, "--head", "vit", "--head-depth", 3, "--output", second)
    assert depth.code == 2 and "--head-depth goes with the --head convnet" in depth.err


def test_describe_refuses_a_depth_that_none_has(shell: Shell) -> None:
    for words, said in (
        (("--head", "linear", "--head-depth", 3), "--head-depth goes with --head convnet"),
        (("--head", "convnet", "--head-depth", 7), "Give 2 to 4"),
    ):
        refused = shell("describe", *words)
        assert refused.code == 2 and said in refused.err
