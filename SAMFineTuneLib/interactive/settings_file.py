"""The settings of a correction: `session.json` in the session's folder, read and checked."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import possible_path
from SAMFineTuneLib.interactive.protocol import SESSION_FILE, SessionSettings

# The settings are a few paths and texts: a larger file holds something else.
_LARGEST = 1 << 20
_CODE = "bad_job"


def require_folder(folder: Path) -> None:
    """Checks that a session's folder exists.

    Raises:
        InputError: there is no such folder.
    """
    _require_name(folder, "the session")
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}",
            f"make it and write {SESSION_FILE} into it first",
            code="no_such_file",
        )


def read_settings(folder: Path) -> SessionSettings:
    """The settings in a session's folder.

    Raises:
        InputError: they are missing or damaged, or a path in them is not a possible path.
    """
    path = folder / SESSION_FILE
    try:
        settings = SessionSettings.model_validate_json(_content(path), strict=True)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}", "write it first", "no_such_file"
        ) from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in fault["loc"])
        raise InputError(
            f"{path}: {fault['msg']}{f' (field {where})' if where else ''}", "correct it", _CODE
        ) from error
    for number, each in enumerate(settings.channels):
        _require_name(each, f'{path}: field "channels[{number}]"')
    for field in ("volume", "model", "checkpoint"):
        value = getattr(settings, field)
        if value is not None:
            _require_name(value, f'{path}: field "{field}"')
    return settings


def _content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: the file cannot be read.
        InputError: it is not a file, or too large.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file", "write the session's settings there", _CODE)
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(
            f"{path} is larger than {_LARGEST >> 20} MiB, and holds no session's settings",
            "write it anew",
            _CODE,
        )
    return content


def _require_name(path: Path, what: str) -> None:
    """Raises InputError for a path that no file can have.

    The empty path is refused too: it would name the current folder.
    """
    if path == Path():
        raise InputError(f"{what} names no file", "name one", _CODE)
    try:
        possible_path(path)
    except InputError as error:
        raise InputError(f"{what}: {error.message}", error.remedy, _CODE) from error
