"""The main job through the real commands: fine-tune on examples, then segment volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.volumes import Labelmap, read_volume
from Testing.benchmarks.process_cost import CommandCost, command, run_command
from Testing.benchmarks.table import Cell, markdown


@dataclass(frozen=True)
class TunedRun:
    """What the commands cost and wrote.

    Attributes:
        tuned: cost of `finetune`.
        applied: cost of `apply`.
        segmentations: in the order of the volumes.
        with_drawn: those of a second `apply` that was told which slices are drawn; empty without.
    """

    tuned: CommandCost
    applied: CommandCost
    segmentations: list[Labelmap]
    with_drawn: list[Labelmap]

    def cost_table(self) -> str:
        """Seconds and peak memory of each command, as Markdown."""
        rows: list[list[Cell]] = [
            [name, cost.seconds, round(cost.peak_bytes / 1024**2)]
            for name, cost in (("finetune", self.tuned), ("apply", self.applied))
        ]
        return markdown(["command", "seconds", "peak MiB"], rows, digits=1)

    def to_json(self) -> dict[str, Any]:
        """Costs, and what `finetune` reported."""
        return {
            "seconds": {"finetune": self.tuned.seconds, "apply": self.applied.seconds},
            "peak_bytes": {"finetune": self.tuned.peak_bytes, "apply": self.applied.peak_bytes},
            "result": self.tuned.result,
        }


def tune_and_apply(
    examples: Sequence[str | Path],
    volumes: Sequence[Path],
    folder: Path,
    seed: int,
    options: Sequence[str],
    drawn: Sequence[Path] = (),
) -> TunedRun:
    """Runs `finetune` (preset laptop, backbone starter) and `apply`.

    Args:
        examples: the options of `finetune` that name them.
        volumes: to segment.
        folder: where everything is written.
        seed: of the fine-tune.
        options: more options of `finetune`; they may override what is said here.
        drawn: labels of the volumes on the slices that are drawn, for a second `apply`.
    """
    model, output = folder / "model.safetensors", folder / "segmentations"
    tuned = tune(examples, model, folder, seed, options)
    named = [word for volume in volumes for word in ("--volume", volume)]

    def apply(job: str, *more: str | Path) -> CommandCost:
        return run_command(
            command(
                *("apply", "--model", model, *named, "--output", output / job, *more),
                *("--job", folder / job, *_weights_in(options)),
            ),
            folder,
        )

    applied = apply("apply")
    kept = [word for labels in drawn for word in ("--drawn", labels)]
    with_drawn = _segmentations(apply("apply-drawn", *kept)) if drawn else []
    return TunedRun(tuned, applied, _segmentations(applied), with_drawn)


def tune(
    examples: Sequence[str | Path], model: Path, folder: Path, seed: int, options: Sequence[str]
) -> CommandCost:
    """Runs `finetune` alone, likewise.

    Args:
        examples: the options of `finetune` that name them.
        model: the tuned model to write.
        folder: where all else is written.
        seed: of the fine-tune.
        options: more options of `finetune`; they may override what is said here.
    """
    return run_command(
        command(
            *("finetune", *examples, "--output", model, "--job", folder / "finetune"),
            *("--preset", "laptop", "--backbone", "starter", "--seed", str(seed), *options),
        ),
        folder,
    )


def _weights_in(options: Sequence[str]) -> list[str]:
    """`--checkpoint` of the weights that a fine-tune was told of by their kind.

    Where a tuned model keeps only what changed, the rest comes from this file.
    """
    for option, value in pairwise(options):
        if option == "--initial-weights":
            return ["--checkpoint", value.partition(":")[2]]
    return []


def _segmentations(applied: CommandCost) -> list[Labelmap]:
    return [read_predicted(Path(each["segmentation"])) for each in applied.result["volumes"]]


def read_predicted(path: Path) -> Labelmap:
    """A segmentation that `apply` wrote."""
    # `read_labelmap` refuses a segmentation without a label, and a model may find nothing.
    volume = read_volume(path)
    return Labelmap(volume.array.astype(np.int32), volume.geometry)
