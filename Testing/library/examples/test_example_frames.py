"""Examples with an axis of time: the frame that was labelled is learnt from, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.training.validation_split import split
from SAMFineTuneLib.volumes import Geometry, Labelmap, write_labelmap, write_volume
from Testing.support.films import write_film
from Testing.support.synthetic_volumes import geometry_of

GRID = geometry_of((4, 16, 16))
FRAMES = 3


def moving() -> list[np.ndarray]:
    """Frame n is dark but for the columns 4n to 4n + 3, which are brighter from slice to slice."""
    found = np.zeros((FRAMES, *GRID.shape), np.float32)
    for number in range(FRAMES):
        found[number, :, :, 4 * number : 4 * number + 4] = 100 + np.arange(4)[:, None, None]
    return list(found)


def drawn(number: int, slices: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """The bright columns of a frame, labelled on some slices."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[slices, :, 4 * number : 4 * number + 4] = 1
    return labels


def mask(path: Path, labels: np.ndarray, grid: Geometry = GRID) -> Path:
    write_labelmap(path, Labelmap(labels, grid))
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_film(tmp_path / "film.nii.gz", moving(), GRID)


def load(*examples: dict[str, Any]) -> TrainingSet:
    return load_examples([Example(**each) for each in examples])


def frames_learnt(examples: TrainingSet) -> list[int]:
    """For each labelled slice the frame whose columns it shows, which must be those labelled."""
    found = []
    for each in examples.slices:
        if not each.is_labelled:
            continue
        bright = each.image > 0.5 * each.image.max()
        np.testing.assert_array_equal(bright, each.target > 0)
        found.append(int(np.flatnonzero(bright.any(axis=0))[0]) // 4)
    return found


def refusal(*examples: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        load(*examples)
    return caught.value


def test_the_chosen_frame_is_learnt_from(film, tmp_path):
    for number in range(FRAMES):
        path = mask(tmp_path / f"{number}.nrrd", drawn(number))
        found = load({"volume": film, "segmentation": path, "frame": number})
        assert frames_learnt(found) == [number, number] and found.volumes == 1


def test_two_frames_are_one_volume(film, tmp_path):
    paths = [mask(tmp_path / f"{number}.nrrd", drawn(number)) for number in (0, 2)]
    other = {"volume": tmp_path / "ct.nrrd", "segmentation": tmp_path / "ct-labels.nrrd"}
    write_volume(other["volume"], moving()[1], GRID)
    mask(other["segmentation"], drawn(1))
    of_film = [
        {"volume": film, "segmentation": path, "frame": number}
        for path, number in zip(paths, (0, 2), strict=True)
    ]
    found = load(*of_film, other)
    assert sorted(frames_learnt(found)) == [0, 0, 1, 1, 2, 2] and found.volumes == 2
    for seed in range(4):
        held_out = {found.slices[each].volume for each in split(found.slices, seed).validation}
        learnt = {found.slices[each].volume for each in split(found.slices, seed).training}
        assert len(held_out) == 1 and not held_out & learnt


def test_all_labelled_frames_of_a_4d_segmentation(film, tmp_path):
    labels = [drawn(0), np.zeros(GRID.shape, np.uint8), drawn(2, (1, 3))]
    path = write_film(tmp_path / "labels.nii.gz", labels, GRID)
    found = load({"volume": film, "segmentation": path})
    assert frames_learnt(found) == [0, 0, 2, 2] and found.volumes == 1
    assert [each.number for each in found.slices if each.is_labelled] == [1, 2, 1, 3]
    only = load({"volume": film, "segmentation": path, "frame": 2})
    assert frames_learnt(only) == [2, 2]
    assert refusal({"volume": film, "segmentation": path, "frame": 1}).code == "empty_segmentation"


def test_a_slice_is_held_out_in_all_frames(film, tmp_path):
    every = (0, 1, 2, 3)
    path = write_film(tmp_path / "l.nrrd", [drawn(n, every) for n in range(FRAMES)], GRID)
    found = load({"volume": film, "segmentation": path})
    for seed in range(4):
        divided = split(found.slices, seed)
        held_out = {found.slices[each].number for each in divided.validation}
        assert divided.by == "slice" and len(divided.validation) == FRAMES * len(held_out)
        assert not held_out & {found.slices[each].number for each in divided.training}


def test_a_label_that_is_not_in_every_frame(film, tmp_path):
    labels = [drawn(0), drawn(1) * 2, drawn(2)]
    path = write_film(tmp_path / "labels.nrrd", labels, GRID)
    found = load({"volume": film, "segmentation": path, "labels": [1]})
    assert frames_learnt(found) == [0, 0, 2, 2]
    both = load({"volume": film, "segmentation": path, "labels": [1, 2]})
    assert [each.value for each in both.labels] == [1, 2]
    error = refusal({"volume": film, "segmentation": path, "labels": [1, 3]})
    assert error.code == "label_absent"


def test_further_images_of_the_same_frame_or_of_one_that_holds_for_all(film, tmp_path):
    brighter = write_film(tmp_path / "second.nii", [1000 + each for each in moving()], GRID)
    write_volume(tmp_path / "still.nrrd", np.flip(moving()[0], 1).copy(), GRID)
    path = mask(tmp_path / "labels.nrrd", drawn(1))
    example = {"volume": film, "segmentation": path, "frame": 1}
    found = load({**example, "channels": [brighter, tmp_path / "still.nrrd"]})
    (image, *_) = [each.image for each in found.slices if each.is_labelled]
    assert image.shape == (16, 16, 3)
    first_bright = [int(np.flatnonzero(image[0, :, n] > 0.5)[0]) // 4 for n in range(3)]
    assert first_bright == [1, 1, 0]
    short = write_film(tmp_path / "short.nii", moving()[:2], GRID)
    error = refusal({**example, "channels": [short]})
    assert error.code == "other_frames" and "has 2 frames" in error.message


def test_what_does_not_fit_is_refused_in_words(film, tmp_path):
    path = mask(tmp_path / "labels.nrrd", drawn(1))
    error = refusal({"volume": film, "segmentation": path})
    assert error.code == "frame_not_chosen" and "3 frames" in error.message
    assert "0 to 2" in error.remedy
    error = refusal({"volume": film, "segmentation": path, "frame": 3})
    assert error.code == "no_such_frame" and "has 3 frames" in error.message
    two = write_film(tmp_path / "two.nrrd", [drawn(0), drawn(1)], GRID)
    error = refusal({"volume": film, "segmentation": two})
    assert error.code == "other_frames" and "2 frames" in error.message
    write_volume(tmp_path / "ct.nrrd", moving()[1], GRID)
    error = refusal({"volume": tmp_path / "ct.nrrd", "segmentation": two})
    assert error.code == "other_frames" and "has one" in error.message
    still = {"volume": tmp_path / "ct.nrrd", "segmentation": path}
    assert frames_learnt(load({**still, "frame": 0})) == [1, 1]
    error = refusal({**still, "frame": 1})
    assert error.code == "no_such_frame" and "has one frame" in error.message
