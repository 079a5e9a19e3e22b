"""Files of a pre-training: its state, from which it is resumed, and its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole

STATE_FILE = "pretraining.pt"
LOG_FILE = "pretraining.jsonl"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state; the file is there whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with written_whole(folder / STATE_FILE) as unfinished:
            torch.save(state, unfinished)
    # torch raises a RuntimeError for a full disk, without naming the cause.
    except (OSError, RuntimeError) as error:
        raise cannot_write(folder / STATE_FILE, error) from error


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state of an earlier run in this folder; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # For a damaged archive torch raises exceptions of many kinds.
    except Exception as error:
        raise bad_state(folder) from error
    if not isinstance(state, dict):
        raise bad_state(folder)
    return state


def bad_state(folder: Path) -> InputError:
    """The error that the state in a folder cannot be used."""
    return InputError(
        f"{folder / STATE_FILE} is damaged, or of another version of the network",
        "remove it to begin anew, or choose another folder",
        code="bad_state",
    )


def log(folder: Path, entry: dict[str, Any]) -> None:
    """Adds a line to the log.

    Raises:
        InputError: it cannot be written.
    """
    path = folder / LOG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: Exception) -> InputError:
    """The error that a file or folder of the training cannot be written, and why."""
    why = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return InputError(
        f"cannot write {path}{why}",
        "free some space, or choose another folder",
        code="cannot_write",
    )
