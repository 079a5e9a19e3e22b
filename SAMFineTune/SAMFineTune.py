"""SAMFineTune for 3D Slicer: teach a Segment Anything Model your own structure from a few labelled slices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Slicer adds the folder of a module to the path only while it loads it from a source tree.
if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.append(str(Path(__file__).resolve().parent))

from SAMFineTunePanel import module_test
from SAMFineTunePanel.correction.corrected_examples import addAcceptedSlices
from SAMFineTunePanel.correction.correction import Correction
from SAMFineTunePanel.correction.correction_script import CorrectedSlices, correctSlice, propagate
from SAMFineTunePanel.effect.registration import registerEffect
from SAMFineTunePanel.examples.case_images import problemWithImages
from SAMFineTunePanel.examples.example_frames import atItsFrame
from SAMFineTunePanel.examples.example_slices import ExampleSlices, slicesOf
from SAMFineTunePanel.folders import makeLibraryImportable, resourcePath
from SAMFineTunePanel.jobs.apply_request import ApplyRequest
from SAMFineTunePanel.jobs.finetune_request import FinetuneRequest, finetuneJob, unclaimedOutput, writeJob
from SAMFineTunePanel.jobs.going_on import problemWithGoingOn
from SAMFineTunePanel.jobs.job import Job
from SAMFineTunePanel.jobs.result_import import segmentIDByName
from SAMFineTunePanel.module_state import closeModuleState, theModuleState
from SAMFineTunePanel.parameter_node import (
    STRATEGY,
    Example,
    SAMFineTuneParameterNode,
    beginsAtRandom,
    strategyOf,
    unlabelledVolumesOf,
)
from SAMFineTunePanel.scene.node_kinds import requireOrientation, requireSegmentation, requireVolume
from SAMFineTunePanel.scene.sample_data import registerSampleData
from SAMFineTunePanel.scene.sequences import frameShown, numbersToIndexValues, sequenceOf
from SAMFineTunePanel.scene.slice_view import SliceInView, showSlice, sliceInView
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment

if TYPE_CHECKING:
    from SAMFineTuneLib.jobs.interrupted import InterruptedFinetune
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTunePanel.sections.panel import Panel

makeLibraryImportable()

# Field of the parameter node → field of job.json, and the value that leaves the choice to the program.
_SETTINGS = {
    "preset": ("preset", ""),
    "backbone": ("backbone", ""),
    "checkpoint": ("checkpoint", ""),
    "weightsKind": ("weights_kind", ""),
    "weights": ("weights", ""),
    "device": ("device", ""),
    "method": ("method", ""),
    "scope": ("scope", ""),
    "rank": ("rank", 0),
    "head": ("head", "auto"),
    "headDepth": ("head_depth", 0),
    "adapterBlocks": ("adapter_blocks", "auto"),
    "decoderAdapters": ("decoder_adapters", "all"),
    "loraBlocks": ("lora_blocks", "all"),
    "loraParts": ("lora_parts", ["q", "v"]),
    "loraScale": ("lora_scale", 1.0),
    "inputSize": ("input_size", 0),
    "steps": ("steps", 0),
    "minutes": ("minutes", 0),
    "batch": ("batch", 0),
    "learningRate": ("learning_rate", 0),
    "seed": ("seed", None),
    "validation": ("validation", ""),
    "prompts": ("prompts", False),
    "promptMode": ("prompt_mode", "correction"),
    "unlabelledExamples": ("unlabelled_examples", None),
}
# Field `otherSlices` of the parameter node → setting `unlabelledExamples`.
_OTHER_SLICES = {"yes": True, "no": False}


class SAMFineTune(ScriptedLoadableModule):
    """What Slicer's list of modules shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SAM FineTune")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Plots"]
        self.parent.contributors = ["SAMFineTune developers"]
        self.parent.helpText = _(
            "Label a few slices of a structure, fine-tune the Segment Anything Model on them, and have it segment "
            "whole volumes. Everything runs on this computer, with or without a GPU. "
            'See <a href="https://github.com/SAMFineTune/SlicerSAMFineTune">the documentation</a>.'
        )
        self.parent.acknowledgementText = _(
            "Follows Gu, Dong, Yang, Mazurowski: How to build the best medical image segmentation algorithm using "
            "foundation models (MELBA 2025:006), and Li, Rajpurkar: Adapting Segment Anything Models to Medical "
            "Imaging via Fine-Tuning without Domain Pretraining. Stands on Segment Anything and MobileSAM."
        )
        # Slicer finds it by itself only where Resources lies beside this file.
        self.parent.icon = qt.QIcon(resourcePath("Icons/SAMFineTune.png"))
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerEffect)


class SAMFineTuneWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel; its sections are in SAMFineTunePanel."""

    def __init__(self, parent: Any = None) -> None:
        # Without a parent the base class calls setup(), so these come first.
        VTKObservationMixin.__init__(self)
        self.logic: SAMFineTuneLogic | None = None
        self._panel: Panel | None = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    @property
    def panel(self) -> Panel:
        """The panel.

        Raises:
            RuntimeError: `setup` has not made it.
        """
        if self._panel is None:
            raise RuntimeError("the panel was not set up")
        return self._panel

    def setup(self) -> None:
        """Make the panel; called once, when the module is first shown."""
        from SAMFineTunePanel.sections.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SAMFineTuneLogic()
        self._panel = Panel(self.layout, self.logic)
        self._panel.setup()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        # After Reload in developer mode the panel is in view already, and nobody calls enter().
        if self._isEntered():
            self.enter()

    def enter(self) -> None:
        """The module is shown."""
        self.panel.enter()

    def exit(self) -> None:
        """Another module is shown; a job goes on."""
        self.panel.exit()

    def cleanup(self) -> None:
        """The module is unloaded, or Slicer closes."""
        self.removeObservers()
        # Where setup() failed, Reload must still be able to put it right.
        if self._panel is not None:
            self._panel.cleanup()
        if self.logic is not None:
            self.logic.cleanup()

    def onReload(self) -> None:
        """Developer mode: the parts of the panel are loaded anew too."""
        closeModuleState()
        for name in [name for name in sys.modules if name.split(".")[0] == "SAMFineTunePanel"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: object, event: object) -> None:
        """The scene is about to be emptied."""
        self.panel.onSceneStartClose()

    def onSceneEndClose(self, caller: object, event: object) -> None:
        """The scene is empty."""
        if self._isEntered():
            self.panel.onSceneEndClose()

    def _isEntered(self) -> bool:
        """Whether the panel is in view; a panel on its own, without Slicer's module panel, never is."""
        return bool(getattr(self.parent, "isEntered", False))


