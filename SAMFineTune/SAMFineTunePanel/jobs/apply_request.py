"""What an apply is asked for, and the job that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.case_images import problemForModel
from SAMFineTunePanel.examples.drawn_slices import DrawnSlices
from SAMFineTunePanel.examples.example_slices import PaintedSlices, chosenSegmentIDs
from SAMFineTunePanel.examples.known_slices import KnownSlices
from SAMFineTunePanel.jobs.finetune_request import writeJob
from SAMFineTunePanel.jobs.job import Job
from SAMFineTunePanel.jobs.result_import import PredictedStructures, UncertaintyVolume, createSegmentation
from SAMFineTunePanel.jobs.sequence_import import SegmentedSequence
from SAMFineTunePanel.scene.frames import VolumeFrame, besideFrame, frameOf, requirePresent
from SAMFineTunePanel.scene.image_files import ImageFiles
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.scene.sequences import NodeSequence, sequenceOf
from SAMFineTunePanel.scene.structure_label import StructureLabel, structureName
from SAMFineTunePanel.scene.voxel_grid import gridOf
from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo

if TYPE_CHECKING:
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTuneLib.models.model_file import ModelCard
    from SAMFineTunePanel.parameter_node import Example

_GREY = (0.5, 0.7, 0.5)


@dataclass
class ApplyRequest:
    """An apply.

    Attributes:
        model: a tuned model (SAMFineTuneLib.models.library.TunedModel).
        volumes: at least one.
        channels: for each volume its further images, in the order of the model; none where it takes one image.
        segmentation: to write into; None makes a new one for each volume.
        uncertainty: whether to make volumes of it too.
        largestComponent: whether to keep only the largest region of each structure.
        show3D: whether to show the structures in 3D.
        keepKnown: whether slices of an example stay as they were labelled, and empty ones empty; between labelled
            slices the result follows their shapes, too.
        settings: further fields of job.json, such as the device.
        frames: index values of items of the sequence that the one volume shows; None segments what is shown.
        tidy: whether neighbouring slices decide together, and stray regions are dropped.
    """

    model: TunedModel | None
    volumes: list[slicer.vtkMRMLScalarVolumeNode]
    segmentation: slicer.vtkMRMLSegmentationNode | None = None
    uncertainty: bool = False
    largestComponent: bool = False
    show3D: bool = False
    keepKnown: bool = False
    settings: dict[str, Any] | None = None
    frames: list[str] | None = None
    channels: list[list[slicer.vtkMRMLScalarVolumeNode]] = field(default_factory=list)
    tidy: bool = True

    def problem(self, examples: list[Example]) -> str:
        """What is missing, in words; "" when it can start.

        Args:
            examples: those of the scene, whose labelled segments may not be overwritten.
        """
        try:
            self._usableModel()
        except ValueError as error:
            return str(error)
        if not self.volumes or any(volume is None for volume in self.volumes):
            return _("Choose a volume to segment first.")
        try:
            for volume in self.volumes:
                gridOf(volume)
        except ValueError as error:
            return str(error)
        problem = self._problemWithFrames() or self._problemWithImages()
        if problem:
            return problem
        if self.segmentation is not None:
            return self._problemWithSegmentation(self.segmentation, examples)
        return ""

    def _usableModel(self) -> tuple[TunedModel, ModelCard]:
        """The model and its card.

        Raises:
            ValueError: none is chosen, or its file cannot be used, in words.
        """
        if self.model is None:
            raise ValueError(_("Choose a tuned model first."))
        if self.model.card is None:
            raise ValueError(self.model.fault)
        return self.model, self.model.card

    def _problemWithFrames(self) -> str:
        if self.frames is None:
            return ""
        if len(self.volumes) != 1:
            return _("Frames are chosen of one volume at a time.")
        sequence = sequenceOf(self.volumes[0])
        if sequence is None:
            return _("{name} shows no sequence, so it has no frames.").format(name=self.volumes[0].GetName())
        if not self.frames:
            return _("Choose at least one frame.")
        if self.segmentation is not None:
            return _("The frames of a sequence get a new segmentation.")
        try:
            for frame in self._framesOf(sequence):
                gridOf(frame)
        except ValueError as error:
            return str(error)
        return ""

    def _framesOf(self, sequence: NodeSequence) -> list[VolumeFrame]:
        return [VolumeFrame(sequence, each) for each in self.frames or []]

    def _cases(self) -> list[tuple[Any, list[Any]]]:
        """What is segmented, at its frame where it shows a sequence, and the further images at the same frame.

        Raises:
            ValueError: an item is not there any more, in words.
        """
        sequence = sequenceOf(self.volumes[0])
        if self.frames is not None and sequence is not None:
            volumes: list[Any] = self._framesOf(sequence)
            channels = [self._furtherImages(0)] * len(volumes)
        else:
            # What a browser shows may change before the result is there.
            volumes = [frameOf(each) for each in self.volumes]
            channels = [self._furtherImages(index) for index in range(len(volumes))]
        return [
            (volume, [besideFrame(each, volume, VolumeFrame) for each in further])
            for volume, further in zip(volumes, channels, strict=True)
        ]

    def _problemWithImages(self) -> str:
        model, card = self._usableModel()
        if card.channels and len(self.volumes) > 1 and not self.channels:
            return _(
                "{model} takes several images of a case ({names}). Apply it to one volume at a time, with its further "
                "images."
            ).format(model=model.name, names=", ".join(card.channels))
        if self.channels and len(self.channels) != len(self.volumes):
            return _("Give further images for each volume.")
        problems = (
            problemForModel(model.name, card.channels, volume, self._furtherImages(index))
            for index, volume in enumerate(self.volumes)
        )
        return next((each for each in problems if each), "")

    def _furtherImages(self, index: int) -> list[slicer.vtkMRMLScalarVolumeNode]:
        return list(self.channels[index]) if self.channels else []

    def _problemWithSegmentation(self, node: slicer.vtkMRMLSegmentationNode, examples: list[Example]) -> str:
        if len(self.volumes) > 1:
            return _("Several volumes need a new segmentation each.")
        if sequenceOf(node) is not None:
            # The browser may show another frame before the result is there.
            return _(
                "{name} shows the frames of a sequence, and the result is of one frame. Choose a new segmentation."
            ).format(name=node.GetName())
        segmentation = node.GetSegmentation()
        if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
            return _("{name} is not made of voxels but of surfaces. Choose a new segmentation.").format(
                name=node.GetName()
            )
        names = {label.name for label in self._labels()}
        for example in examples:
            if example.segmentation is not node:
                continue
            segments = (segmentation.GetSegment(segmentID) for segmentID in chosenSegmentIDs(example))
            taken = [segment.GetName() for segment in segments if segment and segment.GetName().strip() in names]
            if taken:
                return _(
                    "Segment {segment} of {name} is an example to learn from and would be replaced. Choose a new "
                    "segmentation, or remove the example."
                ).format(segment=taken[0], name=node.GetName())
        return ""

    def _labels(self) -> list[StructureLabel]:
        _model, card = self._usableModel()
        return [
            StructureLabel(
                label.value,
                structureName(label.value, label.name),
                label.colour or _GREY,
                label.terminology,
            )
            for label in card.labels
        ]

    def job(
        self,
        undo: SegmentationUndo,
        examples: list[Example],
        painted: PaintedSlices,
        noteUncertainty: Callable[..., None],
    ) -> Job:
        """The job, not yet started; its result is the list of segmentation nodes.

        Args:
            undo: keeps the states before.
            examples: as for `problem`; and what is said of slices in them is kept.
            painted: finds labelled slices.
            noteUncertainty: called with a volume, the orientation and the uncertainty of each slice.

        Raises:
            ValueError: what is missing, in words.
            InputError: settings that do not fit, or no folder to work in.
        """
        from SAMFineTuneLib.jobs.folder import new_job_folder
        from SAMFineTuneLib.jobs.schema import ApplyJob

        problem = self.problem(examples)
        if problem:
            raise ValueError(problem)
        model, _card = self._usableModel()
        folder = new_job_folder("apply").path
        cases = self._cases()
        single = len(cases) == 1
        fields: dict[str, Any] = dict(
            self.settings or {},
            kind="apply",
            model=str(model.path),
            output=str(folder / ("segmentation.seg.nrrd" if single else "segmentations")),
            largest_component=self.largestComponent,
            tidy=self.tidy,
            compress=False,
        )
        if self.uncertainty:
            fields["uncertainty"] = str(folder / ("uncertainty.nrrd" if single else "uncertainties"))

        def prepare() -> Iterator[None]:
            inputs = folder / "inputs"
            inputs.mkdir()
            files = ImageFiles(inputs)
            drawn = DrawnSlices(examples, inputs, painted, self._labels())
            written: list[list[Path]] = []
            for volume, channels in cases:
                grid = gridOf(volume)
                written.append((yield from files.steps(volume, channels)))
                if self.keepKnown:
                    yield from drawn.steps(volume, written[-1][0], grid)
            writeJob(folder, ApplyJob, fields | _imageFields(written) | {"drawn": drawn.written})

        def conclude(result: dict[str, Any]) -> Iterator[Any]:
            volumes = [volume for volume, _channels in cases]
            make = self._concludeVolumes if self.frames is None else self._concludeFrames
            return make(volumes, result["volumes"], undo, known, noteUncertainty)

        def known(volume: Any) -> KnownSlices | None:
            return KnownSlices(examples, volume, painted) if self.keepKnown else None

        title = _("Apply {name}").format(name=model.name)
        return Job("apply", title, folder, prepare(), conclude)

    def _concludeFrames(
        self,
        frames: list[Any],
        results: list[dict[str, Any]],
        undo: SegmentationUndo,
        known: Callable[..., KnownSlices | None],
        noteUncertainty: Callable[..., None],
    ) -> Iterator[Any]:
        files = [Path(each["segmentation"]) for each in results]
        doubts = [Path(each["uncertainty"]) for each in results if each.get("uncertainty")]
        name = self._nameOf(self.volumes[0])
        made = SegmentedSequence(frames, files, doubts, name, self._labels(), known, self.show3D)
        segmentation = yield from made.steps(undo)
        for frame, result in zip(frames, results, strict=True):
            noteUncertainty(frame, result["axis"], result["slice_uncertainty"])
        complete = False
        try:
            yield [segmentation]
            complete = True
        finally:
            # Cancelled at the last moment: the job has no result then.
            if not complete and undo.canUndo(segmentation):
                undo.undo(segmentation)

    def _concludeVolumes(
        self,
        volumes: list[Any],
        results: list[dict[str, Any]],
        undo: SegmentationUndo,
        known: Callable[..., KnownSlices | None],
        noteUncertainty: Callable[..., None],
    ) -> Iterator[Any]:
        nodes: list[slicer.vtkMRMLSegmentationNode] = []
        for volume, result in zip(volumes, results, strict=True):
            for node in (volume, self.segmentation):
                if node is not None:
                    requirePresent(node)
            segmentation = self._target(volume, undo)
            complete = False
            try:
                # All selectors of the window take notice of a new node; the reading has a turn of its own.
                yield
                yield from self._bringIn(volume, result, segmentation, undo, known(volume))
                undo.noteAfter(segmentation)
                complete = True
            finally:
                # Half a result is none: what was begun is taken back.
                if not complete and undo.canUndo(segmentation):
                    undo.undo(segmentation)
            noteUncertainty(volume, result["axis"], result["slice_uncertainty"])
            nodes.append(segmentation)
        yield nodes

    def _bringIn(
        self,
        volume: Any,
        result: dict[str, Any],
        segmentation: slicer.vtkMRMLSegmentationNode,
        undo: SegmentationUndo,
        known: KnownSlices | None,
    ) -> Iterator[None]:
        path = Path(result["segmentation"])
        yield from PredictedStructures(path, volume, segmentation, self._labels(), known).steps()
        if result.get("uncertainty"):
            doubt = UncertaintyVolume(Path(result["uncertainty"]), volume)
            yield from doubt.steps()
            undo.noteBeside(segmentation, doubt.node)
        if self.show3D:
            segmentation.CreateClosedSurfaceRepresentation()
        yield

    def _target(self, volume: Any, undo: SegmentationUndo) -> slicer.vtkMRMLSegmentationNode:
        if self.segmentation is not None:
            undo.noteBefore(self.segmentation)
            return self.segmentation
        made = createSegmentation(volume, self._nameOf(volume))
        undo.noteMade(made)
        return made

    def _nameOf(self, volume: Any) -> str:
        """The name of a new segmentation."""
        model, _card = self._usableModel()
        return _("{volume} {model}").format(volume=volume.GetName(), model=model.name)


def _imageFields(cases: list[list[Path]]) -> dict[str, list]:
    """Cases as job.json has them."""
    texts = [[str(file) for file in case] for case in cases]
    further = [case[1:] for case in texts]
    return {"volumes": [case[0] for case in texts], "channels": further if any(further) else []}
