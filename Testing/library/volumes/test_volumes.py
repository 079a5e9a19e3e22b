"""Volumes and labelmaps: read, written, and brought onto each other's grids."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    check_writable,
    labelmap_onto,
    read_labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.image_grid import placed

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
PLAIN = Geometry((7, 6, 5), (0.8, 1.2, 3.0), (-11.5, 20.25, 7.0), IDENTITY)
CUBE = Geometry((40, 30, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
# What a liver is, as 3D Slicer writes it into a segment's tags.
LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd")


def oblique_direction(degrees: tuple[float, float, float] = (20.0, -35.0, 10.0)) -> tuple:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return tuple(float(value) for value in matrix.ravel())


OBLIQUE = Geometry((7, 6, 5), (0.8, 1.2, 3.0), (-11.5, 20.25, 7.0), oblique_direction())


def random_labelmap(geometry: Geometry, seed: int = 0) -> Labelmap:
    values = np.random.default_rng(seed).integers(0, 4, geometry.shape)
    return Labelmap(values.astype(np.uint8), geometry)


def reoriented(labelmap: Labelmap, order: tuple[int, ...], flips: tuple[bool, ...]) -> Labelmap:
    """The same voxels at the same places, with permuted and flipped index axes."""
    old = labelmap.geometry
    array = labelmap.array.transpose(2, 1, 0).transpose(order)
    affine = old.affine[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
            array = np.flip(array, axis)
    spacing = tuple(old.spacing[axis] for axis in order)
    direction = (affine[:3, :3] / spacing).ravel()
    geometry = Geometry(array.shape, spacing, tuple(affine[:3, 3]), tuple(direction))
    return Labelmap(np.ascontiguousarray(array.transpose(2, 1, 0)), geometry)


def refused(action, *arguments, **named) -> InputError:
    """The InputError that a call raises, checked to be one clean line with a remedy."""
    with pytest.raises(InputError) as caught:
        action(*arguments, **named)
    text = str(caught.value)
    assert "\n" not in text and "ITK" not in text and "0x" not in text
    assert caught.value.remedy
    return caught.value


ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


class TestGeometry:
    def test_affine_takes_indices_to_the_places_that_itk_says(self):
        image = placed(sitk.GetImageFromArray(np.zeros(OBLIQUE.shape, np.uint8)), OBLIQUE)
        for index in [(0, 0, 0), (6, 0, 0), (1, 2, 3), (6, 5, 4)]:
            expected = image.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose((OBLIQUE.affine @ [*index, 1])[:3], expected, atol=1e-9)

    def test_same_as_forgives_rounding_but_not_a_shift(self):
        near = Geometry(PLAIN.size, PLAIN.spacing, (-11.5001, 20.25, 7.0), IDENTITY)
        shifted = Geometry(PLAIN.size, PLAIN.spacing, (-11.4, 20.25, 7.0), IDENTITY)
        assert PLAIN.same_as(near)
        assert not PLAIN.same_as(shifted)
        assert not PLAIN.same_as(OBLIQUE)
        assert not PLAIN.same_as(Geometry((7, 6, 4), PLAIN.spacing, PLAIN.origin, IDENTITY))

    def test_spacing_counts_for_the_whole_extent(self):
        long = Geometry((1000, 6, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        wider = Geometry((1000, 6, 5), (1.0001, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        assert not long.same_as(wider)

    def test_voxel_volume(self):
        assert PLAIN.voxel_ml == pytest.approx(0.8 * 1.2 * 3.0 / 1000)


class TestLabelmapOnto:
    @pytest.mark.parametrize("base", [PLAIN, OBLIQUE], ids=["plain", "oblique"])
    def test_all_48_orientations_come_back_exactly(self, base):
        labelmap = random_labelmap(base)
        for order, flips in ORIENTATIONS:
            turned = reoriented(labelmap, order, flips)
            back = labelmap_onto(turned, base)
            np.testing.assert_array_equal(back.array, labelmap.array, err_msg=f"{order} {flips}")
            forth = labelmap_onto(labelmap, turned.geometry)
            np.testing.assert_array_equal(forth.array, turned.array, err_msg=f"{order} {flips}")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_orientations_survive_every_format(self, tmp_path, suffix):
        labelmap = random_labelmap(OBLIQUE)
        for number, (order, flips) in enumerate(ORIENTATIONS[::5]):
            turned = reoriented(labelmap, order, flips)
            file = tmp_path / f"{number}{suffix}"
            write_labelmap(file, turned)
            read = read_labelmap(file)
            assert read.geometry.same_as(turned.geometry)
            np.testing.assert_array_equal(read.array, turned.array)
            np.testing.assert_array_equal(labelmap_onto(read, OBLIQUE).array, labelmap.array)

    @pytest.mark.parametrize("order, flips", ORIENTATIONS[::7])
    def test_part_of_a_grid_keeps_its_place(self, order, flips):
        whole = random_labelmap(OBLIQUE)
        start = (2, 1, 1)
        origin = tuple((OBLIQUE.affine @ [*start, 1])[:3])
        geometry = Geometry((4, 3, 2), OBLIQUE.spacing, origin, OBLIQUE.direction)
        part = Labelmap(whole.array[1:3, 1:4, 2:6].copy(), geometry)
        padded = labelmap_onto(reoriented(part, order, flips), OBLIQUE).array
        expected = np.zeros_like(whole.array)
        expected[1:3, 1:4, 2:6] = part.array
        np.testing.assert_array_equal(padded, expected)
        np.testing.assert_array_equal(
            labelmap_onto(reoriented(whole, order, flips), geometry).array, part.array
        )

    def test_finer_and_turned_grids_sample_the_nearest_voxel(self):
        labelmap = random_labelmap(PLAIN)
        target = Geometry((9, 9, 9), (0.7, 0.9, 1.1), (-11.2, 20.4, 7.3), oblique_direction())
        found = labelmap_onto(labelmap, target)
        to_source = np.linalg.inv(PLAIN.affine) @ target.affine
        for k, j, i in np.ndindex(target.shape):
            source = to_source @ [i, j, k, 1]
            nearest = np.floor(source[:3] + 0.5).astype(int)
            if np.abs(np.abs(source[:3] - np.rint(source[:3])) - 0.5).min() < 1e-6:
                continue
            inside = (nearest >= 0).all() and (nearest < PLAIN.size).all()
            expected = labelmap.array[nearest[2], nearest[1], nearest[0]] if inside else 0
            assert found.array[k, j, i] == expected

    def test_names_and_type_are_kept(self):
        labelmap = Labelmap(
            np.full(PLAIN.shape, 300, np.uint16), PLAIN, {300: "liver"}, {300: (1.0, 0.0, 0.0)}
        )
        target = reoriented(labelmap, (2, 0, 1), (True, False, True)).geometry
        found = labelmap_onto(labelmap, target)
        assert found.names == {300: "liver"} and found.colours == {300: (1.0, 0.0, 0.0)}
        assert found.array.dtype == np.uint16 and found.labels == [300]

    @pytest.mark.parametrize("direction", [IDENTITY, oblique_direction()])
    def test_elsewhere_is_refused(self, direction):
        far = Geometry(PLAIN.size, PLAIN.spacing, (500.0, 0.0, 0.0), direction)
        error = refused(labelmap_onto, random_labelmap(far), PLAIN)
        assert error.code == "no_overlap" and "nowhere over" in error.message

    def test_labels_outside_of_the_volume_are_refused(self):
        array = np.zeros(PLAIN.shape, np.uint8)
        array[0] = 1
        upper = Geometry(
            (7, 6, 2), PLAIN.spacing, tuple((PLAIN.affine @ [0, 0, 3, 1])[:3]), IDENTITY
        )
        assert refused(labelmap_onto, Labelmap(array, PLAIN), upper).code == "no_overlap"

    def test_an_empty_prediction_over_the_volume_stays_empty(self):
        empty = Labelmap(np.zeros(OBLIQUE.shape, np.uint8), OBLIQUE)
        assert labelmap_onto(empty, PLAIN).labels == []
        assert labelmap_onto(empty, PLAIN).array.shape == PLAIN.shape


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
        assert error.code == "not_3d" and "4-D" in error.message

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
    def test_colour(self, tmp_path, suffix):
        array = np.zeros((*PLAIN.shape, 3), np.uint8)
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

    @pytest.mark.parametrize("largest, kind", [(3, "u1"), (300, "u2"), (70_000, "i4")])
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


class TestWriting:
    @pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd"])
    def test_names_and_colours_survive_in_nrrd(self, tmp_path, suffix):
        names = {1: "Leber links", 2: "肝臓 & Rippe", 3: "no\nbreak"}
        colours = {1: (0.5, 0.25, 1.0), 2: (0.0, 0.0, 0.0)}
        source = random_labelmap(PLAIN)
        write_labelmap(tmp_path / f"s{suffix}", Labelmap(source.array, PLAIN, names, colours))
        read = read_labelmap(tmp_path / f"s{suffix}")
        assert read.names == {**names, 3: "no break"}
        assert {label: read.colours[label] for label in colours} == colours
        np.testing.assert_array_equal(read.array, source.array)

    @pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd"])
    def test_terms_survive_in_nrrd(self, tmp_path, suffix):
        source = random_labelmap(PLAIN)
        written = replace(source, terminologies={1: LIVER, 3: "not | a\nterm"})
        write_labelmap(tmp_path / f"s{suffix}", written)
        read = read_labelmap(tmp_path / f"s{suffix}")
        assert read.terminologies == {1: LIVER, 3: "not a term"}
        write_labelmap(tmp_path / "again.seg.nrrd", read)
        assert read_labelmap(tmp_path / "again.seg.nrrd").terminologies == read.terminologies

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            (f"TerminologyEntry:{LIVER}|Segmentation.Status:completed|", {7: LIVER}),
            (f"Segmentation.Status:inprogress|TerminologyEntry:{LIVER}|", {7: LIVER}),
            (f"TerminologyEntry:{LIVER}", {7: LIVER}),
            ("Segmentation.Status:inprogress|", {}),
            ("TerminologyEntry:|", {}),
            ("My.TerminologyEntry:a|", {}),
            ("TerminologyEntry", {}),
            ("|||:|", {}),
        ],
    )
    def test_tags_as_slicer_may_write_them(self, tmp_path, tags, expected):
        array = np.zeros(PLAIN.shape, np.uint8)
        array[1, 2, 3] = 7
        write_labelmap(tmp_path / "s.seg.nrrd", Labelmap(array, PLAIN, {7: "liver"}))
        content = (tmp_path / "s.seg.nrrd").read_bytes()
        assert content.count(b"Segment0_Tags:=|") == 1
        content = content.replace(b"Segment0_Tags:=|", f"Segment0_Tags:={tags}".encode())
        (tmp_path / "s.seg.nrrd").write_bytes(content)
        read = read_labelmap(tmp_path / "s.seg.nrrd")
        assert read.terminologies == expected and read.names == {7: "liver"}

    def test_terms_stay_with_their_labels_on_another_grid(self):
        source = replace(random_labelmap(PLAIN), terminologies={2: LIVER})
        flipped = reoriented(source, (0, 1, 2), (True, False, False)).geometry
        assert labelmap_onto(source, flipped).terminologies == {2: LIVER}

    @pytest.mark.parametrize("suffix", [".seg.nrrd", ".nrrd", ".mha"])
    def test_uncompressed_files_hold_plain_voxels(self, tmp_path, suffix):
        labelmap = Labelmap(np.zeros((20, 30, 40), np.uint8), CUBE)
        labelmap.array[3, 4, 5] = 1
        plain, packed = tmp_path / f"plain{suffix}", tmp_path / f"packed{suffix}"
        write_labelmap(plain, labelmap, compress=False)
        write_labelmap(packed, labelmap)
        assert plain.stat().st_size >= 24000 > packed.stat().st_size
        if suffix != ".mha":
            assert b"encoding: raw" in plain.read_bytes()[:4000]
        np.testing.assert_array_equal(read_labelmap(plain).array, labelmap.array)
        write_volume(plain, labelmap.array.astype(np.float32), CUBE, compress=False)
        assert plain.stat().st_size >= 96000

    def test_the_header_is_the_one_that_slicer_reads(self, tmp_path):
        array = np.zeros(PLAIN.shape, np.uint8)
        array[1:3, 2:5, 4] = 7
        write_labelmap(tmp_path / "s.seg.nrrd", Labelmap(array, PLAIN, {7: "tumour"}))
        header = (tmp_path / "s.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
        for line in (
            "Segment0_LabelValue:=7",
            "Segment0_Name:=tumour",
            "Segment0_Layer:=0",
            "Segment0_Extent:=4 4 2 4 1 2",
        ):
            assert line in header
        assert "Segment1_" not in header

    def test_segments_of_slicer_without_a_label_value(self, tmp_path):
        image = sitk.GetImageFromArray(np.ones(PLAIN.shape, np.uint8))
        image.SetMetaData("Segment0_Name", "old")
        image.SetMetaData("Segment0_Color", "1 0.5 0")
        sitk.WriteImage(image, tmp_path / "s.seg.nrrd")
        labelmap = read_labelmap(tmp_path / "s.seg.nrrd")
        assert labelmap.names == {1: "old"} and labelmap.colours == {1: (1.0, 0.5, 0.0)}

    def test_an_older_file_is_replaced(self, tmp_path):
        write_labelmap(tmp_path / "s.nrrd", random_labelmap(PLAIN, 0))
        write_labelmap(tmp_path / "s.nrrd", random_labelmap(PLAIN, 1))
        found = read_labelmap(tmp_path / "s.nrrd").array
        np.testing.assert_array_equal(found, random_labelmap(PLAIN, 1).array)
        assert [path.name for path in tmp_path.iterdir()] == ["s.nrrd"]

    def test_masks_and_half_precision_are_stored(self, tmp_path):
        mask = random_labelmap(PLAIN).array > 1
        write_volume(tmp_path / "m.nii.gz", mask, PLAIN)
        assert read_volume(tmp_path / "m.nii.gz").array.dtype == np.uint8
        write_volume(tmp_path / "h.nii.gz", mask.astype(np.float16), PLAIN)
        np.testing.assert_array_equal(read_volume(tmp_path / "h.nii.gz").array, mask)

    def test_an_array_of_another_shape_is_a_mistake_of_the_caller(self, tmp_path):
        with pytest.raises(ValueError, match="does not fit"):
            write_volume(tmp_path / "v.nii", np.zeros((2, 2, 2)), PLAIN)
        with pytest.raises(ValueError, match="does not fit"):
            Labelmap(np.zeros((2, 2, 2), np.uint8), PLAIN)

    @pytest.mark.parametrize("name", ["v.png", "v", "v.nii.zip"])
    def test_unknown_formats(self, tmp_path, name):
        assert refused(check_writable, tmp_path / name).code == "unknown_format"
        assert not list(tmp_path.iterdir())

    def test_places_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "folder.nrrd").mkdir()
        for place in (
            tmp_path / "file" / "v.nrrd",
            tmp_path / "file" / "deeper" / "v.nrrd",
            tmp_path / "folder.nrrd",
            tmp_path / ("long" * 100 + ".nrrd"),
        ):
            assert refused(check_writable, place).code == "unwritable"
            error = refused(write_labelmap, place, random_labelmap(PLAIN))
            assert error.code == "unwritable"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.nrrd"]

    @pytest.mark.skipif(
        os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
        reason="the rights of a folder do not bind this user",
    )
    def test_a_folder_without_the_right_to_write(self, tmp_path):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        error = refused(write_labelmap, folder / "v.nrrd", random_labelmap(PLAIN))
        assert error.code == "unwritable"

    @pytest.mark.skipif(os.name == "nt", reason="file size limits are a matter of POSIX")
    def test_a_disk_that_fills_up_leaves_the_older_file(self, tmp_path):
        script = """
