"""The tuned model that a fine-tune starts from (warm start)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMFineTuneLib.adaptation.places import USUAL_PLACES, Places
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.models.model_file import (
    LabelCard,
    ModelCard,
    load_model,
    load_prompted,
    read_card,
)
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.weights.choice import find_weights


@dataclass(frozen=True)
class InitialModel:
    """A tuned model with its card, which is read once.

    Attributes:
        path: its file.
        card: its card.
        checkpoint: the file of its backbone's weights, where the job names one.
    """

    path: Path
    card: ModelCard
    checkpoint: Path | None

    @classmethod
    def of_job(cls, job: FinetuneJob) -> InitialModel | None:
        """The model that a job names; None where it names none.

        Raises:
            InputError: the file is not a tuned model, or is damaged.
        """
        if job.initial_model is None:
            return None
        return cls(job.initial_model, read_card(job.initial_model), job.checkpoint)

    @property
    def labels(self) -> list[Label]:
        """The structures that it finds."""
        return [
            Label(each.value, each.name, each.colour, each.terminology) for each in self.card.labels
        ]

    def with_its_strategy(self, job: FinetuneJob) -> FinetuneJob:
        """The job with the method, scope, rank, places, input size and head of the model.

        Raises:
            InputError: the job asks for another method, scope, place, input size or head.
        """
        tuned: dict[str, Any] = {
            "method": self.card.strategy.method,
            "scope": self.card.strategy.scope,
            "input_size": self.card.input_size,
            "head": self.card.head,
            "head_depth": self.card.head_depth,
        }
        for name, value in tuned.items():
            chosen = getattr(job, name)
            if chosen not in ("auto", None, value):
                raise InputError(
                    f"{self.path.name} was tuned with {name.replace('_', ' ')} {value}, not "
                    f"{chosen}",
                    f"leave the {name.replace('_', ' ')} to the model, or start from the backbone",
                    code="other_strategy",
                    field=name,
                )
        places = self._places(job)
        return job.model_copy(update={**tuned, "rank": self.card.strategy.rank, **places})

    def _places(self, job: FinetuneJob) -> dict[str, Any]:
        """The places of the model's adaptation; a job may leave them out or name the same."""
        own, chosen = self.card.strategy.places, Places.of(job)
        for name, usual in vars(USUAL_PLACES).items():
            tuned, wished = getattr(own, name), getattr(chosen, name)
            if wished != usual and wished != (self._usual_blocks if tuned == "auto" else tuned):
                raise InputError(
                    f"{self.path.name} was tuned with other {name.replace('_', ' ')}",
                    f"leave the {name.replace('_', ' ')} to the model, or start from the backbone",
                    code="other_strategy",
                    field=name,
                )
        return own.as_fields()

    @property
    def _usual_blocks(self) -> str:
        return find(self.card.backbone).usual_adapter_blocks

    def load(self, labels: Sequence[Label], backbone: str) -> AutomaticSegmenter:
        """Its network for automatic segmentation.

        Args:
            labels: the structures of the examples.
            backbone: the one that the job names.

        Raises:
            InputError: other structures, another backbone, or a file that does not fit its card.
        """
        if [each.value for each in self.card.labels] != [each.value for each in labels]:
            raise InputError(
                f"{self.path.name} finds labels {_listed(self.card.labels)}, "
                f"the examples have {_listed(labels)}",
                "fine-tune on the same labels, or start from the backbone",
                code="other_labels",
            )
        return load_model(self.path, self._checkpoint_of, backbone, self.card)[0]

    def load_prompted(self) -> tuple[PromptedSegmenter, bool]:
        """Its network that answers prompts, and whether that was tuned for prompts.

        Raises:
            InputError: a file that does not fit its card, or weights that are not there.
        """
        segmenter, _, tuned = load_prompted(self.path, self._checkpoint_of, self.card)
        return segmenter, tuned

    def _checkpoint_of(self, card: ModelCard) -> Path:
        return find_weights(card.backbone, self.checkpoint)


def _listed(labels: Sequence[Label] | Sequence[LabelCard]) -> str:
    return ", ".join(f"{each.value} {each.name}".strip() for each in labels)
