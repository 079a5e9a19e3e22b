"""Masks written as pictures come back as the same labelmap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, PngImagePlugin

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes import (
    Labelmap,
    can_hold,
    read_labelmap,
    read_volume,
    require_holdable,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.pictures.writing import (
    require_fractions_holdable,
    require_labels_holdable,
)

LABELS = np.zeros((1, 20, 30), np.uint8)
LABELS[0, 5:15, 5:15], LABELS[0, 5:15, 20:25] = 1, 4
ENDINGS = ["png", "tif", "tiff", "bmp", "PNG"]


def grid(spacing: float = 1.0, slices: int = 1, **changes) -> Geometry:
    upright = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    told = Geometry((30, 20, slices), (spacing, spacing, 1.0), (0, 0, 0), upright, is_picture=True)
    return replace(told, **changes)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compress", [True, False])
def test_colours_come_back(tmp_path, ending, compress):
    colours = {1: (1.0, 0.0, 0.0), 4: (0.2, 0.4, 1.0), 9: (0.0, 1.0, 0.0)}
    names, terms = {1: "Leber", 4: "Milz", 9: "Niere"}, {4: "SCT^78961009^Spleen"}
    labelmap = Labelmap(LABELS, grid(), names, colours, terminologies=terms)
    path = tmp_path / f"m.{ending}"
    write_labelmap(path, labelmap, compress=compress)
    back = read_labelmap(path)
    np.testing.assert_array_equal(back.array, LABELS)
    assert back.colours == {label: colours[label] for label in (1, 4)}
    if ending == "bmp":
        assert back.names == {1: "#ff0000", 4: "#3366ff"}
    else:
        assert (back.names, back.terminologies) == (names, terms)
    # What a viewer shows.
    shown = np.asarray(Image.open(path).convert("RGB"))
    assert shown[10, 22].tolist() == [51, 102, 255] and not shown[0, 0].any()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_all_colours_values_are_grey(tmp_path, ending):
    labelmap = Labelmap(LABELS, grid(), colours={1: (1.0, 0.0, 0.0)})
    write_labelmap(tmp_path / f"m.{ending}", labelmap)
    assert Image.open(tmp_path / f"m.{ending}").mode in ("L", "P")
    back = read_labelmap(tmp_path / f"m.{ending}")
    np.testing.assert_array_equal(back.array, LABELS)
    assert not back.colours and not back.names
    np.testing.assert_array_equal(read_volume(tmp_path / f"m.{ending}").array, LABELS)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_labels_of_sixteen_bits(tmp_path, ending):
    labels = LABELS.astype(np.int32) * 10_000
    colours = {10_000: (1.0, 0.0, 0.0), 40_000: (0.0, 1.0, 0.0)}
    write_labelmap(tmp_path / f"m.{ending}", Labelmap(labels, grid(), {10_000: "one"}, colours))
    back = read_labelmap(tmp_path / f"m.{ending}")
    np.testing.assert_array_equal(back.array, labels)
    assert back.array.dtype == np.uint16 and back.names == {10_000: "one"}


@pytest.mark.parametrize(
    "text",
    ["Segments", "[]", '{"Segments": 3}', '{"Segments": {"one": {}}}', '{"Segments": {"1": 2}}',
     '{"Segments": ' + "[" * 100_000],
)  # fmt: skip
def test_a_text_of_another_program_is_ignored(tmp_path, text):
    told = PngImagePlugin.PngInfo()
    told.add_itxt("Segments", text)
    Image.fromarray(LABELS[0]).save(tmp_path / "m.png", pnginfo=told)
    back = read_labelmap(tmp_path / "m.png")
    assert not back.names and back.labels == [1, 4]


def test_an_empty_mask(tmp_path):
    write_labelmap(tmp_path / "m.png", Labelmap(LABELS * 0, grid()))
    assert not read_labelmap(tmp_path / "m.png", empty_ok=True).array.any()


def test_tiff_tells_the_spacing_as_itk_reads_it(tmp_path):
    write_labelmap(tmp_path / "m.tif", Labelmap(LABELS, grid(spacing=0.35)))
    told = sitk.ReadImage(str(tmp_path / "m.tif"))
    assert told.GetSpacing() == pytest.approx((0.35, 0.35), rel=1e-5)
    assert read_labelmap(tmp_path / "m.tif").geometry.spacing[0] == pytest.approx(0.35, rel=1e-5)


@pytest.mark.parametrize("dpi", [(72, 72), (300, 150), (1, 25)])
@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(np.int32) * 10_000])
def test_a_mask_in_png_lies_on_the_jpeg_in_slicer(tmp_path, dpi, labels):
    """ITK, which reads pictures in 3D Slicer, finds the spacing that the JPEG tells in inches."""
    Image.fromarray(LABELS[0]).save(tmp_path / "a.jpg", dpi=dpi)
    geometry = read_volume(tmp_path / "a.jpg").geometry
    colours = {1: (1.0, 0.0, 0.0), 4: (0.2, 0.4, 1.0)}
    for given in (colours, None):
        write_labelmap(tmp_path / "m.png", Labelmap(labels, geometry, {1: "one"}, given))
        photo, mask = (sitk.ReadImage(str(tmp_path / name)) for name in ("a.jpg", "m.png"))
        assert photo.GetSpacing() == (25.4 / dpi[0], 25.4 / dpi[1]) == mask.GetSpacing()
        assert photo.GetOrigin() == mask.GetOrigin() and photo.GetSize() == mask.GetSize()
        back = read_labelmap(tmp_path / "m.png")
        np.testing.assert_array_equal(back.array, labels)
        assert back.geometry == geometry and Image.open(tmp_path / "m.png").verify() is None


def test_a_png_without_a_spacing_tells_none(tmp_path):
    write_labelmap(tmp_path / "m.png", Labelmap(LABELS, grid()))
    assert b"sCAL" not in (tmp_path / "m.png").read_bytes()


def test_fractions_in_tiff_alone(tmp_path):
    map_ = np.random.default_rng(0).random((1, 20, 30), np.float32)
    write_volume(tmp_path / "u.tif", map_, grid())
    np.testing.assert_array_equal(read_volume(tmp_path / "u.tif").array, map_)
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "u.tif")))
    np.testing.assert_array_equal(by_itk, map_[0])
    for name in ("u.png", "u.bmp"):
        for action in (
            lambda path: require_fractions_holdable(path),
            lambda path: write_volume(path, map_, grid()),
        ):
            with pytest.raises(InputError, match="whole numbers") as caught:
                action(tmp_path / name)
            assert ".tif" in caught.value.remedy
    assert [each.name for each in tmp_path.iterdir()] == ["u.tif"]


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        (grid(slices=3), "one slice, and the volume 3"),
        (grid(is_picture=False, origin=(0, 5, 0)), "where in the patient"),
        (grid(is_picture=False, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)), "where in the patient"),
    ],
)
@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_other_geometries_are_refused_before_the_work(tmp_path, geometry, words, ending):
    path = tmp_path / f"m.{ending}"
    assert not can_hold(path, geometry)
    with pytest.raises(InputError, match=words) as caught:
        require_holdable(path, geometry)
    assert ".nii.gz" in caught.value.remedy and ".png" not in caught.value.remedy
    with pytest.raises(InputError, match=words):
        write_labelmap(path, Labelmap(np.zeros(geometry.shape, np.uint8), geometry))
    assert not list(tmp_path.iterdir())


def test_a_volume_of_one_slice_at_the_origin_is_as_a_picture(tmp_path):
    assert can_hold(tmp_path / "m.png", grid(is_picture=False))


def test_labels_that_are_too_large(tmp_path):
    require_labels_holdable(tmp_path / "m.png", 65_535)
    require_labels_holdable(tmp_path / "m.bmp", 255)
    for name, largest in (("m.png", 65_536), ("m.bmp", 256)):
        with pytest.raises(InputError, match=f"label {largest}") as caught:
            require_labels_holdable(tmp_path / name, largest)
        assert ".seg.nrrd" in caught.value.remedy


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def save(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(InputError) as caught:
        write_labelmap(tmp_path / "m.png", Labelmap(LABELS, grid()))
    assert caught.value.code == "no_space" and not list(tmp_path.iterdir())
