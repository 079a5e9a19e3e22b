"""Images with an axis of time, from the shell: learnt from, segmented, measured, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.prediction import volume_prediction
from SAMFineTuneLib.volumes import read_grid, read_labelmap, read_time, read_volume, write_labelmap
from SAMFineTuneLib.volumes.writing import write_volume
from Testing.support.films import film, write_film
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_dicom_series import cine

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

FRAMES = 3
FEW = ("--steps", 2, "--batch", 1, "--validation", "none")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 4-D NIfTI file, labels of its frames 0 and 2, and 4-D labels of all frames."""
    folder = tmp_path_factory.mktemp("desk")
    volumes, labels = film(FRAMES)
    grid = volumes[0].geometry
    write_film(folder / "film.nii.gz", [each.array for each in volumes], grid)
    for number in (0, 2):
        write_labelmap(folder / f"labels{number}.seg.nrrd", labels[number])
    write_film(folder / "labels.nii.gz", [each.array for each in labels], grid)
    write_volume(folder / "still.nrrd", volumes[1].array, grid)
    return folder


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture(scope="module")
def model(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tuned for a few steps on frames 0 and 2."""
    from SAMFineTuneLib import finetune

    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    examples = [
        {
            "volume": desk / "film.nii.gz",
            "segmentation": desk / f"labels{number}.seg.nrrd",
            "frame": number,
        }
        for number in (0, 2)
    ]
    settings: dict[str, Any] = {"steps": 2, "batch": 1, "validation": "none"}
    finetune(examples, path, weights="random", **settings)
    return path


def by_brightness(monkeypatch: pytest.MonkeyPatch, least: float = 500) -> None:
    """In place of the network's labels: label 5 where the image is bright, which tells frames."""
    predict = volume_prediction.predict_volume

    def predicted(segmenter, card, volume, *arguments, **named):
        found = predict(segmenter, card, volume, *arguments, **named)
        found.labelmap.array[...] = np.where(volume.array > least, 5, 0)
        return found

    monkeypatch.setattr("SAMFineTuneLib.tasks.volume_segmentation.predict_volume", predicted)


def expected(desk: Path, number: int) -> np.ndarray:
    return np.where(read_volume(desk / "film.nii.gz", frame=number).array > 500, 5, 0)


def test_learn_from_two_frames_and_segment_all(desk: Path, shell: Shell, tmp_path: Path) -> None:
    learnt = tmp_path / "m.safetensors"
    words: list[object] = []
    for number in (0, 2):
        words += ["--volume", desk / "film.nii.gz", "--frame", number]
        words += ["--segmentation", desk / f"labels{number}.seg.nrrd"]
    ended = shell("finetune", *words, *FEW, "--weights", "random", "--output", learnt)
    assert ended.code == 0, ended.err
    found = tmp_path / "found.nii.gz"
    words = ["--model", learnt, "--volume", desk / "film.nii.gz", "--output", found]
    ended = shell("apply", *words, "--uncertainty", tmp_path / "doubt.nii.gz")
    assert ended.code == 0, ended.err
    (result,) = ended.result["volumes"]
    assert [each["frame"] for each in result["frames"]] == [0, 1, 2]
    assert result["frame_count"] == FRAMES
    assert all(len(each["slice_uncertainty"]) == 6 for each in result["frames"])
    assert read_time(tmp_path / "doubt.nii.gz").frames == FRAMES
    assert 0 < read_volume(tmp_path / "doubt.nii.gz", frame=2).array.max() <= 1


@pytest.mark.parametrize("name", ["found.nii.gz", "found.nii", "found.seq.nrrd", "found.mha"])
def test_every_frame_is_in_its_place(
    desk: Path, model: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name
) -> None:
    by_brightness(monkeypatch)
    found = tmp_path / name
    ended = shell("apply", "--model", model, "--volume", desk / "film.nii.gz", "--output", found)
    assert ended.code == 0, ended.err
    assert read_grid(found).same_as(read_grid(desk / "film.nii.gz"))
    assert read_time(found).frames == FRAMES
    assert read_time(found).step == pytest.approx(0.5)
    for number in range(FRAMES):
        labelmap = read_labelmap(found, frame=number, empty_ok=True)
        np.testing.assert_array_equal(labelmap.array, expected(desk, number))
        if name.endswith(".nrrd"):
            assert labelmap.names == {5: "bright", 52: "dark"}
            assert labelmap.colours[5] == (1.0, 0.0, 0.0)
    if name.endswith(".nrrd"):
        return
    by_itk = sitk.ReadImage(found)
    assert by_itk.GetSize() == (24, 24, 6, FRAMES)
    assert by_itk.GetSpacing() == pytest.approx((1.0, 1.0, 3.0, 0.5))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(by_itk)[2], expected(desk, 2))
    if ".nii" in name:
        image = nibabel.load(found)
        assert image.shape == (24, 24, 6, FRAMES) and image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, expected(desk, 0))
        np.testing.assert_allclose(image.affine, nibabel.load(desk / "film.nii.gz").affine)


