"""The part of a fine-tune that tunes weights for prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from SAMFineTuneLib.adaptation.parameter_count import count
from SAMFineTuneLib.adaptation.strategy import adapt_for_prompts
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.models.model_file import PromptCard
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.prompts.mode import PromptMode
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.tasks.starting_point import StartingPoint
from SAMFineTuneLib.tasks.strategy_card import strategy_of, with_strategy
from SAMFineTuneLib.training.fine_tuning import signature_of
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.prompt_plan import plan_for_prompts
from SAMFineTuneLib.training.prompt_tuning import PromptOutcome, PromptTuning
from SAMFineTuneLib.training.prompted_validation import measure_with_prompts
from SAMFineTuneLib.training.shortfall import few_steps
from SAMFineTuneLib.training.validation_split import ValidationSplit
from SAMFineTuneLib.weights.official import load_checkpoint
from SAMFineTuneLib.worker.events import EventWriter

_MEASURED_WITH = "simulated prompts made from the true masks"


@dataclass(frozen=True)
class TunedForPrompts:
    """The result of the phase.

    Attributes:
        segmenter: the network.
        card: of its weights.
        measured: DSC on the held-out slices, by the prompts of the simulated user, before and
            after the tuning; None where no labelled slice is held out.
        tuning: the finished tuning, whose checkpoint can be saved or deleted.
        warnings: where it fell short of its plan, one sentence each.
    """

    segmenter: PromptedSegmenter
    card: PromptCard
    measured: dict[str, Any] | None
    tuning: PromptTuning
    warnings: list[str]


@dataclass(frozen=True)
class PromptPhase:
    """The tuning for prompts, as the second phase of a fine-tune.

    Attributes:
        job: the job.
        plan: of the automatic fine-tune.
        start: the weights that the automatic fine-tune started from.
        fingerprint: of these weights, for the signature of checkpoints.
        examples: the slices.
        held_out: which of them are held out.
        folder: of checkpoints.
        share: of the usual learning rate.
    """

    job: FinetuneJob
    plan: FinetunePlan
    start: StartingPoint
    fingerprint: str
    examples: TrainingSet
    held_out: ValidationSplit
    folder: Path
    share: float = 1.0

    def run(self, device: torch.device, events: EventWriter, watch: Watch) -> TunedForPrompts:
        """Tunes and measures.

        Raises:
            whatever `watch.check` raises; a checkpoint remains.
            InputError: weights that cannot be used.
        """
        segmenter, plan = self._adapted_network()
        segmenter.to(device)
        _log_plan(segmenter, plan, events)
        held_out = self.held_out.labelled_held_out(self.examples.slices)
        before = measure_with_prompts(
            segmenter, held_out, plan.prompt_mode, watch.check, with_oracle=True
        )
        tuning = PromptTuning(
            segmenter,
            self.examples,
            self.held_out,
            plan,
            self.folder,
            signature_of(plan, self.examples, self.fingerprint),
            watch,
        )
        if tuning.resumed_at:
            events.log(f"going on with the prompts at step {tuning.resumed_at}")
        outcome = tuning.run()
        measured = None
        if outcome.measured:
            measured = {
                "measured_with": _MEASURED_WITH,
                "mode": plan.prompt_mode,
                **outcome.measured,
                "before_tuning": before,
                # Where it is true, the figures are those of the weights before the held-out slices
                # were learnt from as well.
                "held_out_joined_after_measurement": outcome.held_out_joined,
            }
        warnings = [f"weights for prompts: {text}" for text in _shortfalls(plan, outcome)]
        for warning in warnings:
            events.warning(warning)
        return TunedForPrompts(segmenter, _card(plan, outcome), measured, tuning, warnings)

    def _adapted_network(self) -> tuple[PromptedSegmenter, FinetunePlan]:
        """The network and its plan; a network that is tuned for prompts keeps its adaptation."""
        job = self.job
        pretrained = self.start.is_pretrained
        plan = plan_for_prompts(self.plan, pretrained, job.learning_rate, job.method, self.share)
        initial = self.start.initial
        if initial is not None:
            segmenter, is_tuned = initial.load_prompted()
            if is_tuned:
                assert initial.card.prompts is not None
                plan = with_strategy(plan, initial.card.prompts.strategy)
                return segmenter, replace(plan, prompt_mode=_mode_of(initial, plan))
        else:
            network = build(plan.backbone, plan.input_size, plan.pixels)
            if self.start.weights is not None:
                load_checkpoint(network, self.start.weights)
            segmenter = PromptedSegmenter(network)
        adapt_for_prompts(
            segmenter.network,
            plan.method,
            plan.scope,
            plan.rank,
            plan.places,
            prompt_encoder_fixed=plan.prompt_mode != "correction",
        )
        return segmenter, plan


def _mode_of(initial: InitialModel, plan: FinetunePlan) -> PromptMode:
    """The prompts that the model's weights for prompts were tuned for, and are tuned further for.

    Raises:
        InputError: the plan asks for others.
    """
    assert initial.card.prompts is not None
    # What a card names has been checked when it was read.
    own: Any = initial.card.prompts.mode
    if plan.prompt_mode not in ("correction", own):
        raise InputError(
            f"the weights for prompts of {initial.path.name} were tuned with prompt mode {own}, "
            f"not {plan.prompt_mode}",
            "leave the prompt mode to the model, or start from the backbone",
            code="other_strategy",
        )
    mode: PromptMode = own
    return mode


def _log_plan(segmenter: PromptedSegmenter, plan: FinetunePlan, events: EventWriter) -> None:
    total = count(segmenter.network)[-1]
    events.log(
        f"now own weights for prompts: {plan.method}, {plan.scope}, "
        f"{total.trainable / 1e6:.2f} of {total.total / 1e6:.2f} million parameters train"
    )


def _shortfalls(plan: FinetunePlan, outcome: PromptOutcome) -> list[str]:
    return few_steps(plan.steps, outcome.steps, outcome.ending)


def _card(plan: FinetunePlan, outcome: PromptOutcome) -> PromptCard:
    return PromptCard(
        strategy=strategy_of(plan),
        training={
            "steps": outcome.steps,
            "planned_steps": plan.steps,
            "seconds": round(outcome.seconds, 1),
            "batch": plan.batch,
            "learning_rate": plan.learning_rate,
            "seed": plan.seed,
            "ending": outcome.ending,
            "share_of_what_was_learnt": outcome.share,
        },
        mode=plan.prompt_mode,
    )
