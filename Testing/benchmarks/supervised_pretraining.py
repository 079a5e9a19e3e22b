"""What pre-training by prompts on two labelled data sets gives on a third one.

    python -m Testing.benchmarks.supervised_pretraining [--backbone starter] [--minutes 20]
        [--seeds 0 1 2] [--keep FOLDER] [--json FILE] [--quick] [-- FINETUNE OPTIONS]

`pretrain prompts` learns from the soft-tissue tumours (eight MR) and from five volumes of the
hippocampus, until its validation does not improve or the time is over. The third set is the CT of
the abdomen, and with --tasks tumour the brain tumour: they are learnt from five slices, as in
`few_shot.py`, from the weights that the pre-training began with and from those that it ended
with. Beside it, the DSC of single objects on the CT from a box and from a point, drawn as in the
pre-training, without any fine-tune: the network untuned and pre-trained.

How to read it: DSC, means over seeds. Figures with prompts stand apart, since they are reached with
prompts drawn from the true masks. --quick runs everything for a moment, for the script's own sake.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from SAMFineTuneLib.examples.listed_examples import Expected, ListSource, load_list
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.pretraining.labelled.objects import plain_object
from SAMFineTuneLib.pretraining.starting_weights import StartingWeights
from SAMFineTuneLib.prompts.mode import DrawnMode
from SAMFineTuneLib.prompts.region_prompts import region_prompts
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.mask_loss import mask_loss
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import hippocampus
from Testing.benchmarks.few_shot import TASKS
from Testing.benchmarks.masked_pretraining import method_options, starting_options
from Testing.benchmarks.pretrained_starts import scores_from, table_of
from Testing.benchmarks.process_cost import command, run_command
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import markdown

_SIZE = 256
_RATE = 5e-4
# Objects that are measured with prompts.
_OBJECTS = 200


def write_lists(data: Path, folder: Path) -> list[Path]:
    """The lists of the two data sets that are learnt from."""
    tumours = [
        (each, each.with_name(each.name.replace(".nii.gz", "_tumour.nii.gz")))
        for each in sorted((data / "sarcoma_mr").glob("STS_???.nii.gz"))
    ]
    small = data / "hippocampus_mr"
    learnt, unseen = hippocampus.choose_volumes(small, 0)
    names = [each.name for each in sorted((small / "images").iterdir())]
    others = [each for each in names if each not in {*learnt, *unseen}]
    parts = [(small / "images" / each, small / "labels" / each) for each in others]
    lists = []
    for name, pairs in (("sarcoma", tumours), ("hippocampus", parts)):
        lists.append(folder / f"{name}.csv")
        rows = "".join(f'"{image}","{mask}"\n' for image, mask in pairs)
        lists[-1].write_text("image,mask\n" + rows, encoding="utf-8")
    return lists


@torch.no_grad()
def prompted_scores(weights: StartingWeights, data: Path, folder: Path, most: int) -> list[float]:
    """Mean DSC of objects of the CT, for each mode of prompts."""
    place = data / "ct_abdomen_3mm"
    listed = folder / "abdomen.csv"
    listed.write_text(f'"{place / "ct.nii.gz"}","{place / "organs.nii.gz"}"\n', encoding="utf-8")
    source = ListSource(listed)
    examples = load_list(
        source, folder / "abdomen", {}, lambda: None, lambda done, total: None, Expected()
    )
    segmenter = PromptedSegmenter(weights.network(_SIZE)[0]).eval()
    shown = [each for each in examples.slices if each.is_labelled]
    scores: dict[str, list[float]] = {mode: [] for mode in get_args(DrawnMode)}
    for number in range(most):
        random = RandomSource((0, number))
        found = plain_object(shown[number % len(shown)], _SIZE, weights.pixels, random)
        if not found.mask.any():
            continue
        features = segmenter.encode(found.image[None])
        for mode in get_args(DrawnMode):
            drawn = region_prompts(found.mask[None], RandomSource((1, number)), mode)
            logits, predictions = segmenter.decode(features, drawn.prompts)
            scores[mode].append(float(mask_loss(logits, predictions, drawn.masks)[1]))
    return [float(np.mean(each)) for each in scores.values()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--backbone", default="starter")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["abdomen"])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    """Prints two tables: automatic figures, and those with prompts."""
    chosen = _arguments()
    minutes, tasks, more, objects = chosen.minutes, chosen.tasks, list(chosen.options), _OBJECTS
    if chosen.quick:
        minutes, tasks, more, objects = 0.05, ["tumour"], ["--steps", "2", *more], 4
    start = starting_options(chosen.backbone)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        named = [word for each in write_lists(chosen.data, folder) for word in ("--list", each)]
        output = folder / f"{chosen.backbone}.safetensors"
        print(f"{chosen.backbone}: {minutes} minutes …", file=sys.stderr, flush=True)
        run_command(
            command(
                *("pretrain", "prompts", *named, "--folder", folder / "prompts"),
                *("--output", output, "--backbone", chosen.backbone, *start),
                *("--input-size", str(_SIZE), "--lr", str(_RATE), "--minutes", str(minutes)),
            ),
            folder,
        )
        network = ["--backbone", chosen.backbone, *method_options(chosen.backbone), *more]
        starts = {
            "without": [*network, *start],
            "with": [*network, "--initial-weights", f"own:{output}"],
        }
        automatic = scores_from(starts, tasks, chosen.data, chosen.seeds)
        print(table_of(automatic), flush=True)
        kind = "random" if start else "official"
        weights = {
            "untuned": StartingWeights(chosen.backbone, kind),
            "pre-trained": StartingWeights(chosen.backbone, "own", output),
        }
        prompted = {
            name: prompted_scores(each, chosen.data, folder, objects)
            for name, each in weights.items()
        }
        modes = get_args(DrawnMode)
        print("\nWith prompts that are drawn from the true masks:\n")
        print(markdown(["DSC", *modes], [[name, *row] for name, row in prompted.items()]))
    if chosen.json:
        figures = {"automatic": automatic, "with prompts": prompted}
        write_json(chosen.json, {"minutes": minutes, "dsc": figures})


if __name__ == "__main__":
    main()
