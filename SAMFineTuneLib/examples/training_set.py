"""The labelled slices that a fine-tune learns from, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, PixelWindow

# The model's axis when its volumes were cut along different ones, each along its widest spacing.
WIDEST = "widest"


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """One slice with what is known of it.

    Attributes:
        image: (rows, columns) or (rows, columns, channels) float16, 0 to 1 in the volume's
            intensity window.
        target: (rows, columns) class numbers, 0 for background. Pixels of a class that is not
            known on this slice are background, too.
        known: (classes,) bool, background first: for which classes `target` is right.
        window: the volume's intensity window.
        spacing: mm between rows and between columns.
        volume: index of the volume; several examples may be of one volume.
        number: slice number in the volume.
    """

    image: np.ndarray
    target: np.ndarray
    known: np.ndarray
    window: PixelWindow
    spacing: tuple[float, float]
    volume: int
    number: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    @cached_property
    def is_labelled(self) -> bool:
        """Whether the slice shows a structure; the other slices are known to be empty."""
        return bool(self.target.any())

    @cached_property
    def classes(self) -> set[int]:
        """Class numbers of the structures in the slice."""
        return {int(each) for each in np.unique(self.target) if each > 0}


@dataclass(frozen=True)
class ListedData:
    """What is known of a training set that was read from a list.

    Attributes:
        fingerprint: text that identifies the files and how they were read, instead of all pixels.
        held_out: positions of the slices of the validation list to measure on, ascending; None
            where there is no such list.
        learnt: how many slices are those of the training list, which come first. The others are
            never learnt from.
        skipped: rows whose files could not be read, one sentence each.
        release: deletes the prepared slices, which cannot be read any more afterwards.
        measured_files: text that identifies the files of the validation list, or, where there is
            none, those of the list that slices are held out of.
    """

    fingerprint: str
    held_out: tuple[int, ...] | None
    learnt: int
    skipped: tuple[str, ...]
    release: Callable[[], None]
    measured_files: str = ""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Everything that a fine-tune learns from.

    Attributes:
        slices: sorted by volume.
        labels: the structures to learn, by ascending number; class 1 is the first of them.
        axis: along which all volumes are cut, or `WIDEST` where they are cut differently.
        normalisation: of the intensities of all volumes.
        volumes: how many volumes there are.
        warnings: what the user should know, one sentence each.
        channels: the names of the images of a case, in their order; empty where it has one.
        listed: what is known of the list that the slices come from; None for examples.
    """

    slices: list[LabelledSlice]
    labels: list[Label]
    axis: str
    normalisation: IntensityNormalisation
    volumes: int
    warnings: list[str] = field(default_factory=list)
    channels: tuple[str, ...] = ()
    listed: ListedData | None = None

    @property
    def learnt_slices(self) -> list[LabelledSlice]:
        """The slices without those of a validation list."""
        return self.slices if self.listed is None else self.slices[: self.listed.learnt]

    @property
    def labelled_volumes(self) -> int:
        """How many of the volumes show a structure."""
        return len({each.volume for each in self.slices if each.is_labelled})
