"""The training set of a list: prepared once, read slice by slice, equal to what is in the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.listed_examples import Expected, ListSource, load_list
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow
from SAMFineTuneLib.training.validation_split import by_list, split
from Testing.support.listed_pictures import data_set, write_list, write_pair


class Steps(list[tuple[int, int]]):
    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))


def load(
    source: ListSource, folder: Path, steps: Steps | None = None, expected: Expected | None = None
) -> TrainingSet:
    return load_list(
        source,
        folder / "prepared",
        {},
        lambda: None,
        Steps() if steps is None else steps,
        expected or Expected(),
    )


def test_slices_are_those_of_the_files(tmp_path: Path) -> None:
    path = data_set(tmp_path, 5, (1, 3))
    listed = load(ListSource(path), tmp_path)
    examples = load_examples(
        [
            Example(
                volume=tmp_path / "images" / f"p{number}.png",
                segmentation=tmp_path / "masks" / f"p{number}.png",
            )
            for number in range(5)
        ]
    )
    assert [each.value for each in listed.labels] == [1, 3]
    assert listed.axis == examples.axis
    assert listed.normalisation == examples.normalisation
    assert listed.volumes == listed.labelled_volumes == 5
    for ours, theirs in zip(listed.slices, examples.slices, strict=True):
        assert ours.image.dtype == theirs.image.dtype
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.target, theirs.target)
        assert ours.window == theirs.window
        assert ours.classes == theirs.classes
        assert (ours.shape, ours.spacing, ours.volume) == (
            theirs.shape,
            theirs.spacing,
            theirs.volume,
        )
        # A mask of a list is complete, so that a label that it does not show is known to be absent.
        assert ours.known.all()


def test_pictures_of_other_sizes_and_types(tmp_path: Path) -> None:
    write_pair(tmp_path, "small", side=20)
    image, mask = write_pair(tmp_path, "deep", side=24)
    deep = sitk.GetArrayFromImage(sitk.ReadImage(str(image))).astype(np.uint16) * 200
    sitk.WriteImage(sitk.GetImageFromArray(deep), str(image))
    large = sitk.GetArrayFromImage(sitk.ReadImage(str(mask))).astype(np.uint16) * 700
    sitk.WriteImage(sitk.GetImageFromArray(large), str(mask))
    listed = load(ListSource(write_list(tmp_path / "l.csv", ["small", "deep"])), tmp_path)
    assert [each.shape for each in listed.slices] == [(20, 20), (24, 24)]
    assert [each.value for each in listed.labels] == [1, 700]
    first, second = listed.slices
    assert first.image.max() == second.image.max() == 1
    assert set(np.unique(second.target)) == {0, 2}
    # The window, and so the levels, do not depend on the unit of the intensities.
    expected = second.window.apply(deep)
    np.testing.assert_allclose(second.image, expected, atol=1e-3)


def test_one_picture_in_colour_makes_all_of_them_colour(tmp_path: Path) -> None:
    write_pair(tmp_path, "grey")
    image, _ = write_pair(tmp_path, "colour", seed=1)
    grey = sitk.GetArrayFromImage(sitk.ReadImage(str(image)))
    colour = np.stack([grey, grey // 2, grey // 3], axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(image))
    listed = load(ListSource(write_list(tmp_path / "l.csv", ["grey", "colour"])), tmp_path)
    assert listed.normalisation.kind == "colour"
    assert [each.image.shape for each in listed.slices] == [(32, 32, 3), (32, 32, 3)]
    np.testing.assert_allclose(listed.slices[1].image, colour / 255, atol=1e-3)
    plain = listed.slices[0].image
    np.testing.assert_array_equal(plain[..., 0], plain[..., 2])


def test_volumes_may_stand_in_a_list(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    voxels = random.normal(100, 10, (40, 24, 24)).astype(np.float32)
    labels = np.zeros(voxels.shape, np.uint8)
    labels[18:21, 8:14, 8:14] = 1
    for name, array in (("v", voxels), ("s", labels)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 4.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    (tmp_path / "l.csv").write_text("v.nrrd,s.nrrd\n")
    listed = load(ListSource(tmp_path / "l.csv"), tmp_path)
    labelled = [each.number for each in listed.slices if each.is_labelled]
    assert labelled == [18, 19, 20]
    assert len(listed.slices) == 9
    np.testing.assert_array_equal(listed.slices[0].target, 0)


def test_slices_are_prepared_again_only_if_something_changed(tmp_path: Path) -> None:
    path = data_set(tmp_path, 3)
    first, second, third = Steps(), Steps(), Steps()
    before = load(ListSource(path), tmp_path, first)
    again = load(ListSource(path), tmp_path, second)
    assert first[-1] == (3, 3)
    assert not second
    assert before.listed and again.listed
    assert before.listed.fingerprint == again.listed.fingerprint
    write_pair(tmp_path, "p1", label=2, side=40)
    changed = load(ListSource(path), tmp_path, third)
    assert third
    assert [each.value for each in changed.labels] == [1, 2]


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    path = data_set(tmp_path, 3)
    (tmp_path / "masks" / "p2.png").write_bytes(b"not a picture")
    with pytest.raises(InputError):
        load(ListSource(path), tmp_path)
    assert not (tmp_path / "prepared").exists()
    assert not (tmp_path / "prepared.part").exists()


def test_a_file_that_cannot_be_read_is_named_and_skipped_on_request(tmp_path: Path) -> None:
    path = data_set(tmp_path, 3)
    (tmp_path / "images" / "p1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError) as refusal:
        load(ListSource(path), tmp_path)
    assert refusal.value.code == "listed_unreadable"
    assert "train.csv, line 2" in refusal.value.message
    assert "p1.png" in refusal.value.message
    listed = load(ListSource(path, skip_unreadable=True), tmp_path)
    assert len(listed.slices) == 2
    assert listed.listed and len(listed.listed.skipped) == 1
    assert any(each.startswith("skipped: train.csv, line 2") for each in listed.warnings)


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    path = data_set(tmp_path, 1)
    (tmp_path / "images" / "p0.png").write_bytes(b"not a picture")
    with pytest.raises(InputError) as refusal:
        load(ListSource(path, skip_unreadable=True), tmp_path)
    assert "none of the files" in refusal.value.message


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    path = data_set(tmp_path, 2)
    other = tmp_path / "other"
    write_pair(other, "p1", side=16)
    (other / "masks" / "p1.png").replace(tmp_path / "masks" / "p1.png")
    with pytest.raises(InputError) as refusal:
        load(ListSource(path), tmp_path)
    assert "p1.png has 32 x 32 pixels" in refusal.value.message
    assert "16 x 16" in refusal.value.message


def test_empty_masks_are_learnt_from_and_not_all_may_be_empty(tmp_path: Path) -> None:
    path = data_set(tmp_path, 4, (1, 0))
    listed = load(ListSource(path), tmp_path)
    assert [each.is_labelled for each in listed.slices] == [True, False, True, False]
    with pytest.raises(InputError) as refusal:
        load(ListSource(data_set(tmp_path / "none", 2, (0,))), tmp_path)
    assert refusal.value.code == "empty_segmentation"


def test_chosen_labels(tmp_path: Path) -> None:
    path = data_set(tmp_path, 4, (1, 3))
    listed = load(ListSource(path, labels=[3]), tmp_path)
    assert [each.value for each in listed.labels] == [3]
    assert [each.is_labelled for each in listed.slices] == [False, True, False, True]
    with pytest.raises(InputError) as refusal:
        load(ListSource(path, labels=[2]), tmp_path)
    assert refusal.value.code == "label_absent"


def test_a_validation_list_is_held_out_and_never_learnt_from(tmp_path: Path) -> None:
    path = data_set(tmp_path, 5)
    validation = write_list(tmp_path / "val.csv", ["p4", "p3"])
    training = write_list(tmp_path / "fewer.csv", ["p0", "p1", "p2"])
    listed = load(ListSource(training, validation), tmp_path)
    assert listed.listed and listed.listed.held_out == (3, 4)
    assert len(listed.learnt_slices) == 3
    held_out = by_list(listed.listed.learnt, listed.listed.held_out)
    assert (held_out.training, held_out.validation) == ([0, 1, 2], [3, 4])
    assert not held_out.joins_at_the_end
    assert not listed.warnings
    both = load(ListSource(path, validation), tmp_path)
    assert any("2 images of val.csv are learnt from as well" in each for each in both.warnings)


def test_a_long_validation_list_is_measured_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("SAMFineTuneLib.examples.listed_examples.MOST_VALIDATED", 2)
    path = data_set(tmp_path, 6)
    validation = write_list(tmp_path / "val.csv", ["p2", "p3", "p4", "p5"])
    steps = Steps()
    listed = load(ListSource(path, validation), tmp_path, steps)
    assert steps[-1] == (8, 8)
    assert listed.listed and listed.listed.held_out == (6, 7)
    np.testing.assert_array_equal(listed.slices[7].image, listed.slices[4].image)


def test_the_normalisation_of_a_tuned_model_is_kept(tmp_path: Path) -> None:
    window = IntensityWindow(low=0, high=100, mean=0.5, standard_deviation=0.2)
    normalisation = IntensityNormalisation(kind="calibrated", window=window)
    listed = load(ListSource(data_set(tmp_path, 2)), tmp_path, expected=Expected(normalisation))
    assert listed.normalisation == normalisation
    raw = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "images" / "p0.png")))
    np.testing.assert_allclose(listed.slices[0].image, np.minimum(raw / 100, 1), atol=1e-3)


def test_prepared_slices_are_deleted_when_they_have_served(tmp_path: Path) -> None:
    listed = load(ListSource(data_set(tmp_path, 2)), tmp_path)
    assert (tmp_path / "prepared").is_dir()
    assert listed.listed is not None
    listed.listed.release()
    assert not (tmp_path / "prepared").exists()


def test_at_most_200_volumes_are_held_out_of_many(tmp_path: Path) -> None:
    listed = load(ListSource(data_set(tmp_path, 1)), tmp_path)
    many = [_Numbered(listed, number) for number in range(2000)]
    held_out = split(many, seed=0)  # type: ignore[arg-type]
    assert held_out.by == "volume"
    assert len(held_out.validation) == 200
    assert len(held_out.training) == 1800


class _Numbered:
    """The first slice of a training set as one of another volume."""

    def __init__(self, listed: TrainingSet, volume: int) -> None:
        self.classes = listed.slices[0].classes
        self.is_labelled = True
        self.volume = volume


def test_masks_in_colour_number_their_structures_alike(tmp_path: Path) -> None:
    for name, colour in (("p0", (0, 255, 0)), ("p1", (255, 0, 0)), ("p2", (0, 255, 0))):
        _, mask = write_pair(tmp_path, name)
        disk = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))[..., None]
        coloured = (disk * np.array(colour)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(coloured, isVector=True), str(mask))
    listed = load(ListSource(write_list(tmp_path / "l.csv", ["p0", "p1", "p2"])), tmp_path)
    assert [each.name for each in listed.labels] == ["#00ff00", "#ff0000"]
    assert listed.labels[1].colour == (1, 0, 0)
    assert [each.classes for each in listed.slices] == [{1}, {2}, {1}]
    assert set(np.unique(listed.slices[1].target)) == {0, 2}


def test_labels_are_merged(tmp_path: Path) -> None:
    path = data_set(tmp_path, 2, (254, 255))
    listed = load(ListSource(path, merge={1: [254, 255]}), tmp_path)
    assert [each.value for each in listed.labels] == [1]
    assert [each.classes for each in listed.slices] == [{1}, {1}]
