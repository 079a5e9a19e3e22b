"""Segments in layers and of fractions, in files written here field by field."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_labelmap, read_volume
from Testing.support.in_process import shell_of

SHAPE = (4, 6, 8)
TYPES = {"u1": "uint8", "i1": "int8", "u2": "uint16", "i4": "int32", "f4": "float"}
TERM = "Category~SCT^1^Organ~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


def box(k: tuple[int, int], j: tuple[int, int], i: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[slice(*k), slice(*j), slice(*i)] = True
    return mask


A = box((0, 3), (0, 3), (0, 4))
B = box((0, 3), (3, 6), (0, 4))
# Four voxels of it lie in A, six in B.
C = box((1, 2), (1, 6), (2, 4))


def nrrd(path: Path, layers: list[np.ndarray], fields: dict[str, str], last: bool = False) -> Path:
    """A NRRD file with the layers along the first axis, or along the last one.

    Its voxels are 1.5, 2 and 4 mm wide, the first is at (10, -20, 30) mm (LPS).
    """
    array = np.stack(layers, 0 if last else -1)
    kinds = ["domain"] * 3
    directions = ["(1.5,0,0)", "(0,2,0)", "(0,0,4)"]
    space = "left-posterior-superior"
    origin = "(10,-20,30)"
    sizes = list(array.shape[::-1])
    if last:
        space = "left-posterior-superior-time"
        directions = [each[:-1] + ",0)" for each in directions] + ["(0,0,0,1)"]
        kinds, origin = [*kinds, "domain"], "(10,-20,30,0)"
    else:
        kinds, directions = ["list", *kinds], ["none", *directions]
    header = [
        "NRRD0005",
        f"type: {TYPES[array.dtype.str[1:]]}",
        "dimension: 4",
        f"space: {space}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: raw",
        f"space origin: {origin}",
        *(f"{key}:={value}" for key, value in fields.items()),
    ]
    path.write_bytes(("\n".join(header) + "\n\n").encode() + np.ascontiguousarray(array).tobytes())
    return path


def segment(number: int, name: str, layer: int | None = None, value: int | None = None) -> dict:
    fields = {
        f"Segment{number}_ID": f"id{number}",
        f"Segment{number}_Name": name,
        f"Segment{number}_Color": f"0.{number + 1} 0.5 1",
        f"Segment{number}_Tags": f"TerminologyEntry:{TERM}{number}|",
    }
    if layer is not None:
        fields[f"Segment{number}_Layer"] = str(layer)
    if value is not None:
        fields[f"Segment{number}_LabelValue"] = str(value)
    return fields


def byte(*masks: np.ndarray) -> list[np.ndarray]:
    return [mask.astype(np.uint8) for mask in masks]


def refused(action, *arguments, **named) -> InputError:
    with pytest.raises(InputError) as caught:
        action(*arguments, **named)
    assert "\n" not in str(caught.value) and caught.value.remedy
    return caught.value


class TestLayers:
    @pytest.mark.parametrize("last", [False, True])
    def test_one_segment_a_layer_without_label_values(self, tmp_path, last):
        fields = segment(0, "a") | segment(1, "b")
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", byte(A, B), fields, last))
        np.testing.assert_array_equal(read.array, A + 2 * B)
        assert read.names == {1: "a", 2: "b"}
        assert read.colours == {1: (0.1, 0.5, 1.0), 2: (0.2, 0.5, 1.0)}
        assert read.terminologies == {1: f"{TERM}0", 2: f"{TERM}1"}
        assert read.geometry.origin == (10, -20, 30) and read.geometry.spacing == (1.5, 2, 4)
        assert read.remarks == ()

    @pytest.mark.parametrize("inside", [1, 200])
    def test_any_value_is_the_segment_where_no_label_value_is_told(self, tmp_path, inside):
        fields = segment(0, "a") | segment(1, "b")
        layers = [inside * each for each in byte(A, B)]
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", layers, fields))
        np.testing.assert_array_equal(read.array, A + 2 * B)

    def test_segments_share_layers_and_label_values_come_again(self, tmp_path):
        free = box((3, 4), (0, 6), (0, 8))
        fields = segment(0, "a", 0, 1) | segment(1, "c", 1, 1) | segment(2, "b", 0, 5)
        layers = byte(A + 5 * B, free)
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", layers, fields))
        # The first keeps 1, b its own 5; c gets the number after the largest.
        np.testing.assert_array_equal(read.array, A + 5 * B + 6 * free)
        assert read.names == {1: "a", 5: "b", 6: "c"}
        assert read.colours[6] == (0.2, 0.5, 1.0) and read.terminologies[6] == f"{TERM}1"
        assert any("'c' is label 6" in each for each in read.remarks)

    def test_labels_that_differ_stay(self, tmp_path):
        fields = segment(0, "a", 0, 300) | segment(1, "b", 1, 4)
        layers = [A.astype(np.uint16) * 300, B.astype(np.uint16) * 4]
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", layers, fields))
        np.testing.assert_array_equal(read.array, 300 * A + 4 * B)
        assert read.array.dtype == np.uint16 and read.remarks == ()

    def test_an_empty_segment_keeps_its_name(self, tmp_path):
        fields = segment(0, "a") | segment(1, "nothing") | segment(2, "b")
        layers = byte(A, np.zeros(SHAPE, bool), B)
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", layers, fields))
        assert read.labels == [1, 3] and read.names == {1: "a", 2: "nothing", 3: "b"}

    def test_voxels_of_no_segment_are_left_out_and_counted(self, tmp_path):
        fields = segment(0, "a", 0, 1) | segment(1, "b", 1, 2)
        layers = byte(A + 9 * B, 2 * B)
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", layers, fields))
        np.testing.assert_array_equal(read.array, A + 2 * B)
        assert any(f"{B.sum()} voxels that belong to none" in each for each in read.remarks)

    def test_before_slicer_46_the_origin_is_that_of_the_whole_grid(self, tmp_path):
        fields = segment(0, "a") | segment(1, "b")
        fields["Segmentation_Extent"] = "2 9 3 8 5 8"
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", byte(A, B), fields, last=True))
        assert read.geometry.origin == pytest.approx((10 + 2 * 1.5, -20 + 3 * 2, 30 + 5 * 4))

    @pytest.mark.parametrize("last", [False, True])
    def test_as_a_volume_it_is_named_for_what_it_is(self, tmp_path, last):
        fields = segment(0, "a") | segment(1, "b")
        error = refused(read_volume, nrrd(tmp_path / "s.seg.nrrd", byte(A, B), fields, last))
        assert error.code in ("not_scalar", "not_3d")

    def test_layers_without_segments_are_frames_or_colours(self, tmp_path):
        two = nrrd(tmp_path / "s.nrrd", byte(A, B), {})
        assert refused(read_labelmap, two).code == "frame_not_chosen"
        three = nrrd(tmp_path / "s.nrrd", byte(A, B, A), {})
        assert refused(read_labelmap, three).code == "not_scalar"

    def test_no_labels_in_a_layer(self, tmp_path):
        fields = segment(0, "a") | segment(1, "b")
        layers = [A * np.float32(0.5), B * np.float32(1)]
        error = refused(read_labelmap, nrrd(tmp_path / "s.seg.nrrd", layers, fields))
        assert error.code == "not_integral"

    def test_a_file_with_one_layer_names_no_segment_of_another(self, tmp_path):
        fields = segment(0, "a") | segment(1, "b")
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", byte(A), fields))
        assert read.names == {1: "a"}


class TestOverlaps:
    @pytest.fixture
    def file(self, tmp_path):
        fields = segment(0, "Organ A", 0, 1) | segment(1, "b", 0, 2) | segment(2, "tumour", 1, 1)
        return nrrd(tmp_path / "s.seg.nrrd", byte(A + 2 * B, C), fields)

    def test_the_two_that_share_most_are_named(self, file):
        error = refused(read_labelmap, file)
        assert error.code == "overlapping_segments"
        assert f"segments 'b' and 'tumour' of '{file}' overlap in {(B & C).sum()} voxels" in (
            error.message
        )
        assert "1 more" in error.message
        assert (error.facts["segment"], error.facts["label"]) == ("tumour", 3)

    @pytest.mark.parametrize("top", ["tumour", "Tumour", "3", " tumour "])
    def test_one_on_top(self, file, top):
        read = read_labelmap(file, on_top=[top])
        np.testing.assert_array_equal(read.array, np.where(C, 3, A + 2 * B))
        said = " ".join(read.remarks)
        assert f"{(A & C).sum()} voxels of 'Organ A' are covered by 'tumour'" in said
        assert f"{(B & C).sum()} voxels of 'b' are covered by 'tumour'" in said

    @pytest.mark.parametrize("tops", [["organ a", "b"], ["organ a, b"], ["b,1"]])
    def test_several_on_top(self, file, tops):
        read = read_labelmap(file, on_top=tops)
        np.testing.assert_array_equal(read.array, A + 2 * B + 3 * (C & ~A & ~B))

    def test_the_highest_comes_first(self, file):
        read = read_labelmap(file, on_top=["organ a", "tumour"])
        np.testing.assert_array_equal(read.array, np.where(A, 1, np.where(C, 3, 2 * B)))

    def test_a_pair_that_is_left_undecided_is_refused(self, file):
        error = refused(read_labelmap, file, on_top=["organ a"])
        assert "'b' and 'tumour'" in error.message and "more pair" not in error.message

    def test_a_name_that_no_segment_has_is_told(self, file):
        assert (
            "tumor is no segment of s.seg.nrrd"
            in refused(read_labelmap, file, on_top=["tumor"]).message
        )

    @pytest.mark.parametrize(("wanted", "whole"), [([3], C), ([1], A), ([1, 2], A + 2 * B > 0)])
    def test_what_is_not_wanted_covers_nothing(self, file, wanted, whole):
        read = read_labelmap(file, wanted=wanted)
        np.testing.assert_array_equal(np.isin(read.array, wanted), whole)
        assert not any("covered" in each for each in read.remarks)

    def test_what_is_wanted_and_covered_is_told(self, file):
        read = read_labelmap(file, wanted=[1], on_top=["tumour"])
        np.testing.assert_array_equal(read.array == 1, A & ~C)
        assert f"{(A & C).sum()} voxels of 'Organ A'" in " ".join(read.remarks)

    def test_a_name_with_a_comma(self, tmp_path):
        fields = segment(0, "a", 0, 1) | segment(1, "c, left", 1, 1)
        file = nrrd(tmp_path / "s.seg.nrrd", byte(A, C), fields)
        assert refused(read_labelmap, file).facts["segment"] == "c, left"
        read = read_labelmap(file, on_top=["c, left"])
        np.testing.assert_array_equal(read.array, np.where(C, 2, A))

    def test_two_that_are_wanted_are_refused(self, file):
        assert "'Organ A' and 'tumour'" in refused(read_labelmap, file, wanted=[1, 3]).message

    def test_a_voxel_of_three_counts_for_each_pair(self, tmp_path):
        fields = segment(0, "a") | segment(1, "b") | segment(2, "c")
        three = byte(A, A, box((0, 3), (0, 3), (0, 8)))
        error = refused(read_labelmap, nrrd(tmp_path / "s.seg.nrrd", three, fields))
        assert f"overlap in {A.sum()} voxels" in error.message


class TestFractions:
    FRACTIONAL = {"Segmentation_MasterRepresentation": "Fractional labelmap"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("kind", "full", "told"),
        [
            ("u1", 100, "0 to 100"),
            ("u1", 255, "0 to 255"),
            ("u1", 216, "0 to 216"),
            ("f4", 1, "0 to 1"),
            ("u1", 1, "0 to 1"),
            ("u2", 1000, "0 to 1000"),
        ],
    )
    def test_above_half_is_the_segment(self, tmp_path, kind, full, told):
        fractions = np.zeros(SHAPE)
        fractions[1, 1, :5] = 0.2, 0.5, 0.51, 0.9, 1.0
        layer = (np.floor(fractions * full) if kind != "f4" else fractions).astype(kind)
        fields = segment(0, "a", 0, 1) | self.FRACTIONAL
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", [layer], fields))
        expected = layer.astype(float) > full / 2
        assert expected.any() and read.names == {1: "a"} and told in read.remarks[0]
        np.testing.assert_array_equal(read.array, expected)

    def test_a_segment_that_fills_no_voxel_entirely(self, tmp_path):
        layer = np.zeros(SHAPE, np.uint8)
        layer[1, 1, :3] = 49, 51, 60
        fields = segment(0, "a", 0, 1) | self.FRACTIONAL
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", [layer], fields))
        assert read.array[1, 1, :3].tolist() == [0, 1, 1]

    def test_from_minus_108(self, tmp_path):
        layer = np.full(SHAPE, -108, np.int8)
        layer[1, 1, :4] = -50, 0, 1, 108
        fields = segment(0, "a", 0, 4) | self.FRACTIONAL
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", [layer], fields))
        assert read.array[1, 1, :4].tolist() == [0, 0, 4, 4] and read.labels == [4]

    def test_small_negative_numbers_do_not_make_it_signed(self, tmp_path):
        layer = np.full(SHAPE, -0.02, np.float32)
        layer[1, 1, :3] = 0.4, 0.6, 1.0
        fields = segment(0, "a", 0, 1) | self.FRACTIONAL
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", [layer], fields))
        assert read.array.sum() == 2

    def test_two_that_fill_a_voxel_together_do_not_overlap(self, tmp_path):
        one, other = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        one[1, 1, :4], other[1, 1, :4] = [100, 70, 50, 0], [0, 30, 50, 100]
        fields = segment(0, "a") | segment(1, "b") | self.FRACTIONAL
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", [one, other], fields))
        assert read.array[1, 1, :4].tolist() == [1, 1, 0, 2] and read.names == {1: "a", 2: "b"}

    def test_two_that_overlap_are_refused_or_put_in_order(self, tmp_path):
        layers = [mask.astype(np.uint8) * 100 for mask in (A, C)]
        fields = segment(0, "a", 0, 1) | segment(1, "c", 1, 1) | self.FRACTIONAL
        file = nrrd(tmp_path / "s.seg.nrrd", layers, fields)
        assert refused(read_labelmap, file).code == "overlapping_segments"
        read = read_labelmap(file, on_top=["c"])
        np.testing.assert_array_equal(read.array, np.where(C, 2, A))

    def test_two_in_one_layer_cannot_be_told_apart(self, tmp_path):
        fields = segment(0, "a", 0, 1) | segment(1, "b", 0, 2) | self.FRACTIONAL
        error = refused(read_labelmap, nrrd(tmp_path / "s.seg.nrrd", byte(A), fields))
        assert error.code == "not_integral" and "fractional" in error.message

    def test_values_of_an_image_are_refused(self, tmp_path):
        layer = np.full(SHAPE, -1000, np.float32)
        fields = segment(0, "a", 0, 1) | self.FRACTIONAL
        assert refused(read_labelmap, nrrd(tmp_path / "s.seg.nrrd", [layer], fields)).code == (
            "not_integral"
        )

    def test_nan_is_nothing(self, tmp_path):
        layer = np.zeros(SHAPE, np.float32)
        layer[0, 0, 0], layer[1, 1, 1] = np.nan, 1
        fields = segment(0, "a", 0, 1) | self.FRACTIONAL
        read = read_labelmap(nrrd(tmp_path / "s.seg.nrrd", [layer], fields))
        assert read.array.sum() == 1 and read.non_finite == 1


class TestOnTopIsSaidEverywhere:
    def test_in_a_file_of_examples_by_name_or_label(self, tmp_path):
        from SAMFineTuneLib.jobs.schema import read_examples

        entry = {"volume": "v.nrrd", "segmentation": "s.nrrd", "on_top": ["tumour", 3]}
        (tmp_path / "e.json").write_text(json.dumps([entry]))
        assert read_examples(tmp_path / "e.json", {})[0].on_top == ["tumour", "3"]

    @pytest.mark.parametrize("wrong", ["tumour", [""], [1.5], [None], 3])
    def test_other_things_are_refused(self, tmp_path, wrong):
        from SAMFineTuneLib.jobs.schema import read_examples

        entry = {"volume": "v.nrrd", "segmentation": "s.nrrd", "on_top": wrong}
        (tmp_path / "e.json").write_text(json.dumps([entry]))
        assert "on_top" in refused(read_examples, tmp_path / "e.json", {}).message

    def test_examples_drawn_slices_and_evaluation(self, tmp_path):
        from SAMFineTuneLib.examples.loading import load_examples
        from SAMFineTuneLib.jobs.schema import Example
        from SAMFineTuneLib.tasks.drawn_slices import known_structures
        from Testing.support.job_records import example_of

        fields = segment(0, "a", 0, 1) | segment(1, "c", 1, 1)
        file = nrrd(tmp_path / "s.seg.nrrd", byte(A, C), fields)
        image = np.random.default_rng(0).random(SHAPE).astype(np.float32)
        nrrd(tmp_path / "v.nrrd", [image], {})
        source = example_of(tmp_path / "v.nrrd", file, on_top=["c"])
        found = load_examples([source])
        assert [(each.value, each.name) for each in found.labels] == [(1, "a"), (2, "c")]
        assert any("covered by 'c'" in each for each in found.warnings)
        refused(load_examples, [example_of(tmp_path / "v.nrrd", file)])

        drawn = Example(volume=tmp_path / "v.nrrd", segmentation=file, on_top=["c"])
        said: list[str] = []
        volume = read_volume(tmp_path / "v.nrrd")
        known = known_structures(
            [drawn], tmp_path / "v.nrrd", volume, {1: "a", 2: "c"}, "axial", said.append
        )
        assert {each.label for each in known} == {1, 2}
        assert any("covered by 'c'" in each for each in said)

    def test_on_the_command_line(self, tmp_path, monkeypatch, capfd):
        fields = segment(0, "a", 0, 1) | segment(1, "c", 1, 1)
        file = nrrd(tmp_path / "s.seg.nrrd", byte(A, C), fields)
        shell = shell_of(monkeypatch, capfd, tmp_path / "cache")
        command = ("evaluate", "--prediction", file, "--reference", file)
        without = shell(*command)
        assert without.code == 2 and f"overlap in {(A & C).sum()} voxels" in without.err
        done = shell(*command, "--on-top", "c")
        assert done.code == 0 and "are one file" in done.err
        volumes = [each["reference_ml"] for each in done.result["labels"]]
        assert volumes == pytest.approx([(A & ~C).sum() * 0.012, C.sum() * 0.012])
