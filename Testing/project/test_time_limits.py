"""A limit of time that another program's work made a test miss is tried again."""

from __future__ import annotations

from Testing.support.time_limits import require_faster

_ATTEMPTS: list[int] = []


def test_a_limit_that_is_missed_once_is_tried_again() -> None:
    _ATTEMPTS.append(1)
    require_faster(1.0 / len(_ATTEMPTS), 0.9, "what takes half as long when it is tried again")
    assert len(_ATTEMPTS) == 2
