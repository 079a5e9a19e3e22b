"""A small segmentation, and masks that tests write into it."""

from __future__ import annotations

import numpy as np

from Testing.support.scene_builders import add_segmentation, box, placement, rotation

SHAPE = (6, 14, 16)
SLICE = (slice(3, 4), slice(0, 14), slice(0, 16))
OBLIQUE = placement((0.7, 0.8, 2.5), axis=(1, 2, 3), degrees=35, origin=(12, -40, 7))
MOVED = rotation((0, 1, 1), 50)
MOVED[:3, 3] = 5, 6, 7


def values() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


# Voxels in two corners of the volume: labels then lie in place for every change inside of it.
CORNERS = False


def liver() -> np.ndarray:
    mask = box(SHAPE, (1, 5), (2, 8), (3, 9))
    mask[0, 0, 0] = mask[-1, -1, -1] = CORNERS
    return mask


def wanted() -> np.ndarray:
    """On the slice: overlaps the liver's rectangle, adds and removes."""
    mask = np.zeros(SHAPE[1:], bool)
    mask[5:12, 5:13] = True
    return mask[None]


def segment_id(segmentation, name: str) -> str:
    return segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)


def voxels(segmentation, volume) -> dict[str, np.ndarray]:
    """Name -> whole array (k, j, i) on the volume's grid, read by Slicer's own function."""
    import slicer

    return {
        segmentation.GetSegmentation()
        .GetSegment(each)
        .GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, each, volume).astype(
            bool
        )
        for each in segmentation.GetSegmentation().GetSegmentIDs()
    }


def own_voxels(segmentation) -> dict[str, np.ndarray]:
    """Name -> voxel indices of the segment on its own lattice, sorted."""
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    found = {}
    for each in segmentation.GetSegmentation().GetSegmentIDs():
        segment = segmentation.GetSegmentation().GetSegment(each)
        image = segment.GetRepresentation("Binary labelmap")
        assert isinstance(image, slicer.vtkOrientedImageData)
        extent = image.GetExtent()
        shape = [extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0)]
        labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        found[segment.GetName()] = np.argwhere(labels == segment.GetLabelValue()) + extent[4::-2]
    return found


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def share_layers(segmentation) -> None:
    """Segments that do not overlap into one labelmap, as after loading a file."""
    segmentation.GetSegmentation().CollapseBinaryLabelmaps(False)


def write(volume, segmentation, mask=None, place=SLICE, name="liver", **rules):
    """As an accept does, with the rules given, else those of Slicer's Segment Editor."""
    from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings, maskingSettingsOf
    from SAMFineTunePanel.segment_editing.segment_editor import slicersEditor

    editor = slicersEditor(segmentation)
    given = MaskingSettings(**rules) if rules else maskingSettingsOf(editor.node)
    edit = planned(volume, segmentation, mask, place, name, given)
    carry_out([edit], editor.saveState)
    return edit


def planned(volume, segmentation, mask, place, name, rules, where=None):
    from SAMFineTunePanel.segment_editing.edit_planning import plannedEdit

    mask = wanted() if mask is None else mask
    where = np.ones(mask.shape, bool) if where is None else where
    segment = segment_id(segmentation, name)
    return plannedEdit(volume, segmentation, segment, place, mask, where, rules)


def carry_out(edits, save_state=lambda: None) -> None:
    from SAMFineTunePanel.segment_editing.segment_edit import carryOutAll

    carryOutAll(edits, save_state)


def corrected(before: np.ndarray, mask: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """What a segment has to be afterwards."""
    full, inside = before.copy(), np.zeros(SHAPE, bool)
    full[SLICE], inside[SLICE] = mask, True
    if where is not None:
        inside &= where
    return np.where(inside, full, before)


def overlapping(volume):
    """The vessel overlaps the liver already; the spleen lies where the mask is to be."""
    return add_segmentation(
        volume,
        {
            "liver": liver(),
            "spleen": box(SHAPE, (0, 6), (9, 13), (6, 16)),
            "hidden": box(SHAPE, (2, 5), (4, 9), (10, 15)),
            "vessel": box(SHAPE, (0, 6), (5, 7), (2, 12)),
            "far": box(SHAPE, (0, 6), (0, 1), (0, 16)),
        },
    )
