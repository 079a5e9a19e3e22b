"""The main job through the real commands: fine-tune on examples, then segment volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.volumes import Labelmap, read_volume
from Testing.benchmarks.process_cost import CommandCost, command, run_command
from Testing.benchmarks.table import Cell, markdown


@dataclass(frozen=True)
class TunedRun:
    """What the two commands cost, and the segmentations in the order of the volumes."""

    tuned: CommandCost
    applied: CommandCost
    segmentations: list[Labelmap]

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
) -> TunedRun:
    """Runs `finetune` (preset laptop, backbone starter) and `apply`.

    Args:
        examples: the options of `finetune` that name them.
        volumes: to segment.
        folder: where everything is written.
        seed: of the fine-tune.
        options: more options of `finetune`; they may override what is said here.
    """
    model, output = folder / "model.safetensors", folder / "segmentations"
    tuned = run_command(
        command(
            *("finetune", *examples, "--output", model, "--job", folder / "finetune"),
            *("--preset", "laptop", "--backbone", "starter", "--seed", str(seed), *options),
        ),
        folder,
    )
    named = [word for volume in volumes for word in ("--volume", volume)]
    applied = run_command(
        command("apply", "--model", model, *named, "--output", output, "--job", folder / "apply"),
        folder,
    )
    written = [Path(each["segmentation"]) for each in applied.result["volumes"]]
    return TunedRun(tuned, applied, [_read(path) for path in written])


def _read(path: Path) -> Labelmap:
    # `read_labelmap` refuses a segmentation without a label, and a model may find nothing.
    volume = read_volume(path)
    return Labelmap(volume.array.astype(np.int32), volume.geometry)
