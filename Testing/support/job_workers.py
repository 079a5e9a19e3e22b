"""Jobs of the module that a pretended worker does, and models that nobody has trained."""

from __future__ import annotations

import os
import sys

from Testing.support.repository import REPOSITORY

FAKE = REPOSITORY / "Testing" / "support" / "fake_job_worker.py"


def pretend(monkeypatch) -> None:
    """Have jobs done by the pretended worker from now on."""
    from SAMFineTuneLib.jobs import client

    def command(folder, python=None) -> list[str]:
        return [sys.executable, str(FAKE), str(folder), "--parent", str(os.getpid())]

    monkeypatch.setattr(client, "worker_command", command)


def write_model(name: str, *labels: str, channels=()):
    """A tuned model without weights in the user's library, as the panel lists it."""
    from SAMFineTuneLib.models.library import find_model, models_folder
    from Testing.support import model_files

    model_files.write_model(models_folder() / f"{name}.safetensors", labels, channels=channels)
    return find_model(name)
