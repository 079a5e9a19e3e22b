"""Files of a pre-training: the state to go on from, and the weights that come of it."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from SAMFineTuneLib import __version__
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.starter.encoder import StarterEncoder, give_initial_scale
from SAMFineTuneLib.tensor_file import tensors_of

STATE_FILE = "pretraining.pt"
LOG_FILE = "pretraining.jsonl"
CARD_KEY = "samfinetune_starter"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state; the file is there whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with written_whole(folder / STATE_FILE) as unfinished:
            torch.save(state, unfinished)
    # torch tells a full disk as a RuntimeError that does not name it.
    except (OSError, RuntimeError) as error:
        raise cannot_write(folder / STATE_FILE, error) from error


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state of an earlier run in this folder, None if there was none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged archive makes torch raise anything.
    except Exception as error:
        raise bad_state(folder) from error
    if not isinstance(state, dict):
        raise bad_state(folder)
    return state


def bad_state(folder: Path) -> InputError:
    """That nothing can go on from the folder's state."""
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


def save_weights(path: Path, network: SamNetwork, training: dict[str, Any]) -> None:
    """Writes the weights in half precision, ready to be tuned, and a card of how they came about.

    Raises:
        InputError: the file cannot be written.
    """
    ready = copy.deepcopy(network)
    assert isinstance(ready.image_encoder, StarterEncoder)
    give_initial_scale(ready.image_encoder)
    tensors = {
        name: each.detach().cpu().half().contiguous() for name, each in ready.state_dict().items()
    }
    card = {
        "name": "starter",
        "program": f"SAMFineTune {__version__}",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "licence": "Apache-2.0",
        "data": "synthetic images only, drawn by SAMFineTuneLib.pretraining; no image of anybody",
        **training,
    }
    try:
        with written_whole(path) as unfinished:
            save_file(tensors, unfinished, metadata={CARD_KEY: json.dumps(card)})
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights that `save_weights` wrote, and their card.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", "check its name", code="no_such_file")
    try:
        with safe_open(path, "pt") as file:
            card = dict(json.loads((file.metadata() or {})[CARD_KEY]))
        return {name: each.float() for name, each in tensors_of(path).items()}, card
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} holds no weights of the starter network",
            "name weights that a pre-training wrote",
            code="bad_weights",
        ) from error


def cannot_write(path: Path, error: Exception) -> InputError:
    """That a file or folder of the training cannot be written, and why."""
    why = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return InputError(
        f"cannot write {path}{why}",
        "free some space, or choose another folder",
        code="cannot_write",
    )
