"""Grey levels do not depend on the units of an image, and a CT is told from what only looks so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.slices.intensity import (
    IntensityWindow,
    VoxelSample,
    find_normalisation,
    sample_voxels,
)
from SAMFineTuneLib.volumes import Volume, read_volume, write_labelmap, write_volume
from SAMFineTuneLib.volumes.number_range import computable
from Testing.support.in_process import Shell, shell_of
from Testing.support.job_records import example_of
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import dsc, geometry_of, head, keep_slices, write_pair
from Testing.support.tuned_starter import write_model

REAL = REPOSITORY / ".." / "shared" / "data"
FEW = [2, 4, 6, 8]


def window_of(array: np.ndarray) -> IntensityWindow:
    sample = sample_voxels(Volume(array, geometry_of(array.shape)))
    return find_normalisation([sample]).window_for(sample)


def levels(array: np.ndarray) -> np.ndarray:
    return window_of(array).apply(array)


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e-11, 1e-9, 1e-3, 3.7, 1e9, 1e30, 1e300])
@pytest.mark.parametrize("shift", [0.0, -1.0, 1000.0])
def test_units_do_not_matter(factor: float, shift: float) -> None:
    array = head()[0].array.astype(np.float64)
    plain, other = window_of(array), window_of((array + shift) * factor)
    assert np.abs(levels((array + shift) * factor) - levels(array)).max() < 1e-6
    assert other.curve == plain.curve
    assert other.mean == pytest.approx(plain.mean, abs=1e-6)
    assert other.standard_deviation == pytest.approx(plain.standard_deviation, abs=1e-6)


@pytest.mark.parametrize("factor", [1e-9, 0.1, 1 / 3, 1e9])
def test_units_do_not_matter_where_many_voxels_share_few_values(factor: float) -> None:
    """Values that lie exactly between two parts of the curve."""
    array = np.random.default_rng(0).integers(0, 65, (8, 40, 40)).astype(np.float64)
    array[:2], array[2] = 0, 64
    assert np.abs(levels(array * factor) - levels(array)).max() < 1e-6
    assert np.abs(levels(array * factor + 7 * factor) - levels(array)).max() < 1e-6


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_a_tiny_object_between_the_voxels_of_the_sample(factor: float) -> None:
    array = np.zeros((101, 200, 401), np.float32)
    array[-1, -1, -2] = factor
    found = levels(array)
    assert found[-1, -1, -2] == 1 and found.sum() == 1


@pytest.mark.parametrize(
    ("kind", "far"),
    [
        (np.int64, 2**60),
        (np.int64, -(2**63)),
        (np.uint64, 2**64 - 2**12),
        (np.int64, 2**53 - 100),
        (np.uint64, 0),
    ],
)
def test_whole_numbers_beyond_double_precision_are_told_apart(
    kind: type, far: int, tmp_path: Path
) -> None:
    plain = np.random.default_rng(0).integers(0, 1000, (6, 20, 20))
    array = (plain.astype(object) + far).astype(kind)
    path = tmp_path / "far.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    read = read_volume(path)
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == array).all()
    assert np.abs(levels(read.array) - levels(plain)).max() < 1e-6


def test_numbers_of_both_signs_over_the_whole_range() -> None:
    whole = np.array([[[-(2**63), 0, 2**63 - 1]]], np.int64)
    assert np.allclose(levels(computable(whole)), [[[0, 0.5, 1]]], atol=0.3)
    plain = np.random.default_rng(0).uniform(-1, 1, (4, 20, 20))
    large = computable(plain * 1.79e308)
    assert np.isfinite(large.max() - large.min())
    assert np.abs(levels(large) - levels(plain)).max() < 1e-6


def test_a_small_contrast_far_from_zero() -> None:
    plain = np.round(head()[0].array.astype(np.float64))
    far = plain * 2.0**-10 + 2.0**20
    assert (levels(far) == levels(plain)).all()


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_the_network_sees_the_same_in_all_units(kind: str, tmp_path: Path) -> None:
    volume, labelmap = head()
    seen = []
    for factor in (1.0, 2.0**-30, 2.0**-36, 2.0**30):
        scaled = replace(volume, array=(volume.array * factor).astype(kind))
        pair = write_pair(tmp_path, scaled, keep_slices(labelmap, FEW), f"v{len(seen)}")
        seen.append([each.image for each in load_examples([example_of(*pair)]).slices])
    for other in seen[1:]:
        assert all((one == two).all() for one, two in zip(seen[0], other, strict=True))


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.mark.usefixtures("one_thread", "small_inputs")
def test_a_fine_tune_in_tiny_units_is_as_good(tmp_path: Path, shell: Shell) -> None:
    """An ADC map in square metres a second is learnt as the same in other units is."""
    volume, labelmap = head()
    scores = []
    for name, factor in (("plain", 1.0), ("tiny", 1e-11)):
        image = tmp_path / f"{name}.nrrd"
        write_volume(image, volume.array * np.float32(factor), volume.geometry)
        write_labelmap(tmp_path / "few.nrrd", keep_slices(labelmap, FEW))
        model, found = tmp_path / f"{name}.safetensors", tmp_path / f"{name}_found.nrrd"
        quick = ("--steps", 4, "--batch", 1, "--device", "cpu")
        told = ("--volume", image, "--segmentation", tmp_path / "few.nrrd", "--output", model)
        assert shell("finetune", *told, *quick).code == 0
        assert shell("apply", "--model", model, "--volume", image, "--output", found).code == 0
        result = sitk.GetArrayFromImage(sitk.ReadImage(str(found)))
        scores.append([dsc(result == label, labelmap.array == label) for label in (5, 52)])
    assert np.abs(np.subtract(*scores)).max() < 0.01
    assert min(scores[1]) > 0.6


def kind_of(array: np.ndarray, modality: str | None = None) -> str:
    values = np.asarray(array, float).ravel()
    return find_normalisation([VoxelSample(values, modality)]).kind


def body(shape: tuple[int, int, int] = (10, 64, 64)) -> np.ndarray:
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    inside: np.ndarray = x**2 + y**2 < 0.6
    return inside


def ct(noise: float = 15, padding: int | None = None) -> np.ndarray:
    """Fat around muscle and a bone, in air, maybe within a round field of view."""
    random = np.random.default_rng(0)
    inside = body()
    array = np.where(inside, 45, -1000) + random.normal(0, noise, inside.shape)
    array[:, 20:24, 20:44] -= 140
    array[:, 30:34, 30:34] += 700
    array = np.maximum(np.round(array), -1024)
    if padding is not None:
        array[:, :3] = array[:, -3:] = padding
    return array.astype(np.int16)


@pytest.mark.parametrize("padding", [None, -1024, -2000, -2048, -3024, -32768])
def test_a_ct_is_known_by_its_air(padding: int | None) -> None:
    assert kind_of(ct(padding=padding)) == "calibrated"
    assert kind_of(ct(noise=60, padding=padding)) == "calibrated"


@pytest.mark.parametrize("modality", ["MR", "PT", "OT"])
def test_dicom_decides_where_it_tells(modality: str) -> None:
    assert kind_of(ct(), modality) == "percentiles"
    assert kind_of(np.maximum(ct(), 0), "CT") == "calibrated"


def test_a_ct_without_air_is_no_worse_than_another_image() -> None:
    assert kind_of(ct()[:, 25:40, 25:40]) == "percentiles"


@pytest.mark.parametrize("largest", [1000, 1100, 2000, 3142, 4096])
@pytest.mark.parametrize("seed", range(5))
def test_a_phase_is_no_ct(largest: int, seed: int) -> None:
    """Noise of every phase around a body in which it changes slowly."""
    random, inside = np.random.default_rng(seed), body()
    noise = random.integers(-largest, largest, inside.shape)
    slow = np.linspace(-0.6, 0.6, 64) * largest + random.normal(0, 0.03 * largest, inside.shape)
    assert kind_of(np.where(inside, slow, noise)) == "percentiles"
    assert kind_of(noise) == "percentiles"


@pytest.mark.parametrize("spread", [150, 300, 500, 2000])
def test_a_difference_is_no_ct(spread: float) -> None:
    random = np.random.default_rng(0)
    for noise in (random.normal(0, spread, (10, 64, 64)), random.laplace(0, spread, (10, 64, 64))):
        noise[0, 0, 0] = -950
        assert kind_of(noise) == "percentiles"
        assert kind_of(np.where(body(), noise, 0)) == "percentiles"
    two_edges = np.zeros((10, 64, 64))
    two_edges[:, :, 10:14], two_edges[:, :, 50:54] = -1000, 1000
    assert kind_of(two_edges) == "percentiles"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real images here")
@pytest.mark.parametrize(
    "name", ["ct_abdomen_3mm/ct.nii.gz", "ct_pelvis_dicom/series", "ct_3slice_dicom_seg/series"]
)
def test_real_ct_is_told_by_its_voxels_alone(name: str) -> None:
    array = read_volume(REAL / name).array
    assert kind_of(array) == "calibrated"
    # Half of it, as somebody might crop it.
    rows, columns = array.shape[1] // 2, array.shape[2] // 2
    assert kind_of(array[:, :rows]) == kind_of(array[:, :, columns:]) == "calibrated"


@pytest.mark.usefixtures("one_thread", "small_inputs")
def test_what_is_said_of_another_image_is_true(tmp_path: Path, shell: Shell) -> None:
    """The model's images had values as in CT, be they of a CT or not."""
    model = write_model(tmp_path / "model.safetensors", for_prompts=False, input_size=64)
    volume, _ = head()
    write_volume(tmp_path / "mr.nrrd", np.maximum(volume.array, 0), volume.geometry)
    write_volume(tmp_path / "ct.nrrd", ct()[:8], geometry_of((8, 64, 64)))
    for name in ("mr", "ct"):
        ended = shell(
            *("apply", "--model", model, "--volume", tmp_path / f"{name}.nrrd"),
            *("--output", tmp_path / f"{name}_found.nrrd"),
        )
        assert ended.code == 0, ended.err
        told = "tuned on images with values as in CT" in ended.err
        assert told == (name == "mr") and "tuned on CT" not in ended.err
