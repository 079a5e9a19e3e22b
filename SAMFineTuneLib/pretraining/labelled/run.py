"""Running a pre-training by prompts on labelled data sets in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.pretraining.interruption import Interruption
from SAMFineTuneLib.pretraining.labelled.data_sets import load_data_sets
from SAMFineTuneLib.pretraining.labelled.plan import LabelledChoices, settle
from SAMFineTuneLib.pretraining.labelled.training import LabelledPretraining
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.run import Run, alone_in, run_in_folder

_SLICES = "slices"
_LOG_EVERY_S = 20.0


def run_labelled(
    choices: LabelledChoices,
    folder: Path,
    output: Path,
    device_name: str,
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Runs to the end, and writes the weights in the layout of the backbone's checkpoint.

    Args:
        choices: the settings.
        folder: for the state, the log and the prepared slices.
        output: file of the weights.
        device_name: as `choose_device` takes it.
        say: called with a line about the progress from time to time.

    Returns:
        The progress, and how a fine-tune is told of the weights; None in all processes but the
            first.

    Raises:
        InputError: no such device; lists or weights that cannot be used; a state that is damaged or
            of another plan; a file cannot be written.
        KeyboardInterrupt: it was interrupted, and the state is saved.
    """
    device = choose_device(device_name)
    processes = ProcessGroup(device)
    with alone_in(folder, processes), Interruption() as interruption:
        # The same numbers in every process.
        torch.manual_seed(choices.seed)
        side = choices.weights.side(choices.input_size)
        network, start = choices.weights.network(side)
        # Each process has prepared slices of its own, so that none waits for another.
        own = _SLICES if processes.is_first else f"{_SLICES}{processes.rank}"
        data = load_data_sets(
            choices, folder / own, side, interruption.check, lambda done, total: None
        )
        plan = settle(choices, side, len(data.learnt), processes.size)
        if processes.is_first:
            for each in data.remarks:
                say(each)
            held_out = sum(len(slices) for _, slices in data.measured)
            say(
                f"{counted(len(data.learnt), 'labelled slice')} of "
                f"{counted(len(choices.lists), 'data set')}; {held_out} measured on"
            )
        training = LabelledPretraining(plan, network.to(device), data, processes, start)
        found = run_in_folder(
            training,
            Run(folder, output, processes, interruption, say, log_every_s=_LOG_EVERY_S),
        )
    return found and {**found, "initial_weights": f"{choices.weights.kind_of_result}:{output}"}
