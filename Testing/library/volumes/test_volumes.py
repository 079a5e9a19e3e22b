"""Volumes and labelmaps brought onto each other's grids, and real images."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    labelmap_onto,
    read_labelmap,
    read_volume,
    write_labelmap,
)
from SAMFineTuneLib.volumes.image_grid import placed
from Testing.support.volume_geometries import (
    IDENTITY,
    OBLIQUE,
    ORIENTATIONS,
    PLAIN,
    SUFFIXES,
    oblique_direction,
    random_labelmap,
    refused,
    reoriented,
)


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

    @pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::7])
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
        ("name", "labels"), [("liver", [1]), ("spine", [2]), ("liver_spine", [1, 2])]
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
