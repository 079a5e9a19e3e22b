"""Cases of several images, and colour volumes, from the shell: learnt, applied, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.volumes import read_labelmap, read_volume, write_labelmap, write_volume
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_dicom_series import dataset, save
from Testing.support.synthetic_volumes import head

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

FEW = ("--steps", 1, "--batch", 1, "--validation", "none")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def write_case(folder: Path, patient: str, seed: int) -> tuple[Path, Path, Path]:
    """T1, FLAIR and labels of a patient; FLAIR is brighter and has slices twice as thick."""
    volume, labels = head((4, 24, 24), seed=seed)
    t1, flair = folder / f"{patient}_T1.nrrd", folder / f"{patient}_FLAIR.nrrd"
    write_volume(t1, volume.array, volume.geometry)
    write_volume(flair, 3000 - 2 * volume.array, volume.geometry)
    write_labelmap(folder / f"{patient}_labels.seg.nrrd", labels)
    return t1, flair, folder / f"{patient}_labels.seg.nrrd"


def test_two_images_of_a_case(shell: Shell, tmp_path: Path) -> None:
    model, found = tmp_path / "m.safetensors", tmp_path / "found.seg.nrrd"
    options: list[object] = []
    for patient, seed in (("Miller", 0), ("Smith", 1)):
        t1, flair, labels = write_case(tmp_path, patient, seed)
        options += ["--volume", f"{t1}+{flair}", "--segmentation", labels]
    ended = shell("finetune", *options, *FEW, "--output", model)
    assert ended.code == 0, ended.err
    card = read_card(model)
    assert card.channels == ["t1", "flair"] and card.normalisation.images == 2
    assert card.format_version == 3 and "Miller" not in card.model_dump_json()

    apply = ("apply", "--model", model, "--output", found)
    ended = shell(*apply, "--volume", f"{t1}+{flair}")
    assert ended.code == 0, ended.err
    assert "t1 from Smith_T1.nrrd, flair from Smith_FLAIR.nrrd" in ended.err
    assert read_labelmap(found, empty_ok=True).geometry.size == (24, 24, 4)
    crossed = shell(*apply, "--volume", f"{flair}+{t1}")
    assert crossed.code == 0 and "seem to be given in the wrong order" in crossed.err
    alone = shell(*apply, "--volume", t1)
    assert alone.code == 2 and "cases of 2 images: t1, flair, in this order" in alone.err
    colour = tmp_path / "colour.nrrd"
    array = np.random.default_rng(0).integers(0, 255, (4, 24, 24, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(colour))
    mixed = shell(*apply, "--volume", f"{t1}+{colour}")
    assert mixed.code == 2 and "colour image" in mixed.err
    missing = shell(*apply, "--volume", f"{t1}+{tmp_path / 'none.nrrd'}")
    assert missing.code == 2 and "none.nrrd" in missing.err


def test_a_file_with_a_plus_in_its_name_is_one_image(shell: Shell, tmp_path: Path) -> None:
    t1, _, labels = write_case(tmp_path, "Miller", 0)
    plus = tmp_path / "T1+contrast.nrrd"
    t1.rename(plus)
    model = tmp_path / "m.safetensors"
    ended = shell("finetune", "--volume", plus, "--segmentation", labels, *FEW, "--output", model)
    assert ended.code == 0, ended.err
    assert read_card(model).channels == []


def test_cases_of_different_counts_are_refused(shell: Shell, tmp_path: Path) -> None:
    t1, flair, labels = write_case(tmp_path, "Miller", 0)
    other, _, others = write_case(tmp_path, "Smith", 1)
    ended = shell(
        *("finetune", "--volume", f"{t1}+{flair}", "--segmentation", labels),
        *("--volume", other, "--segmentation", others),
        *("--output", tmp_path / "m.safetensors"),
    )
    assert ended.code == 2 and "Smith_T1.nrrd comes with 1 image" in ended.err


def test_colours_are_learnt_and_a_grey_model_sees_their_brightness(
    shell: Shell, tmp_path: Path
) -> None:
    volume, labels = head((4, 24, 24))
    grey = np.clip(volume.array / 4, 0, 255).astype(np.uint8)
    colours = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    image = sitk.GetImageFromArray(colours, isVector=True)
    image.SetSpacing(volume.geometry.spacing)
    sitk.WriteImage(image, str(tmp_path / "colour.nrrd"))
    write_volume(tmp_path / "grey.nrrd", grey, volume.geometry)
    write_labelmap(tmp_path / "labels.seg.nrrd", labels)
    for kind, expected in (("colour", 3), ("grey", 1)):
        ended = shell(
            *("finetune", "--volume", tmp_path / f"{kind}.nrrd", *FEW),
            *("--segmentation", tmp_path / "labels.seg.nrrd"),
            *("--output", tmp_path / f"{kind}.safetensors"),
        )
        assert ended.code == 0, ended.err
        card = read_card(tmp_path / f"{kind}.safetensors")
        assert card.format_version == expected and card.channels == []
    assert read_card(tmp_path / "colour.safetensors").normalisation.kind == "colour"
    for model, image_kind in (("grey", "colour"), ("colour", "grey"), ("colour", "colour")):
        ended = shell(
            *("apply", "--model", tmp_path / f"{model}.safetensors"),
            *("--volume", tmp_path / f"{image_kind}.nrrd", "--output", tmp_path / "f.nrrd"),
        )
        assert ended.code == 0, ended.err
        assert ("it sees the brightness" in ended.err) == (
            (model, image_kind) == ("grey", "colour")
        )


def test_a_stack_of_colour_pages(shell: Shell, tmp_path: Path) -> None:
    volume, labels = head((4, 24, 24))
    grey = np.clip(volume.array / 3, 0, 255).astype(np.uint8)
    colours = np.stack([grey, grey // 2, 255 - grey], axis=-1)
    for name, array, told in (
        ("image.tif", colours, {"dpi": (254, 254)}),
        ("mask.tif", labels.array, {}),
    ):
        pages = [Image.fromarray(each) for each in array]
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **told)
    words = ["--volume", tmp_path / "image.tif", "--segmentation", tmp_path / "mask.tif"]
    model = tmp_path / "m.safetensors"
    ended = shell("finetune", *words, *FEW, "--axis", "axial", "--output", model)
    assert ended.code == 0, ended.err
    out = tmp_path / "out"
    words = ["--model", model, "--volume", tmp_path / "image.tif"]
    ended = shell("apply", *words, "--output", out)
    assert ended.code == 0, ended.err
    found = read_labelmap(out / "image_segmentation.nii.gz", empty_ok=True)
    assert found.geometry.size == (24, 24, 4)
    assert found.geometry.spacing == pytest.approx((0.1, 0.1, 1.0))
    drawn = ["--drawn", tmp_path / "mask.tif", "--label-names", "5=5,52=52"]
    ended = shell("apply", *words, *drawn, "--output", tmp_path / "kept.seg.nrrd")
    assert ended.code == 0, ended.err
    numbers = np.flatnonzero(labels.array.any(axis=(1, 2)))
    kept = read_labelmap(tmp_path / "kept.seg.nrrd").array
    np.testing.assert_array_equal(kept[numbers], labels.array[numbers])
    ended = shell("apply", *words, "--output", tmp_path / "mask-of-it.tif")
    assert ended.code == 2 and "a picture has one slice" in ended.error_lines[0]


def test_an_ultrasound_film_in_colour(shell: Shell, tmp_path: Path) -> None:
    volume, labels = head((4, 24, 24))
    grey = np.clip(volume.array / 3, 0, 255).astype(np.uint8)
    colours = np.stack([grey, grey // 2, 255 - grey], axis=-1)
    fields = {
        "NumberOfFrames": 4, "FrameIncrementPointer": 0x00181063, "FrameTime": 40.0,
        "Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
        "PixelRepresentation": 0, "PixelSpacing": [0.5, 0.5], "SliceThickness": None,
    }  # fmt: skip
    data = dataset(np.zeros((24, 24)), "1.2.840.10008.5.1.4.1.1.3.1", **fields)
    data.PixelData = colours.tobytes()
    film = save(data, tmp_path / "film.dcm")
    assert read_volume(film).is_colour
    grid = read_volume(film).geometry
    write_labelmap(tmp_path / "labels.seg.nrrd", replace(labels, geometry=grid))
    words = ["--volume", film, "--segmentation", tmp_path / "labels.seg.nrrd"]
    model = tmp_path / "m.safetensors"
    ended = shell("finetune", *words, *FEW, "--output", model)
    assert ended.code == 0, ended.err
    assert "they are read as slices" in ended.err
    assert read_card(model).normalisation.images == 1
    ended = shell("apply", "--model", model, "--volume", film, "--output", tmp_path / "f.nii.gz")
    assert ended.code == 0, ended.err
    found = read_labelmap(tmp_path / "f.nii.gz", empty_ok=True)
    assert found.geometry.same_as(grid)
