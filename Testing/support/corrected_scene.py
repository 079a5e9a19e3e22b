"""A segment of a scene that tests correct: what it holds, and what is painted and told."""

from __future__ import annotations

import numpy as np

from Testing.support.scene_builders import placement

SHAPE = (9, 40, 50)
OBLIQUE = placement((0.8, 0.9, 3.0), (1, 2, 3), 20.0, (10.0, -20.0, 30.0))


class Heard:
    """What a correction told."""

    def __init__(self, correction) -> None:
        self.events: list[str] = []
        self.words: list[str] = []
        correction.addListener(self._take)

    def _take(self, correction, event: str) -> None:
        self.events.append(event)
        if event == "status":
            self.words.append(correction.status.problem or correction.status.text)

    @property
    def said(self) -> str:
        return "\n".join(self.words)


def segment_id(segmentation, name: str) -> str:
    return segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)


def held(segmentation, name: str, volume) -> np.ndarray:
    from SAMFineTunePanel.scene.segment_voxels import segmentVoxels

    mask = np.zeros(SHAPE, bool)
    for where, piece in segmentVoxels(segmentation, segment_id(segmentation, name), volume).slabs():
        mask[where] = piece
    return mask


def ras(correction, i: float, j: float, k: float) -> np.ndarray:
    return correction.session.segment.rasOf((i, j, k))


def paint(nodes, number: int, rows, columns, value: bool = True) -> None:
    """Paint or erase a rectangle of the liver's slice, as somebody does in the Segment Editor."""
    import slicer

    volume, segmentation = nodes
    mask = held(segmentation, "liver", volume)
    mask[number, slice(*rows), slice(*columns)] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), segmentation, segment_id(segmentation, "liver"), volume
    )


def disc(j: float, i: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE[1:])
    return (rows - j) ** 2 + (columns - i) ** 2 < 36
