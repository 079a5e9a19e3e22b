"""Writes files that appear whole or not at all, and recognises paths that no file can have."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from SAMFineTuneLib.errors import InputError

# Errors that the operating system raises for a path that no file can have.
_IMPOSSIBLE = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
# On Windows: "the filename, directory name, or volume label syntax is incorrect", and "too long".
_IMPOSSIBLE_ON_WINDOWS = {123, 206}


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file to write, which is renamed to `path` at the end, or deleted after an error.

    Its name is short, so that `path` may have the longest name that the file system allows. It is
    in the same folder, which is made if it is missing. It gets the permissions of a newly written
    file, even if a library restricts them to the owner.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{secrets.token_hex(6)}.part")
    unfinished.touch(exist_ok=False)
    try:
        rights = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(rights)
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def path_from_text(text: str) -> Path:
    """The path of a text that a user wrote.

    Raises:
        InputError: the text is empty, or `possible_path` raises it.
    """
    # To pathlib an empty path is the current folder, which is never what is meant.
    if not text.strip():
        raise InputError("a path is empty", "Name a file or a folder", code="bad_path")
    return possible_path(Path(text))


def possible_path(path: Path) -> Path:
    """The same path, after a check that the file system could have a file of that name.

    Raises:
        InputError: the path holds a NUL character, has a part that is too long, or leads into a
            loop of links.
    """
    try:
        _ask_for(path)
    except ValueError as error:
        raise _impossible(path, "it holds a NUL character") from error
    except OSError as error:
        if is_impossible(error):
            raise _impossible(path, error.strerror or str(error)) from error
    return path


def _ask_for(path: Path) -> None:
    """Asks the system for a path; if its folder does not exist yet, for each part of its name.

    Raises:
        OSError: the system refuses the path.
        ValueError: the path holds a NUL character.
    """
    for each in (path, *path.parents):
        try:
            each.lstat()
        # In a missing folder the system checks no name, so each part is checked in the nearest
        # folder that exists.
        except FileNotFoundError:
            continue
        for part in path.parts[len(each.parts) :]:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                (each / part).lstat()
        return


def is_impossible(error: OSError) -> bool:
    """Whether the system refused the path itself, and not the file that it names."""
    windows = getattr(error, "winerror", None)
    return error.errno in _IMPOSSIBLE or windows in _IMPOSSIBLE_ON_WINDOWS


def shown(path: str | os.PathLike[str]) -> str:
    """A path for a message; the middle of a very long path is left out."""
    text = os.fspath(path).replace("\0", "\\0")
    return text if len(text) <= 120 else f"{text[:60]} … {text[-50:]}"


def _impossible(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{shown(path)}' cannot be the name of a file: {reason}",
        "Name another file",
        code="bad_path",
    )
