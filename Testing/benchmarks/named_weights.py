"""Whether a file of weights is taken as the start of a fine-tune: MedSAM, SSLSAM and others.

    python -m Testing.benchmarks.named_weights medsam:medsam_vit_b.pth [--backbone vit_b]

Reads the file as `finetune --initial-weights KIND:FILE` does: without running code, and strictly,
so that every tensor of the network must be in it with its shape, and no other one. Lists how many
tensors and values each part has, beside those of the network, then the line of the acceptance or of
the refusal. Exit code 0 for a file that is taken, 2 for one that is not.

What to expect of `medsam_vit_b.pth` (Ma et al. 2024), which MedSAM's own code loads strictly into
Segment Anything's ViT-B, follows from the network's layout:

    | part           | tensors | of the network |   values | of the network |
    | -------------- | ------: | -------------: | -------: | -------------: |
    | image_encoder  |     177 |            177 | 89670912 |       89670912 |
    | mask_decoder   |     120 |            120 |  4058340 |        4058340 |
    | prompt_encoder |      17 |             17 |     6476 |           6476 |
    accepted as backbone vit_b; pixels: zero_to_one

SSLSAM (Gu et al., MELBA 2025:006) is shared without a description of its layout. The study's own
code takes it where it takes Segment Anything's file, without asking that all tensors fit. A file
in Segment Anything's layout is accepted here; for one with other tensors the last line says how
many are missing, unknown or of another shape, and names one of each:

    FILE does not fit backbone vit_b: 137 of its tensors are missing (such as …)

where, for example, a file has the image encoder alone.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from SAMFineTuneLib.cli.arguments import kind_and_file
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.weights.checkpoint_file import read_tensors
from SAMFineTuneLib.weights.official import load_checkpoint
from SAMFineTuneLib.weights.weights_kind import pixels_of
from Testing.benchmarks.table import markdown


def parts_of(tensors: Mapping[str, Tensor]) -> tuple[Counter[str], Counter[str]]:
    """How many tensors, and how many values, lie under each first word of the names."""
    count: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for name, each in tensors.items():
        part = name.split(".")[0]
        count[part] += 1
        values[part] += each.numel()
    return count, values


def main() -> int:
    """Prints what was found; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=kind_and_file, metavar="KIND:FILE")
    parser.add_argument("--backbone", choices=tuple(BACKBONES), default="vit_b")
    chosen = parser.parse_args()
    kind, file = chosen.weights
    spec = BACKBONES[chosen.backbone]
    pixels = pixels_of(kind) or spec.normalisation
    torch.manual_seed(0)
    network = build(chosen.backbone, spec.default_input_size, pixels)
    try:
        found, expected = parts_of(read_tensors(file)), parts_of(network.state_dict())
        print(
            markdown(
                ["part", "tensors", "of the network", "values", "of the network"],
                [
                    [part, found[0][part], expected[0][part], found[1][part], expected[1][part]]
                    for part in sorted({*found[0], *expected[0]})
                ],
            )
        )
        load_checkpoint(network, file)
    except InputError as error:
        print(error.message)
        return 2
    print(f"accepted as backbone {chosen.backbone}; pixels: {pixels}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
