"""A fine-tune from its job to its tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.listed_examples import Expected, ListSource, load_list
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.examples.unlabelled_volumes import UnlabelledData, load_unlabelled
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.models.model_file import ModelCard, save_model
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.tasks.finetune_card import card_of, with_prompts, with_runs
from SAMFineTuneLib.tasks.finetune_events import (
    log_going_on,
    log_measured,
    log_more_time,
    log_plan,
    log_unlabelled,
    watch_of,
)
from SAMFineTuneLib.tasks.going_on import GoingOn
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.tasks.list_progress import rows_progress
from SAMFineTuneLib.tasks.prompt_phase import PromptPhase
from SAMFineTuneLib.tasks.starting_point import StartingPoint, weights_to_start_from
from SAMFineTuneLib.tasks.tensorboard_log import TensorBoardLog
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome, FineTuning, signature_of
from SAMFineTuneLib.training.going_on import plan_to_go_on, too_many_steps
from SAMFineTuneLib.training.more_time import more_time
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.presets import PRESETS
from SAMFineTuneLib.training.preview import PreviewWriter
from SAMFineTuneLib.training.prompt_tuning import PromptTuning
from SAMFineTuneLib.training.shortfall import shortfalls
from SAMFineTuneLib.training.validation_split import ValidationSplit, by_list, split
from SAMFineTuneLib.worker.events import EventWriter


def run_finetune(
    job: FinetuneJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fine-tunes on the job's examples and writes the tuned model.

    Raises:
        InputError: anything in the job that cannot be used.
        Cancelled: the user asked to stop; a checkpoint remains.
    """
    tensorboard = TensorBoardLog(job.tensorboard) if job.tensorboard is not None else None
    with closing(tensorboard) if tensorboard is not None else nullcontext():
        return _finetune(job, folder, events, control, tensorboard)


def _finetune(
    job: FinetuneJob,
    folder: JobFolder,
    events: EventWriter,
    control: Control,
    tensorboard: TensorBoardLog | None,
) -> dict[str, Any]:
    device = choose_device(job.device)
    require_writable_file(job.output)
    weights = weights_to_start_from(job)
    refuse_overwriting([job.output], _read_by(job, weights))
    events.log("reading the examples")
    start = StartingPoint(weights, InitialModel.of_job(job))
    examples = _examples(job, start.initial, folder, events, control)
    unlabelled = _unlabelled(job, examples, folder, control)
    for warning in (*examples.warnings, *unlabelled.warnings):
        events.warning(warning)
    choices = job if start.initial is None else start.initial.with_its_strategy(job)
    pixels = start.pixels(job)
    pretrained = start.is_wholly_pretrained(job.backbone)
    usual = settle(choices, examples, pretrained, pixels, len(unlabelled.slices))
    going_on = GoingOn.of_job(job, start.initial)
    plan = usual if going_on is None else _further_plan(going_on, usual, job, examples, events)
    torch.manual_seed(plan.seed)
    held_out = _split(job, examples, plan, going_on, events)
    learnt = [examples.slices[position] for position in held_out.training]
    segmenter, checkpoint_sha256 = start.adapted_network(
        plan, examples, learnt, device, events.warning
    )
    segmenter.to(device)
    log_plan(plan, examples, held_out, segmenter, device, events)
    log_unlabelled(unlabelled, events)
    preview = PreviewWriter(folder.preview_folder, examples, held_out, events.preview)
    watch = watch_of(events, control, preview, tensorboard)
    checkpoints, fingerprint = folder.checkpoint_folder, start.fingerprint(checkpoint_sha256)
    signature = signature_of(plan, examples, fingerprint + unlabelled.fingerprint)
    tuning = FineTuning(
        segmenter, examples, held_out, plan, checkpoints, signature, watch, unlabelled.slices
    )
    outcome = _tuned(tuning, events)
    warnings = shortfalls(plan.steps, outcome)
    for warning in warnings:
        events.warning(warning)
    kind = start.kind(job.weights_kind)
    initial = None if start.initial is None else start.initial.card
    card = card_of(
        plan,
        examples,
        held_out,
        outcome,
        checkpoint_sha256,
        kind,
        unlabelled,
        initial,
    )
    earlier_steps = 0 if going_on is None else going_on.earlier.steps
    chooses = held_out.can_choose(examples.slices)
    more = more_time(plan, PRESETS[job.preset], examples, outcome, chooses, earlier_steps)
    card = with_runs(card, start.initial is not None, going_on, more)
    log_measured(card.metrics, events)
    log_more_time(more, outcome, events)
    for_prompts, prompted = None, None
    tunes_prompts = job.prompts or (going_on is not None and going_on.has_prompts)
    if tunes_prompts and outcome.ending == "finished on request":
        card, prompted = _prompts_as_before(card, going_on, events)
    elif tunes_prompts:
        # So that the job, run again after an interruption, does not repeat the first part.
        tuning.save()
        segmenter.cpu()
        of_prompts, apart, share = plan, held_out, 1.0
        if going_on is not None:
            of_prompts, apart, share = going_on.for_prompts(plan, usual, held_out, examples)
        phase = PromptPhase(
            job, of_prompts, start, fingerprint, examples, apart, checkpoints, share
        )
        for_prompts = phase.run(device, events, watch)
        prompted = for_prompts.segmenter
        card = with_prompts(card, for_prompts)
        warnings += for_prompts.warnings
    tunings: list[FineTuning | PromptTuning] = [tuning]
    if for_prompts is not None:
        tunings.append(for_prompts.tuning)
    _save(job.output, segmenter, card, tunings, prompted)
    result = _result(job.output, card, outcome, warnings)
    if examples.listed is not None:
        result["skipped"] = list(examples.listed.skipped)
        examples.listed.release()
    unlabelled.release()
    return result


