"""`pretrain mae`: which images it reads, what it leaves, and what it refuses."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from safetensors import safe_open

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.pretraining.masked import run
from SAMFineTuneLib.pretraining.masked.image_files import find_images
from SAMFineTuneLib.pretraining.masked.unlabelled_slices import prepared_slices
from SAMFineTuneLib.pretraining.saved import load_state
from SAMFineTuneLib.pretraining.weights_file import CARD_KEY
from SAMFineTuneLib.volumes import quiet, read_volume
from SAMFineTuneLib.weights.official import load_checkpoint
from Testing.support.listed_pictures import write_pair
from Testing.support.synthetic_dicom_series import write_stack

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def write_volume(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1, 1, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


Slices = tuple[list[tuple[int, int]], list[str]]


def prepared(source: Path, folder: Path, skip: bool = False) -> Slices:
    """Rows and columns of each slice, and what is told."""
    store, told = prepared_slices(
        find_images(source), folder, skip, lambda: None, lambda done, total: None
    )
    shapes = [(int(each["rows"]), int(each["columns"])) for each in store.records]
    assert [store.image(number).shape for number in range(len(store))] == shapes
    return shapes, told


# Images


def test_a_folder_of_many_kinds_of_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    volume = noise(5, 20, 30)
    volume[3] = volume.min()
    write_volume(images / "a" / "mr.nii.gz", volume)
    write_pair(images, "picture")
    write_stack(images / "dicom", 4)
    write_volume(images / "few.nrrd", np.eye(30, dtype=np.uint8)[None].repeat(3, 0))
    write_volume(images / "drawn.seg.nrrd", np.eye(30, dtype=np.uint8)[None])
    write_volume(images / "constant.mha", np.full((2, 8, 8), 7, np.float32))
    (images / "notes.txt").write_text("nothing to be read")
    shapes, told = prepared(images, tmp_path / "slices")
    # Volumes are cut along their widest spacing; a blank slice of the first one is dropped.
    assert shapes.count((20, 30)) == 4 and shapes.count((32, 32)) == 1
    assert len(shapes) == 4 + 1 + 4
    told_of = " | ".join(told)
    for part in (
        "left out as segmentations: drawn.seg.nrrd",
        "few.nrrd looks like a segmentation",
        "picture.png looks like a segmentation",
        "constant.mha has the same value everywhere",
        "1 blank slice dropped, 9 left",
    ):
        assert part in told_of
    assert prepared(images, tmp_path / "slices") == (shapes, told), "opened again"


def test_frames_and_lists_are_read(tmp_path: Path) -> None:
    film = sitk.JoinSeries([sitk.GetImageFromArray(noise(2, 8, 9)) for _ in range(3)])
    sitk.WriteImage(film, str(tmp_path / "film.nii.gz"))
    write_volume(tmp_path / "other.nii.gz", noise(3, 7, 7))
    (tmp_path / "list.csv").write_text("image\nfilm.nii.gz\n")
    shapes, _ = prepared(tmp_path / "list.csv", tmp_path / "slices")
    assert shapes == [(8, 9)] * 6


def test_what_cannot_be_read_is_named_and_skipped_only_when_asked(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_volume(images / "good.nii.gz", noise(3, 16, 16))
    (images / "torn.nii.gz").write_bytes((images / "good.nii.gz").read_bytes()[:200])
    with pytest.raises(InputError, match=r"torn\.nii\.gz") as refused:
        prepared(images, tmp_path / "slices")
    assert refused.value.code == "unreadable_image"
    shapes, told = prepared(images, tmp_path / "slices", skip=True)
    assert len(shapes) == 3 and any("skipped: torn.nii.gz" in each for each in told)


def test_places_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"there is no image in .*empty"):
        find_images(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be read"):
        find_images(tmp_path / "nowhere")
    write_volume(tmp_path / "blank" / "a.mha", np.zeros((2, 8, 8), np.float32))
    with pytest.raises(InputError, match="no slice of the images is left"):
        prepared(tmp_path / "blank", tmp_path / "slices")


def test_threads_that_read_put_back_what_they_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread enters while another is within, and leaves after it."""
    monkeypatch.delenv(quiet._SHEARED, raising=False)
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with quiet.itk_quiet(), quiet.sheared_nifti_allowed():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=read)
    with quiet.itk_quiet(), quiet.sheared_nifti_allowed():
        other.start()
        assert inside.wait(10)
    leave.set()
    other.join()
    print("shown again", file=sys.stderr, flush=True)
    assert "shown again" in capfd.readouterr().err
    assert quiet._SHEARED not in os.environ
    volume = write_volume(tmp_path / "a.nii.gz", noise(2, 8, 8))
    assert read_volume(volume).array.shape == (2, 8, 8)


