"""Several images of one case lie on the grid of the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import Geometry, write_volume
from SAMFineTuneLib.volumes.case import read_case
from Testing.support.synthetic_volumes import geometry_of

GRID = geometry_of((6, 20, 24), origin=(3.0, -4.0, 10.0))


def ramp(grid: Geometry) -> np.ndarray:
    """The height of each voxel in mm, as intensity."""
    heights = grid.origin[2] + np.arange(grid.size[2]) * grid.spacing[2]
    return np.broadcast_to(heights[:, None, None], grid.shape).astype(np.float32)


def written(path: Path, grid: Geometry, array: np.ndarray | None = None) -> Path:
    write_volume(path, ramp(grid) if array is None else array, grid)
    return path


def test_images_on_one_grid_are_kept_as_they_are(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(n).normal(size=GRID.shape).astype(np.float32) for n in range(3)]
    paths = [written(tmp_path / f"{n}.nrrd", GRID, each) for n, each in enumerate(arrays)]
    volume = read_case(paths[0], paths[1:])
    assert volume.images == 3 and not volume.is_colour
    assert np.array_equal(volume.array, np.stack(arrays, axis=-1))
    alone = read_case(paths[0])
    assert alone.images == 1 and np.array_equal(alone.array, arrays[0])


def test_another_grid_is_resampled_onto_the_first(tmp_path: Path) -> None:
    finer = Geometry((48, 40, 24), (0.5, 0.5, 1.0), (2.5, -4.5, 8.0), GRID.direction)
    volume = read_case(written(tmp_path / "a.nrrd", GRID), [written(tmp_path / "b.nrrd", finer)])
    assert volume.geometry.same_as(GRID)
    assert np.allclose(volume.array[..., 1], ramp(GRID), atol=1e-3)
    assert not volume.remarks


def test_what_an_image_does_not_cover_is_told(tmp_path: Path) -> None:
    half = replace(GRID, origin=(3.0, -4.0, 19.0))
    volume = read_case(written(tmp_path / "a.nrrd", GRID), [written(tmp_path / "b.nrrd", half)])
    assert np.allclose(volume.array[3:, ..., 1], ramp(GRID)[3:])
    assert (volume.array[:3, ..., 1] == 19).all()
    assert any("b.nrrd covers 50% of a.nrrd" in each for each in volume.remarks)


def test_an_image_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{name}.nrrd", GRID) for name in "ab"]
    with pytest.raises(InputError, match="named twice"):
        read_case(paths[0], [paths[1], paths[0]])


def test_pictures_lie_upon_each_other_pixel_by_pixel(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (20, 24), np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.png"]
    Image.fromarray(grey).save(paths[0])
    # A resolution for printing says nothing of what the picture shows.
    Image.fromarray(255 - grey).save(paths[1], quality=100, dpi=(300, 300))
    volume = read_case(paths[0], [paths[1]])
    assert volume.images == 2
    assert np.abs(volume.array[0, ..., 1].astype(int) - (255 - grey)).max() < 8
    Image.fromarray(grey[:, :-1]).save(paths[2])
    with pytest.raises(InputError, match=r"c\.png' has 23 x 20 pixels and .*a\.png' has 24 x 20"):
        read_case(paths[0], [paths[2]])
    with pytest.raises(InputError, match="does not say where it lies"):
        read_case(written(tmp_path / "v.nrrd", GRID), [paths[0]])


def test_images_of_other_places_and_colours_are_refused(tmp_path: Path) -> None:
    first = written(tmp_path / "a.nrrd", GRID)
    elsewhere = written(tmp_path / "b.nrrd", replace(GRID, origin=(500.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="covers 0% of") as told:
        read_case(first, [elsewhere])
    assert told.value.code == "no_overlap"
    colour = np.random.default_rng(0).integers(0, 255, (*GRID.shape, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "c.nrrd"))
    with pytest.raises(InputError, match="colour image"):
        read_case(first, [tmp_path / "c.nrrd"])
