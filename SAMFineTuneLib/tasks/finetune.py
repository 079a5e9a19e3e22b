"""A fine-tune from its job to its tuned model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from SAMFineTuneLib.adaptation.parameter_count import count
from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.models.model_file import (
    LabelCard,
    ModelCard,
    Strategy,
    load_model,
    read_card,
    save_model,
)
from SAMFineTuneLib.networks.registry import build
from SAMFineTuneLib.networks.starter.network import renew_context_decoder
from SAMFineTuneLib.tasks.prompt_phase import PromptPhase, TunedForPrompts
from SAMFineTuneLib.training.example_labels import Label
from SAMFineTuneLib.training.examples import ExampleSource, TrainingSet, load_examples
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome, FineTuning, signature_of
from SAMFineTuneLib.training.loop import ProgressReport, Watch
from SAMFineTuneLib.training.plan import FinetunePlan, Wishes, settle
from SAMFineTuneLib.training.preview import PreviewWriter
from SAMFineTuneLib.training.prompt_tuning import PromptTuning
from SAMFineTuneLib.training.shortfall import ending_in_words, shortfalls
from SAMFineTuneLib.training.slice_context import context_of_slices
from SAMFineTuneLib.training.validation_split import ValidationSplit, split
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import file_sha256, load_checkpoint
from SAMFineTuneLib.worker.events import EventWriter

_PROGRESS_EVERY_S = 0.5


def run_finetune(
    job: FinetuneJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fine-tunes on the job's examples and writes the tuned model.

    Raises:
        InputError: anything in the job that cannot be used.
        Cancelled: the user asked to stop; a checkpoint remains.
    """
    device = choose_device(job.device)
    require_writable_file(job.output)
    weights = _weights(job)
    refuse_overwriting([job.output], _read_by(job, weights))
    events.log("reading the examples")
    examples = _examples(job, control)
    for warning in examples.warnings:
        events.warning(warning)
    plan = settle(_wishes(job), examples, _pretrained(job, weights))
    torch.manual_seed(plan.seed)
    segmenter, checkpoint_sha256 = _segmenter(job, plan, weights, examples, device, events)
    segmenter.to(device)
    held_out = _split(job, examples, plan)
    if job.validation == "auto" and not held_out.validation:
        events.warning(
            "nothing can be held out without losing the only slice of a label: "
            "there will be no validation DSC"
        )
    _tell_plan(plan, examples, held_out, segmenter, device, events)
    start = _start(job, checkpoint_sha256)
    watch = _watch(
        events, control, PreviewWriter(folder.preview_folder, examples, held_out, events.preview)
    )
    tuning = FineTuning(
        segmenter,
        examples,
        held_out,
        plan,
        folder.checkpoint_folder,
        signature_of(plan, examples, start),
        watch,
    )
    if tuning.resumed_at:
        events.log(f"going on at step {tuning.resumed_at}, where an earlier run stopped")
    outcome = tuning.run()
    warnings = shortfalls(plan.steps, outcome)
    for warning in warnings:
        events.warning(warning)
    card = _card(plan, examples, held_out, outcome, checkpoint_sha256)
    for_prompts = None
    if job.prompts and outcome.ending == "finished on request":
        events.warning("finished before the weights for prompts: the model has none of its own")
    elif job.prompts:
        # Run again after an interruption, the job goes on behind what is done.
        tuning.save()
        segmenter.cpu()
        checkpoints = folder.checkpoint_folder
        phase = PromptPhase(job, plan, weights, start, examples, held_out, checkpoints)
        for_prompts = phase.run(device, events, watch)
        card = _with_prompts(card, for_prompts)
        warnings += for_prompts.warnings
    _save(job.output, segmenter, card, tuning, for_prompts)
    return _result(job.output, card, outcome, warnings)


def _save(
    output: Path,
    segmenter: AutomaticSegmenter,
    card: ModelCard,
    tuning: FineTuning,
    for_prompts: TunedForPrompts | None,
) -> None:
    """Writes the tuned model, and deletes the checkpoints once it is safe."""
    tunings: list[FineTuning | PromptTuning] = [tuning]
    if for_prompts is not None:
        tunings.append(for_prompts.tuning)
    prompted = None if for_prompts is None else for_prompts.segmenter
    try:
        save_model(output, segmenter, card, prompted)
    except InputError:
        # So that the job, run again, has only this left to do. Where the disk is full for the
        # checkpoint too, the last one remains, and the model's error is the one to tell.
        with suppress(InputError):
            for each in tunings:
                each.save()
        raise
    for each in tunings:
        each.forget()


