"""Volumes and labelmaps are read, or refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.volumes import (
    Geometry,
    read_labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.image_grid import placed
from Testing.support.volume_geometries import (
    IDENTITY,
    OBLIQUE,
    PLAIN,
    SUFFIXES,
    random_labelmap,
    refused,
)


class TestReadingFiles:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
    def test_number_types_survive(self, tmp_path, suffix, kind):
        array = np.arange(np.prod(OBLIQUE.shape), dtype="f8").reshape(OBLIQUE.shape) % 120
        file = tmp_path / f"volume{suffix}"
        write_volume(file, array.astype(kind), OBLIQUE)
        volume = read_volume(file)
        assert volume.array.dtype == np.dtype(kind)
        np.testing.assert_array_equal(volume.array, array.astype(kind))
        assert volume.geometry.same_as(OBLIQUE)
        assert (volume.modality, volume.non_finite) == (None, 0)

    def test_paths_with_spaces_and_other_alphabets(self, tmp_path):
        folder = tmp_path / "Bauch späť 肝臓 №1"
        for suffix in SUFFIXES:
            file = folder / f"Leber ü 肝{suffix}"
            write_labelmap(file, random_labelmap(PLAIN))
            np.testing.assert_array_equal(read_labelmap(file).array, random_labelmap(PLAIN).array)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("kind", ["f4", "f8"])
    def test_non_finite_voxels_become_background_and_are_counted(self, tmp_path, suffix, kind):
        array = np.linspace(-5, 5, np.prod(PLAIN.shape)).reshape(PLAIN.shape).astype(kind)
        bad = ([0, 2, 4], [0, 3, 5], [0, 4, 6])
        array[bad] = np.nan, np.inf, -np.inf
        write_volume(tmp_path / f"v{suffix}", array, PLAIN)
        volume = read_volume(tmp_path / f"v{suffix}")
        expected = array.copy()
        expected[bad] = array[0, 0, 1]
        assert volume.non_finite == 3
        np.testing.assert_array_equal(volume.array, expected)

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_non_finite_voxels_far_into_a_large_file_are_found(self, tmp_path, suffix):
        geometry = Geometry((150, 140, 120), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        array = np.ones(geometry.shape, np.float32)
        array[119, 139, 149] = array[60, 7, 3] = np.nan
        array[0, 0, 0] = -1
        write_volume(tmp_path / f"v{suffix}", array, geometry)
        volume = read_volume(tmp_path / f"v{suffix}")
        assert volume.non_finite == 2
        assert volume.array[119, 139, 149] == volume.array[60, 7, 3] == -1
        assert np.count_nonzero(volume.array == -1) == 3

    def test_nothing_but_nan_is_refused(self, tmp_path):
        write_volume(tmp_path / "v.nii", np.full(PLAIN.shape, np.nan, np.float32), PLAIN)
        assert "finite" in refused(read_volume, tmp_path / "v.nii").message

    def test_one_slice_is_a_volume(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 7), np.uint8)), tmp_path / "s.mha")
        assert read_volume(tmp_path / "s.mha").array.shape == (1, 6, 7)

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
    def test_a_fourth_axis_of_length_one_is_dropped(self, tmp_path, suffix):
        image = placed(sitk.GetImageFromArray(random_labelmap(OBLIQUE).array), OBLIQUE)
        sitk.WriteImage(sitk.JoinSeries([image]), tmp_path / f"v{suffix}")
        volume = read_volume(tmp_path / f"v{suffix}")
        assert volume.geometry.same_as(OBLIQUE)
        np.testing.assert_array_equal(volume.array, random_labelmap(OBLIQUE).array)


class TestBadFiles:
    def test_no_such_file(self, tmp_path):
        assert refused(read_volume, tmp_path / "none.nii.gz").code == "no_such_file"
        assert refused(read_labelmap, tmp_path / "none" / "none.nrrd").code == "no_such_file"

    @pytest.mark.parametrize(
        "name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.mhd", "a.dcm", "a.txt", "a"]
    )
    @pytest.mark.parametrize("content", [b"", b"no image " * 200], ids=["empty", "text"])
    def test_not_an_image(self, tmp_path, capfd, name, content):
        (tmp_path / name).write_bytes(content)
        assert refused(read_volume, tmp_path / name).code == "not_an_image"
        assert capfd.readouterr() == ("", "")

    def test_a_folder_without_dicom(self, tmp_path, capfd):
        (tmp_path / "notes.txt").write_text("no image")
        assert refused(read_volume, tmp_path).code == "not_an_image"
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("part", [0.4, 0.99])
    def test_a_file_that_ends_too_early(self, tmp_path, capfd, suffix, part):
        geometry = Geometry((40, 30, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        values = np.random.default_rng(0).random(geometry.shape).astype(np.float32)
        write_volume(tmp_path / f"v{suffix}", values, geometry)
        file = next(path for path in tmp_path.iterdir() if not path.name.endswith(".mhd"))
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * part)])
        assert refused(read_volume, tmp_path / f"v{suffix}").code == "damaged_image"
        assert capfd.readouterr() == ("", "")

    def test_a_nifti_file_with_a_damaged_middle(self, tmp_path):
        geometry = Geometry((40, 30, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        values = np.random.default_rng(0).random(geometry.shape).astype(np.float32)
        write_volume(tmp_path / "v.nii.gz", values, geometry)
        content = bytearray((tmp_path / "v.nii.gz").read_bytes())
        content[len(content) // 2] ^= 0xFF
        (tmp_path / "v.nii.gz").write_bytes(content)
        assert refused(read_volume, tmp_path / "v.nii.gz").code == "damaged_image"

    def test_a_plain_nifti_file_under_a_packed_name_is_read(self, tmp_path):
        write_labelmap(tmp_path / "v.nii", random_labelmap(PLAIN))
        (tmp_path / "v.nii").rename(tmp_path / "w.nii.gz")
        assert (tmp_path / "w.nii.gz").read_bytes()[:2] != b"\x1f\x8b"
        np.testing.assert_array_equal(
            read_labelmap(tmp_path / "w.nii.gz").array, random_labelmap(PLAIN).array
        )

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
    def test_four_axes(self, tmp_path, suffix):
        image = placed(sitk.GetImageFromArray(random_labelmap(PLAIN).array), PLAIN)
        sitk.WriteImage(sitk.JoinSeries([image, image]), tmp_path / f"v{suffix}")
        error = refused(read_volume, tmp_path / f"v{suffix}")
        assert error.code == "frame_not_chosen" and "4-D" in error.message

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
    def test_two_values_a_voxel(self, tmp_path, suffix):
        array = np.zeros((*PLAIN.shape, 2), np.float32)
        image = placed(sitk.GetImageFromArray(array, isVector=True), PLAIN)
        sitk.WriteImage(image, tmp_path / f"v{suffix}")
        assert refused(read_volume, tmp_path / f"v{suffix}").code == "not_scalar"
        assert refused(read_labelmap, tmp_path / f"v{suffix}").code == "not_scalar"

    def test_complex_numbers(self, tmp_path):
        image = sitk.GetImageFromArray(np.zeros(PLAIN.shape, np.complex64))
        sitk.WriteImage(image, tmp_path / "v.nii")
        assert refused(read_volume, tmp_path / "v.nii").code == "not_scalar"

    def test_overlapping_segments(self, tmp_path):
        image = sitk.GetImageFromArray(np.ones((*PLAIN.shape, 2), np.uint8), isVector=True)
        for number, name in enumerate("ab"):
            image.SetMetaData(f"Segment{number}_ID", name)
            image.SetMetaData(f"Segment{number}_Name", name)
            image.SetMetaData(f"Segment{number}_Layer", str(number))
        sitk.WriteImage(image, tmp_path / "s.seg.nrrd")
        error = refused(read_labelmap, tmp_path / "s.seg.nrrd")
        assert error.code == "overlapping_segments"
        assert f"'a' and 'b' of '{tmp_path / 's.seg.nrrd'}' overlap in 210" in error.message
        assert refused(read_volume, tmp_path / "s.seg.nrrd").code == "not_scalar"

    def test_sheared_axes_are_read_as_they_are(self, tmp_path):
        write_labelmap(tmp_path / "v.nii", random_labelmap(PLAIN))
        header = bytearray((tmp_path / "v.nii").read_bytes())
        header[252:256] = (0).to_bytes(2, "little") + (1).to_bytes(2, "little")
        header[284:288] = np.float32(0.3).tobytes()
        (tmp_path / "v.nii").write_bytes(header)
        volume = read_volume(tmp_path / "v.nii")
        assert "not perpendicular" in volume.remarks[0]
        # The sform in RAS has 0.3 mm to the right for each step along j; LPS counts to the left.
        assert volume.geometry.affine[0, 1] == pytest.approx(-0.3)


class TestReadingLabels:
    def write(self, folder: Path, array: np.ndarray) -> Path:
        write_volume(folder / "s.nrrd", array, PLAIN)
        return folder / "s.nrrd"

    @pytest.mark.parametrize(("largest", "kind"), [(3, "u1"), (300, "u2"), (70_000, "i4")])
    @pytest.mark.parametrize("stored", ["i4", "i8", "f4", "f8"])
    def test_the_smallest_type_that_holds_the_labels(self, tmp_path, largest, kind, stored):
        array = np.zeros(PLAIN.shape, stored)
        array[2, 3, 4] = largest
        labelmap = read_labelmap(self.write(tmp_path, array))
        assert labelmap.array.dtype == np.dtype(kind)
        assert labelmap.labels == [largest] and labelmap.array[2, 3, 4] == largest

    def test_nan_is_background(self, tmp_path):
        array = np.zeros(PLAIN.shape, np.float32)
        array[0, 0, 0], array[0, 0, 1] = np.nan, 2
        labelmap = read_labelmap(self.write(tmp_path, array))
        assert labelmap.labels == [2] and labelmap.non_finite == 1

    def test_empty(self, tmp_path):
        file = self.write(tmp_path, np.zeros(PLAIN.shape, np.uint8))
        assert refused(read_labelmap, file).code == "empty_segmentation"
        assert read_labelmap(file, empty_ok=True).labels == []

    @pytest.mark.parametrize("value", [0.5, -1.0, 2.0**40])
    def test_values_that_are_no_labels(self, tmp_path, value):
        array = np.zeros(PLAIN.shape, np.float64)
        array[1, 1, 1] = value
        assert refused(read_labelmap, self.write(tmp_path, array)).code == "not_integral"

    def test_an_image_in_place_of_its_segmentation(self, tmp_path):
        geometry = Geometry((60, 50, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        array = np.arange(6000, dtype=np.uint16).reshape(geometry.shape)
        write_volume(tmp_path / "s.nrrd", array, geometry)
        assert "different values" in refused(read_labelmap, tmp_path / "s.nrrd").message
