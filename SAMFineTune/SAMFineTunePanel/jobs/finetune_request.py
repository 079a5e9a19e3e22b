"""What a fine-tune is asked for, from the scene or from a script, and the job that it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.case_images import problemForModel, problemWithExamples
from SAMFineTunePanel.examples.example_export import FinetuneInputs, structureLabels
from SAMFineTunePanel.examples.example_frames import atItsFrame
from SAMFineTunePanel.examples.example_slices import PaintedSlices, slicesOf
from SAMFineTunePanel.examples.unlabelled_cases import problemWithUnlabelled, unlabelledCases
from SAMFineTunePanel.jobs.job import Job
from SAMFineTunePanel.scene.structure_label import StructureLabel

if TYPE_CHECKING:
    from SAMFineTuneLib.jobs.schema import AnyJob
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTunePanel.parameter_node import Example


@dataclass
class FinetuneRequest:
    """A fine-tune.

    Attributes:
        examples: at least one Example.
        name: of the model to be; "" names it after its structures.
        startFrom: name of a tuned model to go on from; "" starts from the backbone.
        settings: fields of job.json (preset, backbone, steps …); those left out are chosen by the program.
        unlabelled: volumes without labels that are learnt from as well.
        goOn: whether that model goes on where its fine-tune ended; the new model replaces it when it is done.
    """

    examples: list[Example]
    name: str = ""
    startFrom: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    unlabelled: list[vtkMRMLScalarVolumeNode] = field(default_factory=list)
    goOn: bool = False

    def problem(self, painted: PaintedSlices) -> str:
        """What is missing, in words; "" when it can start."""
        if not self.examples:
            return _("Add an example first: a volume with a segmentation of which a few slices are labelled.")
        known = [slicesOf(example, painted) for example in self.examples]
        for slices in known:
            if slices.problem:
                return slices.problem
        problem = problemWithExamples(self.examples)
        if problem:
            return problem
        if not any(slices.found for slices in known):
            return _("Nothing is painted in any example. Label a few slices of at least one volume.")
        if self.settings.get("weights") == "random" and (self.startFrom or self.settings.get("checkpoint")):
            return _("Random weights exclude a tuned model to start from, and a weights file.")
        return problemWithUnlabelled(self.unlabelled, self.examples)

    def job(self, painted: PaintedSlices) -> Job:
        """The job, not yet started.

        Raises:
            ValueError: what is missing, in words.
            InputError: settings that do not fit, or no folder to work in.
        """
        from SAMFineTuneLib.jobs.folder import new_job_folder
        from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job
        from SAMFineTuneLib.models.library import find_model, new_model_path

        problem = self.problem(painted)
        if problem:
            raise ValueError(problem)
        base = find_model(self.startFrom) if self.startFrom else None
        examples = [atItsFrame(each) for each in self.examples]
        labels = structureLabels(examples) if base is None else labelsForModel(base, examples)
        # The labelmaps have the names too; here they tell what the job is about while it has no model.
        names = {label.value: label.name for label in labels}
        fields = dict(self.settings, kind="finetune", label_names=names)
        if base is not None and base.card is not None:
            fields.update(initial_model=str(base.path), backbone=base.card.backbone, go_on=self.goOn)
        if base is not None and self.goOn:
            # The worker replaces the file when the new model is done.
            output = base.path
        else:
            output = new_model_path(self.name or self._defaultName([label.name for label in labels]))
        # The examples are not written yet; everything else can be refused at once.
        make_job(FinetuneJob, dict(fields, output=output, examples=[{"volume": "volume", "segmentation": "labels"}]))
        folder = new_job_folder("finetune").path
        unlabelled = unlabelledCases(self.unlabelled, self.examples)
        inputs = FinetuneInputs(examples, folder / "inputs", painted, labels, unlabelled=unlabelled)

        def prepare() -> Iterator[None]:
            yield from inputs.steps()
            written = {"examples": inputs.written, **_unlabelledFields(inputs.writtenUnlabelled)}
            writeJob(folder, FinetuneJob, dict(fields, output=str(output), **written))

        return finetuneJob(folder, output, prepare())

    @staticmethod
    def _defaultName(names: list[str]) -> str:
        shown = " ".join(names[:3])
        return f"{shown} …" if len(names) > 3 else shown


def _unlabelledFields(cases: list[list[Path]]) -> dict[str, list]:
    """Volumes without labels as job.json has them."""
    if not cases:
        return {}
    texts = [[str(file) for file in case] for case in cases]
    further = [case[1:] for case in texts]
    return {"unlabelled": [case[0] for case in texts], "unlabelled_channels": further if any(further) else []}


def labelsForModel(model: TunedModel, examples: Sequence[Example]) -> list[StructureLabel]:
    """The structures of the examples, with the numbers that they have in a tuned model.

    Raises:
        ValueError: the examples have other images or other structures than the model, in words.
    """
    card = model.card
    if card is None:
        raise ValueError(model.fault)
    for example in examples:
        problem = problemForModel(model.name, list(card.channels), example.volume, list(example.channels))
        if problem:
            raise ValueError(problem)
    known = {label.name: label.value for label in card.labels}
    labels = structureLabels(examples, known)
    lacking = sorted(set(known) - {label.name for label in labels})
    if lacking:
        raise ValueError(
            _("The model to start from finds {names} as well; add examples of it, or start afresh.").format(
                names=", ".join(lacking)
            )
        )
    return labels


def finetuneJob(folder: Path, output: Path, prepare: Iterable[None] = ()) -> Job:
    """The job of a folder; with nothing to prepare, it goes on where an earlier run stopped."""

    def conclude(result: dict[str, Any]) -> Iterator[TunedModel]:
        from SAMFineTuneLib.models.library import find_model

        yield find_model(Path(result["model"]).stem)

    return Job("finetune", _("Fine-tune {name}").format(name=output.stem), folder, prepare, conclude)


def unclaimedOutput(folder: Path, output: Path) -> Path:
    """Where an interrupted job may write its model: not over one that has taken its name meanwhile.

    A job that goes on from a model replaces that one, as it was to.

    Raises:
        InputError: the job cannot be read or written.
    """
    from SAMFineTuneLib.jobs.schema import read_job, write_job
    from SAMFineTuneLib.models.library import new_model_path

    if not output.exists():
        return output
    job = read_job(folder)
    if getattr(job, "go_on", False) and getattr(job, "initial_model", None) == output:
        return output
    free = new_model_path(output.stem)
    write_job(folder, job.model_copy(update={"output": free}))
    return free


def writeJob(folder: Path, jobType: type[AnyJob], fields: dict[str, Any]) -> None:
    """Check a job and write its job.json.

    Raises:
        InputError: a field that does not fit, or a folder that cannot be written.
    """
    from SAMFineTuneLib.jobs.schema import make_job, write_job

    write_job(folder, make_job(jobType, fields))
