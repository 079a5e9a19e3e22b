"""The file of the starter's weights, with a card about their training."""

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
from SAMFineTuneLib.pretraining.saved import cannot_write
from SAMFineTuneLib.tensor_file import tensors_of

CARD_KEY = "samfinetune_starter"


def save_weights(path: Path, network: SamNetwork, training: dict[str, Any]) -> None:
    """Writes the weights in half precision, ready to be tuned, with a card about their training.

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
