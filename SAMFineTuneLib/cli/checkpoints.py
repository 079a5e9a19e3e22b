"""`checkpoints`: the official weights of the backbones, on this computer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.cli.progress_display import ProgressDisplay
from SAMFineTuneLib.networks.spec import BACKBONES, find
from SAMFineTuneLib.worker.events import Progress
from SAMFineTuneLib.worker.standard_output import output_on_errors

if TYPE_CHECKING:
    from SAMFineTuneLib.weights.official import CachedCheckpoint

_DESCRIPTION = """\
The official weights of the backbones. They are kept in the user's cache (SAMFINETUNE_CACHE names
another folder) and checked by SHA-256; an interrupted download is resumed.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib checkpoints list
  python -m SAMFineTuneLib checkpoints get vit_t
  python -m SAMFineTuneLib checkpoints clear
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands, "checkpoints", _list, "fetch, list, delete weights", _DESCRIPTION, _EXAMPLE
    )
    actions = parser.add_subparsers(title="actions", metavar="list|get|clear", required=True)
    add_command(
        actions,
        "list",
        _list,
        "list the official weights",
        "List the official weights: licence, size, and their path once they are fetched.",
        "  python -m SAMFineTuneLib checkpoints list",
    )
    get = add_command(
        actions,
        "get",
        _get,
        "fetch the weights of a backbone",
        "Fetch the official weights of a backbone and print their path.",
        "  python -m SAMFineTuneLib checkpoints get vit_t",
    )
    fetched = [spec.name for spec in BACKBONES.values() if spec.checkpoint is not None]
    get.add_argument("name", metavar="NAME", help="one of " + ", ".join(fetched))
    add_command(
        actions,
        "clear",
        _clear,
        "delete fetched weights",
        "Delete all weights that were fetched, including parts of interrupted downloads.",
        "  python -m SAMFineTuneLib checkpoints clear",
    )


def _list(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.user_folders import cache_folder
    from SAMFineTuneLib.weights.official import list_checkpoints

    entries = list_checkpoints()
    for entry in entries:
        state = "here" if entry.present else "not here"
        print_message(
            f"{entry.name:11} {entry.source.size / 1e6:7.0f} MB  {entry.licence}  {state}"
        )
    print_result(
        {"folder": cache_folder(), "checkpoints": [_as_fields(entry) for entry in entries]}
    )
    return 0


def _as_fields(entry: CachedCheckpoint) -> dict[str, Any]:
    return {
        "name": entry.name,
        "present": entry.present,
        "path": entry.path,
        "bytes": entry.source.size,
        "bytes_present": entry.bytes_present,
        "url": entry.source.url,
        "sha256": entry.source.sha256,
        "licence": entry.licence,
    }


def _get(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.weights.download import get_checkpoint

    display = ProgressDisplay()
    spec = find(chosen.name)
    print_message(f"{spec.name}: {spec.description}; licence {spec.licence}")
    try:
        with output_on_errors():
            path = get_checkpoint(
                chosen.name,
                lambda here, size: display.show(_megabytes(chosen.name, here, size)),
            )
    finally:
        display.close()
    print_result({"name": chosen.name, "path": path})
    return 0


def _megabytes(name: str, here: int, size: int) -> Progress:
    return Progress(step=here >> 20, steps=size >> 20, phase=f"{name}, MB")


def _clear(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.weights.official import clear_checkpoints

    freed = clear_checkpoints()
    print_message(f"{freed / 1e6:.0f} MB freed")
    print_result({"freed_bytes": freed})
    return 0
