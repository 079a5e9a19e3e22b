"""The user's folders: the cache, and the tuned models. Environment variables name others."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "SAMFINETUNE_CACHE"


def cache_folder() -> Path:
    """This user's folder for what can be fetched again; SAMFINETUNE_CACHE names another one."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("SAMFineTune"))


def embeddings_folder() -> Path:
    """Where corrections keep what networks made of slices, to have it again at once."""
    return cache_folder() / "embeddings"


MODELS_VARIABLE = "SAMFINETUNE_MODELS"


def models_folder() -> Path:
    """This user's folder of tuned models; SAMFINETUNE_MODELS names another one.

    It lies with the user's data, not in the cache: what is here cannot be fetched again.
    """
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_data_dir("SAMFineTune", appauthor=False)) / "models"
