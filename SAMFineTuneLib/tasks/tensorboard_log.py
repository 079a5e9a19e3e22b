"""Writes for TensorBoard what the panel's chart shows: loss, validation DSC and learning rate."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.training.loop import ProgressReport
from SAMFineTuneLib.training.prompt_tuning import PHASE as PROMPT_PHASE

AUTOMATIC_RUN, PROMPTS_RUN = "automatic", "prompts"
_FLUSH_EVERY_S = 5


class TensorBoardLog:
    """One run for the automatic fine-tune and one for the tuning for prompts, each a sub-folder.

    Figures of both never share a line. A fine-tune that goes on after an interruption goes on in
    the same folder; what had been written beyond its checkpoint is no longer shown.

    Args:
        folder: made where it is missing.

    Raises:
        InputError: the package is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        _require_package()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write figures for TensorBoard to {folder}: {error.strerror or error}",
                "name another folder",
                code="no_access",
            ) from error
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def report(self, progress: ProgressReport) -> None:
        """Writes loss and learning rate of a step."""
        name = PROMPTS_RUN if progress.phase == PROMPT_PHASE else AUTOMATIC_RUN
        run = self._run(name, progress.step)
        run.add_scalar("loss", progress.loss, progress.step)
        run.add_scalar("learning_rate", progress.learning_rate, progress.step)

    def measured(self, step: int, dsc: float | None) -> None:
        """Writes the validation DSC of the automatic fine-tune at a step, where there is one."""
        if dsc is not None:
            self._run(AUTOMATIC_RUN, step).add_scalar("validation_dsc", dsc, step)

    def close(self) -> None:
        """Writes what is left; to be called in any case."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()

    def _run(self, name: str, step: int) -> Any:
        if name not in self._runs:
            from torch.utils.tensorboard import SummaryWriter

            self._runs[name] = SummaryWriter(
                str(self._folder / name), purge_step=step, flush_secs=_FLUSH_EVERY_S
            )
        return self._runs[name]


def _require_package() -> None:
    if find_spec("tensorboard") is None:
        raise InputError(
            "the Python package tensorboard is not installed",
            "Install it: pip install tensorboard",
            code="missing_package",
            packages="tensorboard",
        )
