"""Which slice to label next: as the program suggests it, evenly spaced, or by chance.

    python -m Testing.benchmarks.next_slice [--tasks abdomen hippocampus brain fetal]
        [--strategies suggested farthest even random] [--seeds 0 1 2] [--steps 160] [--most 8]
        [--target 0.9] [--full] [--alone] [--quick] [--json FILE] [-- FINETUNE OPTIONS]

A user knows between which slices the structures lie, and has labelled two of these, in the middle
of either half. Then, one slice at a time, one more is labelled with all that is on it, and the real
commands `finetune` (preset laptop, backbone starter) and `apply --drawn` run, until the slices that
were not shown have a mean DSC of 0.90. The strategies:

* suggested: *Suggest the next slice* after an apply: the most uncertain of the slices that are at
  least half as far from the labelled ones as the farthest.
* farthest: *Suggest the next slice* without an apply: the slice farthest from the labelled ones.
* even: as many slices, evenly spaced anew each time, which nobody can do who labels one by one.
* random: by chance.

Tasks: ten organs of a CT; both parts of the hippocampus in one volume, another for each seed; a
brain tumour on seven slices; the brain of a fetus, another stack for each seed.

How to read it: the number of slices that were labelled when the target was reached, one for each
seed, ">8" where it was not. A strategy that shows the hard slices is measured on the easy ones that
are left; so the other columns give the DSC of all slices, those shown being right, after each
number of slices that every run has. With --full every run goes on to --most slices after the target
is reached, so that these columns are the same for all. With --alone `apply` is not told which
slices are drawn. --quick makes a few steps with one volume, to see that all runs.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.slices.suggestion import next_slice
from SAMFineTuneLib.volumes import Labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.process_cost import command, run_command
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown, mean_and_range
from Testing.benchmarks.tune_and_apply import read_predicted, tune
from Testing.benchmarks.whole_slices import VOLUMES, WholeSlices

STRATEGIES = ("suggested", "farthest", "even", "random")
FIRST = 2
_QUICK_STEPS, _QUICK_MOST, _QUICK_TASK = 4, 3, "hippocampus"
_QUICK_STRATEGIES = ("suggested", "even")


@dataclass(frozen=True)
class Tuned:
    """What came of some labelled slices.

    Attributes:
        shown: their numbers.
        hidden: mean DSC on the slices of the extent that were not shown; None if none is left.
        whole: mean DSC on all slices of the extent, the shown ones being right.
        uncertainty: of each slice of the volume.
        seconds: of `finetune` and `apply`.
    """

    shown: tuple[int, ...]
    hidden: float | None
    whole: float
    uncertainty: list[float]
    seconds: float


class Labelling:
    """A user who labels one volume slice by slice.

    Args:
        volume: the volume.
        seed: of the fine-tunes, and of what is chosen by chance.
        options: of `finetune`.
        drawn: whether `apply` is told of the slices that are labelled.
    """

    def __init__(self, volume: WholeSlices, seed: int, options: Sequence[str], drawn: bool) -> None:
        self._volume = volume
        self._seed = seed
        self._options = options
        self._drawn = drawn
        # Strategies that choose the same slices share the fine-tune.
        self._known: dict[tuple[int, ...], Tuned] = {}

    def until(self, target: float, most: int, strategy: str) -> list[Tuned]:
        """Every fine-tune until the target is reached or as many slices are labelled."""
        random = np.random.default_rng([self._seed, 7])
        found = [self._tuned(self._volume.evenly_spaced(FIRST))]
        while found[-1].hidden is not None and found[-1].hidden < target:
            if len(found[-1].shown) >= min(most, len(self._volume.extent) - 1):
                break
            found.append(self._tuned(self._next(found[-1], strategy, random)))
        return found

    def _next(self, now: Tuned, strategy: str, random: np.random.Generator) -> list[int]:
        volume, shown = self._volume, list(now.shown)
        if strategy == "even":
            return volume.evenly_spaced(len(shown) + 1)
        if strategy == "random":
            left = [number for number in volume.extent if number not in shown]
            return [*shown, int(random.choice(left))]
        uncertainty = now.uncertainty if strategy == "suggested" else None
        extent = volume.first, volume.last
        chosen = next_slice(volume.slices, shown, [], extent, uncertainty)
        assert chosen is not None
        return [*shown, chosen]

    def _tuned(self, shown: Sequence[int]) -> Tuned:
        key = tuple(sorted(shown))
        if key not in self._known:
            with tempfile.TemporaryDirectory() as folder:
                self._known[key] = self._measured(key, Path(folder))
        return self._known[key]

    def _measured(self, shown: tuple[int, ...], folder: Path) -> Tuned:
        volume, model = self._volume, folder / "model.safetensors"
        example = volume.write_example(folder, shown)
        tuned = tune(example, model, folder, self._seed, self._options)
        drawn = ("--drawn", folder / "few.nii.gz") if self._drawn else ()
        words = ("--volume", volume.image, "--output", folder / "found.nii.gz")
        applied = run_command(
            command("apply", "--model", model, *words, *drawn, "--job", folder / "apply"), folder
        )
        [result] = applied.result["volumes"]
        prediction = read_predicted(Path(result["segmentation"]))
        hidden = [number for number in volume.extent if number not in shown]
        whole = volume.mean_dsc(_with_shown(prediction, volume, shown), volume.extent)
        assert whole is not None
        return Tuned(
            shown,
            volume.mean_dsc(prediction, hidden) if hidden else None,
            whole,
            result["slice_uncertainty"],
            tuned.seconds + applied.seconds,
        )


def _with_shown(prediction: Labelmap, volume: WholeSlices, shown: Sequence[int]) -> Labelmap:
    """The prediction with the true labels on the slices that were shown."""
    completed = replace(prediction, array=prediction.array.copy())
    into, true = (SliceStack.of(each, volume.axis) for each in (completed, volume.truth))
    for number in shown:
        into[number][...] = true[number]
    return completed


Runs = Mapping[str, Sequence[Sequence[Tuned]]]


def report(task: str, runs: Runs, target: float) -> str:
    """One row a strategy.

    Args:
        task: its name.
        runs: strategy -> for each seed its fine-tunes.
        target: the DSC on hidden slices.
    """
    everyone = [run for of_strategy in runs.values() for run in of_strategy]
    counts = sorted(set.intersection(*({len(each.shown) for each in run} for run in everyone)))
    rows: list[list[Cell]] = []
    for strategy, of_strategy in runs.items():
        at = [
            [next(each.whole for each in run if len(each.shown) == count) for run in of_strategy]
            for count in counts
        ]
        needed = ", ".join(_needed(run, target) for run in of_strategy)
        rows.append([strategy, needed, *(mean_and_range(each) for each in at)])
    columns = (f"DSC of all slices from {count}" for count in counts)
    return markdown([task, f"slices to {target:.2f}", *columns], rows)


def _needed(run: Sequence[Tuned], target: float) -> str:
    reached = [each for each in run if each.hidden is not None and each.hidden >= target]
    return str(len(reached[0].shown)) if reached else f">{len(run[-1].shown)}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--tasks", nargs="+", choices=list(VOLUMES), default=list(VOLUMES))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=160, help="of each fine-tune")
    parser.add_argument("--most", type=int, default=8, metavar="N", help="slices to label")
    parser.add_argument("--target", type=float, default=0.9, metavar="DSC")
    parser.add_argument("--full", action="store_true", help="go on to --most slices in any case")
    parser.add_argument("--alone", action="store_true", help="the model without the drawn slices")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that all runs")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.tasks, chosen.seeds, chosen.most = [_QUICK_TASK], chosen.seeds[:1], _QUICK_MOST
        chosen.steps, chosen.strategies = _QUICK_STEPS, _QUICK_STRATEGIES
    return chosen


def main() -> None:
    chosen = _arguments()
    options = ["--steps", str(chosen.steps), *chosen.options]
    figures: dict[str, dict[str, list[list[Tuned]]]] = {}
    for task in chosen.tasks:
        runs = figures[task] = {}
        for seed in chosen.seeds:
            volume = VOLUMES[task](chosen.data, seed)
            labelling = Labelling(volume, seed, options, drawn=not chosen.alone)
            for strategy in chosen.strategies:
                stop_at = math.inf if chosen.full else chosen.target
                run = labelling.until(stop_at, chosen.most, strategy)
                runs.setdefault(strategy, []).append(run)
                last = run[-1]
                print(
                    f"{task}, seed {seed}, {strategy}: {_needed(run, chosen.target)} slices, "
                    f"{last.hidden} on the others; {last.seconds:.0f} s for the last",
                    file=sys.stderr,
                    flush=True,
                )
            # So that a run that is broken off has told what it found.
            if chosen.json:
                write_json(chosen.json, _to_json(figures, chosen))
        print(f"{report(task, runs, chosen.target)}\n", flush=True)


def _to_json(figures: Mapping[str, Runs], chosen: argparse.Namespace) -> dict[str, Any]:
    asked = ("seeds", "steps", "most", "target", "full", "alone", "options")
    return {
        **{name: getattr(chosen, name) for name in asked},
        "tasks": {
            task: {
                strategy: [
                    [
                        {
                            "shown": each.shown,
                            "hidden": each.hidden,
                            "whole": each.whole,
                            "seconds": each.seconds,
                        }
                        for each in run
                    ]
                    for run in of_strategy
                ]
                for strategy, of_strategy in runs.items()
            }
            for task, runs in figures.items()
        },
    }


if __name__ == "__main__":
    main()
