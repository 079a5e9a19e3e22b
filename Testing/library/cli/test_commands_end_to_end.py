"""The commands as users run them: a few labelled slices to a segmentation of the whole volume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from SAMFineTuneLib.jobs.client import CANCEL_GRACE_S
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.volumes import labelmap_onto, read_labelmap, read_volume, write_labelmap
from SAMFineTuneLib.worker.events import Progress, parse_line
from Testing.support.in_process import Ended, Shell, shell_of
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import head, keep_slices, write_pair
from Testing.support.time_limits import require_faster, until

# Steps that are over before a cancelled worker is ended by force.
QUICK_STEPS = ("--batch", "1", "--scope", "decoder")

pytestmark = pytest.mark.usefixtures("one_thread")


def environment(cache: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SAMFINETUNE_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }


def start(*words: object, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "SAMFineTuneLib", *(str(word) for word in words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(cache),
    )


def ended(process: subprocess.Popen[str], timeout_s: float = 120) -> Ended:
    out, err = process.communicate(timeout=timeout_s)
    return Ended(process.returncode, out, err)


def run(*words: object, cache: Path) -> Ended:
    return ended(start(*words, cache=cache))


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "MILLER^ANNA 19510203"
    folder.mkdir()
    volume, labelmap = head((8, 48, 48))
    write_labelmap(tmp_path / "truth.nrrd", labelmap)
    return write_pair(folder, volume, keep_slices(labelmap, [1, 3, 4, 6]), "patient-4711")


def test_from_four_labelled_slices_to_a_measured_segmentation(
    pair: tuple[Path, Path], shell: Shell, tmp_path: Path
) -> None:
    """apply in processes of its own, as the test below has finetune, and test_cli.py evaluate."""
    cache, model, whole = tmp_path / "cache", tmp_path / "m.safetensors", tmp_path / "whole.nii.gz"
    options = ("--volume", pair[0], "--segmentation", pair[1], "--output", model)
    quick = ("--steps", 2, "--batch", 1, "--input-size", 256)
    tuned = shell("finetune", *options, *quick)
    assert tuned.code == 0, tuned.err
    assert len(tuned.out.strip().splitlines()) == 1
    assert tuned.result["model"] == str(model) and tuned.result["axis"] == "axial"
    assert [label["value"] for label in tuned.result["labels"]] == [5, 52]
    assert tuned.result["training"]["steps"] == 2
    metrics = tuned.result["metrics"]
    assert metrics["held_out_slices"] == 1 and metrics["nsd_tolerance_mm"] == 2.0
    for name in ("validation_dsc", "validation_iou", "validation_nsd", "validation_hd95_mm"):
        assert set(metrics[f"{name}_by_label"]) == {"5", "52"} and name in metrics
    said = (
        f"held-out slice: DSC {metrics['validation_dsc']:.3f}, IoU {metrics['validation_iou']:.3f}"
    )
    assert said in tuned.err
    assert "random weights" not in tuned.err and "2 of 2" in tuned.err
    assert "Traceback" not in tuned.err
    # Nothing of the patient goes with the model.
    content = model.read_bytes()
    for word in (b"MILLER", b"1951", b"4711", str(tmp_path).encode(), b"patient"):
        assert word not in content
    card = read_card(model)
    assert card.metrics == metrics
    assert card.data["volumes"] == 1 and card.data["labelled_slices"] == 4
    assert card.labels[0].name == "bright" and card.labels[0].colour == (1.0, 0.0, 0.0)

    applied = run("apply", "--model", model, "--volume", pair[0], "--output", whole, cache=cache)
    assert applied.code == 0, applied.err
    assert applied.result["volumes"][0]["segmentation"] == str(whole)
    assert read_labelmap(whole).geometry.same_as(read_volume(pair[0]).geometry)

    words = ("--prediction", whole, "--reference", tmp_path / "truth.nrrd", "--slices", "2,5")
    figures = tmp_path / "neu" / "Maße.json"
    measured = shell("evaluate", *words, "--output", figures)
    assert measured.code == 0, measured.err
    assert measured.result["mean_dsc"] > 0.6
    assert json.loads(figures.read_text(encoding="utf-8")) == measured.result
    assert not any((cache / "jobs").iterdir()), "folders of finished jobs are removed"


def progress_of(folder: Path) -> list[Progress]:
    """Progress told so far; a line that is being written does not count."""
    path = folder / "events.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [event for event in map(parse_line, lines) if isinstance(event, Progress)]


def test_a_job_outlives_ctrl_c_and_a_killed_worker_and_finishes_early(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Stopped by the user, run again, killed, run again, and then told to keep the best."""
    model, cache = tmp_path / "m.safetensors", tmp_path / "cache"
    options = ("--volume", pair[0], "--segmentation", pair[1], "--output", model)
    command = start("finetune", *options, *QUICK_STEPS, "--steps", 4000, cache=cache)
    job = until(lambda: [job for job in (cache / "jobs").glob("*") if progress_of(job)])[0]
    if os.name == "nt":
        (job / "cancel").touch()
    else:
        command.send_signal(signal.SIGINT)
    asked_at = time.monotonic()
    stopped = ended(command)
    seconds = time.monotonic() - asked_at
    assert stopped.code == 3 and stopped.out == "" and not model.exists()
    assert f"run {job}" in stopped.err and [job] == list((cache / "jobs").iterdir())
    events = (job / "events.jsonl").read_text(encoding="utf-8")
    told = json.loads(events.splitlines()[-1])
    if told["type"] != "error":
        # A worker that takes longer is ended by force, and cannot tell why.
        require_faster(seconds, CANCEL_GRACE_S, "cancelling")
    assert told["type"] == "error" and told["code"] == "cancelled"
    assert (job / "checkpoint" / "training.pt").is_file()
    stopped_at = max(event.step for event in progress_of(job))
    (job / "events.jsonl").unlink()

    # `run` is the worker itself, without a command that watches it.
    second = start("run", job, cache=cache)
    progress = until(lambda: progress_of(job))
    assert progress[0].step >= stopped_at
    second.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    dead = ended(second)
    assert dead.code not in (0, 2, 3) and not model.exists()
    (job / "events.jsonl").unlink()

    third = start("run", job, cache=cache)
    progress = until(lambda: progress_of(job))
    assert progress[0].step >= stopped_at
    (job / "finish").touch()
    finished = ended(third)
    assert finished.code == 0, finished.err
    lines = [json.loads(line) for line in finished.out.splitlines()]
    assert any("going on at step" in each.get("message", "") for each in lines)
    result = lines[-1]["result"]
    assert result["training"]["ending"] == "finished on request"
    assert stopped_at <= result["training"]["steps"] < 4000
    assert read_card(model).backbone == "starter"
    assert [each.name for each in tmp_path.glob(".*")] == []


