"""The simulated users that corrections are measured with click where they say they do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from Testing.benchmarks.correcting_user import deepest_error, largest_error


def _empty() -> NDArray[np.bool_]:
    return np.zeros((20, 30), bool)


def test_the_first_click_lies_in_the_middle_of_the_structure() -> None:
    truth = _empty()
    truth[4:13, 10:25] = True
    # Seventh column of fifteen in the middle row: the middle of all places that are as deep.
    assert largest_error(_empty(), truth) == (8, 17, True)
    # The first of them in reading order.
    assert deepest_error(_empty(), truth) == (8, 14, True)


def test_a_long_thin_error_is_larger_than_a_short_deep_one() -> None:
    truth, mask = _empty(), _empty()
    truth[5:15, 5:25] = True
    mask[:] = truth
    mask[14, 5:25] = False
    mask[8:11, 26:29] = True
    assert largest_error(mask, truth) in ((14, 14, True), (14, 15, True))
    assert deepest_error(mask, truth) == (9, 27, False)


def test_what_is_too_much_gets_a_negative_click() -> None:
    truth, mask = _empty(), _empty()
    truth[2:5, 2:5] = True
    mask[2:5, 2:5] = True
    mask[10:17, 10:17] = True
    assert largest_error(mask, truth) == (13, 13, False)
    assert deepest_error(mask, truth) == (13, 13, False)


def test_nobody_clicks_where_nothing_is_wrong() -> None:
    truth = _empty()
    truth[2:5, 2:5] = True
    assert largest_error(truth, truth) is None
    assert deepest_error(truth, truth) is None


def test_regions_that_touch_at_a_corner_only_are_two() -> None:
    truth = _empty()
    truth[2:5, 2:5] = True
    truth[5:9, 5:9] = True
    row, column, positive = largest_error(_empty(), truth) or (0, 0, False)
    assert positive and 5 <= row < 9 and 5 <= column < 9
