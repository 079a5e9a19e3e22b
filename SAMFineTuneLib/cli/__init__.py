"""The commands of `python -m SAMFineTuneLib`.

Results are one JSON object on standard output; progress and messages go to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from SAMFineTuneLib import __version__
from SAMFineTuneLib.cli import (
    apply,
    checkpoints,
    describe,
    evaluate,
    finetune,
    hardware,
    models,
    pretrain,
    run,
    serve,
    storage,
)
from SAMFineTuneLib.cli.arguments import CommandParser, utf8_streams
from SAMFineTuneLib.cli.remedies import with_remedy_to_type
from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.worker.failure import EXIT_CANCELLED, EXIT_DONE, EXIT_OUR_FAULT, error_event

_DESCRIPTION = """\
Fine-tune the Segment Anything Model on a few labelled slices, and segment whole volumes.

  finetune     a volume and a segmentation with a few labelled slices -> a tuned model
  apply        a tuned model and volumes -> segmentations
  evaluate     a segmentation and a reference -> DSC and NSD
"""
_EPILOGUE = """\
examples:
  python -m SAMFineTuneLib finetune --volume ct.nii.gz --segmentation few.nii.gz \\
      --output liver.safetensors
  python -m SAMFineTuneLib apply --model liver.safetensors --volume ct.nii.gz \\
      --output whole.nii.gz

The result is written to standard output as one JSON object; everything else to standard error.
Exit code: 0 done, 2 bad input (one line says what to do), 3 cancelled, 1 a fault in the program.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Raises:
        SystemExit: with code 0, after --help and --version.
    """
    utf8_streams()
    command_line = sys.argv[1:] if arguments is None else list(arguments)
    try:
        chosen = build_parser().parse_args(command_line)
        code: int = chosen.command(chosen)
    except (InputError, Cancelled, KeyboardInterrupt) as error:
        return _report(error)
    except BrokenPipeError:
        # The reader of standard output has ended. Output is sent to nowhere, so that closing it
        # raises no further error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    # Every error is reported in one line; a fault in the program also with its traceback.
    except Exception as error:
        return _report(error)
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = CommandParser(
        prog="python -m SAMFineTuneLib",
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"SAMFineTune {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (
        finetune,
        apply,
        evaluate,
        models,
        checkpoints,
        storage,
        hardware,
        describe,
        pretrain,
        run,
        serve,
    ):
        group.add_to(commands)
    return parser


def _report(error: BaseException) -> int:
    """Print an error for the user; returns the exit code."""
    event = error_event(error)
    if event.exit_code == EXIT_OUR_FAULT:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
        event = event.model_copy(update={"remedy": "Please report it with the lines above"})
    event = with_remedy_to_type(event)
    word = "" if event.exit_code == EXIT_CANCELLED else "error: "
    print(f"{word}{event.line()}", file=sys.stderr, flush=True)
    return event.exit_code