def _tuned(tuning: FineTuning, events: EventWriter) -> FinetuneOutcome:
    if tuning.resumed_at:
        events.log(f"going on at step {tuning.resumed_at}, where an earlier run stopped")
    return tuning.run()


def _further_plan(
    going_on: GoingOn,
    usual: FinetunePlan,
    job: FinetuneJob,
    examples: TrainingSet,
    events: EventWriter,
) -> FinetunePlan:
    """The plan by which the model goes on; says what it is, and where it is too much."""
    going_on.require_same_axis(examples)
    plan = plan_to_go_on(usual, job, examples, going_on.earlier)
    log_going_on(plan, going_on, events)
    for warning in too_many_steps(plan, job, examples, going_on.earlier):
        events.warning(warning)
    return plan


def _prompts_as_before(
    card: ModelCard, going_on: GoingOn | None, events: EventWriter
) -> tuple[ModelCard, PromptedSegmenter | None]:
    """What a fine-tune that was finished early has of weights for prompts, and its card."""
    if going_on is None or not going_on.has_prompts:
        events.warning("finished before the weights for prompts: the model has none of its own")
        return card, None
    events.log("finished before the weights for prompts: they stay as they were")
    return going_on.unchanged_prompts(card)


def _save(
    output: Path,
    segmenter: AutomaticSegmenter,
    card: ModelCard,
    tunings: Sequence[FineTuning | PromptTuning],
    prompted: PromptedSegmenter | None,
) -> None:
    """Writes the tuned model, and deletes the checkpoints once it is safe."""
    try:
        save_model(output, segmenter, card, prompted)
    except InputError:
        # So that the job, run again, has only this left to do. Where the disk is full for the
        # checkpoint too, the last one remains, and the model's error is the one to report.
        with suppress(InputError):
            for each in tunings:
                each.save()
        raise
    for each in tunings:
        each.forget()


