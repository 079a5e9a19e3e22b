"""`pretrain`: makes weights for fine-tunes to start from."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli import pretrain_labelled, pretrain_masked, pretrain_synthetic
from SAMFineTuneLib.cli.arguments import Commands, add_command
from SAMFineTuneLib.errors import InputError

_DESCRIPTION = """\
Make weights that fine-tunes start from with --initial-weights own:FILE:

  mae         from unlabelled images, of which masked parts are reconstructed
  prompts     from several labelled data sets, by boxes and points drawn from their masks
  synthetic   the starter's own weights, from synthetic images
"""
_EXAMPLES = """\
  python -m SAMFineTuneLib pretrain mae --images archive --folder work --output mae.safetensors
  python -m SAMFineTuneLib pretrain prompts --list liver.csv --list heart.csv --folder work \\
      --output prompts.safetensors
  python -m SAMFineTuneLib pretrain synthetic --folder work --output starter.safetensors
"""


def add_to(commands: Commands) -> None:
    """Add the command with its kinds."""
    parser = add_command(
        commands,
        "pretrain",
        _kind_is_missing,
        "make weights to start fine-tunes from",
        _DESCRIPTION,
        _EXAMPLES,
    )
    kinds = parser.add_subparsers(title="kinds", metavar="mae|prompts|synthetic", required=True)
    for each in (pretrain_masked, pretrain_labelled, pretrain_synthetic):
        each.add_to(kinds)


def _kind_is_missing(chosen: argparse.Namespace) -> int:
    raise InputError("the kind of pre-training is missing", "See pretrain --help", code="usage")
