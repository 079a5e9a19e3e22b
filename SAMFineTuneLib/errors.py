"""Errors that are no faults of the program, with messages for the user who can correct them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

Fact = str | int | float


class InputError(Exception):
    """Input that cannot be used. The command ends with exit code 2 and one line of text.

    Args:
        message: what is wrong, naming the file, field or label.
        remedy: what to do about it, for users of every front end: shell, panel or Python. It names
            no option of a command and no button.
        code: a short name for programs, stable between versions. The shell and the panel have
            remedies of their own for some codes.
        **facts: values with which these remedies are formatted. `field` is the name of a job's
            field. Values that are neither numbers nor texts are converted to text.
    """

    def __init__(self, message: str, remedy: str, code: str, **facts: object) -> None:
        self.message = " ".join(message.split())
        self.remedy = " ".join(remedy.split())
        self.code = code
        self.facts: dict[str, Fact] = {
            name: fact if isinstance(fact, str | int | float) else str(fact)
            for name, fact in facts.items()
        }
        super().__init__(f"{self.message}. {self.remedy}" if self.remedy else self.message)


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Puts the name of a file before what is told of it in the block; it may be one of many."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{name}: {error.message}", error.remedy, error.code, **error.facts
        ) from error


class Cancelled(Exception):
    """The user asked to stop. The command ends with exit code 3 and leaves no result."""
