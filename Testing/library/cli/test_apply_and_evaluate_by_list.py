"""`apply --list` and `evaluate --list`: a folder of segmentations, and a table of their scores."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.volumes import read_grid
from Testing.support.in_process import Shell, shell_of
from Testing.support.listed_pictures import data_set, write_pair
from Testing.support.tuned_starter import write_model


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def shifted(mask: Path, output: Path, columns: int) -> None:
    array = np.roll(sitk.GetArrayFromImage(sitk.ReadImage(str(mask))), columns, axis=1)
    output.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(output))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_of_a_folder(shell: Shell, tmp_path: Path) -> None:
    path = data_set(tmp_path, 4, (1, 3))
    for number in range(4):
        name = f"p{number}.png"
        shifted(tmp_path / "masks" / name, tmp_path / "found" / name, number)
    output = tmp_path / "table.csv"
    words = ("evaluate", "--list", path, "--predictions", tmp_path / "found")
    done = shell(*words, "--output", output, "--label-names", "1=disk")
    assert done.code == 0, done.err
    rows = table(output)
    assert [(row["case"].split(".")[0], row["label"], row["name"]) for row in rows] == [
        ("p0", "1", "disk"),
        ("p1", "3", ""),
        ("p2", "1", "disk"),
        ("p3", "3", ""),
        ("mean", "1", "disk"),
        ("mean", "3", ""),
        ("standard deviation", "1", "disk"),
        ("standard deviation", "3", ""),
    ]
    assert float(rows[0]["dsc"]) == 1
    assert float(rows[0]["hd95_mm"]) == 0
    # The outline of the disk is shifted by two pixels, each of which counts as one millimetre.
    assert float(rows[2]["hd95_mm"]) == 2
    scores = [float(rows[each]["dsc"]) for each in (0, 2)]
    assert float(rows[4]["dsc"]) == pytest.approx(statistics.mean(scores), rel=1e-5)
    assert float(rows[6]["dsc"]) == pytest.approx(statistics.stdev(scores), rel=1e-5)
    first = done.result["labels"][0]
    assert (first["label"], first["name"], first["cases"]) == (1, "disk", 2)
    assert first["mean_dsc"] == pytest.approx(statistics.mean(scores), rel=1e-5)
    assert done.result["cases"] == 4


def test_a_list_of_predictions_and_references(shell: Shell, tmp_path: Path) -> None:
    data_set(tmp_path, 2)
    (tmp_path / "pairs.tsv").write_text(
        "prediction\treference\nmasks/p0.png\tmasks/p1.png\nmasks/p1.png\tmasks/p0.png\n"
    )
    output = tmp_path / "table.json"
    done = shell("evaluate", "--list", tmp_path / "pairs.tsv", "--output", output)
    assert done.code == 0, done.err
    one, other = json.loads(output.read_text())["table"]
    assert one["dsc"] == other["dsc"] == done.result["labels"][0]["mean_dsc"]
    assert 0 < one["dsc"] < 1


def test_a_structure_that_only_one_has_scores_0_and_one_that_none_has_no_row(
    shell: Shell, tmp_path: Path
) -> None:
    path = data_set(tmp_path, 2, (0, 1))
    shifted(tmp_path / "masks" / "p0.png", tmp_path / "found" / "p0.png", 0)
    shifted(tmp_path / "masks" / "p0.png", tmp_path / "found" / "p1.png", 0)
    output = tmp_path / "t.csv"
    words = ("evaluate", "--list", path, "--predictions", tmp_path / "found", "--output", output)
    assert shell(*words).code == 0
    first, *_ = table(output)
    assert first["case"].startswith("p1")
    assert (first["dsc"], first["hd95_mm"]) == ("0", "")


def test_predictions_that_are_missing_or_do_not_fit(shell: Shell, tmp_path: Path) -> None:
    path = data_set(tmp_path, 2)
    found = tmp_path / "found"
    shifted(tmp_path / "masks" / "p0.png", found / "p0.png", 0)
    words = ("evaluate", "--list", path, "--predictions", found)
    missing = shell(*words)
    assert missing.code == 2
    assert "no segmentation of 1 image: p1" in missing.err
    _, small = write_pair(tmp_path / "small", "p1", side=16)
    small.replace(found / "p1.png")
    refused = shell(*words)
    assert refused.code == 2
    assert "line 2" in refused.err and "different size" in refused.err
    assert "--skip-unreadable" in refused.err
    done = shell(*words, "--skip-unreadable")
    assert done.code == 0
    assert (done.result["cases"], len(done.result["skipped"])) == (1, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--prediction", "p.nrrd"), "--reference must be given, or --list"),
        (("--list", "l.csv", "--prediction", "p.nrrd"), "excludes"),
        (("--list", "l.csv", "--output", "t.txt"), ".csv or .json"),
        (("--prediction", "p.nrrd", "--reference", "r.nrrd", "--images", "d"), "go with"),
    ],
)
def test_options_of_evaluate_that_do_not_fit(
    words: tuple[str, ...], told: str, shell: Shell
) -> None:
    ended = shell("evaluate", *words)
    assert ended.code == 2
    assert told in ended.err


def test_all_images_of_a_list_are_segmented_and_then_measured(shell: Shell, tmp_path: Path) -> None:
    path = data_set(tmp_path, 3)
    (tmp_path / "images" / "p1.png").write_bytes(b"not a picture")
    model, found = write_model(tmp_path / "m.safetensors", False), tmp_path / "found"
    words = ("apply", "--model", model, "--list", path, "--output", found, "--device", "cpu")
    refused = shell(*words)
    assert refused.code == 2
    assert "line 2" in refused.err and "p1.png" in refused.err
    assert "--skip-unreadable" in refused.err
    done = shell(*words, "--skip-unreadable")
    assert done.code == 0, done.err
    assert len(done.result["skipped"]) == 1
    written = [Path(each["segmentation"]) for each in done.result["volumes"]]
    assert len(written) == 2
    assert all(read_grid(each).size == (32, 32, 1) for each in written)
    again = write_pair(tmp_path, "p1")
    assert again[0].is_file()
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("images/p0.png,masks/p0.png\nimages/p2.png,masks/p2.png\n")
    measured = shell("evaluate", "--list", fewer, "--predictions", found)
    assert measured.code == 0, measured.err
    assert measured.result["cases"] == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--output", "d"), "must say what to segment"),
        (("--list", "l.csv", "--volume", "v.nrrd", "--output", "d"), "excludes"),
        (("--list", "l.csv", "--output", "one.nrrd"), "must be a folder"),
        (("--volume", "v.nrrd", "--output", "d", "--images", "d"), "go with"),
        (("--list", "l.csv", "--output", "d", "--drawn", "s.nrrd"), "--drawn"),
        (("--list", "l.csv", "--output", "d", "--frames", "1"), "--list excludes --volume"),
    ],
)
def test_options_of_apply_that_do_not_fit(words: tuple[str, ...], told: str, shell: Shell) -> None:
    ended = shell("apply", "--model", "m.safetensors", *words)
    assert ended.code == 2
    assert told in ended.err