import resource, signal, sys
import numpy as np
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import Geometry, write_volume
folder = sys.argv[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
geometry = Geometry((40, 30, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
noise = np.random.default_rng(0).random(geometry.shape)
for suffix in sys.argv[2:]:
    write_volume(f"{folder}/v{suffix}", np.zeros(geometry.shape, np.uint8), geometry)
    try:
        write_volume(f"{folder}/v{suffix}", noise, geometry)
    except InputError as error:
        assert error.code in ("unwritable", "no_space"), error
        print("refused", suffix)
"""
        # Plain .nii would not even hold the zeros within the limit.
        suffixes = [suffix for suffix in SUFFIXES if suffix != ".nii"]
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), *suffixes],
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parents[3],
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [word for s in suffixes for word in ("refused", s)]
        for suffix in suffixes:
            assert not read_volume(tmp_path / f"v{suffix}").array.any()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def test_reading_and_writing_need_no_torch(self):
        code = (
            "import sys, SAMFineTuneLib.volumes; "
            "assert not {'torch', 'monai', 'scipy'} & set(sys.modules)"
        )
        root = Path(__file__).resolve().parents[3]
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


class TestRealImages:
    def test_dicom_series_with_labels_on_a_flipped_grid(self, shared_data):
        folder = shared_data / "ct_pelvis_dicom"
        volume = read_volume(folder / "series")
        source = read_labelmap(folder / "organs.nii.gz")
        labelmap = labelmap_onto(source, volume.geometry)
        assert volume.modality == "CT" and volume.array.shape == (20, 512, 512)
        assert volume.geometry.spacing == pytest.approx((0.9765625, 0.9765625, 2.0))
        np.testing.assert_array_equal(labelmap.array, source.array[:, ::-1])
        # Hounsfield units of liver, spleen and bone tell that the labels lie on their organs.
        mean = {n: volume.array[labelmap.array == n].mean() for n in (1, 5, 69)}
        assert 40 < mean[5] < 120 and 40 < mean[1] < 140 and mean[69] > 200
        assert volume.array[labelmap.array == 5].std() < 40

    @pytest.mark.parametrize("run", [1, 2, 3, 4])
    def test_oblique_stacks_with_labels_as_floating_point(self, shared_data, run):
        folder = shared_data / "fetal_brain_mr_oblique"
        volume = read_volume(folder / f"run{run}.nii.gz")
        source = read_labelmap(folder / f"run{run}_brain.nii.gz")
        assert source.labels == [1] and source.array.dtype == np.uint8
        np.testing.assert_array_equal(labelmap_onto(source, volume.geometry).array, source.array)

    def test_oblique_stacks_of_one_brain_lie_over_each_other(self, shared_data):
        folder = shared_data / "fetal_brain_mr_oblique"
        brains = [read_labelmap(folder / f"run{run}_brain.nii.gz") for run in (1, 3)]
        moved = labelmap_onto(brains[1], brains[0].geometry)
        both = np.count_nonzero((moved.array > 0) & (brains[0].array > 0))
        smaller = min(np.count_nonzero(moved.array), np.count_nonzero(brains[0].array))
        assert both > 0.75 * smaller
        volume_ml = [np.count_nonzero(b.array) * b.geometry.voxel_ml for b in (moved, brains[1])]
        assert volume_ml[0] == pytest.approx(volume_ml[1], rel=0.1)

    @pytest.mark.parametrize(
        "name, labels", [("liver", [1]), ("spine", [2]), ("liver_spine", [1, 2])]
    )
    def test_three_slices_with_labels_counted_from_the_other_end(self, shared_data, name, labels):
        folder = shared_data / "ct_3slice_dicom_seg"
        volume = read_volume(folder / "series")
        source = read_labelmap(folder / f"{name}_seg.nrrd")
        moved = labelmap_onto(source, volume.geometry)
        assert moved.labels == labels
        step = round(
            (source.geometry.origin[2] - volume.geometry.origin[2]) * volume.geometry.direction[8]
        )
        assert step == 0 or abs(step) == 2
        expected = source.array if step == 0 else source.array[::-1]
        np.testing.assert_array_equal(moved.array, expected)

    def test_dicom_segmentation_objects_are_named_as_such(self, shared_data):
        error = refused(read_volume, shared_data / "ct_3slice_dicom_seg" / "liver.dcm")
        assert "segmentation (SEG), not an image" in error.message
        assert "as its segmentation" in error.remedy

    def test_segmentation_objects_beside_a_series_do_not_count(self, shared_data, tmp_path):
        folder = shared_data / "ct_3slice_dicom_seg"
        for file in [*(folder / "series").iterdir(), folder / "liver.dcm"]:
            shutil.copy(file, tmp_path)
        assert read_volume(tmp_path).array.shape == (3, 512, 512)

    def test_the_folder_above_a_series_will_do(self, shared_data):
        assert read_volume(shared_data / "ct_pelvis_dicom").array.shape == (20, 512, 512)

    def test_one_dicom_file_is_a_volume_of_one_slice(self, shared_data):
        file = shared_data / "ct_3slice_dicom_seg" / "series" / "02.dcm"
        volume = read_volume(file)
        assert volume.array.shape == (1, 512, 512) and volume.modality == "CT"

    def test_several_series_are_named(self, shared_data, tmp_path):
        for folder in ("ct_3slice_dicom_seg", "ct_pelvis_dicom"):
            for file in (shared_data / folder / "series").iterdir():
                shutil.copy(file, tmp_path)
        error = refused(read_volume, tmp_path)
        assert error.code == "several_series" and "(3 files)" in error.message

    def test_a_missing_slice_is_noticed(self, shared_data, tmp_path):
        for file in sorted((shared_data / "ct_pelvis_dicom" / "series").iterdir()):
            if not file.name.endswith("16580"):
                shutil.copy(file, tmp_path)
        error = refused(read_volume, tmp_path)
        assert error.code == "uneven_slices" and "4.00 mm" in error.message

    def test_a_slice_that_is_there_twice_is_noticed(self, shared_data, tmp_path):
        for file in (shared_data / "ct_3slice_dicom_seg" / "series").iterdir():
            shutil.copy(file, tmp_path)
        shutil.copy(tmp_path / "02.dcm", tmp_path / "04.dcm")
        assert refused(read_volume, tmp_path).code == "not_3d"

    def test_a_damaged_slice_is_noticed(self, shared_data, tmp_path, capfd):
        files = sorted((shared_data / "ct_pelvis_dicom" / "series").iterdir())
        for file in files[:4]:
            shutil.copy(file, tmp_path)
        content = files[2].read_bytes()
        (tmp_path / files[2].name).write_bytes(content[: len(content) // 2])
        assert refused(read_volume, tmp_path).code in ("damaged_image", "uneven_slices")
        assert capfd.readouterr() == ("", "")

    def test_every_other_image_and_its_labels(self, shared_data):
        pairs = [
            ("ct_abdomen_3mm/ct.nii.gz", "ct_abdomen_3mm/organs.nii.gz"),
            ("brain_tumour_mr/image.nrrd", "brain_tumour_mr/tumour.nrrd"),
        ]
        for name in sorted(path.name for path in (shared_data / "hippocampus_mr/images").iterdir()):
            pairs.append((f"hippocampus_mr/images/{name}", f"hippocampus_mr/labels/{name}"))
        for number in range(1, 9):
            stem = f"sarcoma_mr/STS_{number:03}"
            pairs.append((f"{stem}.nii.gz", f"{stem}_tumour.nii.gz"))
        for image, labels in pairs:
            volume, source = read_volume(shared_data / image), read_labelmap(shared_data / labels)
            moved = labelmap_onto(source, volume.geometry)
            assert moved.array.shape == volume.array.shape, image
            np.testing.assert_array_equal(moved.array, source.array, err_msg=image)
            assert moved.labels and volume.non_finite == 0
