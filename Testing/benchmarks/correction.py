"""Interactive correction by a simulated user: clicks, slices touched, and how long one waits.

    python -m Testing.benchmarks.correction [--json FILE] [--figure PNG] [-- FINETUNE OPTIONS]

Three questions, each on real images that the starter weights have never seen:

* Clicks: DSC of one structure on one slice after 0 … 10 clicks, and how many it takes to 0.90.
  The slices are those of `single_slices` (untuned, all data sets); for tuned models the slices of
  twenty hippocampi that the model has not seen (tuned on one slice in each of five others), the
  CT's slices that were not among the five labelled ones of a structure, three patients' sarcomas
  (tuned on one slice in each of five others), and a stack of a fetal brain (tuned on five slices
  of another stack); and the hippocampi and sarcomas once more with models tuned on every slice of
  ten and five others. There a target is the whole structure on the slice, as the model learnt it.
  "tuned" starts from nothing with the weights tuned for prompts, "corrected" from the tuned
  model's own mask. `correcting_user` tells where the user clicks; --user takes the other one.
* Slices: how many slices have to be right, evenly spaced from the first to the last one of a
  structure, until the whole volume has DSC 0.95 once they are propagated; beside it shape
  interpolation between the same slices.
* Waiting: from a prompt to its mask, for a slice in view to be embedded, through the worker.

The first two tune six models, which takes half an hour; --models names a folder to keep them in.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.click_curves import ClickCurves, draw_curves, tuned_curves, untuned_curves
from Testing.benchmarks.correcting_user import Clicking
from Testing.benchmarks.correction_waiting import waiting_times
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.slices_touched import measure_touched
from Testing.benchmarks.table import markdown
from Testing.benchmarks.tuned_models import TunedModels


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw DSC by clicks here")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep the tuned models here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--user", choices=get_args(Clicking), default="largest")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th target")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    # Many small steps: on a busy machine threads would wait for each other most of the time.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        models = TunedModels(
            chosen.data, chosen.models or Path(temporary), chosen.seed, chosen.options
        )
        curves = [untuned_curves(chosen.data, chosen.every, chosen.user)]
        curves += tuned_curves(models, chosen.every, chosen.user)
        touched = measure_touched(chosen.data, models)
    print(_clicks_table(curves))
    print(f"\n{touched.table()}")
    waiting = waiting_times(chosen.data)
    print(f"\n{waiting.table()}")
    if chosen.figure:
        draw_curves(chosen.figure, curves)
    if chosen.json:
        write_json(
            chosen.json,
            {
                "seed": chosen.seed,
                "user": chosen.user,
                "clicks": [each.to_json() for each in curves],
                "slices": touched.to_json(),
                "waiting": waiting.to_json(),
            },
        )


def _clicks_table(curves: Sequence[ClickCurves]) -> str:
    rows: list[list[Any]] = [each.row() for each in curves]
    return markdown(ClickCurves.HEADINGS, rows)


if __name__ == "__main__":
    sys.exit(main())
