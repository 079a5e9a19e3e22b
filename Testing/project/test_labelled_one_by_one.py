"""The benchmark of the slice to label next: which slices its strategies show, and when it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, write_labelmap
from Testing.benchmarks.next_slice import STRATEGIES, Labelling, Tuned, report
from Testing.benchmarks.whole_slices import WholeSlices
from Testing.support.synthetic_volumes import geometry_of

SLICES, FIRST, LAST = 20, 4, 15


@pytest.fixture
def volume(tmp_path: Path) -> WholeSlices:
    """Structure 1 on slices 4 to 15, structure 2 on the upper half of these; 7 does not count."""
    array = np.zeros((SLICES, 12, 12), np.uint8)
    array[FIRST : LAST + 1, 2:6, 2:6] = 1
    array[10 : LAST + 1, 7:10, 2:6] = 2
    array[:, 11] = 7
    write_labelmap(tmp_path / "truth.nrrd", Labelmap(array, geometry_of(array.shape)))
    return WholeSlices.read(Path("image.nrrd"), tmp_path / "truth.nrrd", "axial", (1, 2))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Which slices a fine-tune was asked for; it reaches 0.9 with six, and doubts slice 14."""
    asked: list[tuple[int, ...]] = []

    def pretended(self: Any, shown: tuple[int, ...], folder: Path) -> Tuned:
        asked.append(shown)
        doubt = [0.1] * SLICES
        doubt[14] = 0.9
        return Tuned(shown, 0.3 + 0.1 * len(shown), 0.5, doubt, 1.0)

    monkeypatch.setattr(Labelling, "_measured", pretended)
    return asked


def test_a_volume_is_read_with_what_counts(volume: WholeSlices) -> None:
    assert volume.truth.labels == [1, 2] and volume.slices == SLICES
    assert volume.extent == range(FIRST, LAST + 1)
    assert volume.evenly_spaced(2) == [7, 13]
    assert volume.evenly_spaced(3) == [6, 10, 14]
    assert volume.evenly_spaced(12) == list(volume.extent)


def test_an_example_says_where_the_structures_end(volume: WholeSlices, tmp_path: Path) -> None:
    option, path = volume.write_example(tmp_path, [7, 13])
    assert option == "--examples"
    [told] = json.loads(Path(path).read_text(encoding="utf-8"))
    example = Example(**told)
    assert example.extent == (FIRST, LAST) and example.labelled == [7, 13]
    few = read_labelmap(example.segmentation)
    assert np.flatnonzero(few.array.any((1, 2))).tolist() == [7, 13]


def test_every_structure_counts_alike_on_the_slices_asked_for(volume: WholeSlices) -> None:
    lost = Labelmap(np.where(volume.truth.array == 2, 0, volume.truth.array), volume.truth.geometry)
    assert volume.mean_dsc(volume.truth, [5, 12]) == 1.0
    assert volume.mean_dsc(lost, [5, 12]) == 0.5
    # Where neither has structure 2, it has no DSC.
    assert volume.mean_dsc(lost, [5, 6]) == 1.0
    assert volume.mean_dsc(volume.truth, [0]) is None


def shown_by(volume: WholeSlices, strategy: str, target: float, most: int) -> list[Sequence[int]]:
    run = Labelling(volume, 0, [], drawn=True).until(target, most, strategy)
    return [each.shown for each in run]


@pytest.mark.usefixtures("measured")
def test_strategies_choose_as_they_say(volume: WholeSlices) -> None:
    # 10 is three slices from both; the doubtful 14 is only one from 13.
    assert shown_by(volume, "farthest", 1.0, 3) == [(7, 13), (7, 10, 13)]
    assert shown_by(volume, "suggested", 1.0, 3) == [(7, 13), (7, 10, 13)]
    assert shown_by(volume, "even", 1.0, 4) == [(7, 13), (6, 10, 14), (5, 8, 11, 14)]
    by_chance = shown_by(volume, "random", 1.0, 6)
    assert [len(each) for each in by_chance] == [2, 3, 4, 5, 6]
    for before, after in pairwise(by_chance):
        assert set(before) < set(after) and set(after) <= set(volume.extent)
    assert by_chance == shown_by(volume, "random", 1.0, 6)


def test_the_doubtful_slice_is_suggested_once_it_is_far_enough(
    volume: WholeSlices, measured: list[tuple[int, ...]]
) -> None:
    # Once 10 is known, no slice is farther than two from a known one, and one is enough.
    assert shown_by(volume, "suggested", 1.0, 4)[-1] == (7, 10, 13, 14)
    assert shown_by(volume, "farthest", 1.0, 4)[-1] != (7, 10, 13, 14)


def test_it_ends_at_the_target_and_tunes_no_choice_twice(
    volume: WholeSlices, measured: list[tuple[int, ...]]
) -> None:
    labelling = Labelling(volume, 0, [], drawn=True)
    runs = {each: [labelling.until(0.9, 8, each)] for each in STRATEGIES}
    assert [len(run[-1].shown) for [run] in runs.values()] == [6] * 4
    assert len(measured) == len(set(measured))
    assert measured.count((7, 13)) == 1
    rows = report("task", runs, 0.9).splitlines()
    assert len(rows) == 6 and all("| 6 " in row for row in rows[2:])
    missed = report("task", {"even": [labelling.until(0.9, 4, "even")]}, 0.9)
    assert ">4" in missed


@pytest.mark.parametrize("most", [2, 50])
@pytest.mark.usefixtures("measured")
def test_one_slice_is_always_left_to_measure_on(volume: WholeSlices, most: int) -> None:
    assert len(shown_by(volume, "farthest", 9.0, most)[-1]) == min(most, len(volume.extent) - 1)