def _read_by(job: FinetuneJob, weights: Path | None) -> dict[Path, str]:
    """What the output must not replace; a tuned model that is gone on from it may."""
    read = {each.volume: "a volume" for each in job.examples}
    read |= {each.segmentation: "a segmentation" for each in job.examples}
    for path in (weights, job.checkpoint):
        if path is not None:
            read[path] = "the weights that it starts from"
    return read


def _weights(job: FinetuneJob) -> Path | None:
    """The file to start from; None for random weights, and where a tuned model is gone on from."""
    if job.weights == "pretrained":
        going_on = job.initial_model is not None
        return None if going_on else find_weights(job.backbone, job.checkpoint)
    for field in ("checkpoint", "initial_model"):
        given = getattr(job, field)
        if given is not None:
            raise InputError(
                f"random weights and the {field.replace('_', ' ')} {given.name} exclude each other",
                "give one of the two",
                code="contrary_options",
                field=field,
            )
    return None


def _pretrained(job: FinetuneJob, weights: Path | None) -> bool:
    """Whether the whole network has learnt something; the starter's new decoder has not."""
    return job.initial_model is not None or (weights is not None and job.backbone != "starter")


def _examples(job: FinetuneJob, control: Control) -> TrainingSet:
    sources = [ExampleSource(**dict(example)) for example in job.examples]
    if job.initial_model is None:
        return load_examples(sources, job.label_names, control.raise_if_cancelled)
    card = read_card(job.initial_model)
    tuned = [Label(each.value, each.name, each.colour, each.terminology) for each in card.labels]
    # A network that has learnt goes on with the grey levels and the numbers that it learnt.
    return load_examples(
        sources,
        job.label_names,
        control.raise_if_cancelled,
        card.normalisation,
        tuned,
        job.initial_model.name,
    )


def _start(job: FinetuneJob, checkpoint_sha256: str | None) -> str:
    """What the weights were before the first step."""
    if job.initial_model is not None:
        return file_sha256(job.initial_model)
    return checkpoint_sha256 or "random"


def _wishes(job: FinetuneJob) -> Wishes:
    wishes = Wishes(
        preset=job.preset,
        backbone=job.backbone,
        method=job.method,
        scope=job.scope,
        rank=job.rank,
        input_size=job.input_size,
        steps=job.steps,
        minutes=job.minutes,
        batch=job.batch,
        learning_rate=job.learning_rate,
        seed=job.seed,
    )
    return wishes if job.initial_model is None else _as_tuned_before(wishes, job.initial_model)


def _as_tuned_before(wishes: Wishes, model: Path) -> Wishes:
    """The wishes with the network of an earlier tuned model, which stays as it was adapted."""
    card = read_card(model)
    tuned: dict[str, Any] = {
        "method": card.strategy.method,
        "scope": card.strategy.scope,
        "input_size": card.input_size,
    }
    for name, value in tuned.items():
        wished = getattr(wishes, name)
        if wished not in ("auto", value):
            raise InputError(
                f"{model.name} was tuned with {name.replace('_', ' ')} {value}, not {wished}",
                f"leave the {name.replace('_', ' ')} to the model, or start from the backbone",
                code="other_strategy",
                field=name,
            )
    return replace(wishes, rank=card.strategy.rank, **tuned)


def _segmenter(
    job: FinetuneJob,
    plan: FinetunePlan,
    weights: Path | None,
    examples: TrainingSet,
    device: torch.device,
    events: EventWriter,
) -> tuple[AutomaticSegmenter, str | None]:
    """The adapted network, and the SHA-256 of the weights it starts from, None for random ones."""
    if job.initial_model is not None:
        return _warm_start(job, job.initial_model, examples)
    network = build(plan.backbone, plan.input_size)
    sha256 = None
    if weights is None:
        events.warning(
            f"backbone {plan.backbone} starts from random weights, as asked, and learns from your "
            "slices alone"
        )
    else:
        sha256 = load_checkpoint(network, weights).sha256
    network.to(device)
    renew_context_decoder(network)
    context = context_of_slices(network, examples.slices, len(examples.labels) + 1)
    segmenter = AutomaticSegmenter(network, len(examples.labels), context)
    adapt(network, plan.method, plan.scope, plan.rank)
    return segmenter, sha256


