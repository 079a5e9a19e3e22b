"""The card of a tuned model, from what its fine-tune learnt from and measured."""

from __future__ import annotations

from typing import Any

from SAMFineTuneLib.evaluation.known_mean import mean_of_known
from SAMFineTuneLib.evaluation.overlap import iou_of
from SAMFineTuneLib.examples.held_out_origin import held_out_origin
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.examples.unlabelled_volumes import UnlabelledData
from SAMFineTuneLib.models.model_file import LabelCard, ModelCard
from SAMFineTuneLib.tasks.going_on import GoingOn
from SAMFineTuneLib.tasks.prompt_phase import TunedForPrompts
from SAMFineTuneLib.tasks.strategy_card import strategy_of
from SAMFineTuneLib.tasks.structure_shapes import structure_shapes
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome
from SAMFineTuneLib.training.held_out_distances import HeldOutDistances
from SAMFineTuneLib.training.more_time import MoreTime
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.shortfall import ending_in_words
from SAMFineTuneLib.training.validation import ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit


def card_of(
    plan: FinetunePlan,
    examples: TrainingSet,
    held_out: ValidationSplit,
    outcome: FinetuneOutcome,
    checkpoint_sha256: str | None,
    initial_weights: str | None = None,
    unlabelled: UnlabelledData | None = None,
    initial: ModelCard | None = None,
) -> ModelCard:
    """The card without weights for prompts.

    Args:
        plan: of the fine-tune.
        examples: what it learnt from.
        held_out: the slices that it was measured on.
        outcome: of the fine-tune.
        checkpoint_sha256: of the backbone's weights, None for random ones.
        initial_weights: what these were trained as, if the user has named them.
        unlabelled: what it learnt from without labels.
        initial: the card of the tuned model that the fine-tune started from; None for a backbone.
    """
    labelled = [each for each in examples.slices if each.is_labelled]
    return ModelCard(
        backbone=plan.backbone,
        checkpoint_sha256=checkpoint_sha256,
        strategy=strategy_of(plan),
        labels=_labels(examples),
        axis=examples.axis,
        normalisation=examples.normalisation,
        input_size=plan.input_size,
        channels=list(examples.channels),
        pixels=plan.pixels,
        initial_weights=initial_weights,
        head=plan.head,
        head_depth=plan.head_depth,
        training={
            "steps": outcome.steps,
            "planned_steps": plan.steps,
            "seconds": round(outcome.seconds, 1),
            "batch": plan.batch,
            "learning_rate": plan.learning_rate,
            "seed": plan.seed,
            "ending": ending_in_words(outcome),
            **_origin(examples, held_out),
        },
        data={
            "volumes": examples.volumes,
            "labelled_slices": len(labelled),
            "empty_slices": len(examples.slices) - len(labelled),
            **_of_list(examples),
            **_of_unlabelled(unlabelled),
        },
        metrics=_metrics(examples, held_out, outcome),
        shapes=structure_shapes(examples),
        temperature=_temperature(examples, held_out, outcome, initial),
    )


def with_prompts(card: ModelCard, for_prompts: TunedForPrompts) -> ModelCard:
    """The card with the weights for prompts and what was measured of them."""
    metrics = {**card.metrics, "prompted": for_prompts.measured}
    return card.model_copy(update={"prompts": for_prompts.card, "metrics": metrics})


def with_runs(
    card: ModelCard, began_tuned: bool, going_on: GoingOn | None, more: MoreTime | None
) -> ModelCard:
    """The card with what it tells of other runs: those before, and what a further one would do.

    Args:
        card: of this run.
        began_tuned: whether it started from a tuned model.
        going_on: the model that it went on from; None where it began a fine-tune of its own.
        more: what more time would be good for; None where nothing speaks for it.
    """
    of_runs: dict[str, Any] = {}
    if began_tuned and going_on is None:
        of_runs["began_tuned"] = True
    if more is not None:
        of_runs["more_time"] = more.as_fields()
    card = card.model_copy(update={"training": card.training | of_runs})
    return card if going_on is None else going_on.described(card)


