"""A fine-tune that goes on where that of its initial model ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.held_out_origin import held_out_origin
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.models.model_file import ModelCard
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.training.earlier_runs import EarlierRuns
from SAMFineTuneLib.training.going_on import GENTLE
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.validation_split import ValidationSplit, by_list, split

BEFORE = "before_going_on"


@dataclass(frozen=True)
class GoingOn:
    """The initial model of a fine-tune that goes on from it, with the runs that made it.

    Attributes:
        initial: the model.
        earlier: its runs so far.
    """

    initial: InitialModel
    earlier: EarlierRuns

    @classmethod
    def of_job(cls, job: FinetuneJob, initial: InitialModel | None) -> GoingOn | None:
        """What a job goes on from; None where it begins a fine-tune of its own."""
        if not job.go_on or initial is None:
            return None
        prompts = initial.card.prompts
        of_prompts = None if prompts is None else prompts.training
        return cls(initial, EarlierRuns.of_card(initial.card.training, of_prompts))

    @property
    def has_prompts(self) -> bool:
        """Whether the model has weights for prompts, which are then learnt further, too."""
        return self.initial.card.prompts is not None

    def require_same_axis(self, examples: TrainingSet) -> None:
        """Refuses examples that are labelled on other slices than the model was tuned on.

        Raises:
            InputError: they are cut along another axis.
        """
        own = self.initial.card.axis
        if examples.axis != own:
            raise InputError(
                f"{self.initial.path.name} was tuned on {own} slices, and those of the examples "
                f"are {examples.axis}",
                "go on with the same examples, or start from the backbone",
                code="other_axis",
            )

    def held_out(self, job: FinetuneJob, examples: TrainingSet) -> tuple[ValidationSplit, str]:
        """The slices that were held out before, if none of them was learnt from since.

        Otherwise nothing is held out: a DSC on slices that were learnt from says nothing of others.

        Returns:
            The split, and a sentence that says why nothing is measured; "" where something is.
        """
        nothing = _nothing_of(examples)
        if job.validation == "none":
            return nothing, ""
        doubt = self._doubt(examples)
        if doubt:
            return nothing, doubt
        again = self._split(examples)
        if again is None:
            return nothing, "the slices that were held out before are not found again"
        return again, ""

    def for_prompts(
        self,
        plan: FinetunePlan,
        usual: FinetunePlan,
        held_out: ValidationSplit,
        examples: TrainingSet,
    ) -> tuple[FinetunePlan, ValidationSplit, float]:
        """How weights for prompts are tuned: gently, where the model has some.

        Args:
            plan: by which the model goes on.
            usual: of a fine-tune that does not go on; weights for prompts that begin now follow it.
            held_out: slices that the automatic part has never learnt from.
            examples: what is learnt from.

        Returns:
            The plan of the fine-tune that theirs is derived from, the slices that they have never
            learnt from, and the share of the usual learning rate.
        """
        if not self.has_prompts:
            return replace(usual, seed=plan.seed), held_out, 1.0
        apart = _is_apart(self.initial.card.metrics.get("prompted"))
        return plan, held_out if apart else _nothing_of(examples), GENTLE

    def figures_before(self) -> dict[str, Any]:
        """What was measured last, before this run; empty where nothing was."""
        own = {name: each for name, each in self.initial.card.metrics.items() if name != BEFORE}
        if own.get("validation_dsc") is not None:
            return own
        before = self.initial.card.metrics.get(BEFORE)
        return before if isinstance(before, dict) else {}

    def described(self, card: ModelCard) -> ModelCard:
        """The card of the new model with the runs and the figures before this one."""
        before = self.figures_before()
        return card.model_copy(
            update={
                "training": card.training | self.earlier.as_fields(),
                "metrics": card.metrics | ({BEFORE: before} if before else {}),
            }
        )

    def unchanged_prompts(self, card: ModelCard) -> tuple[ModelCard, PromptedSegmenter | None]:
        """The card and the network with the weights for prompts as they were before.

        Raises:
            InputError: the model's file does not fit its card, or weights are not there.
        """
        if not self.has_prompts:
            return card, None
        own = self.initial.card
        metrics = card.metrics | {"prompted": own.metrics.get("prompted")}
        kept = card.model_copy(update={"prompts": own.prompts, "metrics": metrics})
        return kept, self.initial.load_prompted()[0]

    def _doubt(self, examples: TrainingSet) -> str:
        """Why the slices that were held out may have been learnt from; "" where they were not."""
        card = self.initial.card
        if card.metrics.get("held_out") in (None, "none"):
            return "nothing was held out before, and all slices were learnt from"
        if not _is_apart(card.metrics):
            return "the slices that were held out before were learnt from in the end"
        if card.training.get("began_tuned"):
            return "the model began as another tuned model, which may have learnt from all slices"
        if card.training.get("held_out_origin") != held_out_origin(examples):
            return "these are not the examples that it learnt from before"
        return ""

    def _split(self, examples: TrainingSet) -> ValidationSplit | None:
        metrics = self.initial.card.metrics
        if examples.listed is not None and examples.listed.held_out is not None:
            again = by_list(examples.listed.learnt, examples.listed.held_out)
        elif self.earlier.split_seed is None:
            return None
        else:
            again = split(examples.slices, self.earlier.split_seed)
        same = (again.by, len(again.validation))
        return again if same == (metrics.get("held_out"), metrics.get("held_out_slices")) else None


def _nothing_of(examples: TrainingSet) -> ValidationSplit:
    """Nothing is held out; what the user keeps apart in a list is not learnt from either."""
    return ValidationSplit(list(range(len(examples.learnt_slices))), [], "none")


def _is_apart(metrics: object) -> bool:
    """Whether the slices that these figures were measured on were never learnt from."""
    joined = "held_out_joined_after_measurement"
    return isinstance(metrics, dict) and metrics.get(joined) is False