def _warm_start(
    job: FinetuneJob, model: Path, examples: TrainingSet
) -> tuple[AutomaticSegmenter, str | None]:
    """The network of an earlier tuned model, to go on from."""
    values = [label.value for label in examples.labels]
    card = read_card(model)
    if [label.value for label in card.labels] != values:
        raise InputError(
            f"{model.name} finds labels {_listed(card.labels)}, "
            f"the examples have {_listed(examples.labels)}",
            "fine-tune on the same labels, or start from the backbone",
            code="other_labels",
        )
    segmenter, card = load_model(
        model, lambda card: find_weights(card.backbone, job.checkpoint), job.backbone
    )
    return segmenter, card.checkpoint_sha256


def _listed(labels: Sequence[Label] | Sequence[LabelCard]) -> str:
    return ", ".join(f"{each.value} {each.name}".strip() for each in labels)


def _split(job: FinetuneJob, examples: TrainingSet, plan: FinetunePlan) -> ValidationSplit:
    if job.validation == "none":
        return ValidationSplit(list(range(len(examples.slices))), [], "none")
    return split(examples.slices, plan.seed)


def _watch(events: EventWriter, control: Control, preview: PreviewWriter) -> Watch:
    last = 0.0

    def report(progress: ProgressReport) -> None:
        nonlocal last
        done = progress.step >= progress.steps
        if done or time.monotonic() - last >= _PROGRESS_EVERY_S:
            last = time.monotonic()
            events.progress(**asdict(progress))

    return Watch(
        report=report,
        validated=preview.write,
        check=control.raise_if_cancelled,
        finish=control.finish_requested,
    )


def _tell_plan(
    plan: FinetunePlan,
    examples: TrainingSet,
    held_out: ValidationSplit,
    segmenter: AutomaticSegmenter,
    device: torch.device,
    events: EventWriter,
) -> None:
    total = count(segmenter.network)[-1]
    labelled = sum(each.is_labelled for each in examples.slices)
    events.log(
        f"{labelled} labelled and {len(examples.slices) - labelled} empty {examples.axis} slices "
        f"of {counted(examples.volumes, 'volume')}, {counted(len(examples.labels), 'label')}; "
        f"{counted(len(held_out.validation), 'slice')} held out (by {held_out.by})"
    )
    events.log(
        f"{plan.backbone}, {plan.method}, {plan.scope}, input {plan.input_size}, "
        f"{total.trainable / 1e6:.2f} of {total.total / 1e6:.2f} million parameters train, "
        f"on {device}"
    )


def _card(
    plan: FinetunePlan,
    examples: TrainingSet,
    held_out: ValidationSplit,
    outcome: FinetuneOutcome,
    checkpoint_sha256: str | None,
) -> ModelCard:
    labelled = [each for each in examples.slices if each.is_labelled]
    return ModelCard(
        backbone=plan.backbone,
        checkpoint_sha256=checkpoint_sha256,
        strategy=Strategy(method=plan.method, scope=plan.scope, rank=plan.rank),
        labels=[
            LabelCard(
                value=each.value,
                name=each.name,
                colour=each.colour,
                terminology=each.terminology,
            )
            for each in examples.labels
        ],
        axis=examples.axis,
        normalisation=examples.normalisation,
        input_size=plan.input_size,
        training={
            "steps": outcome.steps,
            "planned_steps": plan.steps,
            "seconds": round(outcome.seconds, 1),
            "batch": plan.batch,
            "learning_rate": plan.learning_rate,
            "seed": plan.seed,
            "ending": ending_in_words(outcome),
        },
        data={
            "volumes": examples.volumes,
            "labelled_slices": len(labelled),
            "empty_slices": len(examples.slices) - len(labelled),
        },
        metrics=_metrics(examples, held_out, outcome),
    )


def _with_prompts(card: ModelCard, for_prompts: TunedForPrompts) -> ModelCard:
    metrics = {**card.metrics, "prompted": for_prompts.measured}
    return card.model_copy(update={"prompts": for_prompts.card, "metrics": metrics})


def _metrics(
    examples: TrainingSet, held_out: ValidationSplit, outcome: FinetuneOutcome
) -> dict[str, Any]:
    if outcome.validation is None:
        return {"validation_dsc": None, "held_out": "none"}
    by_class = outcome.validation.by_class
    return {
        "validation_dsc": outcome.validation.mean,
        "validation_dsc_by_label": {
            str(label.value): by_class[number]
            for number, label in enumerate(examples.labels, start=1)
        },
        "held_out": held_out.by,
        "held_out_slices": len(held_out.validation),
        # The figure is then that of the weights before the last part, in which all slices train.
        "held_out_joined_after_measurement": outcome.held_out_joined,
    }


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
