"""Sentences that count: in the singular for one."""

from __future__ import annotations

from typing import Any


def counted(count: float, one: str, more: str, **values: Any) -> str:
    """The sentence for this count, filled in.

    Args:
        count: also the value of {count}.
        one: translated sentence for a count of one.
        more: translated sentence for every other count.
        values: of the other fields of the sentences.
    """
    return (one if count == 1 else more).format(count=count, **values)
