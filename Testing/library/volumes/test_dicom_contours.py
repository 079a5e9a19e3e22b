"""Contours of DICOM structure sets (RTSTRUCT): known shapes fill the right voxels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import geometry_of, head
from Testing.support.tuned_starter import write_model

pytest.importorskip("pydicom")

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.polygon_fill import filled
from SAMFineTuneLib.volumes import (
    Geometry,
    read_labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)
from Testing.support.synthetic_dicom_objects import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    SAGITTAL,
    Region,
    Stack,
    write_contours,
    write_series,
)

ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}
SHAPE = (9, 60, 70)
STACK = Stack()


def grid(stack: Stack = STACK, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    direction = np.stack([*np.array(stack.axes), stack.normal], axis=1)
    spacing = (stack.spacing[1], stack.spacing[0], stack.step)
    return geometry_of(shape, spacing, stack.origin, tuple(direction.ravel()))  # type: ignore[arg-type]


def on_plane(stack: Stack, k: float, corners: np.ndarray) -> np.ndarray:
    """LPS of points (row, column) on a plane."""
    corners = np.asarray(corners, float)
    return stack.places(np.column_stack([np.full(len(corners), k), corners]))


def circle(centre: tuple[float, float], radius_mm: float, points: int = 180) -> np.ndarray:
    """(row, column) of a circle on STACK's pixels."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    rows = centre[0] + radius_mm / STACK.spacing[0] * np.sin(angle)
    return np.column_stack([rows, centre[1] + radius_mm / STACK.spacing[1] * np.cos(angle)])


def square(row: float, column: float, length: float) -> np.ndarray:
    return np.array([(0, 0), (0, 1), (1, 1), (1, 0)]) * length + (row, column)


def one_contour(path: Path, k: float, corners: np.ndarray) -> None:
    write_contours(path, {1: Region("a", [on_plane(STACK, k, corners)])})


