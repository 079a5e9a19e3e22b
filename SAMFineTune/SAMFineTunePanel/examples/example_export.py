"""From the scene to the files of a job: volumes, and labelmaps with the segments to learn."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.example_slices import ExampleSlices, PaintedSlices, chosenSegmentIDs, slicesOf
from SAMFineTunePanel.scene import raw_nrrd
from SAMFineTunePanel.scene.image_files import ImageFiles, requireUnmoved
from SAMFineTunePanel.scene.segment_voxels import SegmentVoxels, segmentName, segmentVoxels
from SAMFineTunePanel.scene.structure_label import StructureLabel
from SAMFineTunePanel.scene.voxel_grid import VoxelGrid, gridOf
from SAMFineTunePanel.texts.counted_text import counted

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example

_STATUS_TAG = "Segmentation.Status"


def structureLabels(examples: Sequence[Example], numbers: Mapping[str, int] | None = None) -> list[StructureLabel]:
    """The structures of all examples.

    Args:
        examples: as in the parameter node.
        numbers: name → number of the structures that an earlier model finds; without it they are
            numbered from 1 in the order in which they come up.

    Raises:
        ValueError: the earlier model does not find a structure, in words.
    """
    labels: dict[str, StructureLabel] = {}
    for example in examples:
        segmentation = example.segmentation.GetSegmentation()
        for segmentID in chosenSegmentIDs(example):
            segment = segmentation.GetSegment(segmentID)
            name = segmentName(example.segmentation, segmentID)
            if name not in labels:
                if numbers is not None and name not in numbers:
                    raise ValueError(
                        _("The model to start from does not find {name}; it finds {known}.").format(
                            name=name, known=", ".join(numbers)
                        )
                    )
                number = len(labels) + 1 if numbers is None else numbers[name]
                labels[name] = StructureLabel(number, name, tuple(segment.GetColor()), terminologyOf(segment))
    return list(labels.values())


def terminologyOf(segment: slicer.vtkSegment) -> str:
    """A segment's terminology entry, "" where it has none."""
    # The tag comes back through an argument, which Python sees as a reference.
    entry = vtk.reference("")
    if not segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry):
        return ""
    return str(entry.get())


