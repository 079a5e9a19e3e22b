"""Lists of a pre-training, whose names are always taken from the list's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from SAMFineTuneLib.errors import InputError


@contextmanager
def names_beside_the_list() -> Iterator[None]:
    """Tells what to do about missing files, where no folder of the names can be given.

    Raises:
        InputError: of the block.
    """
    try:
        yield
    except InputError as error:
        if error.code != "listed_files_missing":
            raise
        raise InputError(
            error.message,
            "Correct the names; they are relative to the list's folder",
            code="names_beside_list_missing",
        ) from error
