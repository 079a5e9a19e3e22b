"""The user's folders for the cache and for tuned models; environment variables can change them."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "SAMFINETUNE_CACHE"


def cache_folder() -> Path:
    """The user's folder for files that can be made again; SAMFINETUNE_CACHE names another one."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("SAMFineTune"))


def embeddings_folder() -> Path:
    """The folder in the cache for the embeddings that corrections compute."""
    return cache_folder() / "embeddings"


MODELS_VARIABLE = "SAMFINETUNE_MODELS"


def models_folder() -> Path:
    """The user's folder of tuned models; SAMFINETUNE_MODELS names another one.

    It is with the user's data and not in the cache, because tuned models cannot be fetched again.
    """
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_data_dir("SAMFineTune", appauthor=False)) / "models"