@dataclass
class FinetuneInputs:
    """Writes the examples of a fine-tune into a folder.

    Attributes:
        examples: as in the parameter node, those of sequences at their frames.
        folder: of the files.
        painted: finds the labelled slices.
        labels: the structures of all examples.
        written: the examples as job.json has them, filled in by `steps`.
        unlabelled: volumes without labels that are learnt from as well, each with its further images.
        writtenUnlabelled: their files, likewise filled in by `steps`.
    """

    examples: list[Example]
    folder: Path
    painted: PaintedSlices
    labels: list[StructureLabel]
    written: list[dict[str, Any]] = field(default_factory=list)
    unlabelled: list[tuple[Any, list[Any]]] = field(default_factory=list)
    writtenUnlabelled: list[list[Path]] = field(default_factory=list)

    def steps(self) -> Iterator[None]:
        """Does the work in small pieces.

        Raises:
            ValueError: an example that cannot be used, in words.
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # One file for a volume with several segmentations: it is held out as one.
        files = ImageFiles(self.folder)
        grids = {example.volume.GetID(): gridOf(example.volume) for example in self.examples}
        # The worker tells by name which of them are examples, too.
        named = {volume.GetID() for volume, _images in self.unlabelled}
        for index, example in enumerate(self.examples):
            volume = example.volume
            images = yield from files.steps(volume, list(example.channels), volume.GetID() in named)
            segmentation = self.folder / f"segmentation{index}.seg.nrrd"
            yield from writeLabelmap(example, self.labels, segmentation)
            requireUnmoved(volume, grids[volume.GetID()])
            self.written.append(self._jobExample(example, images, segmentation))
        for volume, further in self.unlabelled:
            self.writtenUnlabelled.append((yield from files.steps(volume, further, named=True)))

    def _jobExample(self, example: Example, images: list[Path], segmentation: Path) -> dict[str, Any]:
        slices = slicesOf(example, self.painted)
        if slices.problem:
            raise ValueError(slices.problem)
        values = {label.name: label.value for label in self.labels}
        # Absent here can only be what another example shows.
        shown = self._paintedNames() if slices.absenceIsSaid else set()
        learnt = [values[name] for name, numbers in slices.bySegment.items() if numbers or name in shown]
        entry = jobExample(images, segmentation, learnt, slices)
        # Frames of a sequence are of one patient, and are held out together.
        return entry | {"group": example.group} if hasattr(example, "group") else entry

    def _paintedNames(self) -> set[str]:
        """The structures that at least one example shows."""
        known = [slicesOf(example, self.painted) for example in self.examples]
        return {name for slices in known for name, numbers in slices.bySegment.items() if numbers}


def jobExample(images: Sequence[Path], segmentation: Path, labels: list[int], slices: ExampleSlices) -> dict[str, Any]:
    """An example as job.json has it: its files, the labels in them, and what is known of its slices."""
    volume, *channels = map(str, images)
    entry: dict[str, Any] = {
        "volume": volume,
        "channels": channels,
        "segmentation": str(segmentation),
        "labels": sorted(labels),
        "axis": slices.orientation,
        "complete": list(slices.complete),
        "unfinished": list(slices.unfinished),
        "known_empty": list(slices.empty),
    }
    if slices.extent is not None:
        entry["extent"] = list(slices.extent)
    return entry


def writeLabelmap(example: Example, labels: list[StructureLabel], path: Path) -> Iterator[None]:
    """Write the chosen segments of an example on its volume's grid, with names, colours and terminology.

    Raises:
        ValueError: two segments overlap on a slice to learn from, or as `segmentVoxels`.
        OSError: the file cannot be written.
    """
    values = {label.name: label for label in labels}
    layer = LabelmapLayer(gridOf(example.volume), labels)
    for segmentID in chosenSegmentIDs(example):
        label = values[segmentName(example.segmentation, segmentID)]
        voxels = segmentVoxels(example.segmentation, segmentID, example.volume)
        shared = yield from layer.shared(voxels)
        _refuseOverlap(example, shared, label, layer.present)
        yield from layer.add(voxels, label)
    yield from layer.write(path)


class LabelmapLayer:
    """Segments that do not overlap, merged on the grid of a volume.

    Args:
        grid: of the volume.
        labels: the structures that may come.

    Attributes:
        present: the structures that have voxels in it.
    """

    def __init__(self, grid: VoxelGrid, labels: Sequence[StructureLabel]) -> None:
        self.present: list[StructureLabel] = []
        self._grid = grid
        # A model that was tuned outside of Slicer may have large numbers.
        largest = max((label.value for label in labels), default=0)
        self._merged = np.zeros(grid.shape, np.min_scalar_type(largest))

    def _under(self, voxels: SegmentVoxels) -> Iterator[np.ndarray]:
        """The numbers that are where a segment lies, piece by piece."""
        for box, mask in voxels.slabs():
            yield self._merged[box][mask]

    def overlaps(self, voxels: SegmentVoxels) -> Generator[None, None, bool]:
        """Whether a segment overlaps with what is there; yields between pieces."""
        for under in self._under(voxels):
            if under.any():
                return True
            yield
        return False

    def shared(self, voxels: SegmentVoxels) -> Generator[None, None, dict[int, int]]:
        """How many voxels a segment shares with each structure that is there; yields between pieces."""
        counts: dict[int, int] = {}
        for under in self._under(voxels):
            values, numbers = np.unique(under[under > 0], return_counts=True)
            for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
                counts[value] = counts.get(value, 0) + number
            yield
        return counts

    def add(self, voxels: SegmentVoxels, label: StructureLabel) -> Iterator[None]:
        """Draw a segment; yields between pieces."""
        painted = False
        for box, mask in voxels.slabs():
            self._merged[box][mask] = label.value
            painted = painted or bool(mask.any())
            yield
        if painted:
            self.present.append(label)

    def write(self, path: Path) -> Iterator[None]:
        """Write it with names, colours and terminology; yields between pieces.

        Raises:
            OSError: the file cannot be written.
        """
        yield from raw_nrrd.write(path, self._merged, self._grid, _segmentFields(self.present))


def _refuseOverlap(
    example: Example, shared: Mapping[int, int], label: StructureLabel, present: list[StructureLabel]
) -> None:
    if not shared:
        return
    most = max(shared, key=lambda value: shared[value])
    other = next(each.name for each in present if each.value == most)
    raise ValueError(
        counted(
            shared[most],
            _(
                "Segments {first} and {second} of {name} overlap in 1 voxel, and a voxel can be learnt as one "
                "structure only. Remove the overlap, or fine-tune a model for each."
            ),
            _(
                "Segments {first} and {second} of {name} overlap in {count} voxels, and a voxel can be learnt as one "
                "structure only. Remove the overlap, or fine-tune a model for each."
            ),
            first=other,
            second=label.name,
            name=example.segmentation.GetName(),
        )
    )


def _segmentFields(labels: list[StructureLabel]) -> dict[str, str]:
    fields = {"Segmentation_MasterRepresentation": "Binary labelmap"}
    for index, label in enumerate(labels):
        fields |= {
            f"Segment{index}_ID": f"Segment_{label.value}",
            f"Segment{index}_Name": label.name,
            f"Segment{index}_Color": " ".join(f"{part:.6g}" for part in label.colour),
            f"Segment{index}_LabelValue": str(label.value),
            f"Segment{index}_Layer": "0",
        }
        if label.terminology:
            tag = slicer.vtkSegment.GetTerminologyEntryTagName()
            fields[f"Segment{index}_Tags"] = f"{tag}:{label.terminology}|{_STATUS_TAG}:completed|"
    return fields