def _read_by(job: FinetuneJob, weights: Path | None) -> dict[Path, str]:
    """Files that the output must not replace; it may replace the initial model."""
    read = {path: "a volume" for each in job.examples for path in each.images}
    read |= {each.segmentation: "a segmentation" for each in job.examples}
    without_labels = [*job.unlabelled, *chain.from_iterable(job.unlabelled_channels)]
    read |= dict.fromkeys(without_labels, "a volume without labels")
    for path in (job.image_list, job.validation_list):
        if path is not None:
            read[path] = "a list"
    for path in (weights, job.checkpoint):
        if path is not None:
            read[path] = "the weights that it starts from"
    return read


def _examples(
    job: FinetuneJob,
    initial: InitialModel | None,
    folder: JobFolder,
    events: EventWriter,
    control: Control,
) -> TrainingSet:
    if job.image_list is not None:
        return _listed(job, job.image_list, initial, folder, events, control)
    if initial is None:
        return load_examples(
            job.examples,
            job.label_names,
            control.raise_if_cancelled,
            curve=find(job.backbone).grey_curve,
        )
    # A tuned network keeps the normalisation and the label numbers that it was tuned with.
    return load_examples(
        job.examples,
        job.label_names,
        control.raise_if_cancelled,
        initial.card.normalisation,
        initial.labels,
        initial.path.name,
    )


def _unlabelled(
    job: FinetuneJob, examples: TrainingSet, folder: JobFolder, control: Control
) -> UnlabelledData:
    if not job.unlabelled and not job.unlabelled_examples:
        return UnlabelledData()
    return load_unlabelled(
        job.unlabelled,
        examples,
        job.examples,
        folder.unlabelled_folder,
        control.raise_if_cancelled,
        bool(job.unlabelled_examples),
        job.unlabelled_channels,
    )


def _listed(
    job: FinetuneJob,
    path: Path,
    initial: InitialModel | None,
    folder: JobFolder,
    events: EventWriter,
    control: Control,
) -> TrainingSet:
    expected = Expected(curve=find(job.backbone).grey_curve)
    if initial is not None:
        _require_one_image(initial)
        expected = Expected(initial.card.normalisation, initial.labels, initial.path.name)
    return load_list(
        ListSource(
            path, job.validation_list, job.images, job.labels, job.skip_unreadable, job.merge
        ),
        folder.prepared_folder,
        job.label_names,
        control.raise_if_cancelled,
        rows_progress(events, "prepare the images"),
        expected,
    )


def _require_one_image(initial: InitialModel) -> None:
    if initial.card.normalisation.images > 1:
        raise InputError(
            f"{initial.path.name} was tuned on cases of several images, and a row of a list has "
            "one",
            "Describe the cases in a file of examples",
            code="other_channels",
        )


def _split(
    job: FinetuneJob,
    examples: TrainingSet,
    plan: FinetunePlan,
    going_on: GoingOn | None,
    events: EventWriter,
) -> ValidationSplit:
    if going_on is not None:
        held_out, why_nothing = going_on.held_out(job, examples)
        if why_nothing:
            events.log(f"{why_nothing}, so that nothing is measured on them now")
        return held_out
    if job.validation == "none":
        return ValidationSplit(list(range(len(examples.slices))), [], "none")
    if examples.listed is not None and examples.listed.held_out is not None:
        return by_list(examples.listed.learnt, examples.listed.held_out)
    held_out = split(examples.slices, plan.seed)
    if not held_out.validation:
        events.warning(
            "nothing can be held out without losing the only slice of a label: "
            "there will be no validation DSC"
        )
    return held_out


def _result(
    output: Path, card: ModelCard, outcome: FinetuneOutcome, warnings: list[str]
) -> dict[str, Any]:
    return {
        "model": str(output),
        "labels": [label.model_dump() for label in card.labels],
        "axis": card.axis,
        "training": card.training,
        "prompts": card.prompts and card.prompts.model_dump(),
        "data": card.data,
        "metrics": card.metrics,
        "history": outcome.history,
        "cached_variants": outcome.cached_variants,
        "warnings": warnings,
    }