def test_chosen_frames_into_a_folder(
    desk: Path, model: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_brightness(monkeypatch)
    words = ["--model", model, "--volume", desk / "film.nii.gz", "--frames", "0,2-2"]
    ended = shell("apply", *words, "--output", tmp_path / "results")
    assert ended.code == 0, ended.err
    found = tmp_path / "results" / "film_segmentation.nii.gz"
    shown = [read_labelmap(found, frame=n, empty_ok=True).array for n in range(FRAMES)]
    np.testing.assert_array_equal(shown[0], expected(desk, 0))
    assert not shown[1].any() and shown[2].any()
    (result,) = ended.result["volumes"]
    assert [each["frame"] for each in result["frames"]] == [0, 2]


def test_a_sequence_gives_a_sequence(model: Path, shell: Shell, tmp_path: Path) -> None:
    volumes, _ = film(2)
    write_film(tmp_path / "heart.seq.nrrd", [each.array for each in volumes], volumes[0].geometry)
    words = ["--model", model, "--volume", tmp_path / "heart.seq.nrrd"]
    ended = shell("apply", *words, "--output", tmp_path / "out", "--uncertainty", tmp_path / "out")
    assert ended.code == 0, ended.err
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert names == {"heart_segmentation.seq.nrrd", "heart_uncertainty.seq.nrrd"}


def test_a_dicom_series_in_time(
    model: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_brightness(monkeypatch, 1000)
    folder = cine(tmp_path / "cine", "TriggerTime", [[80.0, 0.0, 40.0]] * 4)
    found = tmp_path / "found.nii.gz"
    ended = shell("apply", "--model", model, "--volume", folder, "--output", found)
    assert ended.code == 0, ended.err
    assert ended.err.count("3 frames of cine are ordered by their trigger time") == 1
    assert read_time(found).step == pytest.approx(0.04)
    assert read_grid(found).same_as(read_grid(folder), 0.01)
    for number in range(3):
        image = read_volume(folder, frame=number).array
        labels = read_labelmap(found, frame=number, empty_ok=True).array
        np.testing.assert_array_equal(labels, np.where(image > 1000, 5, 0))


def test_frames_of_a_single_slice(shell: Shell, tmp_path: Path) -> None:
    volumes, labels = film(FRAMES)
    grid = replace(volumes[0].geometry, size=(24, 24, 1))
    path = write_film(tmp_path / "cine.nii", [each.array[2:3] for each in volumes], grid)
    for number in (0, 2):
        drawn = replace(labels[number], array=labels[number].array[2:3], geometry=grid)
        write_labelmap(tmp_path / f"{number}.nii.gz", drawn)
    words: list[object] = []
    for number in (0, 2):
        words += ["--volume", path, "--segmentation", tmp_path / f"{number}.nii.gz"]
        words += ["--frame", number]
    learnt, found = tmp_path / "m.safetensors", tmp_path / "found.nii.gz"
    words += ["--steps", 2, "--batch", 1, "--weights", "random", "--output", learnt]
    ended = shell("finetune", *words)
    assert ended.code == 0, ended.err
    # Both frames show the same slice, so that nothing is left to measure on.
    assert ended.result["metrics"]["held_out"] == "none"
    ended = shell("apply", "--model", learnt, "--volume", path, "--output", found)
    assert ended.code == 0, ended.err
    assert nibabel.load(found).shape == (24, 24, 1, FRAMES)


def test_drawn_slices_are_kept_on_their_frame_alone(
    desk: Path, model: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "found.nii.gz"
    words = ["--model", model, "--volume", desk / "film.nii.gz", "--output", found]
    drawn = ["--drawn", desk / "labels2.seg.nrrd"]
    ended = shell("apply", *words, *drawn)
    assert ended.code == 2 and "--frame" in ended.error_lines[0]
    ended = shell("apply", *words, *drawn, "--frame", 2)
    assert ended.code == 0, ended.err
    truth = read_labelmap(desk / "labels2.seg.nrrd").array
    numbers = np.flatnonzero(truth.any(axis=(1, 2)))
    (result,) = ended.result["volumes"]
    assert [each["drawn_slices"] for each in result["frames"]] == [0, 0, len(numbers)]
    frames = [read_labelmap(found, frame=n, empty_ok=True).array for n in range(FRAMES)]
    np.testing.assert_array_equal(frames[2][numbers], truth[numbers])
    assert not np.array_equal(frames[0][numbers], truth[numbers])

    everywhere = ["--drawn", desk / "labels.nii.gz", "--label-names", "5=bright,52=dark"]
    ended = shell("apply", *words, *everywhere)
    assert ended.code == 0, ended.err
    for number in range(FRAMES):
        truth = read_labelmap(desk / "labels.nii.gz", frame=number).array
        numbers = np.flatnonzero(truth.any(axis=(1, 2)))
        shown = read_labelmap(found, frame=number).array
        np.testing.assert_array_equal(shown[numbers], truth[numbers])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--output", "a.seg.nrrd"), "overlapping segments"),
        (("--output", "a.dcm"), "DICOM"),
        (("--output", "a.nii", "--uncertainty", "b.tif"), "no axis of time"),
        (("--output", "a.nii", "--frames", "1,3"), "there is no frame 3"),
        (("--output", "a.nii", "--frame", "1"), "--frame are for slices that are drawn"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(
    desk: Path, model: Path, shell: Shell, tmp_path: Path, words, told
) -> None:
    words = [tmp_path / each if "." in each else each for each in words]
    ended = shell("apply", "--model", model, "--volume", desk / "film.nii.gz", *words)
    assert ended.code == 2 and told in ended.error_lines[0]
    assert not list(tmp_path.glob("a*"))


def test_a_volume_without_axis_of_time_has_frame_0(
    desk: Path, model: Path, shell: Shell, tmp_path: Path
) -> None:
    words = ["--model", model, "--volume", desk / "still.nrrd", "--output", tmp_path / "f.nii.gz"]
    ended = shell("apply", *words, "--frames", 0)
    assert ended.code == 0 and "frames" not in ended.result["volumes"][0], ended.err
    assert read_time(tmp_path / "f.nii.gz").frames == 1
    ended = shell("apply", *words, "--frames", 1)
    assert ended.code == 2 and "has one frame" in ended.error_lines[0]


def test_a_cancelled_apply_leaves_no_half_result(
    desk: Path, model: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def cancel_in_the_second_frame(self: Control) -> None:
        asked.append(1)
        if len(asked) > 4:
            raise Cancelled

    monkeypatch.setattr(Control, "raise_if_cancelled", cancel_in_the_second_frame)
    out = tmp_path / "out"
    ended = shell("apply", "--model", model, "--volume", desk / "film.nii.gz", "--output", out)
    assert ended.code == 3 and not list(out.iterdir())


def test_pairing_of_frames_and_volumes(desk: Path, shell: Shell, tmp_path: Path) -> None:
    words: list[object] = []
    for number in (0, 2):
        words += ["--volume", desk / "film.nii.gz"]
        words += ["--segmentation", desk / f"labels{number}.seg.nrrd"]
    words += [*FEW, "--weights", "random", "--output", tmp_path / "m.safetensors"]
    ended = shell("finetune", *words)
    assert ended.code == 2 and "from 0 to 2, with --frame" in ended.error_lines[0]
    ended = shell("finetune", *words, "--frame", 0, "--frame", 1, "--frame", 2)
    assert ended.code == 2 and "do not pair" in ended.error_lines[0]
    ended = shell("finetune", *words, "--frame", 9)
    assert ended.code == 2 and "no frame 9" in ended.error_lines[0]
    ended = shell("finetune", *words, "--frame", -1)
    assert ended.code == 2 and "--frame" in ended.error_lines[0]


def test_measured_by_frame_and_together(desk: Path, shell: Shell, tmp_path: Path) -> None:
    truth = [read_labelmap(desk / "labels.nii.gz", frame=n).array for n in range(FRAMES)]
    grid = read_grid(desk / "labels.nii.gz")
    # Frame 0 is right, frame 1 empty, and in frame 2 label 5 is right and label 52 missing.
    found = [truth[0], np.zeros_like(truth[1]), np.where(truth[2] == 5, 5, 0).astype(np.uint8)]
    prediction = write_film(tmp_path / "found.nii.gz", found, grid)
    words = ["--prediction", prediction, "--reference", desk / "labels.nii.gz"]
    ended = shell("evaluate", *words, "--output", tmp_path / "scores.json")
    assert ended.code == 0, ended.err
    result = ended.result
    assert [each["frame"] for each in result["frames"]] == [0, 1, 2]
    scores = [[row["dsc"] for row in each["labels"]] for each in result["frames"]]
    assert scores == [[1, 1], [0, 0], [1, 0]]
    assert [row["dsc"] for row in result["labels"]] == pytest.approx([2 / 3, 1 / 3])
    assert result["mean_dsc"] == pytest.approx(0.5)
    assert json.loads((tmp_path / "scores.json").read_text()) == result

    one = shell("evaluate", *words, "--frames", 2).result
    assert [each["frame"] for each in one["frames"]] == [2] and one["mean_dsc"] == 0.5
    still = ["--prediction", prediction, "--reference", desk / "labels2.seg.nrrd"]
    only = shell("evaluate", *still, "--frames", 2)
    assert only.code == 0, only.err
    assert [row["dsc"] for row in only.result["labels"]] == [1, 0]
    ended = shell("evaluate", *still)
    assert ended.code == 2 and "has 3 frames" in ended.error_lines[0]
    ended = shell("evaluate", *words, "--frames", 3)
    assert ended.code == 2 and "no frame 3" in ended.error_lines[0]


def test_frames_on_which_the_reference_shows_nothing(
    desk: Path, shell: Shell, tmp_path: Path
) -> None:
    truth = [read_labelmap(desk / "labels.nii.gz", frame=n).array for n in range(FRAMES)]
    grid = read_grid(desk / "labels.nii.gz")
    some = write_film(tmp_path / "some.nii", [truth[0], truth[1] * 0, truth[2]], grid)
    words = ["--prediction", desk / "labels.nii.gz", "--reference", some]
    ended = shell("evaluate", *words)
    assert ended.code == 0 and "shows no label on frame 1" in ended.err, ended.err
    assert [each["frame"] for each in ended.result["frames"]] == [0, 2]
    assert ended.result["frames_without_label"] == [1] and ended.result["mean_dsc"] == 1
    all_three = shell("evaluate", *words, "--frames", "0-2").result
    assert [each["mean_dsc"] for each in all_three["frames"]] == [1, 0, 1]


def test_lists_have_images_of_one_frame(
    desk: Path, model: Path, shell: Shell, tmp_path: Path
) -> None:
    (desk / "list.csv").write_text("film.nii.gz,labels.nii.gz\n")
    for command in (
        ("finetune", "--output", tmp_path / "m.safetensors", *FEW, "--weights", "random"),
        ("apply", "--model", model, "--output", tmp_path / "out"),
        ("evaluate",),
    ):
        ended = shell(command[0], "--list", desk / "list.csv", *command[1:])
        assert ended.code == 2, ended.err
        assert "3 frames" in ended.error_lines[0] and "list" in ended.error_lines[0]
        assert "--frame" not in ended.error_lines[0]
