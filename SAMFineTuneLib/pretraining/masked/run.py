"""Running a pre-training by masked reconstruction in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.image_list import evenly_spread
from SAMFineTuneLib.examples.prepared_slices import PreparedSlices
from SAMFineTuneLib.pretraining.interruption import Interruption
from SAMFineTuneLib.pretraining.masked.autoencoder import build_autoencoder
from SAMFineTuneLib.pretraining.masked.batches import BatchesAhead, UnlabelledBatches
from SAMFineTuneLib.pretraining.masked.image_files import find_images
from SAMFineTuneLib.pretraining.masked.plan import MaskedChoices, MaskedPlan, settle
from SAMFineTuneLib.pretraining.masked.reconstruction_picture import (
    reconstructions,
    write_picture,
)
from SAMFineTuneLib.pretraining.masked.training import MaskedPretraining
from SAMFineTuneLib.pretraining.masked.unlabelled_slices import (
    prepared_slices,
    wait_for_slices,
)
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.run import Run, alone_in, run_in_folder

_SLICES = "slices"
_PICTURES = 10
_SHOWN = 4
_LOG_EVERY_S = 20.0
_REPORTED_IMAGES = 200


def run_masked(
    choices: MaskedChoices,
    folder: Path,
    output: Path,
    device_name: str,
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Runs to the end, and writes the weights in the layout of the backbone's checkpoint.

    Args:
        choices: the settings.
        folder: for the state, the log, the prepared slices, and pictures of reconstructions.
        output: file of the weights.
        device_name: as `choose_device` takes it.
        say: called with a line about the progress from time to time.

    Returns:
        The progress, and how a fine-tune is told of the weights; None in all processes but the
            first.

    Raises:
        InputError: no such device; images or weights that cannot be used; fewer slices than a step
            takes; a state that is damaged or of another plan; a file cannot be written.
        KeyboardInterrupt: it was interrupted, and the state is saved.
    """
    device = choose_device(device_name)
    processes = ProcessGroup(device)
    with alone_in(folder, processes), Interruption() as interruption:
        # The same numbers in every process.
        torch.manual_seed(choices.seed)
        side = choices.weights.side(choices.input_size)
        network, start = choices.weights.network(side)
        store = _slices(choices, folder, processes, interruption, say)
        autoencoder = build_autoencoder(network).to(device)
        plan = settle(choices, side, autoencoder.patch, len(store), processes.size)
        _require_enough(plan, processes.size)
        batches = UnlabelledBatches(store, side, choices.weights.pixels, plan.seed)
        ahead = BatchesAhead(batches, plan.batch * processes.size, device.type != "cpu")
        training = MaskedPretraining(plan, autoencoder, ahead, processes, start)
        pictures = _Pictures(training, batches, len(store), folder)
        found = run_in_folder(
            training,
            Run(
                folder,
                output,
                processes,
                interruption,
                say,
                log_every_s=_LOG_EVERY_S,
                after_step=pictures.after_step,
            ),
        )
    return found and {**found, "initial_weights": f"{choices.weights.kind_of_result}:{output}"}


def _slices(
    choices: MaskedChoices,
    folder: Path,
    processes: ProcessGroup,
    interruption: Interruption,
    say: Callable[[str], None],
) -> PreparedSlices:
    def report(done: int, total: int) -> None:
        if done % _REPORTED_IMAGES == 0 and done:
            say(f"{done} of {total} images read")

    found = find_images(choices.images)
    place = folder / _SLICES
    if not processes.is_first:
        return wait_for_slices(found, place, choices.skip_unreadable, interruption.check)
    store, remarks = prepared_slices(
        found, place, choices.skip_unreadable, interruption.check, report
    )
    for each in remarks:
        say(each)
    say(f"{counted(len(store), 'slice')} of {counted(store.cases, 'image')}")
    return store


def _require_enough(plan: MaskedPlan, processes: int) -> None:
    if plan.slices >= plan.step_slices:
        return
    parts = [f"a batch of {plan.batch}"]
    if plan.accumulate > 1:
        parts.append(f"{plan.accumulate} batches")
    if processes > 1:
        parts.append(f"{processes} processes")
    raise InputError(
        f"the images have {counted(plan.slices, 'slice')}, fewer than the {plan.step_slices} of "
        f"a step ({' x '.join(parts)})",
        "Give more images, or take smaller steps",
        code="too_few_images",
        batch=max(1, plan.slices // processes),
    )


class _Pictures:
    """Draws reconstructions of the same few slices from time to time."""

    def __init__(
        self,
        training: MaskedPretraining,
        batches: UnlabelledBatches,
        slices: int,
        folder: Path,
    ) -> None:
        self._training = training
        self._batches = batches
        self._folder = folder
        # In the middle of parts of equal size, as the first slice of a volume shows little.
        apart = max(1, slices // _SHOWN)
        self._shown = [min(slices - 1, each + apart // 2) for each in evenly_spread(slices, _SHOWN)]
        self._drawn = 0

    def after_step(self) -> None:
        """Draws after the first step, and after each tenth of the training."""
        training = self._training
        due = 1 + int(training.progress * _PICTURES)
        if due <= self._drawn:
            return
        self._drawn = due
        autoencoder = training.autoencoder
        device = next(autoencoder.parameters()).device
        autoencoder.eval()
        images = self._batches.whole(self._shown).to(device)
        write_picture(
            self._folder / f"reconstruction_{training.step}.png",
            reconstructions(autoencoder, images),
        )
        autoencoder.train()
