"""Everything that a user can get wrong: exit code 2, one line that helps, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file, save_file

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.schema import read_job
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.volumes import Geometry, write_volume
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.failure import error_event
from Testing.support.full_disk import files_up_to
from Testing.support.in_process import Ended, Shell, run_here, shell_of
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices, write_pair

QUICK = ("--steps", 1, "--batch", 1)


pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@dataclass(frozen=True)
class Desk:
    """A folder with a good volume, its segmentation, and a shell."""

    folder: Path
    volume: Path
    segmentation: Path
    shell: Shell

    @property
    def output(self) -> Path:
        return self.folder / "results" / "model.safetensors"

    def finetune(self, *more: object, **other: object) -> Ended:
        words = {"volume": self.volume, "segmentation": self.segmentation, "output": self.output}
        options = [
            word for name, value in {**words, **other}.items() for word in (f"--{name}", value)
        ]
        return self.shell("finetune", *options, *QUICK, *more)

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        before = self.files()
        yield
        assert self.files() == before
        assert not self.output.parent.exists()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: Any, capfd: Any) -> Desk:
    volume, labelmap = head((8, 40, 40))
    paths = write_pair(tmp_path, volume, keep_slices(labelmap, [2, 4, 5]), "good")
    return Desk(tmp_path, *paths, shell_of(monkeypatch, capfd, tmp_path / "cache"))


def refused(ended: Ended, *words: str) -> None:
    """Exit code 2, nothing on standard output, one line with what is wrong and what to do."""
    assert ended.code == 2, ended.err
    assert ended.out == "" and "Traceback" not in ended.err
    assert len(ended.error_lines) == 1, ended.err
    line = ended.error_lines[0]
    for word in words:
        assert word.lower() in line.lower(), line
    assert line.count(". ") >= 1, f"no word on what to do: {line}"


# Files


@pytest.mark.parametrize("which", ["volume", "segmentation", "checkpoint", "examples"])
def test_no_such_file(which: str, desk: Desk) -> None:
    with desk.nothing_changes():
        missing = desk.folder / "nowhere" / "missing.nii.gz"
        if which == "examples":
            words = ("--examples", missing, "--output", desk.output)
            refused(desk.shell("finetune", *words), "missing.nii.gz")
        else:
            refused(desk.finetune(**{which: missing}), "missing.nii.gz")


def test_no_such_model_or_volume_to_apply_to(desk: Desk, model: Path) -> None:
    out = desk.folder / "out.nii.gz"
    with desk.nothing_changes():
        words = ("apply", "--output", out)
        gone = desk.folder / "gone.safetensors"
        refused(desk.shell(*words, "--model", gone, "--volume", desk.volume), "gone.safetensors")
        missing = desk.folder / "gone.nrrd"
        refused(desk.shell(*words, "--model", model, "--volume", missing), "gone.nrrd")


@pytest.mark.parametrize("read", ["prediction", "reference"])
def test_figures_do_not_replace_what_is_measured(read: str, desk: Desk) -> None:
    _, labelmap = head((8, 40, 40))
    _, other = write_pair(desk.folder, head((8, 40, 40))[0], labelmap, "other")
    files = {"prediction": desk.segmentation, "reference": other}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    link = desk.folder / "link.json"
    link.symlink_to(files[read])
    for output in (files[read], link):
        with desk.nothing_changes():
            refused(desk.shell("evaluate", *words, "--output", output), "written over", output.name)
    with desk.nothing_changes():
        refused(desk.shell("evaluate", *words, "--output", desk.folder), "is a folder")


def test_a_tuned_model_does_not_replace_the_weights_that_it_starts_from(desk: Desk) -> None:
    weights = desk.folder / "own.safetensors"
    weights.write_bytes(find_weights("starter", None).read_bytes())
    with desk.nothing_changes():
        refused(desk.finetune(checkpoint=weights, output=weights), "written over the weights")


@pytest.mark.parametrize("content", [b"", b"just words\n" * 50, bytes(5000), b"\x1f\x8b broken"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_not_an_image(content: bytes, suffix: str, desk: Desk) -> None:
    bad = desk.folder / f"words{suffix}"
    bad.write_bytes(content)
    with desk.nothing_changes():
        refused(desk.finetune(volume=bad), bad.name)
        refused(desk.finetune(segmentation=bad), bad.name)


def test_a_truncated_image(desk: Desk) -> None:
    bad = desk.folder / "half.nii.gz"
    bad.write_bytes(desk.volume.read_bytes()[:3000])
    with desk.nothing_changes():
        refused(desk.finetune(volume=bad), "half.nii.gz")


def test_a_4d_volume(desk: Desk) -> None:
    slices = [sitk.GetImageFromArray(np.random.rand(8, 40, 40)) for _ in range(3)]
    bad = desk.folder / "film.nii.gz"
    sitk.WriteImage(sitk.JoinSeries(slices), str(bad))
    with desk.nothing_changes():
        refused(desk.finetune(volume=bad), "film.nii.gz", "3 frames", "--frame")


def test_a_volume_of_vectors(desk: Desk) -> None:
    bad = desk.folder / "flow.nrrd"
    array = np.random.default_rng(0).normal(size=(8, 40, 40, 2)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(bad))
    with desk.nothing_changes():
        refused(desk.finetune(volume=bad), "flow.nrrd", "2 values")


# Segmentations


def labels_at(desk: Desk, array: np.ndarray, geometry: Geometry | None = None) -> Path:
    path = desk.folder / "mine.nrrd"
    write_volume(path, array, geometry or geometry_of(array.shape))
    return path


def test_an_empty_segmentation(desk: Desk) -> None:
    bad = labels_at(desk, np.zeros((8, 40, 40), np.uint8))
    with desk.nothing_changes():
        refused(desk.finetune(segmentation=bad), "mine.nrrd", "empty")


@pytest.mark.parametrize("values", [0.5, -3.0, 1e12])
def test_a_segmentation_that_is_not_integral(values: float, desk: Desk) -> None:
    array = np.zeros((8, 40, 40))
    array[3, 10:20, 10:20] = values
    bad = labels_at(desk, array)
    with desk.nothing_changes():
        refused(desk.finetune(segmentation=bad), "mine.nrrd")


def test_a_segmentation_nowhere_over_its_volume(desk: Desk) -> None:
    array = np.ones((8, 40, 40), np.uint8)
    bad = labels_at(desk, array, geometry_of(array.shape, origin=(500.0, 0.0, 0.0)))
    with desk.nothing_changes():
        refused(desk.finetune(segmentation=bad), "over the volume")


def test_a_label_that_is_absent(desk: Desk) -> None:
    with desk.nothing_changes():
        refused(desk.finetune("--labels", "5,6"), "label 6", "5, 52", desk.segmentation.name)


@pytest.mark.parametrize("options", [("--labelled", "0,1"), ("--labelled", "0", "--empty", "1")])
def test_no_labelled_slice(options: tuple[str, ...], desk: Desk) -> None:
    with desk.nothing_changes():
        refused(desk.finetune(*options), "labelled")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--labelled", "3,99"), "99"),
        (("--empty", "8"), "slice 8"),
        (("--empty", "4"), "slice 4"),
        (("--empty", "some"), "some"),
        (("--axis", "diagonal"), "diagonal"),
        (("--steps", "0"), "--steps"),
        (("--minutes", "-1"), "--minutes"),
        (("--input-size", "100"), "--input-size"),
        (("--lr", "nan"), "--lr"),
        (("--seed", "-4"), "--seed"),
        (("--labels", "0"), "--labels"),
        (("--device", "abacus"), "--device"),
        (("--volume", "another.nii.gz"), "--segmentation"),
    ],
)
def test_options_out_of_range(options: tuple[str, ...], word: str, desk: Desk) -> None:
    with desk.nothing_changes():
        refused(desk.finetune(*options), word)


# Voxels


def test_voxels_that_are_no_numbers_are_background_and_counted(desk: Desk, model: Path) -> None:
    volume, labelmap = head((8, 40, 40))
    # Two voxels of each kind: the count is wrong if one kind is taken for a number.
    volume.array[1, 3:5, 3:6] = (np.nan, np.inf, -np.inf)
    path, _ = write_pair(desk.folder, volume, labelmap, "holes")
    ended = desk.finetune(volume=path)
    assert ended.code == 0, ended.err
    warning = next(line for line in ended.err.splitlines() if "holes.nii.gz" in line)
    assert warning.startswith("warning: ") and " 6 voxels" in warning
    assert ended.result["model"] == str(desk.output)
    words = ("--volume", path, "--output", desk.folder / "out.nrrd")
    applied = desk.shell("apply", "--model", model, *words)
    assert applied.code == 0 and " 6 voxels" in applied.err


def test_a_volume_without_a_finite_voxel(desk: Desk) -> None:
    bad = desk.folder / "nan.nrrd"
    write_volume(bad, np.full((8, 40, 40), np.nan, np.float32), geometry_of((8, 40, 40)))
    with desk.nothing_changes():
        refused(desk.finetune(volume=bad), "nan.nrrd")


def test_a_constant_image(desk: Desk, model: Path) -> None:
    flat = desk.folder / "flat.nrrd"
    write_volume(flat, np.full((8, 40, 40), 3, np.int16), geometry_of((8, 40, 40)))
    out = desk.folder / "out.nii.gz"
    with desk.nothing_changes():
        refused(desk.finetune(volume=flat), f"{flat.name}: the volume has the same value")
        refused(
            desk.shell("apply", "--model", model, "--volume", flat, "--output", out), "same value"
        )


# Checkpoints of a backbone


@pytest.fixture(scope="module")
def official_bytes() -> bytes:
    """A checkpoint of MobileSAM's layout with random weights."""
    content = io.BytesIO()
    torch.save(build("vit_t", 256).state_dict(), content)
    return content.getvalue()


