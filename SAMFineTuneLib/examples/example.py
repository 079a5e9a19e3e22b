"""What a fine-tune reads of one example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge


class Example(Protocol):
    """A volume, its segmentation, and what is known of it.

    The record with these fields is `jobs.schema.Example`, which describes them. Modules of
    training do not import jobs; they take every object that has these attributes.
    """

    @property
    def volume(self) -> Path:
        """An image file or a DICOM folder."""

    @property
    def channels(self) -> Sequence[Path]:
        """Further images of the same case."""

    @property
    def segmentation(self) -> Path:
        """A file with the labels."""

    @property
    def group(self) -> str:
        """What examples that are held out together have in common; "" for one on its own."""

    @property
    def labels(self) -> Literal["all"] | list[int]:
        """The labels to learn, as numbers in this segmentation."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """Names of its labels, by number, which replace those in the file."""

    @property
    def axis(self) -> str:
        """The axis along which the volume is cut, or "auto"."""

    @property
    def merge(self) -> Mapping[int, Literal["all"] | list[int]]:
        """Labels that count as one: new number -> the numbers of its parts."""

    @property
    def on_top(self) -> Sequence[str]:
        """Segments that cover others where they overlap, the highest first."""

    @property
    def series(self) -> str | None:
        """The series of a DICOM folder, by its number in the list or its UID."""

    @property
    def frame(self) -> int | None:
        """The frame of a volume with an axis of time that was labelled."""

    @property
    def slice_knowledge(self) -> SliceKnowledge:
        """What is stated about the slices."""
