"""Shape interpolation: the figure that any model has to be compared with."""

from __future__ import annotations

import numpy as np
import pytest

from SAMFineTuneLib.evaluation import evaluate
from SAMFineTuneLib.geometry.shape_interpolation import interpolate, signed_distance
from SAMFineTuneLib.volumes import Labelmap, read_labelmap


def disc(radius: float, centre: tuple[float, float] = (30, 30), size: int = 61) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def stack(slices: dict[int, np.ndarray], count: int = 11) -> np.ndarray:
    array = np.zeros((count, 61, 61), np.uint8)
    for number, mask in slices.items():
        array[number] = mask
    return array


def test_signed_distance_is_in_mm_and_changes_sign_at_the_outline():
    mask = np.zeros((9, 9), bool)
    mask[3:6, 2:7] = True
    distance = signed_distance(mask, (2.0, 0.5))
    assert (distance > 0).sum() == mask.sum() and ((distance > 0) == mask).all()
    assert distance[4, 4] == pytest.approx(1.5)
    assert distance[0, 4] == pytest.approx(-6.0)


def test_a_mask_that_fills_its_slice_ends_at_the_edge():
    distance = signed_distance(np.ones((5, 7), bool), (1.0, 1.0))
    assert distance[0, 0] == 1 and distance[2, 3] == 3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_radius_goes_linearly_between_labelled_slices(axis):
    array = stack({1: disc(5), 9: disc(21)})
    found = np.moveaxis(interpolate(np.moveaxis(array, 0, axis), axis, {1: [1, 9]}), axis, 0)
    for number in range(1, 10):
        radius = np.sqrt(found[number].sum() / np.pi)
        assert radius == pytest.approx(5 + 2 * (number - 1), abs=0.6)
    np.testing.assert_array_equal(found[[1, 9]], array[[1, 9]])
    assert not found[0].any() and not found[10].any()


def test_slices_that_are_not_named_are_not_looked_at():
    array = stack({1: disc(5), 5: disc(25), 9: disc(5)})
    found = interpolate(array, 0, {1: [1, 9]})
    np.testing.assert_array_equal(found[5], disc(5))


def test_labelled_slices_of_several_labels_stay_as_they_are():
    array = np.zeros((11, 61, 61), np.uint8)
    array[0], array[10] = disc(20) * 1, disc(20) * 1
    array[5] = disc(6, (30, 38)) * 2
    found = interpolate(array, 0, {1: [0, 10], 2: [5]})
    assert (found[5][array[5] == 2] == 2).all()
    assert (found[5] == 1).any() and not (found[4] == 2).any()


def test_two_labels_share_the_slices_between_without_overlap():
    array = np.zeros((11, 61, 61), np.uint16)
    for number in (0, 10):
        array[number][disc(12, (30, 18))] = 300
        array[number][disc(12, (30, 43))] = 2
    found = interpolate(array, 0, {300: [0, 10], 2: [0, 10]})
    assert found.dtype == np.uint16
    for number in range(11):
        np.testing.assert_array_equal(found[number], array[0])


def test_an_empty_labelled_slice_bounds_the_structure():
    found = interpolate(stack({0: disc(10), 8: disc(0) & False}), 0, {1: [0, 8]})
    assert found[0].any() and not found[4:].any()


def test_plane_spacing_is_the_one_of_the_other_axes():
    array = stack({0: disc(5), 4: disc(15)})
    even = interpolate(array, 0, {1: [0, 4]}, (9.0, 1.0, 1.0))
    stretched = interpolate(array, 0, {1: [0, 4]}, (9.0, 1.0, 5.0))
    np.testing.assert_array_equal(even, interpolate(array, 0, {1: [0, 4]}))
    assert not np.array_equal(even[2], stretched[2])


def test_five_slices_of_an_abdomen(shared_data):
    truth = read_labelmap(shared_data / "ct_abdomen_3mm" / "organs.nii.gz")
    labelled, hidden = {}, {}
    for label in (1, 2, 3, 5, 6, 20, 52, 63, 86, 87):
        inside = np.flatnonzero((truth.array == label).any(axis=(1, 2)))
        chosen = np.unique(np.rint(np.linspace(inside[0], inside[-1], 5)).astype(int)).tolist()
        labelled[label] = chosen
        hidden[label] = [n for n in range(inside[0], inside[-1] + 1) if n not in chosen]
    found = interpolate(truth.array, 0, labelled, truth.geometry.spacing[::-1])
    found = Labelmap(found, truth.geometry)
    scores = [evaluate(found, truth, [n], slices).mean_dsc for n, slices in hidden.items()]
    assert np.mean(scores) == pytest.approx(0.908, abs=0.005)