@pytest.fixture
def official(official_bytes: bytes, desk: Desk) -> Path:
    path = desk.folder / "vit_t.pt"
    path.write_bytes(official_bytes)
    return path


def test_a_checkpoint_of_another_architecture(official: Path, desk: Desk) -> None:
    path = official.rename(desk.folder / "mobile.pt")
    other = desk.folder / "pieces.pt"
    torch.save({"a": torch.zeros(3)}, other)
    with desk.nothing_changes():
        words = ("--backbone", "vit_b", "--checkpoint")
        refused(desk.finetune(*words, path), "mobile.pt", "vit_t", "vit_b")
        refused(desk.finetune(*words, other), "pieces.pt", "vit_b")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_checkpoint(share: float, official: Path, desk: Desk) -> None:
    content = official.read_bytes()
    official.write_bytes(content[: int(share * len(content))])
    with desk.nothing_changes():
        refused(desk.finetune("--backbone", "vit_t", "--checkpoint", official), "vit_t.pt")


class Touching:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_checkpoint_that_holds_code_is_not_run(writer: str, desk: Desk) -> None:
    path, trap = desk.folder / "trap.pt", desk.folder / "run"
    if writer == "torch":
        torch.save({"model": Touching(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Touching(trap)}))
    with desk.nothing_changes():
        refused(desk.finetune("--backbone", "vit_t", "--checkpoint", path), "trap.pt", "code")
    assert not trap.exists()