class SAMFineTuneLogic(ScriptedLoadableModuleLogic):
    """Everything that the panel does, for scripts: nodes in, nodes out; errors are exceptions with words.

    One job runs at a time, whoever started it; all instances share it, and what they know.
    Slices are numbered from 0 along the volume's own voxel axis.
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._state = theModuleState()

    @property
    def job(self) -> Job | None:
        """The job that was started last, from the panel or by a script; None before the first."""
        return self._state.job

    def cleanup(self) -> None:
        """End what runs; called before the module is unloaded."""
        self._state.end()

    def getParameterNode(self) -> SAMFineTuneParameterNode:
        """What the scene remembers: examples and choices."""
        return SAMFineTuneParameterNode(super().getParameterNode())

    # Examples

    def addExample(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segmentIDs: Sequence[str] = (),
        orientation: str = "auto",
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode] = (),
        frame: int | None = None,
    ) -> Example:
        """Add a volume with its labelled slices to learn from.

        Args:
            volume: the image.
            segmentation: its segmentation, in any geometry.
            segmentIDs: what to learn; none means all segments.
            orientation: of the labelled slices; "auto" sees from the labels.
            channels: further images of the same case, such as a FLAIR beside a T1, at most two.
            frame: of a volume that shows a sequence, the number of the item on which it was labelled, from 0; None
                for the one that is shown now. Several frames of one volume may be examples.

        Raises:
            ValueError: it is an example already, there is no such frame, or the images cannot go together.
        """
        _requireCase(volume, channels)
        requireSegmentation(segmentation)
        requireOrientation(orientation)
        examples = self.getParameterNode().examples
        indexValue = _indexValue(volume, frame)
        pairs = [each for each in examples if each.volume is volume and each.segmentation is segmentation]
        if any((each.frame or indexValue) == indexValue for each in pairs):
            raise ValueError(
                _("{volume} with {segmentation} is an example already.").format(
                    volume=volume.GetName(), segmentation=segmentation.GetName()
                )
            )
        examples.append(
            Example(
                volume=volume,
                segmentation=segmentation,
                channels=list(channels),
                frame=indexValue,
                segmentIDs=list(segmentIDs),
                orientation=orientation,
            )
        )
        return examples[len(examples) - 1]

    def removeExample(self, index: int) -> None:
        """Forget an example; its nodes stay in the scene."""
        del self.getParameterNode().examples[index]

    def exampleSlices(self, example: Example) -> ExampleSlices:
        """Which slices of an example are labelled, empty, or not to be used, and why."""
        return slicesOf(example, self._state.painted)

    def markComplete(self, index: int, number: int, on: bool = True) -> None:
        """Say that every chosen segment is complete on a slice; those not to be seen are not there.

        Taken back for a slice on which something is painted, the slice does not count until marked again.
        """
        example = self.getParameterNode().examples[index]
        painted = number in self.exampleSlices(example).found
        _mark(example, "complete", number, on)
        _mark(example, "unfinished", number, painted and not on)
        if on:
            _mark(example, "empty", number, False)

    def markEmpty(self, index: int, number: int, on: bool = True) -> None:
        """Say that a slice holds none of the chosen segments.

        Raises:
            ValueError: something is painted there.
        """
        example = self.getParameterNode().examples[index]
        if on and number in self.exampleSlices(example).found:
            raise ValueError(_("Something is painted on slice {number}, so it is not empty.").format(number=number))
        _mark(example, "empty", number, on)
        if on:
            _mark(example, "complete", number, False)
            _mark(example, "unfinished", number, False)

    def setFirst(self, index: int, number: int) -> None:
        """Say on which slice the structures begin; -1 takes it back. All before it is empty."""
        self.getParameterNode().examples[index].first = number

    def setLast(self, index: int, number: int) -> None:
        """Say on which slice the structures end; -1 takes it back. All behind it is empty."""
        self.getParameterNode().examples[index].last = number

    def suggestSlice(self, index: int) -> int | None:
        """The slice of an example to label next: far from the labelled ones and, once a model has been
        applied to the volume, where it is least certain. None when all slices are known."""
        from SAMFineTuneLib.slices.suggestion import next_slice

        example = self.getParameterNode().examples[index]
        slices = self.exampleSlices(example)
        volume = atItsFrame(example).volume
        orientation, uncertainty = self._state.uncertainty.get(volume.GetID(), ("", []))
        fits = orientation == slices.orientation and len(uncertainty) == slices.count
        return next_slice(
            slices.count, slices.labelled, list(slices.empty), slices.extent, uncertainty if fits else None
        )

    def sliceInView(self, example: Example) -> SliceInView:
        """The slice of an example that a slice view shows at present."""
        slices = self.exampleSlices(example)
        if example.volume is None or slices.count == 0:
            return SliceInView(problem=slices.problem)
        return sliceInView(example.volume, slices.orientation)

    def showSlice(self, example: Example, number: int) -> None:
        """Move (and if need be turn) a slice view to a slice of an example, and a browser to its frame.

        Raises:
            ValueError: there is no such slice or no view.
        """
        sequence = sequenceOf(example.volume)
        if sequence is not None and example.frame:
            sequence.show(example.frame)
        showSlice(example.volume, self.exampleSlices(example).orientation, number)

    # Fine-tune

    def problemWithFineTune(self) -> str:
        """What a fine-tune with the choices of the scene lacks, in words; "" when it can start."""
        return self._finetuneRequest().problem(self._state.painted)

    def startFineTune(self) -> Job:
        """Fine-tune with the choices of the scene; returns at once.

        Raises:
            ValueError: something is missing, in words.
            JobRunningError: another job is at work.
        """
        return self._state.start(lambda: self._finetuneRequest().job(self._state.painted))

    def fineTune(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode | None = None,
        segmentation: slicer.vtkMRMLSegmentationNode | None = None,
        segments: Sequence[str] = (),
        *,
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode] = (),
        examples: Sequence[Example] | None = None,
        orientation: str = "auto",
        name: str = "",
        startFrom: TunedModel | str = "",
        unlabelled: Sequence[slicer.vtkMRMLScalarVolumeNode] = (),
        goOn: bool = False,
        blocking: bool = True,
        progress: Callable[[Job], None] | None = None,
        **settings: Any,
    ) -> Any:
        """Fine-tune a model on labelled slices.

        Args:
            volume: an image …
            segmentation: … and its segmentation with a few labelled slices;
            segments: names or IDs of the segments to learn; none means all.
            channels: further images of the same case, such as a FLAIR beside a T1, at most two.
            examples: several Example in place of the four above.
            orientation: of the labelled slices; "auto" sees from the labels.
            name: of the model; else named after its structures.
            startFrom: a tuned model, or its name, to go on from.
            unlabelled: volumes without labels to learn from as well, such as those that are to be segmented.
            goOn: whether that model goes on where its fine-tune ended, with the same examples and a small learning
                rate; the new model replaces it when it is done.
            blocking: whether to wait for the end; Slicer stays alive meanwhile.
            progress: called with the Job whenever there is news.
            settings: preset, backbone, checkpoint, weightsKind (what the checkpoint was trained as: "sam", "medsam",
                "sslsam", "supsam" or "own"), weights ("pretrained" or "random"), device, method, scope, rank,
                head, headDepth, adapterBlocks, decoderAdapters, loraBlocks (each a word or numbers, such as "all" or
                [0, 1]), loraParts (a list, such as ["q", "v"]), loraScale, inputSize, steps, minutes, batch,
                learningRate, seed, validation, prompts (True tunes a second set of weights too, for corrections),
                promptMode ("correction", or the study's "box", "point" or "mixed"), unlabelledExamples (whether the
                other slices of the examples are learnt from without labels); those left out are chosen by the
                program.

        Returns:
            The tuned model; without `blocking` the Job, whose `wait()` gives it.

        Raises:
            ValueError: something is missing or does not fit, in words.
            InputError: a setting that does not fit, in words.
            JobRunningError: another job is at work.
            JobFailedError, JobCancelledError: how it ended.
        """
        if examples is None:
            if volume is None or segmentation is None:
                raise ValueError(_("A volume and its segmentation are needed."))
            _requireCase(volume, channels)
            requireSegmentation(segmentation)
            requireOrientation(orientation)
            frame = frameShown(volume)
            example = Example(volume=volume, segmentation=segmentation, channels=list(channels), frame=frame)
            example.segmentIDs = _segmentIDs(segmentation, segments)
            example.orientation = orientation
            examples = [example]
        base = startFrom if isinstance(startFrom, str) else startFrom.name
        for each in unlabelled:
            requireVolume(each)
        if goOn and not base:
            raise ValueError(_("A model to go on from is needed: give startFrom."))
        request = FinetuneRequest(list(examples), name, base, _fields(settings), list(unlabelled), goOn)
        return self._run(lambda: request.job(self._state.painted), blocking, progress)

    def problemWithGoingOn(self, model: TunedModel | None) -> str:
        """Why a tuned model cannot go on learning from the examples of the scene, in words; "" when it can."""
        return problemWithGoingOn(model, self._goOnRequest(model), self._state.painted)

    def goOnLearning(self, model: TunedModel | str) -> Job:
        """Have a tuned model go on where its fine-tune ended, with the examples of the scene; returns at once.

        The new model replaces the old one, under its name, when it is done; when it is cancelled, the old one stays.

        Raises:
            ValueError: it cannot go on, in words.
            InputError: no such model, or no folder to work in.
            JobRunningError: another job is at work.
        """
        base = self._model(model)
        problem = self.problemWithGoingOn(base)
        if problem:
            raise ValueError(problem)
        return self._state.start(lambda: self._goOnRequest(base).job(self._state.painted))

    def interruptedFineTunes(self) -> list[InterruptedFinetune]:
        """Fine-tunes that the closing of Slicer, a crash or a power cut has stopped and that can go on."""
        from SAMFineTuneLib.jobs.interrupted import interrupted_finetunes

        return interrupted_finetunes()

    def resume(self, interrupted: InterruptedFinetune) -> Job:
        """Go on with an interrupted fine-tune; returns at once.

        Raises:
            JobRunningError: another job is at work.
        """
        return self._state.start(
            lambda: finetuneJob(interrupted.folder, unclaimedOutput(interrupted.folder, interrupted.output))
        )

    def discard(self, interrupted: InterruptedFinetune) -> None:
        """Delete what an interrupted fine-tune has left."""
        from SAMFineTuneLib.jobs.interrupted import discard

        discard(interrupted.folder)

    # Apply

    def problemWithApply(self) -> str:
        """What an apply with the choices of the scene lacks, in words; "" when it can start."""
        return self._applyRequest().problem(list(self.getParameterNode().examples))

    def startApply(self) -> Job:
        """Apply with the choices of the scene; returns at once.

        Where labelled slices are kept, the result follows their shapes between them, too.

        Raises:
            ValueError: something is missing, in words.
            JobRunningError: another job is at work.
        """
        return self._state.start(lambda: self._applyJob(self._applyRequest()))

    def apply(
        self,
        model: TunedModel | str,
        volumes: slicer.vtkMRMLScalarVolumeNode | Sequence[slicer.vtkMRMLScalarVolumeNode],
        segmentation: slicer.vtkMRMLSegmentationNode | None = None,
        *,
        channels: Sequence[Any] = (),
        frames: Sequence[int] | str | None = None,
        uncertainty: bool = False,
        largestComponent: bool = False,
        tidy: bool = True,
        show3D: bool = False,
        keepKnown: bool = False,
        blocking: bool = True,
        progress: Callable[[Job], None] | None = None,
        **settings: Any,
    ) -> Any:
        """Segment volumes with a tuned model.

        Args:
            model: a tuned model, or its name.
            volumes: one volume node, or several.
            segmentation: to write into, for one volume; segments of the model's names are replaced, others
                stay. None makes a new one for each volume.
            channels: the further images of the volume's case, in the order of the model, for a model that takes
                several; for several volumes a list of them for each.
            frames: of a volume that shows a sequence: "all", or numbers of its items, from 0. They come back as a
                sequence of segmentations in the same browser. None segments the frame that is shown.
            uncertainty: whether to make a volume of it, from 0 (certain) to 1.
            largestComponent: whether to keep only the largest region of each structure.
            tidy: whether neighbouring slices that look alike decide together, and small regions apart from a
                structure that is in one piece on every example of the model are dropped.
            show3D: whether to show the structures in 3D.
            keepKnown: whether, on a volume that is an example of the scene, labelled slices stay as they were
                drawn and empty ones empty, and between labelled slices the result follows their shapes, too.
                Not for measuring how good a model is.
            blocking: whether to wait for the end; Slicer stays alive meanwhile.
            progress: called with the Job whenever there is news.
            settings: device, checkpoint, batch.

        Returns:
            The segmentation node for one volume, a list of them for several; without `blocking` the Job,
            whose `wait()` gives the list.

        Raises:
            ValueError: something is missing or does not fit, in words.
            InputError: a setting that does not fit, or no such model.
            JobRunningError: another job is at work.
            JobFailedError, JobCancelledError: how it ended.
        """
        several = isinstance(volumes, (list, tuple))
        chosen = list(volumes) if several else [volumes]
        for volume in chosen:
            requireVolume(volume)
        if segmentation is not None:
            requireSegmentation(segmentation)
        further = [list(each) for each in channels] if several else [list(channels)]
        for volume, images in zip(chosen, further, strict=False):
            _requireCase(volume, images)
        request = ApplyRequest(
            model=self._model(model),
            volumes=chosen,
            channels=further if any(further) else [],
            frames=_framesOf(chosen, frames),
            segmentation=segmentation,
            uncertainty=uncertainty,
            largestComponent=largestComponent,
            tidy=tidy,
            show3D=show3D,
            keepKnown=keepKnown,
            settings=_fields(settings),
        )
        result = self._run(lambda: self._applyJob(request), blocking, progress)
        return result if not blocking or several else result[0]

    def canUndoApply(self, segmentation: slicer.vtkMRMLSegmentationNode | None) -> bool:
        """Whether an apply to a segmentation can be taken back."""
        return self._state.undo.canUndo(segmentation)

    def undoApply(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        """Take the last apply to a segmentation back; one that it had made is removed.

        Raises:
            ValueError: there is none.
        """
        self._state.undo.undo(segmentation)

    # Correct

    @property
    def correction(self) -> Correction:
        """The correction of the panel and of the Segment Editor, open or not."""
        return self._state.correction

    def problemWithCorrecting(self) -> str:
        """What a correction with the choices of the scene lacks, in words; "" when it can start."""
        node = self.getParameterNode()
        if node.correctVolume is None:
            return _("Choose a volume to correct first.")
        if node.correctSegmentation is None:
            return _("Choose a segmentation first; make one in the Segment Editor where there is none.")
        try:
            CorrectedSegment(node.correctVolume, node.correctSegmentation, node.correctSegment).require()
        except ValueError as error:
            return str(error)
        return ""

    def startCorrecting(self) -> None:
        """Open a correction with the choices of the scene; returns at once.

        Raises:
            ValueError: something is missing, in words.
            InputError: no such model, or no folder to work in.
        """
        problem = self.problemWithCorrecting()
        if problem:
            raise ValueError(problem)
        node = self.getParameterNode()
        self.correction.open(
            node.correctVolume,
            node.correctSegmentation,
            node.correctSegment,
            node.correctModel,
            node.correctStart,
            **_fields({"device": node.device}),
        )

    def fineTuneAgain(self) -> Job:
        """Add the slices that were accepted to the examples, and fine-tune from the model at work; returns at once.

        Raises:
            ValueError: something is missing, in words.
            JobRunningError: another job is at work.
        """
        if self.correction.session.accepted:
            addAcceptedSlices(self, self.correction)
        model = self.correction.session.model
        self.getParameterNode().startFrom = model.name if model is not None else ""
        return self.startFineTune()

    def correct(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment: str,
        *,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[Any] | None = None,
        box: Sequence[Sequence[float]] | None = None,
        slice: int | None = None,  # noqa: A002 - the name that scripts use
        model: TunedModel | str | None = None,
        start: str = "auto",
        accept: bool = True,
        orientation: str = "auto",
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode] | None = None,
        device: str = "auto",
    ) -> CorrectedSlices:
        """Correct a segment on one slice with points and a box; waits for the mask.

        The worker stays for the next call on the same volume with the same model.

        Args:
            volume: the image.
            segmentation: holds the segment.
            segment: its name or ID.
            points: RAS of each, in the order in which they count.
            labels: for each point 1 (on the structure) or 0 (beside it); None: all are on it.
            box: RAS of two opposite corners.
            slice: number of the slice, on which all points and corners must lie; None for that of the first.
            model: a tuned model, or its name; None for the backbone as it is.
            start: the mask that they correct: "segment", "model", "nothing", or "auto", which is the segment
                where it has voxels on the slice, else the model where it finds such a structure.
            accept: whether to write the mask into the segment.
            orientation: of the slices; "auto" is the model's, or that of the thickest slices.
            channels: the further images of the same case, for a model that takes several; None takes those of an
                example of the volume, or those whose names say so.
            device: "auto", "cpu", "cuda", "mps".

        Raises:
            ValueError: something does not fit, in words; nothing is changed.
            InputError: no such model, or no folder to work in.
        """
        correction = self._openScripted(volume, segmentation, segment, model, start, orientation, channels, device)
        return correctSlice(correction, points, labels, box, slice, accept)

    def propagate(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment: str,
        slices: int | None = None,
        *,
        between: bool = True,
        model: TunedModel | str | None = None,
        orientation: str = "auto",
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode] | None = None,
        device: str = "auto",
    ) -> CorrectedSlices:
        """Carry a segment on from the slices on which it has voxels; waits for the masks.

        Args:
            volume: the image.
            segmentation: holds the segment.
            segment: its name or ID.
            slices: how many to go beyond the first and the last painted slice at most; None as far as the
                structure goes.
            between: whether to fill what lies between painted slices.
            model: as for `correct`.
            orientation: as for `correct`.
            channels: as for `correct`.
            device: as for `correct`.

        Raises:
            ValueError: something does not fit, in words; nothing is changed.
            InputError: no such model, or no folder to work in.
        """
        if slices is not None and slices < 0:
            raise ValueError(_("Propagate to at least one slice, or to 0 to fill between alone."))
        correction = self._openScripted(volume, segmentation, segment, model, "auto", orientation, channels, device)
        return propagate(correction, slices, between)

    # Models and weights

    def models(self) -> list[TunedModel]:
        """The tuned models on this computer, with their cards."""
        from SAMFineTuneLib.models.library import list_models

        return list_models()

    def renameModel(self, model: TunedModel | str, name: str) -> TunedModel:
        """Call a tuned model otherwise."""
        from SAMFineTuneLib.models.library import rename_model

        return rename_model(self._model(model), name)

    def deleteModel(self, model: TunedModel | str) -> None:
        """Delete a tuned model."""
        from SAMFineTuneLib.models.library import delete_model

        delete_model(self._model(model))

    def exportModel(self, model: TunedModel | str, file: str | Path, overwrite: bool = False) -> Path:
        """Copy a tuned model, which is one file, to where it can be passed on."""
        from SAMFineTuneLib.models.library import export_model

        return export_model(self._model(model), Path(file), overwrite=overwrite)

    def importModel(self, file: str | Path) -> TunedModel:
        """Take a tuned model from a file."""
        from SAMFineTuneLib.models.library import import_model

        return import_model(Path(file))

    def startWeights(self, backbone: str) -> Job:
        """Fetch the official weights of a backbone; returns at once.

        Raises:
            JobRunningError: another job is at work.
        """
        from SAMFineTuneLib.jobs.folder import new_job_folder
        from SAMFineTuneLib.jobs.schema import CheckpointJob

        def job() -> Job:
            folder = new_job_folder("checkpoint").path
            writeJob(folder, CheckpointJob, {"kind": "checkpoint", "backbone": backbone})
            title = _("Fetch weights of {name}").format(name=backbone)
            return Job("checkpoint", title, folder, (), lambda result: iter([result]))

        return self._state.start(job)

    # Hardware

    @property
    def hardware(self) -> dict[str, Any] | None:
        """Processors, memory, GPUs that the worker can use, and the preset for them; None until probed."""
        return self._state.hardware.found

    @property
    def isHardwareUnknown(self) -> bool:
        """Whether it was probed in vain: the packages that the worker needs do not load."""
        return self._state.hardware.hasFailed

    def probeHardware(self, callback: Callable[[dict[str, Any] | None], None]) -> None:
        """Look at the hardware in a process of its own; `callback` gets what was found, or None."""
        self._state.hardware.probe(callback)

    # Jobs

    def addJobListener(self, listener: Callable[[Job], None]) -> None:
        """Call `listener` with each job that starts."""
        self._state.addJobListener(listener)

    def removeJobListener(self, listener: Callable[[Job], None]) -> None:
        """Call `listener` no more."""
        self._state.removeJobListener(listener)

    def _run(self, make: Callable[[], Job], blocking: bool, progress: Callable[[Job], None] | None) -> Any:
        job = self._state.start(make)
        if blocking:
            return job.wait(progress)
        if progress is not None:
            job.addListener(lambda job, event: progress(job) if event == "progress" else None)
        return job

    def _openScripted(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment: str,
        model: TunedModel | str | None,
        start: str,
        orientation: str,
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode] | None,
        device: str,
    ) -> Correction:
        _requireCase(volume, channels or ())
        requireSegmentation(segmentation)
        requireOrientation(orientation)
        (segmentID,) = _segmentIDs(segmentation, [segment])
        correction = self._state.scriptedCorrection
        settings = _fields({"device": device if device != "auto" else ""})
        correction.open(volume, segmentation, segmentID, model, start, orientation, channels, **settings)
        return correction

    def _applyJob(self, request: ApplyRequest) -> Job:
        examples = list(self.getParameterNode().examples)
        return request.job(self._state.undo, examples, self._state.painted, self._noteUncertainty)

    def _noteUncertainty(self, volume: slicer.vtkMRMLScalarVolumeNode, orientation: str, bySlice: list[float]) -> None:
        self._state.uncertainty[volume.GetID()] = (orientation, bySlice)

    def _finetuneRequest(self) -> FinetuneRequest:
        node = self.getParameterNode()
        others = [name for name in _SETTINGS if hasattr(node, name) and name not in STRATEGY]
        # What the panel shows as unused is not asked for.
        chosen = {name: getattr(node, name) for name in others} | strategyOf(node)
        chosen["prompts"] = node.tuneForPrompts
        if beginsAtRandom(node):
            chosen.update(weights="random", checkpoint="")
        if node.startFrom or not chosen["checkpoint"]:
            chosen["weightsKind"] = ""
        chosen["preset"] = self._presetChosen()
        chosen["unlabelledExamples"] = _OTHER_SLICES.get(node.otherSlices)
        return FinetuneRequest(
            list(node.examples), node.modelName, node.startFrom, _fields(chosen), unlabelledVolumesOf(node)
        )

    def _goOnRequest(self, model: TunedModel | None) -> FinetuneRequest:
        """How to learn further: what a fine-tune has of the model itself is left to it, and so is how long."""
        node = self.getParameterNode()
        chosen = {"preset": self._presetChosen(), "device": node.device, "seed": node.seed}
        chosen["unlabelledExamples"] = _OTHER_SLICES.get(node.otherSlices)
        card = model.card if model is not None else None
        if card is not None and node.backbone == card.backbone and not beginsAtRandom(node):
            chosen["checkpoint"] = node.checkpoint
        name = model.name if model is not None else ""
        return FinetuneRequest(list(node.examples), "", name, _fields(chosen), unlabelledVolumesOf(node), goOn=True)

    def _presetChosen(self) -> str:
        preset = self.getParameterNode().preset
        return preset or (self.hardware["preset"] if self.hardware is not None else "")

    def _applyRequest(self) -> ApplyRequest:
        from SAMFineTuneLib.models.library import model_named

        node = self.getParameterNode()
        model = model_named(node.applyModel) if node.applyModel else None
        # A volume that was deleted leaves an empty place in the list.
        volumes = [each for each in node.applyVolumes if each is not None]
        takesSeveral = model is not None and model.card is not None and bool(model.card.channels)
        return ApplyRequest(
            model=model,
            volumes=volumes,
            channels=[list(node.applyChannels)] if takesSeveral and len(volumes) == 1 else [],
            frames=_allFrames(volumes) if node.applyAllFrames else None,
            segmentation=None if node.applyAllFrames and _allFrames(volumes) else node.applySegmentation,
            uncertainty=node.makeUncertainty,
            largestComponent=node.largestComponent,
            tidy=node.tidy,
            show3D=node.show3D,
            keepKnown=node.keepKnown,
            settings=_fields({"device": node.device}),
        )

    def _model(self, model: TunedModel | str) -> TunedModel:
        from SAMFineTuneLib.models.library import find_model

        return find_model(model) if isinstance(model, str) else model


def _requireCase(volume: slicer.vtkMRMLScalarVolumeNode, channels: Sequence[slicer.vtkMRMLScalarVolumeNode]) -> None:
    """Refuse what cannot be the images of one case.

    Raises:
        ValueError: in words.
    """
    for each in (volume, *channels):
        requireVolume(each)
    problem = problemWithImages(volume, channels)
    if problem:
        raise ValueError(problem)


def _indexValue(volume: slicer.vtkMRMLScalarVolumeNode, frame: int | None) -> str:
    """Index value of an item of the sequence that a volume shows; None is the one in view, "" that of no sequence.

    Raises:
        ValueError: there is no such item, in words.
    """
    if frame is None:
        return frameShown(volume)
    return _framesOf([volume], [frame])[0]  # type: ignore[index]


def _framesOf(
    volumes: Sequence[slicer.vtkMRMLScalarVolumeNode], frames: Sequence[int] | str | None
) -> list[str] | None:
    """Index values of frames that a script names.

    Raises:
        ValueError: the volumes have no such frames, in words.
    """
    if frames is None:
        return None
    sequence = sequenceOf(volumes[0]) if len(volumes) == 1 else None
    if sequence is None:
        raise ValueError(
            _("Frames are those of one volume that shows a sequence; {names} is none.").format(
                names=", ".join(each.GetName() for each in volumes)
            )
        )
    if isinstance(frames, str):
        if frames != "all":
            raise ValueError(_('Frames are "all" or numbers from 0, not {thing}.').format(thing=frames))
        return sequence.indexValues
    return numbersToIndexValues(sequence, frames)


def _allFrames(volumes: Sequence[slicer.vtkMRMLScalarVolumeNode]) -> list[str] | None:
    """Index values of all frames of the one volume; None where it shows no sequence."""
    sequence = sequenceOf(volumes[0]) if len(volumes) == 1 else None
    return sequence.indexValues if sequence is not None else None


def _mark(example: Example, name: str, number: int, on: bool) -> None:
    numbers = set(getattr(example, name))
    numbers = numbers | {number} if on else numbers - {number}
    setattr(example, name, sorted(numbers))


def _segmentIDs(segmentation: slicer.vtkMRMLSegmentationNode, segments: Sequence[str]) -> list[str]:
    """IDs of segments that were named by name or ID."""
    known = segmentation.GetSegmentation()
    chosen = []
    for segment in segments:
        segmentID = segment if known.GetSegment(segment) else segmentIDByName(segmentation, segment)
        if not segmentID:
            raise ValueError(_("{name} has no segment {segment}.").format(name=segmentation.GetName(), segment=segment))
        chosen.append(segmentID)
    return chosen


def _fields(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as job.json has them, without those left to the program."""
    fields = {}
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise ValueError(
                _("{name} is no setting; known are {known}.").format(name=name, known=", ".join(_SETTINGS))
            )
        field, open_ = _SETTINGS[name]
        if value != open_:
            fields[field] = value
    return fields


# Not imported by its name: Slicer runs every test class that it finds in this file.
class SAMFineTuneTest(module_test.ModuleTest):
    """What Slicer runs as the module's test."""
