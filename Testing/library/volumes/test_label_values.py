"""Voxel values as labels: rounded where storage moved them, refused where they are an image's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_labelmap, read_volume
from SAMFineTuneLib.volumes.image_as_labels import require_structures
from SAMFineTuneLib.volumes.image_grid import placed
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices, write_pair

nibabel = pytest.importorskip("nibabel")

SHAPE = (6, 20, 24)
AFFINE = np.diag([-1.5, 1.5, 4.0, 1.0])


def saved(path: Path, array: np.ndarray, stored: type) -> Path:
    """A NIfTI file as nibabel writes floating point numbers, in steps of an integer type."""
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0).astype(np.float64), AFFINE)
    image.set_data_dtype(stored)
    nibabel.save(image, path)
    return path


def with_labels(labels: list[int]) -> np.ndarray:
    """A voxel of each label, with background between."""
    array = np.zeros(SHAPE, np.int64)
    apart = np.zeros(array[::2, ::2, ::2].shape, np.int64)
    apart.reshape(-1)[: len(labels)] = labels
    array[::2, ::2, ::2] = apart
    return array


def refused(action, *arguments, **named) -> InputError:
    with pytest.raises(InputError) as caught:
        action(*arguments, **named)
    return caught.value


@pytest.mark.parametrize("stored", [np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize(
    "labels", [[1, 2], [7], [3, 250], [1, 2, 999, 1000], [1, 1034, 2035], [41, 12_175, 50_000]]
)
def test_labels_that_were_scaled_into_integers_are_rounded(tmp_path, stored, labels):
    array = with_labels(labels)
    file = saved(tmp_path / "s.nii.gz", array, stored)
    read = read_labelmap(file)
    # Another reader, and what was meant.
    seen = np.rint(nibabel.load(file).get_fdata()).transpose(2, 1, 0)
    np.testing.assert_array_equal(read.array, seen)
    np.testing.assert_array_equal(read.array, array)
    assert read.array.dtype.kind in "ui"


@pytest.mark.parametrize("labels", [[1, 2], [1, 4, 9], list(range(1, 105))])
@pytest.mark.parametrize("stored", [np.uint8, np.int8])
def test_labels_that_were_scaled_into_bytes_are_rounded(tmp_path, stored, labels):
    array = with_labels(labels)
    file = saved(tmp_path / "s.nii.gz", array, stored)
    assert 0 < float(nibabel.load(file).dataobj.slope) < 1
    np.testing.assert_array_equal(read_labelmap(file).array, array)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
@pytest.mark.parametrize("off", [1.5e-5, -2e-4, 9e-4])
def test_labels_that_were_saved_again_with_their_errors_are_rounded(tmp_path, ending, off):
    array = with_labels([1, 2, 30])
    values = np.where(array > 0, array + off, off / 10).astype(np.float32)
    file = tmp_path / f"s.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(values), str(file))
    np.testing.assert_array_equal(read_labelmap(file).array, array)


def test_volumes_are_not_rounded(tmp_path):
    file = saved(tmp_path / "v.nii.gz", with_labels([1, 2]), np.int16)
    values = read_volume(file).array
    seen = nibabel.load(file).get_fdata().transpose(2, 1, 0)
    np.testing.assert_allclose(values, seen, atol=1e-7)
    assert (values != np.rint(values)).any()


def noise(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, SHAPE)


@pytest.mark.parametrize(
    "values",
    [
        noise(0, 3),
        noise(0, 3000),
        noise(0, 1e-9),
        noise(0, 9e-4),
        noise(0.4, 0.6),
        np.round(noise(0, 10) * 2) / 2,
        np.round(noise(0, 100)) * 0.8,
        np.round(noise(0, 100)) * 0.1,
    ],
)
@pytest.mark.parametrize("stored", [np.float32, np.int16, np.uint8])
def test_images_are_still_refused(tmp_path, values, stored):
    file = saved(tmp_path / "v.nii.gz", values, stored)
    error = refused(read_labelmap, file)
    assert error.code in ("not_integral", "image_as_segmentation")
    assert error.remedy and "\n" not in str(error)


def test_a_value_that_is_nearly_whole_is_not_told_as_whole(tmp_path):
    # Too far off for storage of this range, and four digits would show 1 and 2.
    values = np.where(with_labels([1, 2]) > 0, with_labels([1, 2]) + 0.0011, 0)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "v.nrrd"))
    message = refused(read_labelmap, tmp_path / "v.nrrd").message
    assert "such as 1.0011, and" in message or "such as 2.0011, and" in message


@pytest.mark.parametrize(
    ("value", "told"),
    [(-5.0, "-5"), (2.0**40, "1099511627776"), (1e300, "1e+300"), (-1e25, "-1e+25")],
)
def test_numbers_that_are_no_labels_are_told_shortly(tmp_path, value, told):
    array = np.zeros(SHAPE)
    array[1, 1, 1] = value
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "v.nrrd"))
    error = refused(read_labelmap, tmp_path / "v.nrrd")
    assert error.code == "not_integral" and error.message.endswith(f"holds the value {told}")


@pytest.mark.parametrize(("count", "kind"), [(300, "u2"), (1500, "u2")])
def test_more_than_255_labels(tmp_path, count, kind):
    labels = regions((16, 40, 40), count)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / "v.nii.gz"))
    read = read_labelmap(tmp_path / "v.nii.gz")
    assert len(read.labels) == len(np.unique(labels)) and read.array.dtype == np.dtype(kind)
    np.testing.assert_array_equal(read.array, labels)


def test_labels_beyond_65535(tmp_path):
    array = with_labels([1, 65_536, 2_000_000_000]).astype(np.float64)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "v.nii"))
    assert read_labelmap(tmp_path / "v.nii").labels == [1, 65_536, 2_000_000_000]


def test_more_than_2000_labels_are_an_image(tmp_path):
    array = np.arange(70_000, dtype=np.int32).reshape(7, 100, 100)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "v.nii"))
    assert "69999 different" in refused(read_labelmap, tmp_path / "v.nii").message


def regions(
    shape: tuple[int, int, int],
    count: int,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """An atlas: every voxel has the label of the nearest of random points."""
    points = np.random.default_rng(count).random((count, 3)) * np.array(shape) * spacing
    axes = [np.arange(length) * step for length, step in zip(shape, spacing, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return (cKDTree(points).query(places)[1].reshape(shape) + 1).astype(np.uint16)


@pytest.mark.parametrize(
    ("shape", "count", "spacing"),
    [
        ((64, 64, 64), 300, (1.0, 1.0, 1.0)),
        ((24, 60, 64), 300, (4.0, 1.5, 1.5)),
        ((32, 32, 32), 1000, (1.0, 1.0, 1.0)),
    ],
)
def test_an_atlas_of_hundreds_of_labels_is_accepted(shape, count, spacing):
    atlas = regions(shape, count, spacing)
    require_structures(Path("atlas.nii.gz"), atlas)
    few = np.zeros_like(atlas)
    few[::5] = atlas[::5]
    require_structures(Path("few.nii.gz"), few)


def grey_levels(sigma: float) -> np.ndarray:
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((24, 60, 64)), sigma)
    image = (image - image.min()) / (image.max() - image.min())
    return np.rint(image * 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
def test_grey_levels_are_asked_back_and_accepted_when_they_are_named(tmp_path, sigma):
    sitk.WriteImage(sitk.GetImageFromArray(grey_levels(sigma)), str(tmp_path / "v.nrrd"))
    error = refused(read_labelmap, tmp_path / "v.nrrd")
    assert error.code == "image_as_segmentation" and "different values" in error.message
    assert "name those that are meant" in error.remedy
    read = read_labelmap(tmp_path / "v.nrrd", wanted=[7, 8])
    np.testing.assert_array_equal(read.array, grey_levels(sigma))


def test_few_slices_of_grey_levels_are_asked_back(tmp_path):
    image = grey_levels(2.0)
    image[np.arange(24) % 6 != 0] = 0
    assert refused(require_structures, Path("v.nrrd"), image).code == "image_as_segmentation"


class TestTheImageAsItsOwnSegmentation:
    def example(self, folder: Path, **fields):
        from SAMFineTuneLib.examples.loading import load_examples
        from Testing.support.job_records import example_of

        return load_examples([example_of(folder / "v.nrrd", folder / "s.nrrd", **fields)])

    def write(self, folder: Path, image: np.ndarray, labels: np.ndarray) -> None:
        for name, array in (("v.nrrd", image), ("s.nrrd", labels)):
            picture = placed(sitk.GetImageFromArray(array), geometry_of(array.shape))
            sitk.WriteImage(picture, str(folder / name))

    def test_a_copy_with_few_values_is_asked_back(self, tmp_path):
        mask = keep_slices(head()[1], [3, 5]).array
        self.write(tmp_path, mask.astype(np.float32), mask)
        error = refused(self.example, tmp_path)
        assert error.code == "image_as_segmentation" and "the same values" in error.message

    def test_named_labels_are_learnt_from_themselves(self, tmp_path):
        mask = keep_slices(head()[1], [3, 5]).array
        self.write(tmp_path, mask, mask)
        assert [label.value for label in self.example(tmp_path, labels=[5]).labels] == [5]

    def test_one_file_for_both_is_asked_back_whatever_is_in_it(self, tmp_path):
        from SAMFineTuneLib.examples.loading import load_examples
        from Testing.support.job_records import example_of

        volume, _ = write_pair(tmp_path, *head(), "a")
        (tmp_path / "link.nii.gz").symlink_to(volume)
        source = example_of(volume, tmp_path / "link.nii.gz")
        error = refused(load_examples, [source])
        assert error.code == "image_as_segmentation"
        assert "is given as its own segmentation" in error.message

    @pytest.mark.parametrize("copied", [False, True])
    def test_drawn_slices(self, tmp_path, copied):
        from SAMFineTuneLib.jobs.schema import Example
        from SAMFineTuneLib.tasks.drawn_slices import known_structures, require_drawn

        mask = keep_slices(head()[1], [3, 5]).array
        self.write(tmp_path, mask, mask)
        volume = tmp_path / "v.nrrd"
        drawn = [Example(volume=volume, segmentation=tmp_path / "s.nrrd" if copied else volume)]
        if copied:
            known = (drawn, volume, read_volume(volume), {5: "bright"}, "axial")
            error = refused(known_structures, *known)
        else:
            error = refused(require_drawn, drawn, [volume], print)
        assert error.code == "image_as_segmentation"

    def test_evaluating_a_file_against_itself_is_said(self, tmp_path):
        from SAMFineTuneLib.volumes.image_as_labels import same_labels_warning

        labelmap = head()[1]
        file, other = tmp_path / "a.nrrd", tmp_path / "b.nrrd"
        assert "are one file" in same_labels_warning(labelmap, labelmap, file, file)[0]
        assert "same labels" in same_labels_warning(labelmap, labelmap, file, other)[0]
        assert same_labels_warning(labelmap, keep_slices(labelmap, [5]), file, other) == ()
