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
from SAMFineTunePanel.scene.image_files import ImageFiles
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
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
    """

    model: TunedModel | None
    volumes: list[slicer.vtkMRMLScalarVolumeNode]
    segmentation: slicer.vtkMRMLSegmentationNode | None = None
    uncertainty: bool = False
    largestComponent: bool = False
    show3D: bool = False
    keepKnown: bool = False
    settings: dict[str, Any] | None = None
    channels: list[list[slicer.vtkMRMLScalarVolumeNode]] = field(default_factory=list)

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
        problem = self._problemWithImages()
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
        single = len(self.volumes) == 1
        fields: dict[str, Any] = dict(
            self.settings or {},
            kind="apply",
            model=str(model.path),
            output=str(folder / ("segmentation.seg.nrrd" if single else "segmentations")),
            largest_component=self.largestComponent,
            compress=False,
        )
        if self.uncertainty:
            fields["uncertainty"] = str(folder / ("uncertainty.nrrd" if single else "uncertainties"))

        def prepare() -> Iterator[None]:
            inputs = folder / "inputs"
            inputs.mkdir()
            files = ImageFiles(inputs)
            drawn = DrawnSlices(examples, inputs, painted, self._labels())
            cases: list[list[Path]] = []
            for index, volume in enumerate(self.volumes):
                grid = gridOf(volume)
                cases.append((yield from files.steps(volume, self._furtherImages(index))))
                if self.keepKnown:
                    yield from drawn.steps(volume, cases[-1][0], grid)
            writeJob(folder, ApplyJob, fields | _imageFields(cases) | {"drawn": drawn.written})

        def conclude(result: dict[str, Any]) -> Iterator[Any]:
            return self._conclude(result["volumes"], undo, known, noteUncertainty)

        def known(volume: slicer.vtkMRMLScalarVolumeNode) -> KnownSlices | None:
            return KnownSlices(examples, volume, painted) if self.keepKnown else None

        title = _("Apply {name}").format(name=model.name)
        return Job("apply", title, folder, prepare(), conclude)

    def _conclude(
        self,
        results: list[dict[str, Any]],
        undo: SegmentationUndo,
        known: Callable[..., KnownSlices | None],
        noteUncertainty: Callable[..., None],
    ) -> Iterator[Any]:
        nodes: list[slicer.vtkMRMLSegmentationNode] = []
        for volume, result in zip(self.volumes, results, strict=True):
            self._requirePresent(volume)
            segmentation = self._target(volume, undo)
            complete = False
            try:
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
        volume: slicer.vtkMRMLScalarVolumeNode,
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

    def _requirePresent(self, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
        for node in (volume, self.segmentation):
            if node is not None and not slicer.mrmlScene.IsNodePresent(node):
                raise ValueError(
                    _("{name} was removed from the scene while it was being segmented.").format(name=node.GetName())
                )

    def _target(self, volume: slicer.vtkMRMLScalarVolumeNode, undo: SegmentationUndo) -> slicer.vtkMRMLSegmentationNode:
        if self.segmentation is not None:
            undo.noteBefore(self.segmentation)
            return self.segmentation
        model, _card = self._usableModel()
        made = createSegmentation(volume, _("{volume} {model}").format(volume=volume.GetName(), model=model.name))
        undo.noteMade(made)
        return made


def _imageFields(cases: list[list[Path]]) -> dict[str, list]:
    """Cases as job.json has them."""
    texts = [[str(file) for file in case] for case in cases]
    further = [case[1:] for case in texts]
    return {"volumes": [case[0] for case in texts], "channels": further if any(further) else []}
