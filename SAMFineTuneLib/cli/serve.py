"""`serve`: the correction worker, for programs that start one and send it requests."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import Commands, add_command
from SAMFineTuneLib.files import path_from_text

_DESCRIPTION = """\
Find masks from points and boxes on the slices of a volume, until the request to close comes. The
folder holds session.json: {"volume": FILE, "model": TUNED_MODEL}. Requests are JSON objects, one a
line, on standard input, answers on standard output; masks pass through files in the folder. This
command is for programs; SAMFineTuneLib/interactive/protocol.py describes the messages.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib serve my-session/
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands, "serve", _serve, "answer prompts with masks", _DESCRIPTION, _EXAMPLE
    )
    parser.add_argument("folder", type=path_from_text, metavar="DIR", help="holds session.json")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="end when the process of this id has ended"
    )


def _serve(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.interactive.worker import main

    return main(chosen.folder, chosen.parent)
