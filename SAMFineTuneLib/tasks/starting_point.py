"""The weights that a fine-tune starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.names import DEFAULT_HEAD
from SAMFineTuneLib.jobs.schema import FinetuneJob
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.spec import PixelNormalisation, find
from SAMFineTuneLib.networks.starter.network import renew_context_decoder
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.training.class_start import begin_with_slices
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.presets import PRESETS
from SAMFineTuneLib.training.slice_context import context_of_slices
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import file_sha256, load_checkpoint
from SAMFineTuneLib.weights.weights_kind import WeightsKind, pixels_of


@dataclass(frozen=True)
class StartingPoint:
    """A tuned model, a file of weights, or random weights where both are None.

    Attributes:
        weights: the backbone's file.
        initial: the tuned model that the fine-tune starts from.
    """

    weights: Path | None
    initial: InitialModel | None

    def pixels(self, job: FinetuneJob) -> PixelNormalisation | None:
        """How pixels are normalised for these weights; None as usual for the backbone.

        A preset that says how comes before the kind of the backbone's file, and a tuned model
        before both.
        """
        if self.initial is not None:
            return self.initial.card.pixels
        of_preset = PRESETS[job.preset].pixels
        if of_preset is None:
            return pixels_of(job.weights_kind)
        return None if of_preset == find(job.backbone).normalisation else of_preset

    def kind(self, kind: WeightsKind | None) -> str | None:
        """What the weights were trained as, for the card; None for those usual for the backbone."""
        return kind if self.initial is None else self.initial.card.initial_weights

    @property
    def is_pretrained(self) -> bool:
        """Whether some weights have learnt something before."""
        return self.weights is not None or self.initial is not None

    def is_wholly_pretrained(self, backbone: str) -> bool:
        """Whether the decoder has learnt something, too, and is not a new one."""
        renewed = find(backbone).renews_decoder
        return self.initial is not None or (self.weights is not None and not renewed)

    def adapted_network(
        self,
        plan: FinetunePlan,
        examples: TrainingSet,
        slices: Sequence[LabelledSlice],
        device: torch.device,
        warn: Callable[[str], None],
    ) -> tuple[AutomaticSegmenter, str | None]:
        """The network to train for automatic segmentation, adapted.

        Args:
            plan: of the fine-tune.
            examples: what it learns from.
            slices: those of them that a new decoder starts from; no slice that it is measured on
                may be among them.
            device: where the slices are embedded for it.
            warn: called with a sentence for the user.

        Returns:
            The network, and the SHA-256 of the backbone's weights, None for random ones.

        Raises:
            InputError: weights or a tuned model that do not fit.
        """
        if self.initial is not None:
            segmenter = self.initial.load(examples.labels, plan.backbone)
            return segmenter, self.initial.card.checkpoint_sha256
        network = build(plan.backbone, plan.input_size, plan.pixels)
        sha256 = None
        if self.weights is None:
            warn(
                f"backbone {plan.backbone} starts from random weights, as asked, and learns from "
                "your slices alone"
            )
        else:
            sha256 = load_checkpoint(network, self.weights).sha256
        network.to(device)
        renew_context_decoder(network)
        structures = len(examples.labels)
        context = None
        if plan.head == DEFAULT_HEAD:
            context = context_of_slices(network, slices, structures + 1)
        segmenter = AutomaticSegmenter(network, structures, context, plan.head, plan.head_depth)
        begin_with_slices(network, slices)
        adapt(network, plan.method, plan.scope, plan.rank, plan.places)
        return segmenter, sha256

    def fingerprint(self, checkpoint_sha256: str | None) -> str:
        """Text that identifies the weights before the first step.

        Args:
            checkpoint_sha256: of the backbone's weights, None for random ones.
        """
        if self.initial is not None:
            return file_sha256(self.initial.path)
        return checkpoint_sha256 or "random"


def weights_to_start_from(job: FinetuneJob) -> Path | None:
    """The backbone's file; None for random weights, and where the job names a tuned model.

    Raises:
        InputError: no such file, or options that exclude each other.
    """
    if job.weights_kind is not None and job.checkpoint is None:
        raise InputError(
            f"weights of kind {job.weights_kind} are to be started from, and no file is named",
            "name the file of these weights",
            code="contrary_options",
        )
    if job.weights == "pretrained":
        has_initial = job.initial_model is not None
        return None if has_initial else find_weights(job.backbone, job.checkpoint)
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
