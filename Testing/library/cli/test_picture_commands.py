"""Pictures at the shell: masks in PNG to a model, a model to masks in PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from SAMFineTuneLib.volumes import read_labelmap
from Testing.support.in_process import Ended, Shell, shell_of
from Testing.support.synthetic_volumes import head
from Testing.support.tuned_starter import write_model

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

QUICK = ("--steps", 2, "--batch", 1)
RED, BLUE = (255, 0, 0), (51, 102, 255)
VOLUME, LABELMAP = head((8, 40, 48))
PICTURES = np.clip(VOLUME.array / 4 + 20, 0, 255).astype(np.uint8)
MASKS = (LABELMAP.array == 5) + 2 * (LABELMAP.array == 52).astype(np.uint8)


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.safetensors", for_prompts=False)


def pair(folder: Path, number: int) -> tuple[Path, Path]:
    """A picture, and its mask with a palette."""
    paths = folder / f"picture{number}.png", folder / f"mask{number}.png"
    Image.fromarray(PICTURES[number]).save(paths[0])
    mask = Image.fromarray(MASKS[number])
    mask.putpalette([0, 0, 0, *RED, *BLUE])
    mask.save(paths[1])
    return paths


def learnt(shell: Shell, folder: Path, *pairs: tuple[Path, Path]) -> Ended:
    words = [word for each in pairs for word in ("--volume", each[0], "--segmentation", each[1])]
    return shell("finetune", *words, "--output", folder / "model.safetensors", *QUICK)


def test_from_masks_to_a_mask(shell: Shell, tmp_path: Path) -> None:
    ended = learnt(shell, tmp_path, pair(tmp_path, 3), pair(tmp_path, 5))
    assert ended.code == 0, ended.err
    assert [each["name"] for each in ended.result["labels"]] == ["#ff0000", "#3366ff"]
    assert ended.result["axis"] == "axial" and ended.result["data"]["labelled_slices"] == 2
    picture, truth = pair(tmp_path, 4)
    mask, uncertainty = tmp_path / "found.png", tmp_path / "uncertainty.tif"
    ended = shell(
        *("apply", "--model", tmp_path / "model.safetensors", "--volume", picture),
        *("--output", mask, "--uncertainty", uncertainty),
    )
    assert ended.code == 0, ended.err
    assert Image.open(mask).size == Image.open(picture).size == Image.open(uncertainty).size
    found = read_labelmap(mask, empty_ok=True)
    assert set(found.labels) <= {1, 2} and set(found.names.values()) == {"#ff0000", "#3366ff"}
    # Colours number the structures in another order; they are matched by their names.
    rgb = tmp_path / "truth.png"
    Image.open(truth).convert("RGB").save(rgb)
    figures = []
    for reference in (truth, rgb):
        ended = shell("evaluate", "--prediction", mask, "--reference", reference)
        assert ended.code == 0, ended.err
        assert ended.result["resampled"] is False
        figures.append({each["name"]: each["dsc"] for each in ended.result["labels"]})
    assert figures[0] == figures[1] and set(figures[0]) == {"#ff0000", "#3366ff"}


def test_results_in_a_folder_have_the_format_of_their_picture(
    shell: Shell, model: Path, tmp_path: Path
) -> None:
    names = ["a.png", "b.jpg", "c.bmp", "d.tif", "e.TIFF", "f.nii.gz"]
    for name in names[:-1]:
        Image.fromarray(PICTURES[4]).save(tmp_path / name)
    sitk.WriteImage(sitk.GetImageFromArray(PICTURES[4:5]), str(tmp_path / names[-1]))
    words = [word for name in names for word in ("--volume", tmp_path / name)]
    ended = shell("apply", "--model", model, *words, "--output", tmp_path / "out", "--uncertainty",
                  tmp_path / "u")  # fmt: skip
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"{name}_segmentation.png" for name in "abc"),
        *(f"{name}_segmentation.tif" for name in "de"),
        "f_segmentation.nii.gz",
    ]
    assert sorted(path.name for path in (tmp_path / "u").iterdir()) == [
        *(f"{name}_uncertainty.tif" for name in "abcde"),
        "f_uncertainty.nii.gz",
    ]


def test_what_a_picture_cannot_hold_is_refused_before_the_work(
    shell: Shell, model: Path, tmp_path: Path
) -> None:
    picture, _ = pair(tmp_path, 4)
    sitk.WriteImage(sitk.GetImageFromArray(PICTURES), str(tmp_path / "v.nii.gz"))
    before = set(tmp_path.iterdir())
    for volume, outputs, words in (
        (tmp_path / "v.nii.gz", ("--output", tmp_path / "o.png"), ("one slice", ".nii.gz")),
        (
            picture,
            ("--output", tmp_path / "o.png", "--uncertainty", tmp_path / "u.png"),
            ("whole numbers", ".tif"),
        ),
        (picture, ("--output", tmp_path / "o.jpg"), ("must be a folder or end in", ".png")),
    ):
        ended = shell("apply", "--model", model, "--volume", volume, *outputs)
        assert ended.code == 2 and ended.out == "" and len(ended.error_lines) == 1, ended.err
        assert all(word in ended.error_lines[0] for word in words), ended.err
        assert "volume 1 of" not in ended.err
    assert set(tmp_path.iterdir()) - {tmp_path / "cache"} == before


def test_masks_that_do_not_fit(shell: Shell, tmp_path: Path) -> None:
    picture, mask = pair(tmp_path, 4)
    smaller, smooth, empty = (tmp_path / f"{name}.png" for name in ("smaller", "smooth", "empty"))
    Image.open(mask).resize((30, 25)).save(smaller)
    Image.fromarray(PICTURES[4] // 2).save(smooth)
    Image.fromarray(MASKS[4] * 0).save(empty)
    for wrong, words in (
        (smaller, ("30 x 25", "48 x 40")),
        (smooth, ("anti-aliasing", "PNG")),
        (empty, ("is empty", "empty.png")),
        (picture, ("given as its own segmentation",)),
    ):
        ended = learnt(shell, tmp_path, (picture, wrong))
        assert ended.code == 2 and len(ended.error_lines) == 1, ended.err
        assert all(word in ended.error_lines[0] for word in words), ended.err


def test_masks_of_other_sizes_are_not_compared(shell: Shell, tmp_path: Path) -> None:
    _, mask = pair(tmp_path, 3)
    wider = tmp_path / "wider.png"
    Image.fromarray(np.pad(MASKS[3], ((0, 0), (0, 8)))).save(wider)
    ended = shell("evaluate", "--prediction", wider, "--reference", mask)
    assert ended.code == 2 and len(ended.error_lines) == 1
    assert "wider.png has 56 x 40 x 1 voxels, and mask3.png 48 x 40 x 1" in ended.err
