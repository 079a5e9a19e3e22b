"""Single DICOM images without a place: radiographs and ultrasound, grey and in colour."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space

from SAMFineTuneLib.volumes import labelmap_onto, read_labelmap, read_volume
from SAMFineTuneLib.volumes.image_file import read_image
from Testing.support.synthetic_dicom_series import dataset, save

ULTRASOUND, RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.1.1"
ROWS, COLUMNS = 10, 12
J, I = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")  # noqa: E741
GREY = (20 * J + I).astype(np.uint8)
COLOUR = np.stack([20 * J + 20, 18 * I + 10, 9 * (I + J)], axis=-1).astype(np.uint8)
NOWHERE: dict[str, Any] = {
    "ImagePositionPatient": None,
    "PixelSpacing": None,
    "SliceThickness": None,
    "RescaleSlope": None,
    "RescaleIntercept": None,
    "PixelRepresentation": 0,
}


def image(path: Path, pixels: bytes, interpretation: str, **fields: Any) -> Path:
    told = {
        **NOWHERE,
        "Modality": "US",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": interpretation,
        **fields,
    }
    data = dataset(np.zeros((ROWS, COLUMNS)), ULTRASOUND, **told)
    data.PixelData = pixels
    return save(data, path)


def halved(colour: np.ndarray) -> bytes:
    """YBR_FULL_422: two pixels of a row share their colour."""
    first, second = colour[:, ::2], colour[:, 1::2]
    return np.stack([first[..., 0], second[..., 0], first[..., 1], first[..., 2]], -1).tobytes()


def as_jpeg(path: Path) -> Path:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG", quality=95, subsampling=1)
    image(path, b"", "YBR_FULL_422")
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    return save(data, path)


def test_ultrasound_in_colour(tmp_path):
    full = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1)).tobytes()
    for name, path, off in (
        ("RGB", image(tmp_path / "a", COLOUR.tobytes(), "RGB"), 0),
        ("planes", image(tmp_path / "b", planes, "RGB", PlanarConfiguration=1), 0),
        ("YBR_FULL", image(tmp_path / "c", full.tobytes(), "YBR_FULL"), 1),
        # Half of the colours are those of the neighbour, up to 9 * 1.77 off.
        ("YBR_FULL_422", image(tmp_path / "d", halved(full), "YBR_FULL_422"), 16),
        ("JPEG", as_jpeg(tmp_path / "e"), 16),
    ):
        read = read_image(path)
        assert read.array.shape == (1, ROWS, COLUMNS, 3) and read.array.dtype == np.uint8, name
        assert np.abs(read.array[0].astype(int) - COLOUR).max() <= off, name
        assert read.modality == "US" and read.geometry.size == (COLUMNS, ROWS, 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette(tmp_path, bits):
    table = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    fields: dict[str, Any] = {"SamplesPerPixel": 1, "PlanarConfiguration": None}
    for name, channel in zip(("Red", "Green", "Blue"), table.T, strict=True):
        wide = (channel.astype(np.uint16) << 8) if bits == 16 else channel
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        fields[f"{name}PaletteColorLookupTableData"] = wide.tobytes()
    read = read_image(image(tmp_path / "a.dcm", GREY.tobytes(), "PALETTE COLOR", **fields))
    np.testing.assert_array_equal(read.array[0], table[GREY])


def test_colour_with_equal_channels_is_grey(tmp_path):
    path = image(tmp_path / "a.dcm", np.stack([GREY] * 3, axis=-1).tobytes(), "RGB")
    np.testing.assert_array_equal(read_volume(path).array[0], GREY)


@pytest.mark.parametrize("as_folder", [True, False])
def test_several_images_in_colour_are_slices(tmp_path, as_folder):
    other = COLOUR[::-1].copy()
    if as_folder:
        for number, colour in ((1, COLOUR), (2, other)):
            path = tmp_path / f"{number}.dcm"
            image(path, colour.tobytes(), "RGB", InstanceNumber=number)
        path = tmp_path
    else:
        frames = np.stack([COLOUR, other]).tobytes()
        path = image(tmp_path / "a.dcm", frames, "RGB", NumberOfFrames=2)
    volume = read_volume(path)
    assert volume.is_colour and volume.geometry.size == (COLUMNS, ROWS, 2)
    np.testing.assert_array_equal(volume.array, np.stack([COLOUR, other]))


def test_a_film_in_colour_by_full_range_ybr(tmp_path):
    frames = np.stack([COLOUR, COLOUR[:, ::-1]])
    stored = convert_color_space(frames, "RGB", "YBR_FULL").tobytes()
    fields = {"NumberOfFrames": 2, "FrameIncrementPointer": 0x00181063, "FrameTime": 40.0}
    volume = read_volume(image(tmp_path / "film.dcm", stored, "YBR_FULL", **fields))
    assert np.abs(volume.array.astype(int) - frames).max() <= 1
    assert any("they are read as slices" in each for each in volume.remarks)


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_a_radiograph_is_bright_where_a_viewer_shows_it_bright(tmp_path, interpretation):
    fields = {**NOWHERE, "Modality": "DX", "BitsStored": 12, "HighBit": 11}
    fields |= {"PhotometricInterpretation": interpretation, "ImagerPixelSpacing": [0.2, 0.3]}
    data = dataset(GREY.astype(float), RADIOGRAPH, **fields)
    volume = read_volume(save(data, tmp_path / "a.dcm"))
    shown = 4095 - GREY.astype(int) if interpretation == "MONOCHROME1" else GREY
    np.testing.assert_array_equal(volume.array[0], shown)
    assert volume.geometry.spacing[:2] == (0.3, 0.2) and volume.modality == "DX"


def test_a_picture_as_mask_of_an_ultrasound_image(tmp_path):
    path = image(tmp_path / "a.dcm", np.stack([GREY] * 3, axis=-1).tobytes(), "RGB")
    mask = (GREY > 100).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "m.png")
    laid = labelmap_onto(read_labelmap(tmp_path / "m.png"), read_volume(path).geometry)
    np.testing.assert_array_equal(laid.array[0], mask)
