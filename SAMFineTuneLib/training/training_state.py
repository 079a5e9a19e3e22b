"""The checkpoint of a fine-tune: one file from which an interrupted fine-tune is resumed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole

# Names of the checkpoints of the automatic fine-tune and of the tuning for prompts.
STATE_FILE, PROMPT_STATE_FILE = "training.pt", "prompts.pt"


@dataclass
class TrainingState:
    """Progress of a fine-tune.

    Attributes:
        signature: of plan and examples; a fine-tune with another signature starts afresh.
        step: optimiser steps taken.
        elapsed_s: seconds spent.
        recent_loss: mean over the last steps; NaN before the first.
        final_pass: whether the held-out slices have joined.
        weights: the tensors that train.
        optimiser: AdamW's state.
        best_weights: those of the best validation.
        best: DSC by class at the best validation, its mean and its step, and the distances between
            outlines and the temperature once they are measured; for the tuning for prompts, the
            figures that were measured before the held-out slices joined.
        validations_since_best: decides about the early stop.
        history: one entry a validation: step, loss, validation_dsc.
        teacher: the running average of the weights, where unlabelled slices are learnt from.
    """

    signature: str
    step: int = 0
    elapsed_s: float = 0.0
    recent_loss: float = math.nan
    final_pass: bool = False
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    validations_since_best: int = 0
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    teacher: dict[str, Tensor] = field(default_factory=dict)

    def save(self, folder: Path, file: str = STATE_FILE) -> None:
        """Writes the state; a file is there whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        try:
            with written_whole(folder / file) as unfinished:
                torch.save(content, unfinished)
        # torch raises a RuntimeError for a full disk, without naming the cause.
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot write the checkpoint {folder / file}",
                "free some space, or choose another folder for the job",
                code="cannot_write_checkpoint",
            ) from error


def load_state(folder: Path, signature: str, file: str = STATE_FILE) -> TrainingState | None:
    """The state of an interrupted fine-tune; None where there is none with this signature.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / file
    if not path.is_file():
        return None
    try:
        state = TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    # For a damaged archive torch raises exceptions of many kinds.
    except Exception as error:
        raise InputError(
            f"the checkpoint {path} is damaged, or of another version of the program",
            "delete it to begin this fine-tune anew",
            code="bad_state",
        ) from error
    return state if state.signature == signature else None


def forget_state(folder: Path, file: str = STATE_FILE) -> None:
    """Deletes the state, if there is one."""
    (folder / file).unlink(missing_ok=True)