def test_weights_that_were_not_fetched(desk: Desk) -> None:
    with desk.nothing_changes():
        refused(desk.finetune("--backbone", "vit_b"), "vit_b", "checkpoints get vit_b")


# Tuned models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A tuned model of one step, by the way that users take, and what the command printed."""
    folder = tmp_path_factory.mktemp("made")
    volume, labelmap = head((8, 40, 40))
    pair = write_pair(folder, volume, keep_slices(labelmap, [2, 4, 5]), "a")
    model, printed = folder / "results" / "model.safetensors", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setenv("SAMFINETUNE_CACHE", str(folder / "cache"))
        patch.setattr(
            "SAMFineTuneLib.cli.execution.run_worker",
            run_here,
        )
        words = ["finetune", "--volume", pair[0], "--segmentation", pair[1]]
        words += ["--output", model, *QUICK]
        assert cli.main([str(word) for word in words]) == 0
    return model, json.loads(printed.getvalue())


@pytest.fixture
def model(made: tuple[Path, dict[str, Any]], desk: Desk) -> Path:
    path = desk.folder / "tuned.safetensors"
    path.write_bytes(made[0].read_bytes())
    return path


def test_a_good_pair_is_good(made: tuple[Path, dict[str, Any]]) -> None:
    """What the other tests change of the same pair is indeed what is refused."""
    model, told = made
    assert told["training"]["steps"] == 1 and told["model"] == str(model)
    assert [path.name for path in model.parent.iterdir()] == ["model.safetensors"]


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    card = json.loads(read_card(source).model_dump_json()) | changes
    save_file(load_file(source), target, metadata={"samfinetune": json.dumps(card)})
    return target


