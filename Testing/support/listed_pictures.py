"""Small pictures with a bright disk and its mask, and lists that name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_pair(
    folder: Path, name: str, *, label: int = 1, side: int = 32, seed: int = 0
) -> tuple[Path, Path]:
    """Writes `images/NAME.png` and `masks/NAME.png`; label 0 leaves the mask empty."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    row, column = random.uniform(0.35, 0.65, 2) * side
    disk = (rows - row) ** 2 + (columns - column) ** 2 < (side / 5) ** 2
    grey = np.clip(60 + 120 * disk + random.normal(0, 8, disk.shape), 0, 255).astype(np.uint8)
    image, mask = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
    for path, pixels in ((image, grey), (mask, (disk * label).astype(np.uint8))):
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
    return image, mask


def write_list(path: Path, names: list[str]) -> Path:
    """Writes a list of pairs with these names, relative to its folder."""
    path.write_text("".join(f"images/{each}.png,masks/{each}.png\n" for each in names))
    return path


def data_set(folder: Path, count: int, labels: tuple[int, ...] = (1,)) -> Path:
    """Writes `count` pairs, whose labels alternate, and `train.csv` with all of them."""
    names = [f"p{number}" for number in range(count)]
    for number, name in enumerate(names):
        write_pair(folder, name, label=labels[number % len(labels)], seed=number)
    return write_list(folder / "train.csv", names)
