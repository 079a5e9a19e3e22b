"""`describe`: counts the parameters of a network, and those that train."""

from __future__ import annotations

import argparse
from typing import Any

from SAMFineTuneLib.adaptation.method import METHODS, SCOPES
from SAMFineTuneLib.adaptation.places import METHOD_OF_FIELD, Places, settled_places
from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.cli.field_option import add_field
from SAMFineTuneLib.cli.place_options import add_places
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.schema import LARGEST_RANK, FinetuneJob
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.worker.standard_output import output_on_errors

_DESCRIPTION = """\
Count the parameters of a network, and those that train with a method and a scope. No weights are
loaded, so this needs neither the files nor the memory for them.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib describe --backbone vit_b --method lora --scope encoder_decoder \\
      --classes 2
"""

# The limit of a fine-tune too.
_MOST_CLASSES = 10_000


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands, "describe", _run, "count parameters of a network", _DESCRIPTION, _EXAMPLE
    )
    backbones = {name: spec.description for name, spec in BACKBONES.items()}
    add_field(parser, FinetuneJob, "backbone", told=backbones)
    # Without data nothing can be chosen automatically, so there is no "auto" here.
    add_field(
        parser,
        FinetuneJob,
        "method",
        choices=METHODS,
        default="adapter",
        help="what is trained (default: adapter)",
    )
    add_field(
        parser,
        FinetuneJob,
        "scope",
        choices=SCOPES,
        default="encoder_decoder",
        help="where it is trained (default: encoder_decoder)",
    )
    parser.add_argument(
        "--classes", type=int, default=1, metavar="N", help="labels to learn (default: 1)"
    )
    add_field(parser, FinetuneJob, "rank", metavar="R")
    add_places(parser)
    parser.add_argument(
        "--input-size",
        type=int,
        metavar="PIXELS",
        help="side of the network's square input (default: the backbone's own)",
    )


def _run(chosen: argparse.Namespace) -> int:
    for name, given, most in (
        ("--classes", chosen.classes, _MOST_CLASSES),
        ("--rank", chosen.rank, LARGEST_RANK),
    ):
        if not 1 <= given <= most:
            raise InputError(f"{name} is {given}", f"Give 1 to {most}", code="usage")
    with output_on_errors():
        size, rows = _count(chosen)
    for row in rows:
        total, trainable = row["total"] / 1e6, row["trainable"] / 1e6
        print_message(f"{row['part']:16} {total:9.2f}M  trainable {trainable:.2f}M")
    print_result(
        {
            "backbone": chosen.backbone,
            "method": chosen.method,
            "scope": chosen.scope,
            "classes": chosen.classes,
            "rank": chosen.rank if chosen.method == "lora" else None,
            "input_size": size,
            "places": _used_places(chosen),
            "total": rows[-1]["total"],
            "trainable": rows[-1]["trainable"],
            "parts": rows[:-1],
        }
    )
    return 0


def _used_places(chosen: argparse.Namespace) -> dict[str, Any]:
    """Of the fields that say where adapters and updates go, those of the method."""
    fields = Places.of(chosen).as_fields()
    return {name: fields[name] for name, use in METHOD_OF_FIELD.items() if use[0] == chosen.method}


def _count(chosen: argparse.Namespace) -> tuple[int, list[dict[str, Any]]]:
    """The input size in pixels, and a row for each part of the network, with the sum last."""
    from dataclasses import asdict

    import torch

    from SAMFineTuneLib.adaptation.parameter_count import count
    from SAMFineTuneLib.adaptation.strategy import adapt
    from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
    from SAMFineTuneLib.networks.build import build
    from SAMFineTuneLib.networks.spec import find

    size = chosen.input_size or find(chosen.backbone).default_input_size
    with torch.device("meta"):
        network = build(chosen.backbone, size)
        AutomaticSegmenter(network, chosen.classes)
        places = settled_places(Places.of(chosen), chosen.method, chosen.scope)
        adapt(network, chosen.method, chosen.scope, chosen.rank, places)
    return size, [asdict(row) for row in count(network)]