def test_a_tuned_model_of_a_newer_format(desk: Desk, model: Path) -> None:
    newer = rewritten(model, desk.folder / "newer.safetensors", format_version=7)
    with desk.nothing_changes():
        words = ("--volume", desk.volume, "--output", desk.folder / "o.nii.gz")
        refused(desk.shell("apply", "--model", newer, *words), "newer.safetensors", "version 7")


@pytest.mark.parametrize("damage", ["cut", "header", "words", "checkpoint"])
def test_a_damaged_tuned_model(damage: str, official_bytes: bytes, desk: Desk, model: Path) -> None:
    content = model.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "header": b"\x00" * 20 + content[20:],
        "words": b"a model, honestly" * 10,
        "checkpoint": official_bytes,
    }
    bad = desk.folder / "bad.safetensors"
    bad.write_bytes(broken[damage])
    with desk.nothing_changes():
        words = ("--volume", desk.volume, "--output", desk.folder / "o.nii.gz")
        refused(desk.shell("apply", "--model", bad, *words), "bad.safetensors")


def test_a_tuned_model_from_another_backbone(official: Path, desk: Desk, model: Path) -> None:
    changes = {"backbone": "vit_t", "checkpoint_sha256": None}
    other = rewritten(model, desk.folder / "other.safetensors", **changes)
    with desk.nothing_changes():
        words = ("--volume", desk.volume, "--output", desk.folder / "o.nii.gz")
        refused(desk.shell("apply", "--model", other, *words), "other.safetensors")
        words = ("--backbone", "vit_t", "--checkpoint", official, "--initial-model", model)
        refused(desk.finetune(*words), "tuned.safetensors", "starter", "vit_t")


def test_going_on_from_a_model_of_other_labels_or_another_method(desk: Desk, model: Path) -> None:
    with desk.nothing_changes():
        words = ("--initial-model", model)
        refused(desk.finetune(*words, "--labels", 5), "tuned.safetensors", "52")
        refused(desk.finetune(*words, "--method", "lora"), "lora", "vanilla")


def test_going_on_from_a_tuned_model_gives_a_model(desk: Desk, model: Path) -> None:
    ended = desk.finetune("--initial-model", model)
    assert ended.code == 0, ended.err
    before, after = read_card(model), read_card(desk.output)
    assert (after.strategy, after.input_size) == (before.strategy, before.input_size)
    out = desk.folder / "o.nii.gz"
    words = ("--volume", desk.volume, "--output", out)
    assert desk.shell("apply", "--model", desk.output, *words).code == 0 and out.is_file()


# Places


def test_an_output_folder_that_cannot_be_written(desk: Desk, model: Path) -> None:
    blocked = desk.folder / "blocked"
    blocked.write_text("a file where a folder should be")
    with desk.nothing_changes():
        refused(desk.finetune(output=blocked / "m.safetensors"), "blocked", "write")
        words = ("apply", "--model", model, "--volume", desk.volume)
        refused(desk.shell(*words, "--output", blocked / "o.nii.gz"), "blocked", "write")
        elsewhere = ("--output", desk.folder / "o.nrrd", "--uncertainty", blocked / "u.nrrd")
        refused(desk.shell(*words, *elsewhere), "blocked", "write")


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="only rights of a plain user can be taken away",
)
def test_a_folder_without_the_right_to_write(desk: Desk) -> None:
    locked = desk.folder / "locked"
    locked.mkdir(mode=0o500)
    with desk.nothing_changes():
        refused(desk.finetune(output=locked / "m.safetensors"), "locked", "write")


def test_an_output_of_an_unknown_format(desk: Desk, model: Path) -> None:
    with desk.nothing_changes():
        refused(desk.finetune(output=desk.folder / "model.pt"), "--output", ".safetensors")
        words = ("--volume", desk.volume, "--output", desk.folder / "o.jpg")
        refused(desk.shell("apply", "--model", model, *words), "output", ".nii.gz")


def test_no_space_for_the_model(desk: Desk) -> None:
    desk.output.parent.mkdir()
    before = desk.files()
    with files_up_to(500_000):
        ended = desk.finetune()
    refused(ended, "space", "model.safetensors")
    assert desk.files() == before


