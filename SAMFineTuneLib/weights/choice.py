"""Chooses the file that a backbone's weights come from."""

from __future__ import annotations

from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.spec import BundledWeights, find
from SAMFineTuneLib.weights.official import file_sha256, list_checkpoints

_BUNDLE_FOLDER = Path(__file__).parent


def find_weights(backbone: str, checkpoint: Path | None) -> Path:
    """The given file, otherwise the one that comes with the program or was fetched.

    Raises:
        InputError: the file does not exist, official weights were not fetched, or bundled weights
            are missing or damaged. Other weights are never used instead.
    """
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise InputError(
                f"there is no checkpoint file {checkpoint}",
                "check the name of the weights file",
                code="no_such_checkpoint",
            )
        return checkpoint
    bundled = find(backbone).bundled
    if bundled is not None:
        return _bundled_file(backbone, bundled)
    cached = next(each for each in list_checkpoints() if each.name == backbone)
    if not cached.present:
        megabytes = round(cached.source.size / 1e6)
        raise InputError(
            f"the weights of {backbone} are not on this computer",
            f"fetch the official weights ({megabytes} MB), or name a file that holds them",
            code="weights_missing",
            backbone=backbone,
            megabytes=megabytes,
        )
    return cached.path


def bundled_path(bundled: BundledWeights) -> Path:
    """The path of weights that come with the program."""
    return _BUNDLE_FOLDER / bundled.file_name


def _bundled_file(backbone: str, bundled: BundledWeights) -> Path:
    path = bundled_path(bundled)
    if not path.is_file():
        raise _unusable(f"the {backbone} weights that come with the program are missing: {path}")
    if file_sha256(path) != bundled.sha256:
        raise _unusable(f"the {backbone} weights that come with the program are damaged: {path}")
    return path


def _unusable(problem: str) -> InputError:
    return InputError(
        problem,
        "install the program anew, or start from random weights",
        code="bundle_unusable",
    )
