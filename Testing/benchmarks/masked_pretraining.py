"""What pre-training without labels gives: five slices learnt with it, beside without.

    python -m Testing.benchmarks.masked_pretraining [--backbones starter vit_t] [--minutes 20]
        [--seeds 0 1 2] [--keep FOLDER] [--json FILE] [--quick] [-- FINETUNE OPTIONS]

`pretrain mae` learns for some minutes from the unlabelled slices of the real images. Volumes that
are used for the evaluation are left out: the CT of the abdomen, the brain tumour, and the 25
volumes of the hippocampus that are learnt from or measured on. Then the tasks of `few_shot.py` are
learnt from five slices each, by the same commands with the same seeds, from the weights that the
pre-training began with and from those that it ended with. The starter begins with its own
weights; vit_t with the official ones where they were fetched, otherwise with random ones.

How to read it: DSC, as in `few_shot.py`, means over seeds. The pictures of reconstructions and the
weights stay in the folder that --keep names. --quick runs everything for a moment, for the
script's own sake.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from SAMFineTuneLib.weights.official import list_checkpoints
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import hippocampus
from Testing.benchmarks.few_shot import TASKS, Scores
from Testing.benchmarks.pretrained_starts import scores_from, table_of
from Testing.benchmarks.process_cost import command, run_command
from Testing.benchmarks.shared_images import add_data_option

_SIZE = 256
_BATCH = 16
# The original's rate is for 800 epochs of a million images. In steps of 16 slices it would be
# 1e-5, with which nothing is learnt in some minutes; this one is 1e-3 in such steps.
_RATE = 0.016


def unlabelled_images(data: Path) -> list[Path]:
    """All images but those that are evaluated on; no segmentation is among them."""
    learnt, unseen = hippocampus.choose_volumes(data / "hippocampus_mr", 0)
    of_hippocampus = sorted((data / "hippocampus_mr" / "images").iterdir())
    return [
        *(each for each in of_hippocampus if each.name not in {*learnt, *unseen}),
        *sorted((data / "fetal_brain_mr_oblique").glob("run?.nii.gz")),
        *sorted((data / "sarcoma_mr").glob("STS_???.nii.gz")),
        data / "ct_pelvis_dicom" / "series",
        data / "ct_3slice_dicom_seg" / "series",
    ]


def starting_options(backbone: str) -> list[str]:
    """`--weights` of what the pre-training, and the fine-tune without it, begin with."""
    present = {each.name: each.present for each in list_checkpoints()}
    return [] if present.get(backbone, True) else ["--weights", "random"]


def method_options(backbone: str) -> list[str]:
    """The same method in both columns: random weights are tuned whole, not by adapters."""
    return ["--method", "vanilla"] if starting_options(backbone) else []


def pretrained(backbone: str, images: Sequence[Path], minutes: float, folder: Path) -> Path:
    """Weights after so many minutes."""
    listed = folder / "images.csv"
    listed.write_text("image\n" + "".join(f'"{each}"\n' for each in images), encoding="utf-8")
    output = folder / f"{backbone}.safetensors"
    run_command(
        command(
            *("pretrain", "mae", "--images", listed, "--folder", folder / backbone),
            *("--output", output, "--backbone", backbone, *starting_options(backbone)),
            *("--input-size", str(_SIZE), "--batch", str(_BATCH), "--lr", str(_RATE)),
            *("--minutes", str(minutes), "--epochs", "1000"),
        ),
        folder,
    )
    return output


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--backbones", nargs="+", default=["starter", "vit_t"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["abdomen", "hippocampus"])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for weights and pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    """Prints a table for each backbone."""
    chosen = _arguments()
    minutes, tasks, more = chosen.minutes, chosen.tasks, list(chosen.options)
    if chosen.quick:
        minutes, tasks, more = 0.05, ["tumour"], ["--steps", "2", *more]
    figures: dict[str, dict[str, Scores]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        images = unlabelled_images(chosen.data)
        for backbone in chosen.backbones:
            print(f"{backbone}: {minutes} minutes on {len(images)} images …", file=sys.stderr)
            weights = pretrained(backbone, images, minutes, folder)
            network = ["--backbone", backbone, *method_options(backbone), *more]
            starts = {
                "without": [*network, *starting_options(backbone)],
                "with": [*network, "--initial-weights", f"own:{weights}"],
            }
            figures[backbone] = scores_from(starts, tasks, chosen.data, chosen.seeds)
            print(f"\n{backbone}\n\n{table_of(figures[backbone])}", flush=True)
    if chosen.json:
        write_json(chosen.json, {"minutes": minutes, "dsc": figures})


if __name__ == "__main__":
    main()
