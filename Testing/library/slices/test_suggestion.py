"""Which slice to label next."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from SAMFineTuneLib.slices.suggestion import next_slice


@pytest.mark.parametrize(
    ("count", "labelled", "empty", "extent", "expected"),
    [
        # Nothing is labelled: the middle.
        (11, [], [], None, 5),
        (1, [], [], None, 0),
        (100, [], [], (10, 40), 25),
        (100, [], [], (0, 40), 20),
        (100, [], [], (60, 99), 79),
        (11, [], [5], None, 2),
        # Between the labelled slices, farthest from both.
        (100, [10, 30, 70], [], None, 50),
        (100, [10, 11, 12, 15], [], None, 13),
        # Nothing left between them: beyond.
        (100, [10, 11, 12], [], None, 99),
        (100, [80, 81], [], None, 0),
        # Slices known to be empty count as known.
        (100, [10, 11, 12], [99], None, 55),
        (21, [5, 15], [10], None, 7),
        # The extent, before and beyond the labelled slices; nothing outside it.
        (100, [30, 32], [], (20, 60), 46),
        (100, [30], [], (20, 31), 24),
        (100, [20, 21, 22], [], (20, 22), None),
        (3, [0, 1], [2], None, None),
        (0, [], [], None, None),
    ],
)
def test_the_farthest_slice_is_suggested(
    count: int,
    labelled: list[int],
    empty: list[int],
    extent: tuple[int, int] | None,
    expected: int | None,
) -> None:
    assert next_slice(count, labelled, empty, extent) == expected


def test_the_most_uncertain_of_those_far_enough_is_suggested() -> None:
    doubt = np.zeros(101)
    assert next_slice(101, [0, 100], [], None, doubt) == 50
    doubt[60] = 0.3
    assert next_slice(101, [0, 100], [], None, doubt) == 60
    # Beside a labelled slice there is little to learn, however uncertain the model is.
    doubt[3] = 0.9
    assert next_slice(101, [0, 100], [], None, doubt) == 60
    doubt[25] = 0.4
    assert next_slice(101, [0, 100], [], None, doubt) == 25
    doubt[24] = 0.5
    assert next_slice(101, [0, 100], [], None, doubt) == 25


def test_slices_between_come_before_more_uncertain_ones_beyond() -> None:
    doubt = np.zeros(40)
    doubt[35] = 1.0
    assert next_slice(40, [10, 20], [], None, doubt) == 15
    assert next_slice(40, [10, 20], [], (10, 39), doubt) == 35


def test_a_figure_that_is_none_counts_as_certain() -> None:
    doubt = [float("nan")] * 11
    assert next_slice(11, [0, 10], [], None, doubt) == 5
    doubt[6] = 0.1
    assert next_slice(11, [0, 10], [], None, doubt) == 6


def test_following_the_suggestions_ends_with_all_slices_known() -> None:
    for count, extent in itertools.product((1, 2, 17), (None, (0, 0), (0, 1))):
        if extent is not None and extent[1] >= count:
            continue
        labelled: list[int] = []
        while (number := next_slice(count, labelled, [], extent)) is not None:
            assert number not in labelled
            assert extent is None or extent[0] <= number <= extent[1]
            labelled.append(number)
        wanted = range(count) if extent is None else range(extent[0], extent[1] + 1)
        assert sorted(labelled) == list(wanted)


@pytest.mark.parametrize(
    ("labelled", "empty", "extent", "uncertainty", "words"),
    [
        ([10], [], None, None, "no slice 10"),
        ([], [-1], None, None, "no slice -1"),
        ([], [], (0, 10), None, "no slice 10"),
        ([], [], (6, 4), None, "ends before"),
        ([], [], None, [0.5] * 9, "9 figures"),
    ],
)
def test_what_is_not_of_the_volume_is_refused(  # type: ignore[no-untyped-def]
    labelled, empty, extent, uncertainty, words
) -> None:
    with pytest.raises(ValueError, match=words):
        next_slice(10, labelled, empty, extent, uncertainty)
