"""DICOM segmentation objects (SEG) are written, by the library and by its commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import head
from Testing.support.tuned_starter import write_model

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from SAMFineTuneLib.volumes import (  # noqa: E402
    Labelmap,
    labelmap_onto,
    read_labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.dicom.segmentation_writing import (  # noqa: E402
    rehearse,
    write_segmentation,
)
from SAMFineTuneLib.volumes.dicom.sources import source_headers  # noqa: E402
from Testing.support.dicom_segmentations import (  # noqa: E402
    COLUMNS,
    LEFT_KIDNEY,
    ORIENTATIONS,
    ROWS,
    places_of,
    refused,
    same_places,
)
from Testing.support.synthetic_dicom_objects import (  # noqa: E402
    FRAME_OF_REFERENCE,
    OBLIQUE,
    SERIES,
    STUDY,
    Segment,
    Stack,
    write_multi_frame,
    write_seg,
    write_series,
)


def series_and_labels(folder: Path, stack: Stack, count: int = 6) -> tuple[Any, Labelmap]:
    """A DICOM volume, read, and labels 5 and 52 drawn on it at known places."""
    random = np.random.default_rng(0)
    write_series(folder, random.integers(0, 900, (count, ROWS, COLUMNS)), stack)
    volume = read_volume(folder)
    array = np.zeros(volume.array.shape, np.uint8)
    array[1, 2, 3], array[4, 6, 4], array[3, 0, 0] = 5, 5, 52
    labelmap = Labelmap(
        array,
        volume.geometry,
        {5: "Leber (größer) 肝", 52: "kidney"},
        {5: (1.0, 0.0, 0.0), 52: (0.25, 0.5, 0.75)},
        terminologies={52: LEFT_KIDNEY},
    )
    return volume, labelmap


def segment_places(dataset: Any, number: int) -> np.ndarray:
    """LPS of the pixels of a segment, from the fields of the file alone."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row_axis, column_axis = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, float
    ).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, described in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if described.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        position = np.array(described.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            along = column * between_columns * row_axis + row * between_rows * column_axis
            found.append(position + along)
    return np.array(found).reshape(-1, 3)


class TestWriting:
    @pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
    @pytest.mark.parametrize("multi_frame", [False, True], ids=["files", "frames"])
    def test_voxels_lie_where_they_were_found(self, tmp_path, axes, multi_frame):
        stack = Stack(axes)
        source = tmp_path / "series"
        volume, labelmap = series_and_labels(source, stack)
        if multi_frame:
            source = tmp_path / "frames.dcm"
            write_multi_frame(source, volume.array.astype(int), stack)
        sources = source_headers(source, volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labelmap, [5, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert same_places(segment_places(dataset, 1), places_of(labelmap, 5))
        assert same_places(segment_places(dataset, 2), places_of(labelmap, 52))
        # The volume's own places, by the fields of its files.
        assert same_places(
            segment_places(dataset, 2),
            stack.places(np.array([[3, 0, 0]])),
        )
        # Each frame names the image on which it lies.
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            image = frame.DerivationImageSequence[0].SourceImageSequence[0]
            position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            k = int(np.rint((position - stack.origin) @ stack.normal / stack.step))
            if multi_frame:
                assert image.ReferencedFrameNumber == k + 1
            else:
                named = {each.SOPInstanceUID: each for each in sources}
                image_position = named[image.ReferencedSOPInstanceUID].ImagePositionPatient
                assert np.allclose(np.array(image_position, float), position, atol=1e-3)

    def test_a_volume_whose_slices_run_the_other_way(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack(OBLIQUE))
        last = tuple(float(each) for each in volume.geometry.affine[:3] @ [0, 0, 5, 1])
        direction = np.array(volume.geometry.direction).reshape(3, 3) * [1, 1, -1]
        geometry = replace(volume.geometry, origin=last, direction=tuple(direction.ravel()))
        flipped = replace(labelmap, array=labelmap.array[::-1].copy(), geometry=geometry)
        sources = source_headers(tmp_path / "series", geometry)
        write_segmentation(tmp_path / "out.dcm", flipped, [5, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert same_places(segment_places(dataset, 1), places_of(labelmap, 5))
        assert same_places(segment_places(dataset, 2), places_of(labelmap, 52))

    def test_two_series_on_one_grid(self, tmp_path):
        volume, _ = series_and_labels(tmp_path / "all" / "a", Stack())
        write_series(tmp_path / "all" / "b", volume.array.astype(int), Stack(), series="1.2.3")
        assert refused(source_headers, tmp_path / "all", volume.geometry).code == "no_source_series"
        chosen = source_headers(tmp_path / "all", volume.geometry, "1.2.3")
        assert {each.SeriesInstanceUID for each in chosen} == {"1.2.3"}

    def test_what_it_tells(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack())
        sources = source_headers(tmp_path / "series", volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labelmap, [5, 9, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert (dataset.Modality, dataset.SegmentationType) == ("SEG", "BINARY")
        assert (str(dataset.PatientName), dataset.PatientID) == ("Doe^Jane", "P1")
        assert dataset.StudyInstanceUID == STUDY and dataset.SeriesInstanceUID != SERIES
        assert dataset.FrameOfReferenceUID == FRAME_OF_REFERENCE
        assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
        segments = dataset.SegmentSequence
        assert [each.SegmentNumber for each in segments] == [1, 2, 3]
        labels = [each.SegmentLabel for each in segments]
        assert labels == ["Leber (größer) 肝", "Segment_9", "kidney"]
        assert {each.SegmentAlgorithmType for each in segments} == {"AUTOMATIC"}
        assert {each.SegmentAlgorithmName for each in segments} == {"SAMFineTune"}
        assert segments[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
        kind = segments[2].SegmentedPropertyTypeCodeSequence[0]
        assert kind.CodeMeaning == "Kidney"
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
        back = read_labelmap(tmp_path / "out.dcm")
        assert back.names == {1: "Leber (größer) 肝", 2: "Segment_9", 3: "kidney"}
        assert back.colours[1] == pytest.approx((1, 0, 0), abs=0.01)
        assert back.colours[3] == pytest.approx((0.25, 0.5, 0.75), abs=0.01)
        assert back.terminologies[3].split("~")[1:4] == LEFT_KIDNEY.split("~")[1:4]
        assert back.terminologies[3].split("~")[5:] == LEFT_KIDNEY.split("~")[5:]

    def test_an_empty_one(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack())
        sources = source_headers(tmp_path / "series", volume.geometry)
        empty = replace(labelmap, array=np.zeros_like(labelmap.array))
        write_segmentation(tmp_path / "out.dcm", empty, [5, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert not dataset.pixel_array.any() and len(dataset.SegmentSequence) == 2
        assert read_labelmap(tmp_path / "out.dcm", empty_ok=True).labels == []

    def test_fields_that_may_be_empty_and_are_left_out(self, tmp_path):
        random = np.random.default_rng(0)
        left_out = ("PatientName", "PatientID", "SliceThickness")
        write_series(
            tmp_path / "series", random.integers(0, 9, (4, 6, 8)), Stack(), leave_out=left_out
        )
        volume = read_volume(tmp_path / "series")
        labels = Labelmap((volume.array > 5).astype(np.uint8), volume.geometry)
        sources = source_headers(tmp_path / "series", volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labels, [1], sources)
        assert (
            labelmap_onto(read_labelmap(tmp_path / "out.dcm"), volume.geometry).array
            == labels.array
        ).all()

    @pytest.mark.parametrize("field", ["FrameOfReferenceUID", "StudyInstanceUID"])
    def test_a_source_that_does_not_tell_where_it_belongs(self, tmp_path, field):
        write_series(tmp_path / "series", np.ones((3, 4, 5), int), Stack(), leave_out=[field])
        volume = read_volume(tmp_path / "series")
        sources = source_headers(tmp_path / "series", volume.geometry)
        error = refused(rehearse, tmp_path / "out.dcm", volume.geometry, [1], sources)
        assert field in str(error)

    def test_a_series_that_is_not_the_volume(self, tmp_path):
        volume, _ = series_and_labels(tmp_path / "series", Stack())
        elsewhere = replace(volume.geometry, origin=(0.0, 0.0, 0.0))
        assert refused(source_headers, tmp_path / "series", elsewhere).code == "no_source_series"

    def test_an_older_file_stays_where_another_was_read_back(self, tmp_path, monkeypatch):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack())
        (tmp_path / "out.dcm").write_text("older")
        sources = source_headers(tmp_path / "series", volume.geometry)
        moved = replace(labelmap, array=np.roll(labelmap.array > 0, 1, axis=1).astype(np.uint8))
        monkeypatch.setattr(
            "SAMFineTuneLib.volumes.dicom.segmentation_writing.read_segmentation",
            lambda path, over: moved,
        )
        error = refused(write_segmentation, tmp_path / "out.dcm", labelmap, [5, 52], sources)
        assert error.code == "unwritable"
        assert (tmp_path / "out.dcm").read_text() == "older"
        assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []

    @pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
    def test_it_is_as_the_standard_says(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack(OBLIQUE))
        sources = source_headers(tmp_path / "series", volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labelmap, [5, 9, 52], sources)
        done = subprocess.run(
            ["dciodvfy", str(tmp_path / "out.dcm")], capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert "Segmentation" in said and "Error" not in said


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A DICOM series; SEGs of all its slices and of four; a model that was never tuned."""
    volume, truth = head()
    stack = Stack(OBLIQUE, spacing=(1.0, 1.0), step=3.0)
    write_series(tmp_path / "series", volume.array.astype(int), stack)
    for name, chosen in (("few", [2, 4, 6, 8]), ("all", range(12))):
        segments = {
            label: Segment(
                truth.names[label],
                {
                    float(k): (truth.array[k] == label).astype(np.uint8)
                    for k in chosen
                    if (truth.array[k] == label).any()
                },
            )
            for label in (5, 52)
        }
        write_seg(tmp_path / f"{name}.dcm", stack, segments)
    write_model(tmp_path / "m.safetensors", {1: "bright", 2: "dark"})
    return tmp_path


@pytest.mark.usefixtures("one_thread", "small_inputs")
class TestCommands:
    """Fine-tune on a DICOM segmentation, apply into one, measure one, go on from what is drawn."""

    def test_finetune(self, desk, shell):
        told = shell(
            "finetune", "--volume", desk / "series", "--segmentation", desk / "few.dcm",
            "--output", desk / "tuned.safetensors", "--steps", 1, "--batch", 1,
        )  # fmt: skip
        assert told.code == 0, told.err
        assert [label["name"] for label in told.result["labels"]] == ["bright", "dark"]
        assert [label["value"] for label in told.result["labels"]] == [5, 52]

    def test_names_go_through(self, desk, shell):
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "series",
            "--drawn", desk / "few.dcm", "--output", desk / "out.dcm",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert told.result["volumes"][0]["drawn_slices"] == 4
        assert "label 5 bright is segment 1, label 52 dark is segment 2" in told.err
        found, drawn = read_labelmap(desk / "out.dcm"), read_labelmap(desk / "few.dcm")
        assert found.names == {1: "bright", 2: "dark"}
        volume = read_volume(desk / "series").geometry
        found, drawn = labelmap_onto(found, volume), labelmap_onto(drawn, volume)
        for k in (2, 4, 6, 8):
            assert ((found.array[k] == 1) == (drawn.array[k] == 5)).all()
            assert ((found.array[k] == 2) == (drawn.array[k] == 52)).all()

    def test_evaluate(self, desk, shell):
        told = shell("evaluate", "--prediction", desk / "all.dcm", "--reference", desk / "all.dcm")
        assert told.code == 0, told.err
        assert told.result["mean_dsc"] == 1.0

    def test_refused_before_the_work(self, desk, shell, monkeypatch):
        volume = read_volume(desk / "series")
        write_volume(desk / "v.nii.gz", volume.array, volume.geometry)
        model = ("apply", "--model", desk / "m.safetensors")
        told = shell(*model, "--volume", desk / "v.nii.gz", "--output", desk / "no.dcm")
        assert told.code == 2 and "belongs to a DICOM series" in told.err
        told = shell(
            *model, "--volume", desk / "series", "--output", desk / "no.nii.gz",
            "--uncertainty", desk / "u.dcm",
        )  # fmt: skip
        assert told.code == 2 and "uncertainty" in told.err
        told = shell(
            *model, "--volume", desk / "series", "--volume", desk / "v.nii.gz",
            "--output", desk / "no.dcm",
        )  # fmt: skip
        assert told.code == 2 and "must be a folder" in told.err
        monkeypatch.setitem(sys.modules, "highdicom.seg", None)
        told = shell(*model, "--volume", desk / "series", "--output", desk / "no.dcm")
        assert told.code == 2 and "pip install highdicom" in told.err
        assert not (desk / "no.dcm").exists()

    def test_another_frame_of_reference_is_said(self, desk, shell):
        dataset = pydicom.dcmread(desk / "few.dcm")
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(desk / "strange.dcm")
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "series",
            "--drawn", desk / "strange.dcm", "--output", desk / "out2.nii.gz",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert "another DICOM frame of reference" in told.err

    def test_a_segmentation_of_a_nifti_volume(self, desk, shell):
        volume = read_volume(desk / "series")
        write_volume(desk / "v.nii.gz", volume.array, volume.geometry)
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "v.nii.gz",
            "--drawn", desk / "few.dcm", "--output", desk / "out.nii.gz",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert told.result["volumes"][0]["drawn_slices"] == 4

    def test_in_the_folder_of_its_series(self, desk, shell, tmp_path):
        shutil.copytree(desk / "series", tmp_path / "all")
        shutil.copy(desk / "few.dcm", tmp_path / "all" / "few.dcm")
        assert read_labelmap(tmp_path / "all").labels == [5, 52]
        assert read_volume(tmp_path / "all").array.shape == (12, 48, 48)
        write_labelmap(tmp_path / "few.nii.gz", read_labelmap(tmp_path / "all"))