@pytest.mark.parametrize("option", ["output", "uncertainty"])
def test_no_space_for_the_segmentation(option: str, desk: Desk, model: Path) -> None:
    # Stored without compression it needs 12 800 bytes, the uncertainty four times as many.
    paths = {"output": desk.folder / "o.nii", "uncertainty": desk.folder / "u.nii"}
    limit = 10_000 if option == "output" else 30_000
    with files_up_to(limit):
        ended = desk.shell(
            *("apply", "--model", model, "--volume", desk.volume),
            *("--output", paths["output"], "--uncertainty", paths["uncertainty"]),
        )
    refused(ended, paths[option].name)
    assert not paths[option].exists()
    assert not [path for path in desk.folder.rglob("*") if "writing" in path.name]


def test_no_space_for_a_checkpoint(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("SAMFineTuneLib.training.loop.SAVE_EVERY_S", 0.0)
    with desk.nothing_changes(), files_up_to(500_000):
        ended = desk.finetune("--job", desk.folder / "cache" / "job")
        refused(ended, "space")
        for path in (desk.folder / "cache").rglob("*"):
            assert not path.name.endswith(".part"), path
        shutil.rmtree(desk.folder / "cache" / "job")


def test_cuda_that_is_absent(desk: Desk, model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with desk.nothing_changes():
        refused(desk.finetune("--device", "cuda"), "CUDA", "--device cpu")
        words = ("--volume", desk.volume, "--output", desk.folder / "o.nii.gz")
        refused(desk.shell("apply", "--model", model, *words, "--device", "cuda:1"), "CUDA")


# Through processes of their own


def run(*words: object, cache: Path) -> Ended:
    environment = {
        **os.environ,
        "SAMFINETUNE_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-m", "SAMFineTuneLib", *(str(word) for word in words)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=120,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


MISFITS: list[tuple[dict[str, Any] | None, str]] = [
    ({"colour": "red"}, "colour"),
    ({"steps": "many"}, "steps"),
    ({"examples": {}}, "examples"),
    ({"seed": 1.5}, "seed"),
    ({"schema_version": 9}, "schema_version"),
    ({"kind": "dance"}, "kind"),
    (None, "job.json"),
]


def write_misfit(change: dict[str, Any] | None, desk: Desk) -> Path:
    """A job's folder; None writes what is not JSON."""
    folder = desk.folder / "job"
    folder.mkdir()
    example = {"volume": str(desk.volume), "segmentation": str(desk.segmentation)}
    job = {"kind": "finetune", "examples": [example], "output": str(desk.output)}
    text = "{ not json" if change is None else json.dumps(job | change)
    (folder / "job.json").write_text(text)
    return folder


@pytest.mark.parametrize(("change", "word"), MISFITS)
def test_a_job_that_does_not_fit(change: dict[str, Any] | None, word: str, desk: Desk) -> None:
    with pytest.raises(InputError) as refusal:
        read_job(write_misfit(change, desk))
    told = error_event(refusal.value)
    assert told.exit_code == 2 and word in told.message and told.remedy
    assert len(told.line().splitlines()) == 1 and word in told.line()


# What each process adds to the refusal above is the same for all: it is looked at for two.
@pytest.mark.parametrize(("change", "word"), [MISFITS[0], MISFITS[-1]])
def test_run_refuses_a_job_that_does_not_fit(
    change: dict[str, Any] | None, word: str, desk: Desk
) -> None:
    ended = run("run", write_misfit(change, desk), cache=desk.folder / "cache")
    assert ended.code == 2 and "Traceback" not in ended.err
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["type"] for each in told] == ["error"]
    assert told[0]["exit_code"] == 2 and word in told[0]["message"] and told[0]["remedy"]
    assert len(ended.err.strip().splitlines()) == 1 and word in ended.err
    assert not desk.output.parent.exists()


# test_cli.py asserts the same of `evaluate`.
@pytest.mark.slow
def test_the_real_commands_say_the_same(desk: Desk) -> None:
    words = ("--segmentation", desk.segmentation, "--output", desk.output)
    cache = desk.folder / "cache"
    with desk.nothing_changes():
        refused(
            run("finetune", "--volume", desk.folder / "no.nrrd", *words, cache=cache), "no.nrrd"
        )
        bad = ("--volume", desk.volume, "--output", desk.folder / "o.nii.gz")
        refused(run("apply", "--model", desk.volume, *bad, cache=cache), "good.nii.gz")
        assert not list((cache / "jobs").iterdir())
