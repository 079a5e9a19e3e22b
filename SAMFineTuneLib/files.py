"""Files that appear whole or not at all, and paths that no file can have."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from SAMFineTuneLib.errors import InputError

# What the operating system says of a path that names nothing, whatever lies on the disk.
_IMPOSSIBLE = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
# Windows: "the filename, directory name, or volume label syntax is incorrect", and "too long".
_IMPOSSIBLE_ON_WINDOWS = {123, 206}


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write in place of `path`, which it becomes at the end; after an error it goes.

    Its name is short, so that every name that the file system takes can be written. It lies in the
    same folder, which is made where it is missing, and has the rights of a file that is simply
    written, also where a library would give it to its owner alone.

    Raises:
        OSError: the file cannot be written, or not be put into its place.
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
    """The path that a user wrote.

    Raises:
        InputError: it is empty, or as `possible_path`.
    """
    # An empty path is the current folder to pathlib, which nobody means by it.
    if not text.strip():
        raise InputError("a path is empty", "Name a file or a folder", code="bad_path")
    return possible_path(Path(text))


def possible_path(path: Path) -> Path:
    """The same path, where the file system could have a file of that name.

    Raises:
        InputError: it holds a NUL character, has a part that is too long, or leads round in a
            circle of links.
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
    """Asks the system for a path, and for its parts where the folder is not there yet."""
    for each in (path, *path.parents):
        try:
            each.lstat()
        # Of a file in a missing folder nothing else is said; each part is asked for by itself.
        except FileNotFoundError:
            continue
        for part in path.parts[len(each.parts) :]:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                (each / part).lstat()
        return


def is_impossible(error: OSError) -> bool:
    """Whether the system refused the path itself, and not what lies there."""
    windows = getattr(error, "winerror", None)
    return error.errno in _IMPOSSIBLE or windows in _IMPOSSIBLE_ON_WINDOWS


def shown(path: str | os.PathLike[str]) -> str:
    """A path for a message, without its middle where it is very long."""
    text = os.fspath(path).replace("\0", "\\0")
    return text if len(text) <= 120 else f"{text[:60]} … {text[-50:]}"


def _impossible(path: Path, why: str) -> InputError:
    return InputError(
        f"'{shown(path)}' cannot be the name of a file: {why}",
        "Name another file",
        code="bad_path",
    )
