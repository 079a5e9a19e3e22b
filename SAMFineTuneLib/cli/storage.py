"""`storage`: shows and clears the cache."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.jobs.storage import StoredItem, clear_storage, storage_used

_COMMAND = "  python -m SAMFineTuneLib storage"
_DESCRIPTION = """\
The files that the program keeps on the disk and can make again: weights that were fetched, the
folders of jobs that were interrupted or failed, and embeddings of slices that were corrected.
Tuned models are never deleted.
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands,
        "storage",
        _show,
        "show and clear the cache",
        _DESCRIPTION,
        f"{_COMMAND} show\n{_COMMAND} clear",
    )
    actions = parser.add_subparsers(title="actions", metavar="show|clear", required=True)
    add_command(
        actions,
        "show",
        _show,
        "list its content",
        "List what can be cleared, with its size.",
        f"{_COMMAND} show",
    )
    add_command(
        actions,
        "clear",
        _clear,
        "delete its content",
        "Delete fetched weights, the folders of jobs that do not run, and embeddings of slices. "
        "Interrupted fine-tunes cannot be resumed afterwards. While a job or a correction runs, it "
        "is kept, and so are all weights and all embeddings.",
        f"{_COMMAND} clear",
    )


def _show(chosen: argparse.Namespace) -> int:
    used = storage_used()
    kinds = {
        "checkpoints": used.checkpoints,
        "interrupted": used.interrupted,
        "other_jobs": used.other_jobs,
        "embeddings": used.embeddings,
    }
    for kind, items in kinds.items():
        print_message(f"{kind.replace('_', ' '):12} {len(items):3}  {_bytes(items) / 1e6:9.1f} MB")
    listed = {
        kind: [{"name": item.name, "path": item.path, "bytes": item.bytes} for item in items]
        for kind, items in kinds.items()
    }
    print_result(
        {"folder": used.folder, "bytes": used.bytes, **listed, "running_jobs": used.running}
    )
    return 0


def _bytes(items: list[StoredItem]) -> int:
    return sum(item.bytes for item in items)


def _clear(chosen: argparse.Namespace) -> int:
    freed = clear_storage()
    print_message(f"{freed / 1e6:.0f} MB freed")
    print_result({"freed_bytes": freed})
    return 0
