"""The weights that a pre-training writes, in the full layout of the backbone's checkpoint."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from SAMFineTuneLib import __version__
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.starter.encoder import StarterEncoder, give_initial_scale
from SAMFineTuneLib.pretraining.saved import cannot_write

CARD_KEY = "samfinetune_pretraining"


def write_weights(path: Path, network: SamNetwork, card: dict[str, Any]) -> None:
    """Writes all tensors of a network, with a card about their training.

    `finetune --initial-weights own:FILE` takes the file.

    Args:
        path: the file.
        network: as it was built, without modules that were added for the training.
        card: what is to be known, as JSON.

    Raises:
        InputError: the file cannot be written.
    """
    if isinstance(network.image_encoder, StarterEncoder):
        network = copy.deepcopy(network)
        assert isinstance(network.image_encoder, StarterEncoder)
        give_initial_scale(network.image_encoder)
    tensors = {
        # Tensors that share memory cannot be written.
        name: each.detach().cpu().clone().contiguous()
        for name, each in network.state_dict().items()
    }
    about = {
        "backbone": network.spec.name,
        "input_size": network.input_size,
        "pixels": network.spec.normalisation,
        "program": f"SAMFineTune {__version__}",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        **card,
    }
    try:
        with written_whole(path) as unfinished:
            save_file(tensors, unfinished, metadata={CARD_KEY: json.dumps(about)})
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
