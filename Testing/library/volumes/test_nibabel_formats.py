"""NIfTI-2 and FreeSurfer's .mgz and .mgh, which nibabel reads: right place, right values."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.affines import from_matvec

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import labelmap_onto, read_grid, read_labelmap, read_volume
from SAMFineTuneLib.volumes.nibabel_file import is_for_nibabel
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import dsc, head, keep_slices

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (9, 8, 7)
OBLIQUE = from_matvec(
    np.array([[-1.5, 0, 0], [0, 1.299038, -2.0], [0, 0.75, 3.464102]]), [40, -50, 10]
)
VOXELS = np.random.default_rng(1).integers(0, 900, SHAPE)
KINDS = {
    "v.nii": nibabel.Nifti2Image,
    "v.nii.gz": nibabel.Nifti2Image,
    "v.img": nibabel.Nifti2Pair,
    "v.mgz": nibabel.MGHImage,
    "v.mgh": nibabel.MGHImage,
    "V.MGZ": nibabel.MGHImage,
}


def saved(folder: Path, name: str, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    image = KINDS[name](array, affine)
    lower = folder / name.lower()
    nibabel.save(image, lower)
    return lower.rename(folder / name)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4"])
def test_place_values_and_number_type(tmp_path, name, kind):
    path = saved(tmp_path, name, (VOXELS % 200).astype(kind))
    assert is_for_nibabel(path)
    volume = read_volume(path)
    assert volume.array.dtype == np.dtype(kind) and volume.array.dtype.isnative
    assert (volume.array == (VOXELS % 200).T).all()
    assert np.allclose(LPS @ volume.geometry.affine, nibabel.load(path).affine, atol=1e-4)
    assert np.allclose(LPS @ volume.geometry.affine, OBLIQUE, atol=1e-4)
    assert volume.remarks == ()
    grid = read_grid(path)
    assert grid.size == SHAPE and np.allclose(grid.affine, volume.geometry.affine, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_labels_over_a_volume_of_another_format(tmp_path, name):
    labels = (VOXELS > 700).astype(np.uint8) * 3
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16), OBLIQUE), tmp_path / "image.nii")
    read = read_labelmap(saved(tmp_path, name, labels))
    onto = labelmap_onto(read, read_volume(tmp_path / "image.nii").geometry)
    assert (onto.array == labels.T).all() and onto.array.dtype == np.uint8


def test_slopes_of_nifti_2(tmp_path):
    image = nibabel.Nifti2Image(VOXELS.astype(np.int16), OBLIQUE)
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / "v.nii.gz")
    # The library sets aside the slope in the header and writes one of its own.
    content = bytearray(gzip.decompress((tmp_path / "v.nii.gz").read_bytes()))
    content[176:192] = np.array([0.5, -10.0], "<f8").tobytes()
    (tmp_path / "v.nii").write_bytes(content)
    volume = read_volume(tmp_path / "v.nii")
    there = nibabel.load(tmp_path / "v.nii")
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, there.get_fdata().T)
    assert volume.array.min() < -5


def test_two_forms_in_nifti_2_follow_the_same_rule(tmp_path):
    image = nibabel.Nifti2Image(VOXELS.astype(np.int16), OBLIQUE)
    other = from_matvec(np.diag([-1.5, 1.5, 4.0]), [1, 2, 3])
    image.set_sform(OBLIQUE, 2)
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "v.nii")
    volume = read_volume(tmp_path / "v.nii")
    assert np.allclose(LPS @ volume.geometry.affine, other, atol=1e-5)
    assert "30.0 degrees" in volume.remarks[0]


def test_a_large_label_and_voxels_that_are_no_numbers(tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4], array[1, 1, 1], array[0, 0, 0] = 12_101, np.nan, np.inf
    labels = read_labelmap(saved(tmp_path, "v.mgz", array))
    assert labels.array[4, 3, 2] == 12_101 and labels.array.dtype == np.uint16
    assert labels.non_finite == 2 and "2 voxels" in labels.remarks[0]


def test_the_other_packing_under_a_name(tmp_path):
    """Packed content under a plain name, and the other way round, as some programs write."""
    for name in ("v.mgz", "v.nii.gz"):
        path = saved(tmp_path, name, VOXELS.astype(np.int16))
        path.write_bytes(gzip.decompress(path.read_bytes()))
        assert (read_volume(path).array == VOXELS.T).all()
    for name in ("v.mgh", "v.nii"):
        path = saved(tmp_path, name, VOXELS.astype(np.int16))
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert (read_volume(path).array == VOXELS.T).all()


def test_trailing_axes_and_more_than_three(tmp_path):
    one = saved(tmp_path, "v.nii", VOXELS.astype(np.int16)[..., None])
    assert (read_volume(one).array == VOXELS.T).all()
    for name in ("v.nii", "v.mgz"):
        two = saved(tmp_path, name, np.zeros((*SHAPE, 2), np.int16))
        assert read_grid(two).size == SHAPE
        for read in (read_volume, read_labelmap):
            with pytest.raises(InputError, match="has 2 frames"):
                read(two)
    five = saved(tmp_path, "v.nii", np.zeros((*SHAPE, 2, 3), np.int16))
    for read in (read_volume, read_grid, read_labelmap):
        with pytest.raises(InputError, match="9 x 8 x 7 x 2 x 3"):
            read(five)


def test_a_slice_in_nifti_2_keeps_its_place(tmp_path):
    path = saved(tmp_path, "v.nii", VOXELS[:, :, 0].astype(np.int16))
    volume = read_volume(path)
    assert volume.array.shape == (1, 8, 9)
    assert np.allclose(LPS @ volume.geometry.affine, OBLIQUE, atol=1e-4)


def test_colours_and_complex_numbers_are_refused(tmp_path):
    colours = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti2Image(colours, OBLIQUE), tmp_path / "c.nii")
    nibabel.save(nibabel.Nifti2Image(VOXELS.astype(np.complex64), OBLIQUE), tmp_path / "z.nii")
    for name, words in (("c.nii", "3 values a voxel"), ("z.nii", "complex")):
        for read in (read_volume, read_grid):
            with pytest.raises(InputError, match=words):
                read(tmp_path / name)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("part", [0.0, 0.02, 0.2, 0.6, 0.97])
def test_files_that_end_too_early(tmp_path, name, part):
    path = saved(tmp_path, name, VOXELS.astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError):
        read_volume(path)


@pytest.mark.parametrize("name", ["v.nii.gz", "v.mgz"])
def test_a_wrong_checksum(tmp_path, name):
    path = saved(tmp_path, name, VOXELS.astype(np.int16))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mgz", "v.mgh"])
def test_without_nibabel_it_is_said_what_to_install(tmp_path, monkeypatch, name):
    path = saved(tmp_path, name, VOXELS.astype(np.int16))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    for read in (read_volume, read_labelmap, read_grid):
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.code == "package_missing"
        assert "pip install" in caught.value.remedy and "nibabel" in caught.value.remedy


def test_other_formats_need_no_nibabel(tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16), OBLIQUE), tmp_path / "v.nii.gz")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert read_volume(tmp_path / "v.nii.gz").array.shape == (7, 8, 9)


def test_a_place_that_is_not_told(tmp_path):
    path = saved(tmp_path, "v.mgh", VOXELS.astype(np.int16))
    content = bytearray(path.read_bytes())
    content[28:30] = bytes(2)
    path.write_bytes(content)
    volume = read_volume(path)
    assert "does not say where" in volume.remarks[0]
    assert np.allclose(LPS @ volume.geometry.affine, nibabel.load(path).affine, atol=1e-4)


@pytest.mark.parametrize("name", ["v.nii", "v.mgh", "one.nii", "flat.nii"])
def test_any_header_ends_in_an_image_or_in_words(tmp_path, name):
    """Bytes of the header changed by chance: an image or an InputError, nothing else."""
    small = VOXELS[:4, :3, :2].astype(np.int16)
    if name == "one.nii":
        nibabel.save(nibabel.Nifti1Image(small, OBLIQUE), tmp_path / name)
    elif name == "flat.nii":
        nibabel.save(nibabel.Nifti1Image(small[:, :, 0], OBLIQUE), tmp_path / name)
    else:
        saved(tmp_path, name, small)
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    header = {"v.nii": 540, "v.mgh": 100}.get(name, 348)
    refusals: list[str] = []
    for _ in range(150):
        changed = bytearray(content)
        for at in rng.integers(4, header, rng.integers(1, 4)):
            changed[at] = int(rng.choice([0, 1, 127, 128, 255, changed[at] ^ 1]))
        (tmp_path / name).write_bytes(changed)
        for read in (read_volume, read_grid):
            try:
                read(tmp_path / name)
            except InputError as error:
                refusals.append(error.message)
    assert refusals and not any("\n" in each for each in refusals)


@pytest.mark.usefixtures("one_thread", "small_inputs")
def test_from_a_freesurfer_volume_to_its_segmentation(monkeypatch: Any, capfd: Any, tmp_path: Path):
    shell: Shell = shell_of(monkeypatch, capfd, tmp_path / "cache")
    volume, labelmap = head((8, 48, 48))
    place = from_matvec(np.diag([-1.0, 1.0, 3.0]), [20, -30, 5])
    few = keep_slices(labelmap, [2, 4, 6]).array.T
    for name, array in (("t1.mgz", volume.array.T), ("few.mgz", few)):
        nibabel.save(nibabel.MGHImage(np.ascontiguousarray(array), place), tmp_path / name)
    model, out = tmp_path / "m.safetensors", tmp_path / "out"
    tuned = shell(
        *("finetune", "--volume", tmp_path / "t1.mgz", "--segmentation", tmp_path / "few.mgz"),
        *("--output", model, "--steps", 2, "--batch", 1),
    )
    assert tuned.code == 0, tuned.err
    applied = shell(
        *("apply", "--model", model, "--volume", tmp_path / "t1.mgz", "--output", out),
        *("--drawn", tmp_path / "few.mgz"),
    )
    assert applied.code == 0, applied.err
    written = nibabel.load(out / "t1_segmentation.nii.gz")
    assert np.allclose(written.affine, place, atol=1e-4)
    found = np.asanyarray(written.dataobj)
    assert dsc(found[:, :, 4] > 0, few[:, :, 4] > 0) == 1.0