def _temperature(
    examples: TrainingSet,
    held_out: ValidationSplit,
    outcome: FinetuneOutcome,
    initial: ModelCard | None,
) -> float:
    """The measured one where it can be trusted; else that of the initial model, or 1.

    An initial model may have learnt from the slices that are held out now, and is then surer of
    them than of others; and a slice or two do not tell how sure it should be.
    """
    if initial is not None:
        return initial.temperature
    if outcome.temperature is None or not held_out.can_choose(examples.slices):
        return 1.0
    return outcome.temperature


def _of_list(examples: TrainingSet) -> dict[str, int]:
    """How many slices were kept apart in a validation list, and how many rows were skipped."""
    if examples.listed is None:
        return {}
    counts = {"skipped_rows": len(examples.listed.skipped)}
    if examples.listed.held_out is not None:
        counts["validation_list_slices"] = len(examples.listed.held_out)
    return counts


def _origin(examples: TrainingSet, held_out: ValidationSplit) -> dict[str, str]:
    """By which going on from the model sees that it is given the same examples."""
    return {"held_out_origin": held_out_origin(examples)} if held_out.validation else {}


def _of_unlabelled(unlabelled: UnlabelledData | None) -> dict[str, int]:
    """How many volumes and slices were learnt from without labels, if any were."""
    if unlabelled is None or not unlabelled.slices:
        return {}
    return {
        "unlabelled_volumes": len(unlabelled.names),
        "unlabelled_slices": len(unlabelled.slices),
    }


def _labels(examples: TrainingSet) -> list[LabelCard]:
    return [
        LabelCard(
            value=each.value, name=each.name, colour=each.colour, terminology=each.terminology
        )
        for each in examples.labels
    ]


def _distances(examples: TrainingSet, distances: HeldOutDistances | None) -> dict[str, Any]:
    """NSD and 95th-percentile Hausdorff distance, both in the plane of the held-out slices."""
    if distances is None:
        return {}
    return {
        **_scores("validation_nsd", distances.nsd, examples),
        "nsd_tolerance_mm": distances.tolerance_mm,
        **_scores("validation_hd95_mm", distances.hd95_mm, examples),
    }


def _scores(name: str, by_class: dict[int, float | None], examples: TrainingSet) -> dict[str, Any]:
    """The mean over the labels that have the score, and the score of each by its number."""
    by_label = {
        str(label.value): by_class[number] for number, label in enumerate(examples.labels, start=1)
    }
    return {name: mean_of_known(by_class.values()), f"{name}_by_label": by_label}


def _metrics(
    examples: TrainingSet,
    held_out: ValidationSplit,
    outcome: FinetuneOutcome,
) -> dict[str, Any]:
    if outcome.validation is None:
        return {"validation_dsc": None, "held_out": "none"}
    return {
        **_overlaps(examples, outcome.validation),
        **_distances(examples, outcome.distances),
        "held_out": held_out.by,
        "held_out_slices": len(held_out.validation),
        # Where it is true, the DSC is that of the weights before the last part of the fine-tune,
        # in which the held-out slices were learnt from as well.
        "held_out_joined_after_measurement": outcome.held_out_joined,
        # It becomes the model's own only where enough is held out; see `_temperature`.
        "held_out_temperature": outcome.temperature,
        # Whose weights these figures are of, where the teacher's were measured, too.
        **({"weights": outcome.weights} if outcome.weights else {}),
    }


def _overlaps(examples: TrainingSet, dsc: ValidationDsc) -> dict[str, Any]:
    iou = {number: iou_of(value) for number, value in dsc.by_class.items()}
    return {
        **_scores("validation_dsc", dsc.by_class, examples),
        **_scores("validation_iou", iou, examples),
    }
