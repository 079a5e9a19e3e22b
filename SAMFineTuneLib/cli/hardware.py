"""`hardware`: shows this computer's processors, memory and GPUs, and the preset that suits them."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.worker.standard_output import output_on_errors

_DESCRIPTION = """\
Show the processors and memory of this computer, its devices by their names for --device, and the
preset of finetune that suits it.
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        "hardware",
        _run,
        "processors, memory, GPUs",
        _DESCRIPTION,
        "  python -m SAMFineTuneLib hardware",
    )


def _run(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.hardware import find_hardware

    with output_on_errors():
        hardware = find_hardware()
    for device in hardware.devices:
        memory = f"{device.memory_bytes / 1e9:.1f} GB" if device.memory_bytes else ""
        print_message(f"{device.name:8} {device.description}  {memory}")
    for problem in hardware.problems:
        print_message(f"warning: {problem}")
    print_message(f"preset {hardware.preset}: {hardware.why}")
    print_result({**asdict(hardware), "preset": hardware.preset, "why": hardware.why})
    return 0
