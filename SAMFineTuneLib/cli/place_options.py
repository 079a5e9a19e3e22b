"""The options that say where adapters and low-rank updates go."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.adaptation.places import PARTS
from SAMFineTuneLib.cli.arguments import words_of
from SAMFineTuneLib.cli.field_option import add_field
from SAMFineTuneLib.jobs.schema import FinetuneJob


def add_places(group: argparse._ActionsContainer) -> None:
    """Add an option for each field of `adaptation.places.Places`."""
    add_field(group, FinetuneJob, "adapter_blocks", metavar="auto|first2last2|all|0,1,10,11")
    add_field(group, FinetuneJob, "lora_blocks", metavar="all|first2last2|0,1,10,11")
    add_field(
        group, FinetuneJob, "lora_parts", metavar="q,k,v,o,mlp", type=words_of(PARTS), action=None
    )
    add_field(group, FinetuneJob, "lora_scale", metavar="S")
    add_field(group, FinetuneJob, "decoder_adapters", metavar="all|none|0,1")
