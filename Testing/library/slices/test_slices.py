"""Volumes as slices: axes, the model's square, what is known, intensities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.axes import AXIS_NAMES, array_axis, axis_name
from SAMFineTuneLib.geometry.drawn_axis import widest_axis
from SAMFineTuneLib.slices.intensity import (
    IntensityNormalisation,
    IntensityWindow,
    VoxelSample,
    find_normalisation,
    sample_voxels,
)
from SAMFineTuneLib.slices.known_labels import known_labels
from SAMFineTuneLib.slices.pixels import network_pixels
from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack, drawn_instead, suggest_axis
from SAMFineTuneLib.volumes import Labelmap, Volume
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices

SHAPES = [(48, 48), (35, 51), (101, 122), (256, 25), (7, 200), (1, 9), (256, 256), (250, 255)]
SPACINGS = [(1.0, 1.0), (0.98, 0.98), (1.0, 6.5), (3.3, 1.1), (0.7, 0.71)]


@pytest.mark.parametrize("size", [256, 272, 512])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_comes_back_exactly_from_a_finer_square(
    shape: tuple[int, int], spacing: tuple[float, float], size: int
) -> None:
    fit = SquareFit(*shape, spacing, size)
    finer = fit.rows_on_square >= shape[0] and fit.columns_on_square >= shape[1]
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 60, shape))
    back = fit.mask_to_slice(fit.mask_to_square(mask))
    assert back.shape == mask.shape and back.dtype == mask.dtype
    assert torch.equal(back, mask) or not finer
    # A square that is coarser than the slice loses pixels, but moves none by more than its own.
    assert set(back.unique().tolist()) <= set(mask.unique().tolist())


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_slice_keeps_its_proportions_and_fills_the_longer_side(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    fit = SquareFit(*shape, spacing, 256)
    covered = (fit.rows_on_square, fit.columns_on_square)
    millimetres = (shape[0] * spacing[0], shape[1] * spacing[1])
    assert max(covered) == 256
    expected = 256 * min(millimetres) / max(millimetres)
    assert abs(min(covered) - max(1.0, expected)) <= 0.5


def test_the_square_beyond_the_slice_is_background() -> None:
    image = torch.arange(20.0).reshape(4, 5) + 7
    fit = SquareFit(4, 5, (1.0, 6.5), 256)
    square = fit.image_to_square(image)
    rows = fit.rows_on_square
    assert rows < 64 and fit.columns_on_square == 256
    assert torch.all(square[rows + rows // 4 :] == 7)
    assert torch.all(fit.mask_to_square(torch.ones(4, 5, dtype=torch.uint8))[:rows] == 1)
    assert torch.all(fit.mask_to_square(torch.ones(4, 5, dtype=torch.uint8))[rows:] == 0)
    assert square[:rows].max() == pytest.approx(26, abs=0.5)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((100, 120), (1.0, 1.0)),
        ((100, 120), (1.0, 2.5)),
        ((256, 25), (1.0, 6.5)),
        ((60, 200), (3.3, 1.1)),
    ],
)
def test_logits_put_a_blob_where_it_was(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    """To the square, through a decoder's grid of a quarter, and back onto the slice's pixels."""
    row, column = shape[0] * 0.7, shape[1] * 0.3
    y, x = np.mgrid[: shape[0], : shape[1]]
    # Round in millimetres, so long in pixels where pixels are anisotropic.
    distance = np.hypot((y - row) * spacing[0], (x - column) * spacing[1])
    sides = (shape[0] * spacing[0], shape[1] * spacing[1])
    blob = torch.from_numpy(np.exp(-((distance / (0.15 * min(sides))) ** 2))).float()
    fit = SquareFit(*shape, spacing, 256)
    square = fit.image_to_square(blob)[None, None]
    logits = functional.interpolate(square, (64, 64), mode="area")
    back = fit.logits_to_slice(torch.cat([logits, -logits], dim=1))
    assert back.shape == (1, 2, *shape)
    assert torch.allclose(back[0, 0], -back[0, 1])
    found = back[0, 0].clamp_min(0).numpy()
    centre = [(found * grid).sum() / found.sum() for grid in (y, x)]
    before = [(blob.numpy() * grid).sum() / blob.numpy().sum() for grid in (y, x)]
    # Within a third of a pixel of the decoder's grid, in millimetres.
    grid_mm = max(sides) / 64
    assert abs(centre[0] - before[0]) * spacing[0] < grid_mm / 3
    assert abs(centre[1] - before[1]) * spacing[1] < grid_mm / 3
    assert np.abs(found - blob.numpy()).max() < 0.25


def test_logits_of_a_batch_do_not_mix() -> None:
    logits = torch.zeros(3, 2, 64, 64)
    logits[1, 1, 10:20, 30:40] = 5
    back = SquareFit(64, 64, (1.0, 1.0), 256).logits_to_slice(logits)
    assert back[0].abs().max() == 0 and back[2].abs().max() == 0
    assert torch.allclose(back[1], logits[1], atol=1e-5)


def rotation(degrees: float, about: int) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(3)
    first, second = [each for each in range(3) if each != about]
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_axes_of_flipped_and_permuted_volumes(
    order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    direction = np.zeros((3, 3))
    for index_axis, patient_axis in enumerate(order):
        direction[patient_axis, index_axis] = signs[index_axis]
    geometry = geometry_of((4, 5, 6), direction=tuple(direction.ravel()))
    # Sagittal slices are stacked along L, coronal ones along P, axial ones along S.
    for patient_axis, name in enumerate(("sagittal", "coronal", "axial")):
        assert array_axis(geometry, name) == 2 - order.index(patient_axis)
        assert axis_name(geometry, array_axis(geometry, name)) == name


@pytest.mark.parametrize("tilt", [20.0, 40.0, 50.0, 70.0])
def test_an_oblique_volume_uses_each_name_once(tilt: float) -> None:
    turn = rotation(tilt, 0) @ rotation(tilt / 2, 2)
    geometry = geometry_of((4, 5, 6), direction=tuple(turn.ravel()))
    assert {array_axis(geometry, name) for name in AXIS_NAMES} == {0, 1, 2}


def test_a_tilted_gantry_stays_axial_and_a_steep_one_becomes_coronal() -> None:
    slight = geometry_of((4, 5, 6), direction=tuple(rotation(30, 0).ravel()))
    steep = geometry_of((4, 5, 6), direction=tuple(rotation(60, 0).ravel()))
    assert array_axis(slight, "axial") == 0 and array_axis(slight, "coronal") == 1
    assert array_axis(steep, "axial") == 1 and array_axis(steep, "coronal") == 0


def test_real_oblique_stacks_are_cut_along_their_thick_slices(shared_data) -> None:  # type: ignore[no-untyped-def]
    from SAMFineTuneLib.volumes import read_labelmap

    for run in range(1, 5):
        labelmap = read_labelmap(shared_data / "fetal_brain_mr_oblique" / f"run{run}_brain.nii.gz")
        assert array_axis(labelmap.geometry, suggest_axis(labelmap)) == 0


def test_slices_and_their_pixel_spacing() -> None:
    volume, _ = head((4, 6, 8))
    stack = SliceStack.of(volume, "coronal")
    assert len(stack) == 6 and stack.axis == 1 and stack.name == "coronal"
    assert stack[2].shape == (4, 8)
    assert stack.pixel_spacing == (3.0, 1.0)
    assert np.array_equal(stack[2], volume.array[::-1, 2, :]), "the head is at the top"
    stack[2][...] = -1
    assert (volume.array[:, 2, :] == -1).all(), "a slice is a view of the volume"


@pytest.mark.parametrize("name", AXIS_NAMES)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
def test_slices_are_turned_as_images_are_looked_at(
    signs: tuple[int, int, int], order: tuple[int, int, int], name: str
) -> None:
    """Voxels hold how far left, back and up they lie, in digits."""
    direction = np.zeros((3, 3))
    for index_axis, patient_axis in enumerate(order):
        direction[patient_axis, index_axis] = signs[index_axis]
    geometry = geometry_of((3, 4, 5), spacing=(1.0, 2.0, 4.0), direction=tuple(direction.ravel()))
    k, j, i = np.mgrid[:3, :4, :5]
    index = np.stack([i, j, k], -1) * np.asarray(geometry.spacing)
    place = index @ direction.T
    axis = array_axis(geometry, name)
    along = [SliceStack(place[..., patient], geometry, axis) for patient in range(3)]
    down, sense = {"axial": (1, 1), "coronal": (2, -1), "sagittal": (2, -1)}[name]
    right = {"axial": 0, "coronal": 0, "sagittal": 1}[name]
    spacing = along[0].pixel_spacing
    assert np.allclose(np.diff(along[down][1], axis=0) * sense, spacing[0])
    assert np.allclose(np.diff(along[down][1], axis=1), 0)
    assert np.allclose(np.diff(along[right][1], axis=1), spacing[1])
    assert np.allclose(np.diff(along[right][1], axis=0), 0)


def test_the_axis_is_the_widest_else_the_one_with_gaps() -> None:
    _, labelmap = head((12, 20, 20))
    assert widest_axis(labelmap.geometry.spacing[::-1]) == 0
    assert suggest_axis(labelmap) == "axial"
    assert suggest_axis(keep_slices(labelmap, [5, 9], axis=2)) == "sagittal", "drawn on thin slices"
    cube = geometry_of((20, 20, 20), spacing=(1.0, 1.0, 1.03))
    assert widest_axis(cube.spacing[::-1]) is None
    array = head((20, 20, 20))[1].array
    for axis, name in enumerate(AXIS_NAMES):
        few = keep_slices(Labelmap(array, cube), [6, 9, 12], axis)
        assert suggest_axis(few) == name


def test_a_volume_of_one_slice_is_that_slice() -> None:
    array = np.zeros((1, 40, 40), np.uint8)
    array[0, 5:9, 5:9] = array[0, 30:34, 30:34] = 1
    for spacing in ((2.0, 2.0, 1.0), (1.0, 3.0, 1.0)):
        labelmap = Labelmap(array, geometry_of(array.shape, spacing=spacing))
        assert suggest_axis(labelmap) == "axial"


def test_labels_drawn_along_another_axis_are_noticed() -> None:
    _, labelmap = head((12, 20, 20))
    assert drawn_instead(labelmap, "axial") is None
    assert drawn_instead(keep_slices(labelmap, [3, 6, 9], axis=0), "axial") is None
    drawn = keep_slices(labelmap, [6, 9, 12], axis=1)
    assert drawn_instead(drawn, "axial") == "coronal" and drawn_instead(drawn, "coronal") is None


def stack_of(slices: dict[int, list[int]], count: int = 12) -> SliceStack:
    """A labelmap whose slices hold the labels given, one voxel each."""
    array = np.zeros((count, 4, 4), np.uint8)
    for number, labels in slices.items():
        for place, label in enumerate(labels):
            array[number, 1, place] = label
    return SliceStack(array, geometry_of(array.shape), 0)


def slices_where(known: np.ndarray, column: int) -> list[int]:
    return np.flatnonzero(known[:, column]).tolist()


def test_nonempty_slices_are_known_for_each_label_of_its_own() -> None:
    known = known_labels(
        stack_of({3: [1], 5: [1, 2], 8: [2]}), [1, 2], SliceKnowledge(empty="none")
    )
    assert known.shape == (12, 2)
    assert slices_where(known, 0) == [3, 5]
    assert slices_where(known, 1) == [5, 8]


def test_a_list_says_that_everything_is_labelled_there() -> None:
    known = known_labels(
        stack_of({3: [1], 5: [1, 2], 8: [2]}), [1, 2], SliceKnowledge(labelled=[5, 8], empty="none")
    )
    assert slices_where(known, 0) == slices_where(known, 1) == [5, 8]


def test_a_label_on_a_slice_left_out_of_the_list_is_not_learnt() -> None:
    stack = stack_of({number: [1] for number in range(3, 9)})
    for empty in ("auto", "outside"):
        known = known_labels(stack, [1], SliceKnowledge(labelled=[4, 6], empty=empty))[:, 0]
        left_out = [number for number in range(3, 9) if number not in (4, 6)]
        assert known[[4, 6]].all() and not known[left_out].any()


def test_outside_is_everything_beyond_the_labelled_range() -> None:
    known = known_labels(
        stack_of({3: [1], 5: [1, 2], 8: [2]}), [1, 2], SliceKnowledge(empty="outside")
    )
    assert slices_where(known, 0) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert slices_where(known, 1) == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]


def test_auto_leaves_a_margin_as_wide_as_the_largest_gap() -> None:
    stack = stack_of({4: [1], 5: [1], 7: [1]})
    assert slices_where(known_labels(stack, [1], SliceKnowledge()), 0) == [
        *(0, 1, 2),
        *(4, 5, 7),
        *(9, 10, 11),
    ]
    adjoining = stack_of({4: [1], 5: [1]})
    assert 3 in slices_where(known_labels(adjoining, [1], SliceKnowledge()), 0)
    one = stack_of({4: [1]})
    assert slices_where(known_labels(one, [1], SliceKnowledge()), 0) == [4]
    assert len(slices_where(known_labels(one, [1], SliceKnowledge(empty="outside")), 0)) == 12


def test_listed_empty_slices_hold_none_of_the_labels() -> None:
    known = known_labels(stack_of({4: [1], 6: [2]}), [1, 2], SliceKnowledge(empty=[0, 11]))
    assert slices_where(known, 0) == [0, 4, 11]
    assert slices_where(known, 1) == [0, 6, 11]


@pytest.mark.parametrize(
    ("labelled", "empty", "code"),
    [
        ([12], "none", "slice_out_of_range"),
        ([-1], "none", "slice_out_of_range"),
        ("nonempty", [40], "slice_out_of_range"),
        ("nonempty", [0, 4], "not_empty"),
    ],
)
def test_impossible_slices_are_refused(labelled, empty, code) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as refused:
        known_labels(stack_of({4: [1]}), [1], SliceKnowledge(labelled=labelled, empty=empty))
    assert refused.value.code == code
    assert refused.value.remedy


def sampled(array: np.ndarray, modality: str | None = None) -> VoxelSample:
    return sample_voxels(Volume(array, geometry_of(array.shape), modality))


def noise(mean: float, deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, (6, 20, 20)).astype(np.float32)


def test_ct_volumes_share_one_window() -> None:
    first = noise(40, 20)
    first[:2] = -1000
    second = noise(300, 20)
    second[:2] = -1000
    normalisation = find_normalisation([sampled(first), sampled(second)])
    assert normalisation.kind == "calibrated"
    windows = [normalisation.window_for(sampled(each)) for each in (first, second, noise(0, 1))]
    assert windows[0] == windows[1] == windows[2]
    value = np.array([40.0])
    assert windows[0].apply(value) == windows[1].apply(value)


def test_dicom_says_what_is_ct() -> None:
    assert find_normalisation([sampled(noise(40, 20), "CT")]).kind == "calibrated"
    signed = noise(0, 600)
    assert signed.min() < -900
    assert find_normalisation([sampled(signed, "MR")]).kind == "percentiles"
    assert find_normalisation([sampled(noise(40, 20), "MR")]).kind == "percentiles"


def test_mr_volumes_have_windows_of_their_own() -> None:
    dark, bright = sampled(noise(100, 10)), sampled(noise(1000, 100))
    normalisation = find_normalisation([dark, bright])
    assert normalisation.kind == "percentiles" and normalisation.window is None
    for sample in (dark, bright):
        scaled = normalisation.window_for(sample).apply(sample.values)
        assert scaled.min() == 0 and scaled.max() == 1
        assert scaled.mean() == pytest.approx(0.5, abs=0.05)
    again = IntensityNormalisation.model_validate_json(normalisation.model_dump_json())
    assert again == normalisation


def test_straight_lines_keep_proportions_and_show_soft_tissues_of_a_ct() -> None:
    ct = sampled(noise(40, 300), "CT")
    window = find_normalisation([ct], "straight").window_for(ct)
    levels = window.apply(np.array([-2000.0, -160.0, 40.0, 140.0, 240.0, 3000.0]))
    assert levels == pytest.approx([0, 0.1, 0.5, 0.7, 0.9, 1], abs=0.02)
    # Lung and bone remain visible.
    lung, bone = window.apply(np.array([-500.0, 600.0]))
    assert 0.01 < lung < 0.1 and 0.9 < bone < 0.99
    mr = sampled(noise(200, 30), "MR")
    normalisation = find_normalisation([mr], "straight")
    own = normalisation.window_for(mr)
    assert isinstance(own, IntensityWindow) and own.curve == (0.0, 1.0)
    # The card keeps the curve for other volumes; without it the curve is that of older models.
    kept = normalisation.model_dump()
    assert IntensityNormalisation.model_validate(kept).window_for(mr) == own
    del kept["curve"]
    assert IntensityNormalisation.model_validate(kept).window_for(mr) != own


def test_ct_and_mr_together_are_normalised_one_by_one() -> None:
    samples = [sampled(noise(0, 100), "CT"), sampled(noise(500, 100), "MR")]
    assert find_normalisation(samples).kind == "percentiles"


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float64])
def test_a_constant_image_is_refused(kind: type) -> None:
    with pytest.raises(InputError, match="same value"):
        sampled(np.full((3, 4, 5), 7, kind))


@pytest.mark.parametrize(
    ("kind", "far"), [(np.uint32, 2**31), (np.int64, 2**40), (np.int64, -(2**40))]
)
def test_whole_numbers_far_from_zero_are_told_apart(kind: type, far: int) -> None:
    near = noise(500, 100)
    array = near.astype(kind) + kind(far)
    plain = near.astype(np.int32)
    levels, expected = (
        find_normalisation([sampled(each)]).window_for(sampled(each)).apply(each)
        for each in (array, plain)
    )
    assert np.abs(levels - expected).max() < 1e-3


def test_numbers_beyond_single_precision_have_a_window() -> None:
    array = noise(500, 100).astype(np.float64) * 1e300
    window = find_normalisation([sampled(array)]).window_for(sampled(array))
    levels = window.apply(array)
    assert np.isfinite(levels).all() and levels.std() > 0.1


def test_a_tiny_object_on_an_even_background_has_a_window() -> None:
    array = np.zeros((6, 40, 40), np.uint16)
    array[2, 5, 5:8] = 60000
    window = find_normalisation([sampled(array)]).window_for(sampled(array))
    assert window.low == 0 and window.high == 60000
    assert np.isfinite(window.apply(array)).all()


def test_one_voxel_that_differs_is_not_a_constant_image() -> None:
    array = np.zeros((101, 200, 401), np.uint8)
    array[-1, -1, -2] = 1
    window = find_normalisation([sampled(array)]).window_for(sampled(array))
    assert np.isfinite(window.apply(array)).all()


def test_a_sample_sees_every_column_of_a_large_volume() -> None:
    array = np.broadcast_to(np.arange(512, dtype=np.int16), (32, 512, 512))
    sample = sampled(array)
    assert sample.values.size < 4_500_000
    assert len(np.unique(sample.values)) == 512


def test_pixels_are_as_the_backbone_was_trained() -> None:
    array = noise(100, 10)
    window = find_normalisation([sampled(array)]).window_for(sampled(array))
    image = torch.from_numpy(window.apply(array[0]))
    unit = network_pixels(image, window, "unit")
    assert unit.shape == (3, 20, 20)
    assert abs(unit.mean()) < 0.2 and unit.std() == pytest.approx(1, abs=0.2)
    sam = network_pixels(torch.tensor([[0.0, 1.0]]), window, "sam")
    assert torch.allclose(sam[:, 0, 0], torch.tensor([-2.1179, -2.0357, -1.8044]), atol=1e-3)
    assert torch.allclose(sam[:, 0, 1], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-3)
