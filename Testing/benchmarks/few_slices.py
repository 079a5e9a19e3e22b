"""Imitates a clinician who labels a few slices: keeps some of a labelmap and zeroes the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap


def labelled_range(labelmap: Labelmap, axis: str, labels: Sequence[int]) -> tuple[int, int]:
    """Numbers of the first and the last slice that hold one of the labels."""
    numbers = slices_with(labelmap, axis, labels)
    return numbers[0], numbers[-1]


def slices_with(labelmap: Labelmap, axis: str, labels: Sequence[int]) -> list[int]:
    """Numbers of all slices that hold one of the labels."""
    stack = SliceStack.of(labelmap, axis)
    return [number for number in range(len(stack)) if np.isin(stack[number], labels).any()]


def evenly_spaced(labelmap: Labelmap, axis: str, label: int, count: int) -> list[int]:
    """Evenly spaced slices from the first to the last one of a label; fewer where it is short."""
    first, last = labelled_range(labelmap, axis, [label])
    return sorted({int(number) for number in np.linspace(first, last, count).round()})


def keep_slices(labelmap: Labelmap, axis: str, kept: Mapping[int, Sequence[int]]) -> Labelmap:
    """The labelmap with each label on its own slices only; other labels are gone."""
    source = SliceStack.of(labelmap, axis)
    few = SliceStack(np.zeros_like(labelmap.array), labelmap.geometry, source.axis)
    for label, numbers in kept.items():
        for number in numbers:
            few[number][source[number] == label] = label
    return replace(labelmap, array=few.array)