def refused(path: Path, over: Geometry | None, **more: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_labelmap(path, over=over, **more)
    assert "\n" not in str(caught.value)
    return caught.value


class TestPlaces:
    @pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
    def test_an_ellipsoid(self, tmp_path, axes):
        """Each voxel is inside exactly where its centre is, by the ellipsoid's own equation."""
        stack = Stack(axes)
        centre = stack.places(np.array([[4.2, 30.3, 33.7]]))[0]
        half = (24.0, 15.0)
        contours = []
        for k in range(SHAPE[0]):
            share = 1 - ((k - 4.2) * stack.step / half[1]) ** 2
            if share > 0:
                contours.append(
                    on_plane(stack, k, circle((30.3, 33.7), half[0] * share**0.5, 1000))
                )
        write_contours(tmp_path / "rs.dcm", {1: Region("a", contours)})
        found = read_labelmap(tmp_path / "rs.dcm", over=grid(stack))
        voxels = np.argwhere(np.ones(SHAPE, bool))
        away = stack.places(voxels) - centre
        along = away @ stack.normal
        beside = (away**2).sum(axis=1) - along**2
        value = beside / half[0] ** 2 + along**2 / half[1] ** 2
        truth = (value < 1).reshape(SHAPE)
        unsure = (np.abs(value - 1) < 1e-3).reshape(SHAPE)
        assert ((found.array == 1) == truth)[~unsure].all()
        ml = np.count_nonzero(found.array) * found.geometry.voxel_ml
        assert ml == pytest.approx(4 / 3 * np.pi * 24 * 24 * 15 / 1000, rel=0.02)

    def test_the_area_of_a_circle(self, tmp_path):
        write_contours(
            tmp_path / "rs.dcm", {1: Region("a", [on_plane(STACK, 2, circle((30.3, 33.7), 30))])}
        )
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        area = np.count_nonzero(found.array) * STACK.spacing[0] * STACK.spacing[1]
        assert area == pytest.approx(np.pi * 30**2, rel=0.01)
        assert np.flatnonzero(found.array.any(axis=(1, 2))).tolist() == [2]

    def test_drawn_on_other_planes_of_the_grid(self, tmp_path):
        """Drawn on sagittal planes of an axial volume: the columns of its grid."""
        corners = np.array([(1.6, 10.5), (1.6, 20.5), (5.4, 20.5), (5.4, 10.5)])
        points = STACK.places(np.column_stack([corners, np.full(4, 33.0)]))
        write_contours(tmp_path / "rs.dcm", {1: Region("a", [points])})
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        expected = np.zeros(SHAPE, bool)
        expected[2:6, 11:21, 33] = True
        assert ((found.array == 1) == expected).all()

    def test_a_flipped_grid_gets_the_same_places(self, tmp_path):
        write_contours(
            tmp_path / "rs.dcm", {1: Region("a", [on_plane(STACK, 2, circle((30, 20), 12.1))])}
        )
        one = read_labelmap(tmp_path / "rs.dcm", over=grid())
        last = tuple(float(each) for each in STACK.places(np.array([[8, 59, 69]]))[0])
        flipped = replace(grid(), origin=last, direction=tuple(-np.array(grid().direction)))
        other = read_labelmap(tmp_path / "rs.dcm", over=flipped)
        assert (other.array[::-1, ::-1, ::-1] == one.array).all() and one.array.any()

    @pytest.mark.parametrize("k", [2.3, 1.6])
    def test_between_planes_the_nearest_slice_has_it(self, tmp_path, k):
        write_contours(
            tmp_path / "rs.dcm", {1: Region("a", [on_plane(STACK, k, square(9.5, 9.5, 5))])}
        )
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert np.flatnonzero(found.array.any(axis=(1, 2))).tolist() == [2]
        assert np.count_nonzero(found.array) == 25
        assert "mm off the slices" in found.remarks[0]

    def test_denser_planes_do_not_cancel_each_other(self, tmp_path):
        contours = [on_plane(STACK, k, square(9.5, 9.5, 5 + k)) for k in (1.7, 2.05, 2.4)]
        write_contours(tmp_path / "rs.dcm", {1: Region("a", contours)})
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert np.count_nonzero(found.array) == 49
        assert np.flatnonzero(found.array.any(axis=(1, 2))).tolist() == [2]
        assert "2 planes" in found.remarks[0]

    def test_outside_the_grid(self, tmp_path):
        inside, outside = (on_plane(STACK, k, square(9.5, 9.5, 5)) for k in (8.4, 8.6))
        write_contours(tmp_path / "rs.dcm", {1: Region("a", [inside, outside])})
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert np.flatnonzero(found.array.any(axis=(1, 2))).tolist() == [8]
        assert "outside the image" in found.remarks[0]
        one_contour(tmp_path / "rs.dcm", 8.6, square(9.5, 9.5, 5))
        assert refused(tmp_path / "rs.dcm", grid()).code == "no_overlap"
        one_contour(tmp_path / "rs.dcm", 4, square(9.5, 100, 5))
        assert refused(tmp_path / "rs.dcm", grid()).code == "no_overlap"
        one_contour(tmp_path / "rs.dcm", 4, square(-5.5, 66.5, 10))
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert found.array[4, :5, 67:].all() and np.count_nonzero(found.array) == 15

    def test_oblique_planes_are_refused(self, tmp_path):
        corners = np.array([(2, 10, 10), (2, 10, 20), (3, 20, 20), (3, 20, 10)])
        write_contours(tmp_path / "rs.dcm", {1: Region("Tumour", [STACK.places(corners)])})
        error = refused(tmp_path / "rs.dcm", grid())
        assert error.code == "oblique_contours" and "'Tumour'" in str(error)


class TestFilling:
    def test_the_centre_decides(self):
        assert np.argwhere(filled([square(0.9, 0.9, 1.2)[:, ::-1]], 4, 4)).tolist() == [
            [1, 1], [1, 2], [2, 1], [2, 2],
        ]  # fmt: skip

    def test_neighbours_with_a_common_line_share_no_pixel(self):
        left = filled([np.array([(0, 0), (3, 0), (3, 6), (0, 6)], float)], 6, 6)
        right = filled([np.array([(3, 0), (6, 0), (6, 6), (3, 6)], float)], 6, 6)
        assert not (left & right).any() and (left | right).all()

    def test_a_hole_and_an_island_in_it(self):
        rings = [square(0.5, 0.5, 12), square(3.5, 3.5, 6), square(5.5, 5.5, 2)]
        found = filled(rings, 14, 14)
        assert np.count_nonzero(found) == 144 - 36 + 4
        assert found[1, 1] and not found[4, 4] and found[6, 6]

    def test_a_keyhole(self):
        """One line that goes in to the hole and back on itself."""
        outer, inner = square(0.5, 0.5, 12), square(3.5, 3.5, 6)[[0, 3, 2, 1]]
        keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
        assert (filled([keyhole], 14, 14) == filled([outer, inner], 14, 14)).all()

    def test_beyond_the_edges(self):
        assert filled([square(-5, -5, 30)], 6, 7).all()
        assert not filled([square(-5, -5, 3)], 6, 7).any()
        assert not filled([square(8, 9, 3)], 6, 7).any()

    def test_any_polygon_is_as_the_rule_says(self):
        """Against the number of edges that a ray from the centre crosses, one centre at a time."""
        random = np.random.default_rng(0)
        for _ in range(20):
            polygon = random.uniform(-2, 14, (7, 2))
            found = filled([polygon], 12, 12)
            for row in range(12):
                for column in range(12):
                    crossed = 0
                    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
                        if (y0 <= row) != (y1 <= row):
                            crossed += x0 + (row - y0) * (x1 - x0) / (y1 - y0) <= column
                    assert found[row, column] == crossed % 2


class TestStructures:
    def test_names_colours_numbers_and_what_is_left_out(self, tmp_path):
        ring = on_plane(STACK, 2, square(9.5, 9.5, 5))
        regions = {
            7: Region("Liver", [ring], (255, 0, 51)),
            9: Region("Isocentre", [ring[:1]], kind="POINT"),
            11: Region("Nothing"),
            13: Region("Thin", [on_plane(STACK, 2, square(20.2, 20.2, 0.3))]),
        }
        write_contours(tmp_path / "rs.dcm", regions)
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert found.labels == [7]
        assert found.names == {7: "Liver", 9: "Isocentre", 11: "Nothing", 13: "Thin"}
        assert found.colours == {7: (1.0, 0.0, 0.2)}
        said = " ".join(found.remarks)
        assert "1 contours of rs.dcm are points" in said
        assert "without a contour: Isocentre, Nothing" in said
        assert "the contours of Thin" in said

    def test_numbers_that_cannot_be_labels(self, tmp_path):
        ring = on_plane(STACK, 2, square(9.5, 9.5, 5))
        write_contours(tmp_path / "rs.dcm", {0: Region("Liver", [ring]), 5: Region("None")})
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert found.labels == [1] and found.names == {1: "Liver", 2: "None"}
        assert "1 Liver, 2 None" in found.remarks[0]

    def test_one_stored_twice(self, tmp_path):
        ring = on_plane(STACK, 2, square(9.5, 9.5, 5))
        write_contours(tmp_path / "rs.dcm", {1: Region("a", [ring, ring])})
        found = read_labelmap(tmp_path / "rs.dcm", over=grid())
        assert np.count_nonzero(found.array) == 25 and "stored twice" in found.remarks[0]

    def test_structures_that_overlap(self, tmp_path):
        body = [on_plane(STACK, k, square(0.5, 0.5, 40)) for k in range(9)]
        liver = [on_plane(STACK, k, square(9.5, 9.5, 5)) for k in (3, 4)]
        write_contours(tmp_path / "rs.dcm", {1: Region("Body", body), 2: Region("Liver", liver)})
        error = refused(tmp_path / "rs.dcm", grid())
        assert "'Body' and 'Liver'" in str(error) and " 50 voxels" in str(error)
        found = read_labelmap(tmp_path / "rs.dcm", over=grid(), on_top=["Liver"])
        assert np.count_nonzero(found.array == 2) == 50
        assert np.count_nonzero(found.array == 1) == 9 * 1600 - 50
        assert (
            np.count_nonzero(read_labelmap(tmp_path / "rs.dcm", over=grid(), wanted=[2]).array)
            == 50
        )

    def test_empty(self, tmp_path):
        write_contours(tmp_path / "rs.dcm", {1: Region("a")})
        assert refused(tmp_path / "rs.dcm", grid()).code == "empty_segmentation"
        assert read_labelmap(tmp_path / "rs.dcm", over=grid(), empty_ok=True).labels == []

    def test_without_a_grid(self, tmp_path):
        write_contours(tmp_path / "rs.dcm", {1: Region("a")})
        assert refused(tmp_path / "rs.dcm", None).code == "no_grid"

    def test_as_a_volume(self, tmp_path):
        write_contours(tmp_path / "rs.dcm", {1: Region("a")})
        with pytest.raises(InputError, match="contours \\(RTSTRUCT\\), not an image"):
            read_volume(tmp_path / "rs.dcm")

    def test_damaged_ones(self, tmp_path):
        ring = on_plane(STACK, 2, square(9.5, 9.5, 5))
        write_contours(tmp_path / "rs.dcm", {1: Region("a", [ring]), 2: Region("b", [ring])})
        whole = (tmp_path / "rs.dcm").read_bytes()
        random = np.random.default_rng(0)
        for turn in range(150):
            changed = bytearray(whole)
            for place in random.integers(132, len(whole), 3):
                changed[place] = random.integers(256)
            (tmp_path / "c.dcm").write_bytes(changed if turn % 2 else changed[: 20 * turn])
            try:
                read_labelmap(tmp_path / "c.dcm", over=grid(), empty_ok=True, on_top=["1"])
            except InputError:
                continue


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.mark.usefixtures("one_thread", "small_inputs")
class TestCommands:
    @pytest.fixture
    def desk(self, tmp_path: Path) -> Path:
        """A DICOM series, contours on some of its slices, the same as a labelmap, and a model."""
        volume, truth = head()
        stack = Stack(OBLIQUE, spacing=(1.0, 1.0), step=3.0)
        write_series(tmp_path / "series", volume.array.astype(int), stack)
        regions = {}
        rows, columns = np.mgrid[:48, :48]
        labels = np.zeros_like(truth.array)
        for label, place in ((5, 15), (52, 33)):
            contours = []
            for k in (2, 4, 6, 8):
                ring = circle((24, place), 8.0)
                contours.append(on_plane(stack, k, ring))
                inside = ((rows - 24) * STACK.spacing[0]) ** 2
                inside = inside + ((columns - place) * STACK.spacing[1]) ** 2 < 64
                labels[k][inside] = label
            regions[label] = Region(truth.names[label], contours)
        write_contours(tmp_path / "few.dcm", regions)
        read = read_volume(tmp_path / "series")
        write_labelmap(tmp_path / "few.nrrd", replace(truth, array=labels, geometry=read.geometry))
        write_model(tmp_path / "m.safetensors", for_prompts=False)
        return tmp_path

    def test_finetune(self, desk, shell):
        told = shell(
            "finetune", "--volume", desk / "series", "--segmentation", desk / "few.dcm",
            "--output", desk / "tuned.safetensors", "--steps", 1, "--batch", 1,
        )  # fmt: skip
        assert told.code == 0, told.err
        assert [label["name"] for label in told.result["labels"]] == ["bright", "dark"]

    def test_evaluate_either_way(self, desk, shell):
        for one, other in (("few.dcm", "few.nrrd"), ("few.nrrd", "few.dcm")):
            told = shell("evaluate", "--prediction", desk / one, "--reference", desk / other)
            assert told.code == 0, told.err
            assert told.result["mean_dsc"] > 0.99
        told = shell("evaluate", "--prediction", desk / "few.dcm", "--reference", desk / "few.dcm")
        assert told.code == 2 and "no voxels of their own" in told.err

    def test_drawn(self, desk, shell):
        volume = read_volume(desk / "series")
        write_volume(desk / "v.nii.gz", volume.array, volume.geometry)
        for image in ("series", "v.nii.gz"):
            told = shell(
                "apply", "--model", desk / "m.safetensors", "--volume", desk / image,
                "--drawn", desk / "few.dcm", "--output", desk / "out.nrrd",
            )  # fmt: skip
            assert told.code == 0, told.err
            assert "frame of reference" not in told.err
            found, drawn = read_labelmap(desk / "out.nrrd"), read_labelmap(desk / "few.nrrd")
            for k in (2, 4, 6, 8):
                assert np.count_nonzero(found.array[k] != drawn.array[k]) <= 4

    def test_another_frame_of_reference_is_said(self, desk, shell):
        ring = on_plane(Stack(OBLIQUE, spacing=(1.0, 1.0), step=3.0), 4, circle((24, 15), 8.0))
        write_contours(desk / "strange.dcm", {5: Region("bright", [ring])}, "1.2.3")
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "series",
            "--drawn", desk / "strange.dcm", "--output", desk / "out.nrrd",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert "another DICOM frame of reference" in told.err
