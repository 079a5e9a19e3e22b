"""Which file a backbone's weights come from."""

from __future__ import annotations

from pathlib import Path

from SAMFineTuneLib.backbones.checkpoints import list_checkpoints
from SAMFineTuneLib.backbones.registry import find
from SAMFineTuneLib.errors import InputError


def find_weights(backbone: str, checkpoint: Path | None) -> Path | None:
    """The file named, else the official one in the cache.

    Returns:
        None for a backbone that has no weights to be had: it starts from random ones.

    Raises:
        InputError: a file that does not exist, or official weights that were not fetched.
    """
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise InputError(
                f"there is no checkpoint file {checkpoint}",
                "check the name given to --checkpoint",
                code="no_such_file",
            )
        return checkpoint
    if find(backbone).checkpoint is None:
        return None
    cached = next(each for each in list_checkpoints() if each.name == backbone)
    if not cached.present:
        raise InputError(
            f"the weights of {backbone} are not on this computer",
            f"fetch them with: python -m SAMFineTuneLib checkpoints get {backbone} "
            f"({cached.source.size // 10**6} MB), or name the file with --checkpoint",
            code="weights_missing",
        )
    return cached.path


def required_weights(backbone: str, checkpoint: Path | None) -> Path:
    """The weights that a tuned model was made from, of which it holds the changes alone.

    Raises:
        InputError: they are not here.
    """
    weights = find_weights(backbone, checkpoint)
    if weights is None:
        raise InputError(
            f"the {backbone} weights that the model was tuned from are not here",
            "give them with --checkpoint",
            code="weights_missing",
        )
    return weights
