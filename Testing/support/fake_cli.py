"""The commands, with a worker that pretends: `fake_cli.py BEHAVIOUR COMMAND …`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from SAMFineTuneLib.cli import main
from SAMFineTuneLib.jobs import process


def pretend(behaviour: str) -> None:
    """Let the commands start fake_worker.py in place of the library's worker."""
    fake_worker = str(Path(__file__).with_name("fake_worker.py"))

    def command(folder: Path, python: Path | None = None) -> list[str]:
        words = [sys.executable, fake_worker, behaviour, str(folder)]
        return [*words, "--parent", str(os.getpid())]

    process.worker_command = command


if __name__ == "__main__":
    pretend(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
