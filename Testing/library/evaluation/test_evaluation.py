"""DSC and NSD against figures worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.evaluation import dice, evaluate, hausdorff_95, surface_dice
from SAMFineTuneLib.volumes import Geometry, Labelmap, labelmap_onto, read_labelmap, read_volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((20, 18, 16), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0), IDENTITY)


def boxes(geometry: Geometry = GRID, **labelled: tuple[slice, slice, slice]) -> Labelmap:
    array = np.zeros(geometry.shape, np.uint8)
    for name, box in labelled.items():
        array[box] = int(name.removeprefix("l"))
    return Labelmap(array, geometry)


def cube(k: int = 4, j: int = 4, i: int = 4, edge: int = 6) -> tuple[slice, slice, slice]:
    return slice(k, k + edge), slice(j, j + edge), slice(i, i + edge)


def plain_surface_dice(one, other, spacing, tolerance):
    """NSD by its definition: boundary voxels within the tolerance, of all boundary voxels."""
    one, other = np.pad(one, 1), np.pad(other, 1)
    edges = [mask & ~binary_erosion(mask) for mask in (one, other)]
    far = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    near = (far[1][edges[0]] <= tolerance).sum() + (far[0][edges[1]] <= tolerance).sum()
    return near / (edges[0].sum() + edges[1].sum())


class TestDice:
    def test_by_hand(self):
        one, other = np.zeros((2, 10, 10), bool), np.zeros((2, 10, 10), bool)
        one[0, :4, :5], other[0, 2:6, :5] = True, True
        assert dice(one, other) == pytest.approx(2 * 10 / (20 + 20))

    def test_empty_masks(self):
        empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
        assert dice(empty, empty) is None
        assert dice(empty, full) == 0 == dice(full, empty)
        assert dice(full, full) == 1

    def test_is_the_formula_on_noise(self):
        generator = np.random.default_rng(0)
        one, other = generator.random((2, 9, 9, 9)) > 0.6
        expected = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert dice(one, other) == pytest.approx(expected, abs=1e-6)


def plain_hausdorff_95(one, other, spacing):
    """HD95 by its definition: percentiles of the distances from boundary to boundary."""
    one, other = np.pad(one, 1), np.pad(other, 1)
    edges = [mask & ~binary_erosion(mask) for mask in (one, other)]
    far = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return max(np.percentile(far[1][edges[0]], 95), np.percentile(far[0][edges[1]], 95))


class TestHausdorff95:
    def test_by_hand(self):
        one, other = np.zeros((2, 12, 30), bool)
        one[2:8, 3:9] = True
        other[2:8, 7:13] = True
        assert hausdorff_95(one, other, (1.0, 1.5)) == pytest.approx(4 * 1.5)
        assert hausdorff_95(one, one, (1.0, 1.5)) == 0

    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.5)])
    def test_is_the_definition_on_blobs(self, spacing):
        generator = np.random.default_rng(1)
        one, other = gaussian_filter(generator.random((2, 9, 20, 20)), (0, 2, 2, 2)) > 0.5
        assert hausdorff_95(one, other, spacing) == pytest.approx(
            plain_hausdorff_95(one, other, spacing), rel=1e-4
        )

    def test_an_outlying_voxel_hardly_counts(self):
        one = np.zeros((10, 40, 40), bool)
        one[3:7, 5:20, 5:20] = True
        other = one.copy()
        other[5, 38, 38] = True
        assert hausdorff_95(other, one, (1.0, 1.0, 1.0)) < 1

    def test_an_empty_mask_has_no_distance(self):
        empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
        assert hausdorff_95(empty, full, (1.0, 1.0, 1.0)) is None
        assert hausdorff_95(full, empty, (1.0, 1.0, 1.0)) is None
        assert hausdorff_95(empty, empty, (1.0, 1.0, 1.0)) is None


class TestSurfaceDice:
    @pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 3.0, 4.5])
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.5)])
    def test_is_the_definition(self, tolerance, spacing):
        one, other = np.zeros((2, 16, 18, 20), bool)
        one[cube()], other[cube(5, 6, 3, 7)] = True, True
        expected = plain_surface_dice(one, other, spacing, tolerance)
        assert surface_dice(one, other, spacing, tolerance) == pytest.approx(expected, abs=1e-6)

    def test_spacing_is_that_of_its_own_axis(self):
        one, other = np.zeros((2, 16, 18, 20), bool)
        one[cube(k=4)], other[cube(k=5)] = True, True
        assert surface_dice(one, other, (1.0, 1.0, 1.0), 2.0) == 1
        assert surface_dice(one, other, (3.0, 1.0, 1.0), 2.0) < 1
        assert surface_dice(one, other, (1.0, 3.0, 3.0), 2.0) == 1

    def test_the_edge_of_the_image_is_a_boundary(self):
        one, other = np.zeros((2, 12, 12), bool)
        one[:, :6], other[:, :6] = True, True
        one[0:2] = False
        expected = plain_surface_dice(one, other, (1.0, 1.0), 1.0)
        assert surface_dice(one, other, (1.0, 1.0), 1.0) == pytest.approx(expected, abs=1e-6)

    def test_empty_masks(self):
        empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
        assert surface_dice(empty, empty, (1.0, 1.0), 2.0) is None
        assert surface_dice(empty, full, (1.0, 1.0), 2.0) == 0
        assert surface_dice(full, empty, (1.0, 1.0), 2.0) == 0


class TestWholeVolumes:
    def test_every_label_and_the_mean(self):
        reference = boxes(l1=cube(1, 1, 1), l2=cube(8, 10, 12))
        prediction = boxes(l1=cube(1, 1, 1), l2=cube(8, 10, 13))
        report = evaluate(prediction, reference)
        assert [row.label for row in report.labels] == [1, 2]
        assert report.labels[0].dsc == 1 and report.labels[0].nsd == 1
        assert report.labels[1].dsc == pytest.approx(5 / 6)
        assert report.labels[1].iou == pytest.approx(5 / 7)
        assert [row.hd95_mm for row in report.labels] == [0, pytest.approx(1)]
        assert report.mean_dsc == pytest.approx((1 + 5 / 6) / 2)
        assert report.mean_iou == pytest.approx((1 + 5 / 7) / 2)
        assert report.mean_hd95_mm == pytest.approx(0.5)
        assert report.mean_nsd == pytest.approx((1 + report.labels[1].nsd) / 2)
        assert report.labels[0].reference_ml == pytest.approx(216 * 3 / 1000)
        assert (report.axis, report.slices, report.resampled) == (None, None, False)

    def test_absent_labels(self):
        reference = boxes(l1=cube(1, 1, 1), l2=cube(8, 10, 12))
        prediction = boxes(l1=cube(1, 1, 1), l3=cube(8, 10, 12))
        report = evaluate(prediction, reference, labels=[1, 2, 3, 4])
        assert [row.dsc for row in report.labels] == [1, 0, 0, None]
        assert [row.nsd for row in report.labels] == [1, 0, 0, None]
        assert [row.iou for row in report.labels] == [1, 0, 0, None]
        # A label that is in one of the two alone is at no distance.
        assert [row.hd95_mm for row in report.labels] == [0, None, None, None]
        assert report.empty_labels == 1
        assert report.mean_dsc == pytest.approx(1 / 3)
        assert [row.label for row in evaluate(prediction, reference).labels] == [1, 2, 3]

    def test_nothing_in_either(self):
        empty = Labelmap(np.zeros(GRID.shape, np.uint8), GRID)
        report = evaluate(empty, empty, labels=[1])
        assert report.mean_dsc is None and report.mean_nsd is None and report.empty_labels == 1
        assert report.mean_iou is None and report.mean_hd95_mm is None

    def test_an_empty_prediction_scores_nought(self):
        empty = Labelmap(np.zeros(GRID.shape, np.uint8), GRID)
        report = evaluate(empty, boxes(l1=cube()))
        assert report.mean_dsc == 0 == report.mean_nsd

    def test_a_prediction_on_a_flipped_grid(self):
        reference = boxes(l1=cube(1, 2, 3), l2=cube(8, 10, 12))
        flipped = Geometry(
            GRID.size, GRID.spacing, (0.0, 17.0, 0.0), (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)
        )
        prediction = Labelmap(np.ascontiguousarray(reference.array[:, ::-1]), flipped)
        report = evaluate(prediction, reference)
        assert report.resampled and report.mean_dsc == 1 and report.mean_nsd == 1

    def test_names_and_json(self):
        reference = Labelmap(boxes(l1=cube()).array, GRID, {1: "Milz"})
        report = evaluate(boxes(l1=cube()), reference, labels=[1, 9], tolerance_mm=1)
        found = json.loads(json.dumps(report.to_json()))
        assert found["labels"][0]["name"] == "Milz" and found["labels"][0]["dsc"] == 1
        assert found["labels"][1]["dsc"] is None and found["labels"][1]["name"] == ""
        assert found["tolerance_mm"] == 1 and found["slices"] is None


class TestOneSlice:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_volume_of_one_slice_is_measured_in_its_plane(self, axis):
        """A square of 10 x 10, shifted by three pixels: 14 of its 36 outline pixels are 3 away."""
        reference, prediction = np.zeros((2, 20, 24), np.uint8)
        reference[5:15, 4:14], prediction[5:15, 7:17] = 1, 1
        for spacing, nsd, distance in ((1.0, 22 / 36, 3.0), (0.5, 1.0, 1.5)):
            one, other = (np.expand_dims(each, axis) for each in (prediction, reference))
            grid = Geometry(one.shape[::-1], (spacing,) * 3, (0, 0, 0), GRID.direction)
            report = evaluate(Labelmap(one, grid), Labelmap(other, grid))
            assert report.mean_nsd == pytest.approx(nsd)
            assert report.mean_hd95_mm == pytest.approx(distance)
            assert report.mean_dsc == pytest.approx(0.7) and report.slices is None


class TestChosenSlices:
    def test_dsc_is_pooled_and_nsd_is_the_mean_over_slices(self):
        reference, prediction = boxes(l1=cube(4, 4, 4)), boxes(l1=cube(4, 4, 5))
        prediction.array[5] = 0
        report = evaluate(prediction, reference, slices=[4, 5, 6, 15])
        one, other = prediction.array[[4, 5, 6, 15]] == 1, reference.array[[4, 5, 6, 15]] == 1
        assert report.labels[0].dsc == pytest.approx(
            2 * (one & other).sum() / (one.sum() + other.sum())
        )
        plane = plain_surface_dice(one[0], other[0], (1.0, 1.0), 2.0)
        assert report.labels[0].nsd == pytest.approx((plane + 0 + plane) / 3)
        assert report.labels[0].hd95_mm == pytest.approx(1)
        assert report.slices == (4, 5, 6, 15) and report.axis == "axial"

    def test_spacing_of_the_plane_is_used(self):
        reference, prediction = boxes(l1=cube(4, 4, 4)), boxes(l1=cube(5, 4, 4))
        across = evaluate(prediction, reference, slices=[6], axis="sagittal", tolerance_mm=2.0)
        one, other = prediction.array[:, :, 6] == 1, reference.array[:, :, 6] == 1
        expected = plain_surface_dice(one, other, (3.0, 1.0), 2.0)
        assert across.mean_nsd == pytest.approx(expected) and expected < 1

    @pytest.mark.parametrize(("axis", "number"), [("axial", 0), ("coronal", 1), ("sagittal", 2)])
    def test_axes(self, axis, number):
        generator = np.random.default_rng(0)
        one, other = (
            Labelmap(generator.integers(0, 2, GRID.shape).astype(np.uint8), GRID) for _ in range(2)
        )
        report = evaluate(one, other, slices=[3, 7], axis=axis)
        masks = [np.take(labelmap.array, [3, 7], axis=number) for labelmap in (one, other)]
        expected = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
        assert report.mean_dsc == pytest.approx(expected, abs=1e-6)

    def test_labels_are_those_of_the_slices(self):
        reference = boxes(l1=cube(1, 1, 1), l2=cube(8, 10, 12))
        report = evaluate(reference, reference, slices=[9, 8, 9])
        assert [row.label for row in report.labels] == [2] and report.slices == (8, 9)

    def test_empty_slices_alone(self):
        reference = boxes(l1=cube(4, 4, 4))
        report = evaluate(reference, reference, labels=[1], slices=[0, 15])
        assert report.labels[0].dsc is None and report.labels[0].nsd is None
        assert report.empty_labels == 1


class TestBadInput:
    def refused(self, *arguments, **named) -> InputError:
        with pytest.raises(InputError) as caught:
            evaluate(*arguments, **named)
        assert "\n" not in str(caught.value) and caught.value.remedy
        return caught.value

    @pytest.mark.parametrize("number", [-1, 16, 500])
    def test_slices_out_of_range(self, number):
        error = self.refused(boxes(l1=cube()), boxes(l1=cube()), slices=[3, number])
        assert str(number) in error.message and "0 to 15" in error.remedy

    def test_other_arguments(self):
        one = boxes(l1=cube())
        assert "oblique" in self.refused(one, one, slices=[1], axis="oblique").message
        assert "no slice" in self.refused(one, one, slices=[]).message
        assert "tolerance" in self.refused(one, one, tolerance_mm=-1).message
        assert "tolerance" in self.refused(one, one, tolerance_mm=float("nan")).message
        assert "0 is not a label" in self.refused(one, one, labels=[0]).message

    def test_a_prediction_elsewhere(self):
        far = Geometry(GRID.size, GRID.spacing, (900.0, 0.0, 0.0), IDENTITY)
        assert self.refused(boxes(far, l1=cube()), boxes(l1=cube())).code == "no_overlap"


def test_real_labels_on_the_grid_of_their_dicom_series(shared_data):
    folder = shared_data / "ct_pelvis_dicom"
    reference = read_labelmap(folder / "organs.nii.gz")
    prediction = labelmap_onto(reference, read_volume(folder / "series").geometry)
    report = evaluate(prediction, reference, labels=[1, 5])
    assert report.resampled and report.mean_dsc == 1 and report.mean_nsd == 1
