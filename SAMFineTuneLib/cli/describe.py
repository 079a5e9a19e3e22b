"""`describe`: counts the parameters of networks, and those that train."""

from __future__ import annotations

import argparse
from typing import Any

from SAMFineTuneLib.adaptation.method import METHODS, SCOPES, Scope
from SAMFineTuneLib.adaptation.places import METHOD_OF_FIELD, Places, settled_places
from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.cli.field_option import add_field
from SAMFineTuneLib.cli.place_options import add_places
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.names import (
    DEFAULT_HEAD,
    HEAD_DEPTHS,
    HEAD_NAMES,
    HEADS,
    HeadName,
    settled_depth,
)
from SAMFineTuneLib.jobs.schema import LARGEST_RANK, FinetuneJob
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.worker.standard_output import output_on_errors

_DESCRIPTION = """\
Count the parameters of a network, and those that train with a method and a scope. No weights are
loaded, so this needs neither the files nor the memory for them. With --table: of every backbone
with every head.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib describe --backbone vit_b --method lora --scope encoder_decoder \\
      --classes 2
  python -m SAMFineTuneLib describe --table --classes 4
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
        default=None,
        help="where it is trained (default: encoder_decoder, for the head prompt_network decoder)",
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
    heads: dict[str, str] = {name: each.summary for name, each in HEADS.items()}
    add_field(
        parser,
        FinetuneJob,
        "head",
        choices=HEAD_NAMES,
        metavar="HEAD",
        default=DEFAULT_HEAD,
        help="what finds the structures: "
        + "; ".join(f"{name}, {summary}" for name, summary in heads.items())
        + f" (default: {DEFAULT_HEAD})",
    )
    add_field(parser, FinetuneJob, "head_depth", metavar="D")
    parser.add_argument(
        "--table",
        action="store_true",
        help="a table of every backbone with every head, instead of one network; convnet with each "
        "depth",
    )


def _run(chosen: argparse.Namespace) -> int:
    for name, given, most in (
        ("--classes", chosen.classes, _MOST_CLASSES),
        ("--rank", chosen.rank, LARGEST_RANK),
    ):
        if not 1 <= given <= most:
            raise InputError(f"{name} is {given}", f"Give 1 to {most}", code="usage")
    _refuse_depth(chosen)
    if chosen.table:
        return _print_table(chosen)
    chosen.scope = chosen.scope or _usual_scope(chosen.head)
    with output_on_errors():
        size, rows = _count(chosen)
    for row in rows:
        total, trainable = row["total"] / 1e6, row["trainable"] / 1e6
        print_message(f"{row['part']:16} {total:9.2f}M  trainable {trainable:.2f}M")
    print_result(
        {
            "backbone": chosen.backbone,
            "head": chosen.head,
            "head_depth": settled_depth(chosen.head, chosen.head_depth),
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


def _refuse_depth(chosen: argparse.Namespace) -> None:
    depth = chosen.head_depth
    if depth is None:
        return
    if chosen.table or settled_depth(chosen.head, depth) is None:
        raise InputError(
            "--head-depth goes with --head convnet", "Leave it out", code="contrary_options"
        )
    if depth not in HEAD_DEPTHS:
        raise InputError(
            f"--head-depth is {depth}", f"Give {HEAD_DEPTHS[0]} to {HEAD_DEPTHS[-1]}", code="usage"
        )


def _usual_scope(head: HeadName) -> Scope:
    return "decoder" if HEADS[head].alone else "encoder_decoder"


def _print_table(chosen: argparse.Namespace) -> int:
    """Every backbone with every head: millions of parameters in all, and that train."""
    kinds = [
        (head, depth)
        for head in HEAD_NAMES
        for depth in (HEAD_DEPTHS if settled_depth(head, None) else (None,))
    ]
    rows = []
    where = f", {chosen.scope}" if chosen.scope else ""
    print_message(f"| backbone | head | parameters | train with {chosen.method}{where} |")
    print_message("|---|---|---:|---:|")
    for backbone in BACKBONES:
        for head, depth in kinds:
            scope = chosen.scope or _usual_scope(head)
            own = {"backbone": backbone, "head": head, "head_depth": depth, "scope": scope}
            with output_on_errors():
                size, parts = _count(argparse.Namespace(**{**vars(chosen), **own}))
            found = {name: parts[-1][name] for name in ("total", "trainable")}
            rows.append({**own, "input_size": size, **found})
            named = head if depth is None else f"{head}, depth {depth}"
            total, trainable = found["total"] / 1e6, found["trainable"] / 1e6
            print_message(f"| {backbone} | {named} | {total:.2f} M | {trainable:.2f} M |")
    print_result({"method": chosen.method, "classes": chosen.classes, "rows": rows})
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
        AutomaticSegmenter(network, chosen.classes, None, chosen.head, chosen.head_depth)
        places = settled_places(Places.of(chosen), chosen.method, chosen.scope)
        adapt(network, chosen.method, chosen.scope, chosen.rank, places)
    return size, [asdict(row) for row in count(network)]
