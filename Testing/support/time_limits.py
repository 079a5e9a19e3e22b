"""Waiting for what should happen, and limits on how long it takes.

Tests run on machines that other programs use too. A wait therefore has a long end, since it is over
as soon as what it waits for has happened; and a limit that is missed once is tried again: pytest
repeats a test that ended with `TooSlow`, twice at most. What is slow itself is so every time; what
another program held up is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

Found = TypeVar("Found")

# The longest that a test waits for what should happen soon, in seconds.
PATIENCE_S = 120.0

# On a test that has a limit. pytest-rerunfailures takes 24 ms for each test that has this mark.
TRIED_AGAIN = pytest.mark.flaky(reruns=2, reruns_delay=1, only_rerun="TooSlow")


class TooSlow(AssertionError):
    """A limit of time was missed in this attempt."""


def until(found: Callable[[], Found], seconds: float = PATIENCE_S) -> Found:
    """Asks again and again until the answer is true; gives that answer.

    Raises:
        AssertionError: it was not so after that many seconds.
    """
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"it did not happen in {seconds:.0f} s"
        time.sleep(0.02)
    return value


def require_faster(seconds: float, limit: float, what: str) -> None:
    """Fails with `TooSlow` where something took its limit or longer, both in seconds."""
    print(f"{what}: {seconds:.3f} s, limit {limit:.3f} s")
    if seconds >= limit:
        raise TooSlow(f"{what} took {seconds:.3f} s, limit {limit:.3f} s")


def has_limit(function: Callable[..., object]) -> bool:
    """Whether a test limits a time, in its own lines."""
    return not {"within", "require_faster"}.isdisjoint(function.__code__.co_names)


@contextmanager
def within(limit: float, what: str) -> Iterator[None]:
    """Fails with `TooSlow` where what is done inside takes the limit or longer, in seconds."""
    began = time.monotonic()
    yield
    require_faster(time.monotonic() - began, limit, what)
