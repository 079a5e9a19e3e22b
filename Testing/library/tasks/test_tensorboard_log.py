"""What a fine-tune writes for TensorBoard, and that the package may be absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.tasks import tensorboard_log
from SAMFineTuneLib.tasks.tensorboard_log import TensorBoardLog
from SAMFineTuneLib.training.loop import ProgressReport


def progress(step: int, phase: str = "fine-tune", **more: Any) -> ProgressReport:
    fields = {"eta_s": None, "loss": 1 / step, "validation_dsc": None, "learning_rate": 0.1 * step}
    return ProgressReport(step=step, steps=9, phase=phase, **{**fields, **more})


def test_without_the_package_it_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_log, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="package tensorboard is not installed") as refused:
        TensorBoardLog(tmp_path / "runs")
    assert refused.value.facts["packages"] == "tensorboard"
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_log, "find_spec", lambda name: name)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write figures"):
        TensorBoardLog(tmp_path / "file")


class Run:
    """A run that keeps what is written."""

    def __init__(self) -> None:
        self.points: list[tuple[str, float, int]] = []
        self.closed = False

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.points.append((tag, value, step))

    def close(self) -> None:
        self.closed = True


def test_automatic_figures_and_those_with_prompts_are_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_log, "find_spec", lambda name: name)
    log = TensorBoardLog(tmp_path)
    automatic, prompts = Run(), Run()
    log._runs = {"automatic": automatic, "prompts": prompts}
    log.report(progress(1))
    log.measured(1, 0.75)
    log.measured(2, None)
    log.report(progress(2, "final pass"))
    log.report(progress(1, "prompts"))
    log.close()
    assert automatic.points == [
        ("loss", 1.0, 1),
        ("learning_rate", 0.1, 1),
        ("validation_dsc", 0.75, 1),
        ("loss", 0.5, 2),
        ("learning_rate", 0.2, 2),
    ]
    assert prompts.points == [("loss", 1.0, 1), ("learning_rate", 0.1, 1)]
    assert automatic.closed and prompts.closed


def test_tensorboard_reads_it_and_an_interrupted_part_is_replaced(tmp_path: Path) -> None:
    accumulation = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, loss in ((1, 0.9), (3, 0.2)):
        log = TensorBoardLog(tmp_path)
        for step in range(first, first + 4):
            log.report(progress(step, loss=loss))
        log.close()
    read = accumulation.EventAccumulator(str(tmp_path / "automatic")).Reload()
    points = {each.step: round(each.value, 3) for each in read.Scalars("loss")}
    assert points == {1: 0.9, 2: 0.9, 3: 0.2, 4: 0.2, 5: 0.2, 6: 0.2}