# The command


class Shell:
    """`pretrain mae` in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        command = [*("pretrain", "mae", "--folder", self._folder / "run", "--device", "cpu")]
        command += ["--output", self._folder / "w.safetensors", *words]
        self._capsys.readouterr()
        code = cli.main([str(each) for each in command])
        return (code, *self._capsys.readouterr())

    def refusal(self, *words: object) -> str:
        code, out, err = self(*words)
        assert (code, out) == (2, "")
        line = err.splitlines()[-1]
        assert line.startswith("error: ")
        return line


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A single slice."""
    write_volume(tmp_path / "images" / "a.nii.gz", noise(1, 24, 24))
    return tmp_path / "images"


def test_weights_are_made_and_the_same_command_goes_on(
    shell: Shell, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SHOWN", 1)
    monkeypatch.setattr(run, "_PICTURES", 1)
    words = ("--images", images, "--batch", 1, "--lr", 0.01)
    code, out, err = shell(*words, "--epochs", 1)
    assert code == 0
    result = json.loads(out)
    assert result["initial_weights"] == f"own:{tmp_path / 'w.safetensors'}"
    assert (result["step"], result["images"], result["epoch"]) == (1, 1, 1.0)
    assert "1 slice of 1 image" in err
    folder = tmp_path / "run"
    with Image.open(folder / "reconstruction_1.png") as picture:
        # A row of three images of 256 pixels, with gaps.
        assert picture.size == (3 * 260, 260)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        card = json.loads(file.metadata()[CARD_KEY])
    told = [card[name] for name in ("kind", "backbone", "steps", "slices")]
    assert told == ["mae", "starter", 1, 1]
    assert card["begun_with"]["kind"] == "official"

    code, out, err = shell(*words, "--epochs", 2)
    assert code == 0 and json.loads(out)["step"] == 2
    assert "going on at step 1" in err
    state = load_state(folder)
    assert state is not None and [each["from_step"] for each in state["stages"]] == [0, 1]
    # The rate of the very first step is 0, as in the original.
    official, found = build("starter", 256), build("starter", 256)
    load_checkpoint(official, Path(cli.__file__).parents[1] / "weights" / "starter.safetensors")
    # The strict loading of a fine-tune.
    load_checkpoint(found, tmp_path / "w.safetensors")
    same = {
        name: torch.equal(each, official.state_dict()[name])
        for name, each in found.state_dict().items()
    }
    assert all(same[name] for name in same if not name.startswith("image_encoder."))
    assert not any(same[name] for name in same if name.startswith("image_encoder."))
    refused = shell.refusal(*words, "--seed", 3)
    assert "seed 0 there, 3 here" in refused


def test_fewer_slices_than_a_step_takes_are_refused(shell: Shell, images: Path) -> None:
    line = shell.refusal("--images", images, "--batch", 2, "--accumulate", 4)
    assert "1 slice, fewer than the 8 of a step (a batch of 2 x 4 batches)" in line
    assert "--batch 1 and --accumulate 1" in line


def test_weights_of_another_backbone_are_refused(
    shell: Shell, images: Path, tmp_path: Path
) -> None:
    network = build("starter", 256)
    tensors = {f"other.{name}": each for name, each in network.state_dict().items()}
    torch.save(tensors, tmp_path / "other.pth")
    for words in (tmp_path / "other.pth", f"medsam:{tmp_path / 'other.pth'}"):
        line = shell.refusal("--images", images, "--weights", words)
        assert "does not fit backbone starter" in line
    assert "no checkpoint file" in shell.refusal("--images", images, "--weights", "nowhere.pth")


def test_official_weights_that_were_not_fetched_are_told_of(
    shell: Shell, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    line = shell.refusal("--images", images, "--backbone", "vit_t", "--input-size", 256)
    assert "weights of vit_t are not on this computer" in line
    assert "checkpoints get vit_t" in line and "--weights random" in line
