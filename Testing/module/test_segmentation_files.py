"""Overlapping and fractional segments in files that Slicer writes, as the library reads them."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.scene_builders import (
    add_segmentation,
    add_volume,
    box,
    file_points,
    placement,
    segment_points,
)

pytestmark = pytest.mark.usefixtures("module", "scene")

SHAPE = (10, 16, 20)
OBLIQUE = placement((0.7, 0.9, 5.0), (1, 2, 3), 25, (12.0, -30.0, 40.0))
LIVER = box(SHAPE, (2, 8), (3, 12), (4, 15))
TUMOUR = box(SHAPE, (4, 6), (5, 8), (6, 9))
SPLEEN = box(SHAPE, (2, 5), (13, 16), (4, 15))
SHARED = int((LIVER & TUMOUR).sum())
TERM = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^49755003^Morphologically "
    "Altered Structure~SCT^4147007^Mass~^^~Anatomic codes - DICOM master list~^^~^^"
)


def save(segmentation, path) -> None:
    import slicer

    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(segmentation) == 1


def load(path):
    """A file of ours as Slicer's own reader takes it."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return node


def segment_named(node, name: str):
    segmentation = node.GetSegmentation()
    return segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(name))


def overlapping(path):
    """Liver and spleen in one layer, the tumour, which lies within the liver, in another."""
    import slicer

    volume = add_volume(np.zeros(SHAPE, np.int16), OBLIQUE)
    node = add_segmentation(volume, {"liver": LIVER, "tumour": TUMOUR, "spleen": SPLEEN})
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    segment_named(node, "tumour").SetTag(tag, TERM)
    save(node, path)
    return node


def points(mask: np.ndarray) -> np.ndarray:
    from Testing.support.scene_builders import world_points

    return world_points(mask, OBLIQUE)


def test_two_segments_have_one_label_value_in_slicers_file(tmp_path):
    import SimpleITK as sitk

    overlapping(tmp_path / "s.seg.nrrd")
    header = sitk.ReadImage(str(tmp_path / "s.seg.nrrd"))
    told = [header.GetMetaData(f"Segment{number}_LabelValue") for number in range(3)]
    assert told == ["1", "1", "2"] and header.GetNumberOfComponentsPerPixel() == 2


def test_what_lies_on_top_is_whole_and_keeps_its_name_colour_and_term(tmp_path):
    from SAMFineTuneLib.volumes import read_labelmap

    node = overlapping(tmp_path / "s.seg.nrrd")
    read = read_labelmap(tmp_path / "s.seg.nrrd", on_top=["tumour"])
    # The first segment with a label value keeps it, the tumour gets the next free number.
    assert read.names == {1: "liver", 2: "spleen", 3: "tumour"}
    for label, mask in {1: LIVER & ~TUMOUR, 2: SPLEEN, 3: TUMOUR}.items():
        np.testing.assert_allclose(file_points(read, label), points(mask), atol=2e-3)
        colour = segment_named(node, read.names[label]).GetColor()
        assert read.colours[label] == pytest.approx(colour, abs=1e-3)
    assert read.terminologies[3] == TERM and read.terminologies[1] != TERM
    assert any(
        f"{SHARED} voxels of 'liver' are covered by 'tumour'" in each for each in read.remarks
    )


def test_what_is_flattened_is_the_same_in_slicer(tmp_path):
    from SAMFineTuneLib.volumes import read_labelmap, write_labelmap

    overlapping(tmp_path / "s.seg.nrrd")
    flat = read_labelmap(tmp_path / "s.seg.nrrd", on_top=["tumour"])
    write_labelmap(tmp_path / "flat.seg.nrrd", flat)
    node = load(tmp_path / "flat.seg.nrrd")
    expected = {"liver": LIVER & ~TUMOUR, "tumour": TUMOUR, "spleen": SPLEEN}
    assert node.GetSegmentation().GetNumberOfSegments() == 3
    for name, mask in expected.items():
        np.testing.assert_allclose(segment_points(node, name), points(mask), atol=2e-3)


def test_slicers_overlapping_segments_are_refused_by_name(tmp_path):
    from SAMFineTuneLib.errors import InputError
    from SAMFineTuneLib.volumes import read_labelmap

    overlapping(tmp_path / "s.seg.nrrd")
    with pytest.raises(InputError, match=f"'liver' and 'tumour' of .* overlap in {SHARED} voxels"):
        read_labelmap(tmp_path / "s.seg.nrrd")


def test_part_of_the_grid_lies_where_it_was(tmp_path):
    """Slicer stores what is segmented only, when told to, and says where that begins."""
    import slicer

    from SAMFineTuneLib.volumes import read_labelmap

    volume = add_volume(np.zeros(SHAPE, np.int16), OBLIQUE)
    node = add_segmentation(volume, {"tumour": TUMOUR, "spleen": SPLEEN})
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetCropToMinimumExtent(True)
    storage.SetFileName(str(tmp_path / "s.seg.nrrd"))
    assert storage.WriteData(node) == 1
    read = read_labelmap(tmp_path / "s.seg.nrrd")
    assert read.array.shape != SHAPE
    for label, mask in {1: TUMOUR, 2: SPLEEN}.items():
        np.testing.assert_allclose(file_points(read, label), points(mask), atol=2e-3)


def fractional(path, fractions: dict[str, np.ndarray]) -> None:
    """Segments whose source representation is fractional, written by Slicer.

    Its writer finds the grid by the binary labelmaps, so each segment has one, too.
    """
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Fractional")
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName("Fractional labelmap")
    for name, values in fractions.items():
        segment = slicer.vtkSegment()
        segment.SetName(name)
        kinds = {
            "Fractional labelmap": (values.astype(np.int8), vtk.VTK_CHAR),
            "Binary labelmap": (np.ones(SHAPE, np.uint8), vtk.VTK_UNSIGNED_CHAR),
        }
        for kind, (array, number_type) in kinds.items():
            image = slicer.vtkOrientedImageData()
            image.SetDimensions(SHAPE[::-1])
            scalars = numpy_to_vtk(array.ravel(), deep=True, array_type=number_type)
            image.GetPointData().SetScalars(scalars)
            image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(OBLIQUE))
            segment.AddRepresentation(kind, image)
        segmentation.AddSegment(segment)
    save(node, path)


def test_fractional_segments_of_slicer_are_halved(tmp_path):
    from SAMFineTuneLib.volumes import read_labelmap

    z, y, x = np.meshgrid(*(np.arange(length) for length in SHAPE), indexing="ij")
    ball = np.sqrt(((z - 5) * 2) ** 2 + (y - 8) ** 2 + (x - 12) ** 2)
    rod = np.sqrt((y - 3) ** 2 + (x - 3) ** 2)
    # Slicer's own conversion fills voxels from -108 to 108.
    fractions = {
        "ball": np.rint(np.clip(108 * (5 - ball) / 1.5, -108, 108)),
        "rod": np.rint(np.clip(108 * (3 - rod) / 1.5, -108, 108)),
    }
    fractional(tmp_path / "s.seg.nrrd", fractions)
    read = read_labelmap(tmp_path / "s.seg.nrrd")
    assert read.names == {1: "ball", 2: "rod"}
    np.testing.assert_allclose(file_points(read, 1), points(fractions["ball"] > 0), atol=2e-3)
    np.testing.assert_allclose(file_points(read, 2), points(fractions["rod"] > 0), atol=2e-3)
    assert any("fractional" in each and "-108 to 108" in each for each in read.remarks)
