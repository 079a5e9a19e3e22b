"""What a user has stated about the slices of one labelled volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LabelledSlices = Literal["nonempty"] | list[int]
EmptySlices = Literal["auto", "outside", "none"] | list[int]


@dataclass(frozen=True)
class SliceKnowledge:
    """On which slices a labelmap can be trusted, as the user states it.

    Slices are numbered from 0 along the axis that the volume is cut along. `known_labels` derives
    from this value and the labelmap which label is known on which slice.

    Attributes:
        labelled: slices on which every label is drawn completely. With "nonempty", each label is
            known on the slices that hold a voxel of it.
        empty: slices that hold none of the labels. With "outside", a label is absent on all slices
            before its first and after its last labelled one. "auto" leaves a margin there, as wide
            as the largest gap between two labelled slices, because the structure may end in it;
            where only one slice is labelled, nothing is assumed. With "none" nothing is assumed.
        complete: further slices on which every label is drawn completely.
        unfinished: slices on which the labels do not count. None of the other lists names them.
        known_empty: further slices that hold none of the labels.
        extent: the first and the last slice that hold any of the labels; no slice beyond holds one.
            It replaces "auto" and "outside" of `empty`; slices that `empty` lists stay empty.
    """

    labelled: LabelledSlices = "nonempty"
    empty: EmptySlices = "auto"
    complete: Sequence[int] = ()
    unfinished: Sequence[int] = ()
    known_empty: Sequence[int] = ()
    extent: tuple[int, int] | None = None

    @property
    def listed_labelled(self) -> list[int] | None:
        """The slices that `labelled` lists; None where it lists none."""
        return None if isinstance(self.labelled, str) else self.labelled

    @property
    def listed_empty(self) -> list[int]:
        """Every slice that is stated to be empty by its number."""
        listed = [] if isinstance(self.empty, str) else self.empty
        return [*self.known_empty, *listed]

    @property
    def states_slices(self) -> bool:
        """Whether labels are stated to be complete or absent on slices given by their numbers."""
        return bool(
            self.extent is not None or self.listed_labelled or self.complete or self.listed_empty
        )

    @property
    def states_empty_slices(self) -> bool:
        """Whether some slices of a labelmap without a voxel are stated to be empty."""
        return self.empty == "outside" or self.states_slices
