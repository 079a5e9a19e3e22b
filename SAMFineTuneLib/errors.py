"""What can go wrong through no fault of the program, in words for the person who can mend it."""

from __future__ import annotations


class InputError(Exception):
    """Input that cannot be used. The command ends with exit code 2 and one line of text.

    Args:
        message: what is wrong, naming the file, field or label.
        remedy: what to do about it.
        code: a short name for programs, stable between versions.
    """

    def __init__(self, message: str, remedy: str = "", code: str = "bad_input") -> None:
        self.message = " ".join(message.split())
        self.remedy = " ".join(remedy.split())
        self.code = code
        super().__init__(f"{self.message}. {self.remedy}" if self.remedy else self.message)


class Cancelled(Exception):
    """The user asked to stop. The command ends with exit code 3 and leaves no result."""
