"""How soon, and with how much memory, a fine-tune begins on a list of many pictures.

python -m Testing.benchmarks.listed_images --count 1000

Pictures of 512 x 512 with their masks are made in a temporary folder; --distinct makes so many and
names each in several places, by links, where disk and time do not suffice for all. Measured are the
seconds from the start of the program to the first step, the largest resident memory of its
processes, and the time to read a slice in relation to a step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMFineTuneLib.examples.listed_examples import Expected, ListSource, load_list

SIDE = 512
VALIDATION = 20


def make_data_set(folder: Path, count: int, distinct: int) -> tuple[Path, Path]:
    """The training list and the validation list."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for number in range(distinct):
        row, column, radius = random.uniform((150, 150, 40), (360, 360, 120))
        disk = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        noise = random.integers(0, 40, (SIDE, SIDE))
        grey = (60 + 80 * disk + noise + 20 * np.sin(rows / 40)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(folder / f"i{number}.png"))
        mask = sitk.GetImageFromArray(disk.astype(np.uint8))
        sitk.WriteImage(mask, str(folder / f"m{number}.png"))
    for number in range(distinct, count):
        for kind in "im":
            os.link(folder / f"{kind}{number % distinct}.png", folder / f"{kind}{number}.png")
    lists = []
    for name, numbers in (("train", range(VALIDATION, count)), ("val", range(VALIDATION))):
        path = folder / f"{name}.csv"
        path.write_text("".join(f"i{each}.png,m{each}.png\n" for each in numbers))
        lists.append(path)
    return lists[0], lists[1]


def run_finetune(folder: Path, training: Path, validation: Path, steps: int) -> dict[str, float]:
    """Seconds to the first step, of a step, and the largest resident memory in megabytes."""
    words = ["finetune", "--list", training, "--validation-list", validation, "--steps", steps]
    words += ["--output", folder / "m.safetensors", "--device", "cpu"]
    began = time.monotonic()
    first = None
    with subprocess.Popen(
        [sys.executable, "-m", "SAMFineTuneLib", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stderr:
            if first is None and re.match("fine-tune [1-9]", line):
                first = time.monotonic() - began
        result = json.loads(process.stdout.read())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "first_step_s": first or float("nan"),
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "step_s": result["training"]["seconds"] / result["training"]["steps"],
        "batch": result["training"]["batch"],
    }


def reading_s(folder: Path, training: Path) -> float:
    """Seconds of processor time to read one slice with its mask, on average."""
    source = ListSource(training)
    slices = load_list(
        source, folder / "prepared", {}, lambda: None, lambda done, total: None, Expected()
    ).slices
    chosen = np.random.default_rng(0).integers(0, len(slices), 300)
    began = time.process_time()
    for position in chosen:
        each = slices[position]
        each.image.sum(), each.target.sum(), each.window
    return (time.process_time() - began) / len(chosen)


def main() -> None:
    """Prints one line of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--skip-reading", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        training, validation = make_data_set(
            folder, chosen.count, min(chosen.distinct, chosen.count)
        )
        found = run_finetune(folder, training, validation, chosen.steps)
        print(
            f"{chosen.count} pictures: first step after {found['first_step_s']:.1f} s, "
            f"{found['cpu_s']:.0f} s of processor time in all, at most {found['peak_mb']:.0f} MB"
        )
        if not chosen.skip_reading:
            reading = reading_s(folder, training)
            share = reading * found["batch"] / found["step_s"]
            print(
                f"reading a slice {1000 * reading:.2f} ms, a step of {found['batch']:.0f} slices "
                f"{found['step_s']:.2f} s: {share:.1%}"
            )


if __name__ == "__main__":
    main()
