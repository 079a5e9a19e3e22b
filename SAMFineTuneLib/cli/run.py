"""`run`: the worker that does a job, for programs that start one and read its events."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import Commands, add_command
from SAMFineTuneLib.files import path_from_text

_DESCRIPTION = """\
Do the job of a folder that holds job.json, or continue it where it stopped. Events are written as
JSON objects, one a line, to standard output and to events.jsonl in the folder: progress, preview,
log, and at the end result or error.

A file named "cancel" in the folder, or a line "cancel" on standard input, stops the job; "finish"
stops it early and keeps the best model so far.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib run my-job/
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(commands, "run", _run, "do a job folder", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("job_folder", type=path_from_text, metavar="JOB_DIR", help="holds job.json")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="cancel when the process of this id has ended"
    )


def _run(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.tasks.worker import main

    return main(chosen.job_folder, chosen.parent)
