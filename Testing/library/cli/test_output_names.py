"""Names of outputs and inputs: upper case, as long as the disk takes, and impossible ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text, written_whole
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.volumes import read_volume, write_volume
from SAMFineTuneLib.worker.json_text import write_json
from Testing.support.in_process import Ended, Shell, shell_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair
from Testing.support.tuned_starter import write_model

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd")
LONGEST = 255


def longest_name(ending: str) -> str:
    return "x" * (LONGEST - len(ending)) + ending


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: Any, capfd: Any) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    volume, labelmap = head((8, 40, 40))
    return write_pair(tmp_path, volume, keep_slices(labelmap, [2, 4, 5]), "good")


def tuned(shell: Shell, pair: tuple[Path, Path], output: Path) -> Ended:
    files = ("--volume", pair[0], "--segmentation", pair[1], "--output", output)
    return shell("finetune", *files, "--steps", 1, "--batch", 1)


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2 and ended.out == "" and "Traceback" not in ended.err, ended.err
    assert len(ended.error_lines) == 1
    assert all(word in ended.error_lines[0] for word in words), ended.err


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_in_upper_case_are_written_and_read(ending: str, tmp_path: Path) -> None:
    volume, _ = head((4, 10, 12))
    path = tmp_path / f"Head{ending.upper()}"
    write_volume(path, volume.array, volume.geometry)
    assert path.name in {each.name for each in tmp_path.iterdir()}
    found = read_volume(path)
    np.testing.assert_array_equal(found.array, volume.array)
    assert found.geometry.same_as(volume.geometry)
    # Another program, which knows lower case alone, reads it once it is renamed.
    renamed = path.with_name(f"Head{ending}")
    path.rename(renamed)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(renamed)), volume.array)


@pytest.mark.parametrize("ending", [each for each in ENDINGS if each != ".mhd"])
def test_the_longest_name_that_the_disk_takes_is_written(ending: str, tmp_path: Path) -> None:
    volume, _ = head((4, 10, 12))
    path = tmp_path / longest_name(ending)
    write_volume(path, volume.array, volume.geometry)
    np.testing.assert_array_equal(read_volume(path).array, volume.array)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_model_of_the_longest_name_is_not_lost(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = tmp_path / longest_name(".safetensors")
    assert tuned(shell, pair, model).code == 0
    assert read_card(model).labels
    output = tmp_path / longest_name(".NII.GZ")
    ended = shell("apply", "--model", model, "--volume", pair[0], "--output", output)
    assert ended.code == 0, ended.err
    assert read_volume(output).array.shape == (8, 40, 40)
    figures = tmp_path / longest_name(".json")
    words = ("--prediction", output, "--reference", pair[1], "--output", figures)
    assert shell("evaluate", *words).code == 0
    assert json.loads(figures.read_text())["labels"]


@pytest.mark.parametrize("name", [longest_name(".safetensors"), "ä" * 125 + ".safetensors"])
def test_one_byte_more_is_refused_before_the_work(
    name: str, shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = tmp_path / "results" / f"x{name}"
    refused(tuned(shell, pair, model), "cannot be the name of a file")
    assert not model.parent.exists()


def test_the_second_file_of_an_mhd_counts(
    shell: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m.safetensors", for_prompts=False)
    output = tmp_path / longest_name(".mhd")
    words = ("apply", "--model", model, "--volume", pair[0], "--output")
    refused(shell(*words, output), "cannot be the name of a file")
    assert shell(*words, tmp_path / longest_name("y.mhd")[1:]).code == 0


@pytest.mark.parametrize("text", ["", " ", "x" * 300, "a/" * 3000, "with\0nul"])
@pytest.mark.parametrize(
    "words",
    [
        ("finetune", "--volume", "PATH", "--segmentation", "s", "--output", "m.safetensors"),
        ("finetune", "--volume", "v", "--segmentation", "PATH", "--output", "m.safetensors"),
        ("finetune", "--volume", "v", "--segmentation", "s", "--output", "PATH"),
        ("finetune", "--examples", "PATH", "--output", "m.safetensors"),
        ("apply", "--model", "PATH", "--volume", "v", "--output", "o.nii"),
        ("apply", "--model", "m", "--volume", "v", "--output", "PATH"),
        ("apply", "--model", "m", "--volume", "v", "--output", "o.nii", "--uncertainty", "PATH"),
        ("evaluate", "--prediction", "PATH", "--reference", "r"),
        ("models", "import", "PATH"),
        ("run", "PATH"),
        ("serve", "PATH"),
        ("pretrain", "synthetic", "--folder", "PATH", "--output", "w.safetensors"),
        ("pretrain", "mae", "--images", "PATH", "--folder", "f", "--output", "w.safetensors"),
        ("pretrain", "prompts", "--list", "PATH", "--folder", "f", "--output", "w.safetensors"),
    ],
    ids=" ".join,
)
def test_impossible_paths_are_refused_in_words(
    words: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    code = cli.main([text if each == "PATH" else each for each in words])
    out, err = capfd.readouterr()
    refused(Ended(code, out, err), "path" if not text.strip() else "")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300])
@pytest.mark.parametrize("field", ["volume", "segmentation"])
def test_impossible_paths_in_a_list_of_examples(
    field: str, path: str, shell: Shell, tmp_path: Path
) -> None:
    listed = tmp_path / "examples.json"
    listed.write_text(json.dumps([{"volume": "v.nii", "segmentation": "s.nii", field: path}]))
    words = ("finetune", "--examples", listed, "--output", tmp_path / "m.safetensors")
    refused(shell(*words), field, "path of a file")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300])
def test_impossible_paths_in_a_job(path: str, shell: Shell, tmp_path: Path) -> None:
    job = {"kind": "apply", "model": path, "volumes": ["v.nii"], "output": "o.nii"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert shell("run", tmp_path).code == 2


def test_a_circle_of_links(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    words = ("--segmentation", "s", "--output", tmp_path / "m.safetensors")
    ended = shell("finetune", "--volume", tmp_path / "a" / "v.nii", *words)
    refused(ended)


def test_a_model_is_exported_into_a_folder(shell: Shell, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path / "models"))
    model = write_model(tmp_path / "liver.safetensors", for_prompts=False)
    assert shell("models", "import", model).code == 0
    folder = tmp_path / "stick"
    folder.mkdir()
    ended = shell("models", "export", "liver", folder)
    assert ended.code == 0 and (folder / "liver.safetensors").is_file()
    assert not (tmp_path / "stick.safetensors").exists()
    refused(shell("models", "export", "liver", folder), "is there already")
    ended = shell("models", "export", "liver", f"{tmp_path}/new/")
    assert ended.code == 0 and (tmp_path / "new" / "liver.safetensors").is_file()


def test_what_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail_half_way() -> None:
        with written_whole(path) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_files_are_for_others_too(tmp_path: Path) -> None:
    os.umask(before := os.umask(0o022))
    write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~before


def test_the_current_folder_may_be_named() -> None:
    assert path_from_text(".") == Path()
    with pytest.raises(InputError, match="empty"):
        path_from_text("")
