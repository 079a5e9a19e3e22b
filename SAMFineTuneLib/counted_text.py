"""Counts in sentences: "1 slice", "5 slices"."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is 1; for nouns whose plural ends in "s"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
