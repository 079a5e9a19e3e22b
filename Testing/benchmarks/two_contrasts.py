"""Two images of one case of which neither alone suffices: DSC together and with either one.

    python -m Testing.benchmarks.two_contrasts [--seeds 3] [--steps 300] [--third mean repeated]

Blobs of three kinds lie in noise. One kind is bright in the first image alone, one in the second
alone, and the structure to find is bright in both. In either image it looks like one of the others.
Volumes are made up, so that what is measured is the use of both images and nothing else.

A network takes three channels. With `--third repeated` the third one is the second image again,
in place of the mean of both images, which the product takes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

import SAMFineTuneLib as sft
from SAMFineTuneLib.slices import pixels
from SAMFineTuneLib.volumes import Geometry, Labelmap, write_labelmap, write_volume

_SHAPE = (8, 64, 64)
_GRID = Geometry((64, 64, 8), (1.0, 1.0, 4.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
_KINDS = ((1, 0), (0, 1), (1, 1))
_CASES = {"both": (0, 1), "first alone": (0,), "second alone": (1,)}


def two_contrasts(seed: int) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8]]:
    """The two images (k, j, i) of a case, and the mask of what is bright in both."""
    random = np.random.default_rng(seed)
    images = [ndimage.gaussian_filter(random.normal(0, 6, _SHAPE), 1.0) + 40 for _ in range(2)]
    truth = np.zeros(_SHAPE, np.uint8)
    taken = np.zeros(_SHAPE, bool)
    k, j, i = np.indices(_SHAPE)
    for number in range(9):
        bright = _KINDS[number % 3]
        for _ in range(100):
            centre, radius = random.uniform(9, 55, 2), random.uniform(5, 7)
            depth = random.uniform(2, 6)
            flat = np.hypot(j - centre[0], i - centre[1]) / radius
            inside = flat**2 + ((k - depth) / 5) ** 2 < 1
            if not (ndimage.binary_dilation(inside, iterations=2) & taken).any():
                break
        else:
            continue
        taken |= inside
        for image, is_bright in zip(images, bright, strict=True):
            image[inside] += 30 * is_bright
        if all(bright):
            truth[inside] = 1
    noisy = [each + random.normal(0, 3, _SHAPE) for each in images]
    return [each.astype(np.float32) for each in noisy], truth


def _write(folder: Path, seed: int) -> tuple[list[Path], Path]:
    images, truth = two_contrasts(seed)
    paths = [folder / f"case{seed}_{name}.nrrd" for name in ("t1", "flair")]
    for path, image in zip(paths, images, strict=True):
        write_volume(path, image, _GRID)
    labels = folder / f"case{seed}_labels.nrrd"
    write_labelmap(labels, Labelmap(truth, _GRID))
    return paths, labels


def _second_repeated(image: Tensor) -> Tensor:
    """The three channels of a slice, in place of `slices.pixels._three`."""
    if image.ndim == 3 and len(image) == 2:
        return torch.cat([image, image[1:]])
    return _OF_THE_PRODUCT(image)


_OF_THE_PRODUCT = pixels._three
_THIRD = {"mean": _OF_THE_PRODUCT, "repeated": _second_repeated}


def measure(
    seed: int, steps: int, backbone: str = "starter", third: Sequence[str] = ("mean",)
) -> dict[str, float]:
    """The DSC on an unseen case with both images, for each third channel, and with either one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [_write(folder, 100 * seed + each) for each in range(3)]
        unseen, truth = _write(folder, 100 * seed + 50)
        runs = [("both", each) for each in third] + [(each, "mean") for each in _CASES][1:]
        scores = {}
        for title, channel in runs:
            chosen = _CASES[title]
            examples = [([paths[each] for each in chosen], labels) for paths, labels in cases]
            model = folder / f"{title}_{channel}.safetensors"
            with patch.object(pixels, "_three", _THIRD[channel]):
                sft.finetune(
                    examples, model, steps=steps, backbone=backbone, seed=seed, input_size=256
                )
                found = sft.apply(model, [unseen[each] for each in chosen])
            report = sft.evaluate(found, sft.read_labelmap(truth))
            scores[_column(title, channel)] = report.to_json()["mean_dsc"]
    return scores


def _column(title: str, channel: str) -> str:
    return f"{title}, {channel}" if title == "both" else title


def main() -> None:
    """Measures and prints one line for each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--backbone", default="starter")
    parser.add_argument("--third", nargs="+", choices=list(_THIRD), default=["mean"])
    chosen = parser.parse_args()
    for seed in range(chosen.seeds):
        scores = measure(seed, chosen.steps, chosen.backbone, chosen.third)
        if not seed:
            print(f"{'seed':6}" + "".join(f"{title:>16}" for title in scores))
        print(f"{seed:<6}" + "".join(f"{score:16.3f}" for score in scores.values()), flush=True)


if __name__ == "__main__":
    main()
