"""One optimiser step and one slice's prediction: seconds and peak memory.

    python -m Testing.benchmarks.backbone_step [--json FILE] [--repetitions 3] [--only TEXT]

Each row is measured in a process of its own. The seconds of a step are the median of some steps
after a warm-up; a step is what the fine-tune does between drawing a batch and the next one:
encoder, mask decoder, loss, gradient, AdamW. The batch is 2 slices, the structures are 2, the
weights random. Drawing and augmenting a batch comes on top where features are not cached, and has
its own column. "CPU s" counts the seconds of all cores, and so shows whether the machine was shared
while it was measured: alone on two cores it is nearly twice "s". Peak memory is the process's
largest resident set; "before" is what Python, torch and the network took before the first step.

Implementation:

* library: this library, with every image encoded anew.
* library, cached: the encoder's frozen beginning comes from the feature cache, already filled; the
  stages of the encoder that this spares are counted in the column "cached".
* packages: the same step through mobile_sam's own TinyViT, PromptEncoder and MaskDecoder as its
  `build_sam` puts them together and its `Sam.forward` calls them (a batch for the encoder, one
  image after another for the decoder), with Dice + cross entropy from MONAI. Its TinyViT works at
  1024 only. With method "adapter" the same adapters are put into the package's modules, and the
  same parameters train.

A prediction is one slice without gradients, to class scores on the square; it depends on neither
caching nor scope.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.table import Cell, markdown

_MIB = 1024**2


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    task: str
    backbone: str
    size: int
    method: str
    scope: str
    implementation: str

    @property
    def name(self) -> str:
        """The case in one line, for a filter and for the person who waits."""
        return " ".join(map(str, asdict(self).values()))


def cases() -> list[Case]:
    """Every case, the plain packages beside what they compare with."""
    ways = {1024: ("packages", "library", "library, cached"), 512: ("library", "library, cached")}
    steps = [
        Case("step", "vit_t", size, "adapter", scope, way)
        for size in (1024, 512)
        for scope in ("encoder_decoder", "decoder")
        for way in ways[size]
    ]
    steps += [
        Case("step", "vit_t", 1024, "vanilla", "encoder_decoder", way)
        for way in ("packages", "library")
    ]
    steps += [
        Case("step", "starter", size, method, scope, way)
        for size in (256, 512)
        for method, scope, way in (
            ("vanilla", "encoder_decoder", "library"),
            ("adapter", "encoder_decoder", "library"),
            ("adapter", "decoder", "library"),
            ("adapter", "decoder", "library, cached"),
        )
    ]
    sizes = (("vit_t", 1024, "packages"), ("vit_t", 1024, "library"), ("vit_t", 512, "library"))
    predictions = [
        Case("prediction", backbone, size, "adapter", "encoder_decoder", way)
        for backbone, size, way in (
            *sizes,
            ("starter", 256, "library"),
            ("starter", 512, "library"),
        )
    ]
    return steps + predictions


def measure(case: Case, repetitions: int) -> dict[str, Any]:
    """Measures one case in a process of its own."""
    # This process stays small: a child's peak memory is at least its parent's at the fork.
    words = [sys.executable, "-m", "Testing.benchmarks.single_step"]
    words += [json.dumps(asdict(case)), str(repetitions)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return {**asdict(case), **json.loads(done.stdout.splitlines()[-1])}


def _row(result: dict[str, Any]) -> list[Cell]:
    stages = None
    if "cached" in result["implementation"]:
        stages = f"{result['cached_stages']} of {result['stages']}"
    return [
        f"{result['backbone']} {result['size']}",
        f"{result['method']}, {result['scope'].replace('_', '+')}",
        result["implementation"],
        stages,
        result["seconds"],
        result["cpu_seconds"],
        result["drawing_seconds"],
        round(result["peak_bytes"] / _MIB),
        round(result["before_bytes"] / _MIB),
    ]


def report(results: list[dict[str, Any]]) -> str:
    """The steps as one table, the predictions as another."""
    headings = ["network", "what trains", "implementation", "cached", "s", "CPU s", "s to draw"]
    headings += ["peak MiB", "before MiB"]
    parts = []
    for task, title in (("step", "One optimiser step, batch 2"), ("prediction", "One slice")):
        rows = [_row(result) for result in results if result["task"] == task]
        if rows:
            parts.append(f"### {title}\n\n{markdown(headings, rows)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--repetitions", type=int, default=3, help="measured after the warm-up")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this text")
    chosen = parser.parse_args()
    results = []
    for case in cases():
        if chosen.only in case.name:
            print(case.name, file=sys.stderr, flush=True)
            results.append(measure(case, chosen.repetitions))
    print(report(results))
    if chosen.json:
        write_json(chosen.json, results)


if __name__ == "__main__":
    main()