# Real images


def few(labels: Path, target: Path, keep: list[int], values: list[int]) -> Path:
    """Some slices of some labels, in the labels' own geometry."""
    labelmap = read_labelmap(labels)
    kept = keep_slices(labelmap, keep)
    kept.array[~np.isin(kept.array, values)] = 0
    write_labelmap(target, kept)
    return target


@pytest.mark.usefixtures("small_inputs")
def test_a_dicom_series_with_labels_in_another_index_order(
    shared_data: Path, shell: Shell, tmp_path: Path
) -> None:
    source = shared_data / "ct_pelvis_dicom"
    organs = read_labelmap(source / "organs.nii.gz")
    series = read_volume(source / "series")
    assert not organs.geometry.same_as(series.geometry)
    counts = {value: (organs.array == value).any((1, 2)).sum() for value in organs.labels}
    value = max(counts, key=lambda each: (counts[each], -each))
    shown = np.flatnonzero((organs.array == value).any((1, 2)))
    keep = [int(shown[0]), int(shown[len(shown) // 2]), int(shown[-1])]
    labels = few(source / "organs.nii.gz", tmp_path / "few.nii.gz", keep, [value])
    model, out = tmp_path / "m.safetensors", tmp_path / "out.seg.nrrd"
    options = ("--volume", source / "series", "--segmentation", labels, "--output", model)
    tuned = shell("finetune", *options, "--steps", 1, "--batch", 1, "--input-size", 128)
    assert tuned.code == 0, tuned.err
    card = read_card(model)
    assert card.normalisation.kind == "calibrated" and card.axis == "axial"
    assert card.data["labelled_slices"] == 3
    applied = shell("apply", "--model", model, "--volume", source / "series", "--output", out)
    assert applied.code == 0, applied.err
    found = read_labelmap(out, empty_ok=True)
    assert found.geometry.same_as(series.geometry)
    assert set(found.labels) <= {value}
    # The files of the series name a patient or at least themselves; the model does not.
    assert b"1.3.12.2.1107" not in model.read_bytes()
    words = ("--prediction", out, "--reference", labels)
    measured = shell("evaluate", *words, "--slices", keep[1])
    assert measured.code == 0, measured.err
    assert measured.result["labels"]


@pytest.mark.usefixtures("small_inputs")
def test_an_oblique_stack(shared_data: Path, shell: Shell, tmp_path: Path) -> None:
    source = shared_data / "fetal_brain_mr_oblique"
    brain = read_labelmap(source / "run2_brain.nii.gz")
    shown = np.flatnonzero(brain.array.any((1, 2)))
    keep = [int(each) for each in shown[:: max(1, len(shown) // 4)]]
    labels = few(source / "run2_brain.nii.gz", tmp_path / "few.nrrd", keep, [1])
    model, folder = tmp_path / "m.safetensors", tmp_path / "out"
    options = ("--volume", source / "run2.nii.gz", "--segmentation", labels, "--output", model)
    tuned = shell("finetune", *options, "--steps", 1, "--batch", 1, "--input-size", 128)
    assert tuned.code == 0, tuned.err
    assert read_card(model).data["labelled_slices"] == len(keep)
    volume = source / "run2.nii.gz"
    applied = shell("apply", "--model", model, "--volume", volume, "--output", folder)
    assert applied.code == 0, applied.err
    found = read_labelmap(folder / "run2_segmentation.nii.gz", empty_ok=True)
    assert found.geometry.same_as(read_volume(volume).geometry)
    assert labelmap_onto(brain, found.geometry).array.any()


@pytest.mark.usefixtures("small_inputs")
def test_slices_of_several_volumes_from_a_list(
    shared_data: Path, shell: Shell, tmp_path: Path
) -> None:
    source = shared_data / "hippocampus_mr"
    names = sorted(path.name for path in (source / "images").glob("*.nii.gz"))[:3]
    examples = []
    for name in names:
        labelmap = read_labelmap(source / "labels" / name)
        shown = np.flatnonzero(labelmap.array.any((1, 2)))
        middle = int(shown[len(shown) // 2])
        examples.append(
            {
                "volume": str(source / "images" / name),
                "segmentation": str(source / "labels" / name),
                "axis": "axial",
                "labelled": [middle],
                "empty": [int(shown[-1]) + 1] if shown[-1] + 1 < len(labelmap.array) else "none",
            }
        )
    listed = tmp_path / "examples.json"
    listed.write_text(json.dumps(examples))
    model = tmp_path / "m.safetensors"
    quick = ("--steps", 1, "--batch", 1, "--input-size", 128)
    tuned = shell("finetune", "--examples", listed, "--output", model, *quick)
    assert tuned.code == 0, tuned.err
    card = read_card(model)
    assert card.data["volumes"] == 3 and card.data["labelled_slices"] == 3
    assert card.metrics["held_out"] == "volume"


# A pretrained backbone


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of MobileSAM's layout with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("official") / "mobile_sam.pt"
    torch.save(build("vit_t", 1024).state_dict(), path)
    return path


@pytest.fixture
def few_slices(tmp_path: Path) -> tuple[Path, Path]:
    """Half as many as `pair`, for networks that take long over each."""
    volume, labelmap = head((6, 48, 48))
    return write_pair(tmp_path, volume, keep_slices(labelmap, [1, 2, 3]), "few")


# What each method trains in each scope is told by the tests of adaptation.
@pytest.mark.usefixtures("small_inputs")
@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("adapter", "encoder_decoder"),
        pytest.param("lora", "decoder", marks=pytest.mark.slow),
    ],
)
def test_a_pretrained_backbone_is_adapted(
    method: str,
    scope: str,
    official: Path,
    few_slices: tuple[Path, Path],
    shell: Shell,
    tmp_path: Path,
) -> None:
    model, out = tmp_path / "m.safetensors", tmp_path / "out.nrrd"
    options = ("--volume", few_slices[0], "--segmentation", few_slices[1], "--output", model)
    words = ("--backbone", "vit_t", "--checkpoint", official)
    tuned = shell(
        *("finetune", *options, *words, "--method", method, "--scope", scope),
        *("--steps", 1, "--batch", 1),
    )
    assert tuned.code == 0, tuned.err
    assert "random weights" not in tuned.err
    card = read_card(model)
    assert (card.backbone, card.strategy.method, card.strategy.scope) == ("vit_t", method, scope)
    assert card.checkpoint_sha256 is not None
    assert model.stat().st_size < 0.2 * official.stat().st_size
    with safe_open(model, "pt") as file:
        in_encoder = [name for name in list(file.keys()) if "image_encoder" in name]
    assert bool(in_encoder) == (scope == "encoder_decoder")
    applying = ("apply", "--model", model, "--volume", few_slices[0], "--output", out)
    # The weights are not in the cache: they have to be named.
    missing = shell(*applying)
    assert missing.code == 2 and "vit_t" in missing.error_lines[0]
    assert "--checkpoint" in missing.error_lines[0] and not out.exists()
    applied = shell(*applying, "--checkpoint", official)
    assert applied.code == 0, applied.err
    assert set(read_labelmap(out, empty_ok=True).labels) <= {5, 52}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adapter", "lora", "vanilla"])
@pytest.mark.parametrize("backbone", ["vit_t", "vit_b"])
def test_large_backbones_at_their_own_size(
    backbone: str, method: str, pair: tuple[Path, Path], shell: Shell, tmp_path: Path
) -> None:
    weights, model = tmp_path / "weights.pt", tmp_path / "m.safetensors"
    torch.save(build(backbone, 1024).state_dict(), weights)
    options = ("--volume", pair[0], "--segmentation", pair[1], "--output", model)
    words = ("--backbone", backbone, "--checkpoint", weights, "--input-size", 1024)
    tuned = shell("finetune", *options, *words, "--method", method, "--steps", 1, "--batch", 1)
    assert tuned.code == 0, tuned.err
    assert read_card(model).input_size == 1024
