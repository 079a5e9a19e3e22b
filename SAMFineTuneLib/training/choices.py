"""What a user chose for a fine-tune, before the preset and the data settle the rest."""

from __future__ import annotations

from typing import Literal, Protocol

from SAMFineTuneLib.adaptation.places import ChoiceOfPlaces
from SAMFineTuneLib.adaptation.strategy import Method, Scope
from SAMFineTuneLib.heads.names import HeadName
from SAMFineTuneLib.prompts.mode import PromptMode
from SAMFineTuneLib.training.presets import Preset


class FinetuneChoices(ChoiceOfPlaces, Protocol):
    """The choices of a fine-tune; None and "auto" leave a choice to the preset and the data.

    The record with these fields is `jobs.schema.FinetuneJob`, which describes them. Modules of
    training do not import jobs; they take every object that has these attributes.
    """

    @property
    def preset(self) -> Preset:
        """How much effort the fine-tune takes."""

    @property
    def backbone(self) -> str:
        """The backbone's name."""

    @property
    def method(self) -> Method | Literal["auto"]:
        """How weights change."""

    @property
    def scope(self) -> Scope | Literal["auto"]:
        """Which part of the network changes."""

    @property
    def rank(self) -> int:
        """Rank of LoRA's updates."""

    @property
    def input_size(self) -> int | Literal["auto"]:
        """Side of the square input in pixels."""

    @property
    def steps(self) -> int | None:
        """Optimiser steps."""

    @property
    def minutes(self) -> float | None:
        """Time limit."""

    @property
    def batch(self) -> int | None:
        """Slices a step."""

    @property
    def learning_rate(self) -> float | None:
        """Highest learning rate of the schedule."""

    @property
    def seed(self) -> int:
        """Seed of all random numbers."""

    @property
    def head(self) -> HeadName | Literal["auto"]:
        """What is put on the encoder."""

    @property
    def head_depth(self) -> int | None:
        """Depth of a head that has one."""

    @property
    def prompt_mode(self) -> PromptMode:
        """Which simulated prompts the tuning for prompts learns from."""
