"""The same few-shot tasks from several starting weights, as a table."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from Testing.benchmarks.few_shot import TASKS, Scores
from Testing.benchmarks.table import Cell, markdown


def scores_from(
    starts: Mapping[str, Sequence[str]], tasks: Sequence[str], data: Path, seeds: Sequence[int]
) -> dict[str, Scores]:
    """For each start, the means over seeds of the scores of `few_shot`.

    Args:
        starts: options of `finetune`, by the name of the column.
        tasks: keys of `few_shot.TASKS`.
        data: the folder of images.
        seeds: of the fine-tunes.
    """
    found: dict[str, Scores] = {}
    for name, options in starts.items():
        of_seeds: dict[str, list[float]] = {}
        for task in tasks:
            for seed in seeds:
                print(f"{task} from {name}, seed {seed} …", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as temporary:
                    scores = TASKS[task](data, Path(temporary), seed, options)
                for row, score in scores.items():
                    of_seeds.setdefault(row, []).append(score)
        found[name] = {row: sum(each) / len(each) for row, each in of_seeds.items()}
    return found


def table_of(found: Mapping[str, Scores]) -> str:
    """One row a score, one column a start."""
    first = next(iter(found.values()))
    rows: list[list[Cell]] = [[row, *(each[row] for each in found.values())] for row in first]
    return markdown(["DSC", *found], rows)
