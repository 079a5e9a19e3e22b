"""The commands, with a worker that pretends: `fake_cli.py BEHAVIOUR COMMAND …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from SAMFineTuneLib.cli import main
from SAMFineTuneLib.jobs import process


def command_of(behaviour: str) -> Callable[..., list[str]]:
    """What stands in for `worker_command`: it starts fake_worker.py with a behaviour."""
    fake_worker = str(Path(__file__).with_name("fake_worker.py"))

    def command(folder: Path, python: Path | None = None) -> list[str]:
        words = [sys.executable, fake_worker, behaviour, str(folder)]
        return [*words, "--parent", str(os.getpid())]

    return command


if __name__ == "__main__":
    process.worker_command = command_of(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
