"""A mask fits a picture pixel by pixel, or is refused with both sizes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import labelmap_onto, read_labelmap, read_volume

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[4:9, 3:20] = 2


def picture(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def volume(path, array, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def onto(mask, image) -> np.ndarray:
    return labelmap_onto(read_labelmap(mask), read_volume(image).geometry).array


def test_the_resolution_of_one_of_both_does_not_matter(tmp_path):
    photo = picture(tmp_path / "a.jpg", IMAGE, dpi=(72, 72))
    mask = picture(tmp_path / "m.png", MASK)
    assert read_volume(photo).geometry.spacing[0] == pytest.approx(25.4 / 72)
    laid = labelmap_onto(read_labelmap(mask), read_volume(photo).geometry)
    np.testing.assert_array_equal(laid.array[0], MASK)
    assert laid.geometry == read_volume(photo).geometry


@pytest.mark.parametrize(("shape", "sizes"), [((25, 28), "28 x 25"), ((20, 29), "29 x 20")])
def test_other_sizes_are_refused_with_both(tmp_path, shape, sizes):
    photo = picture(tmp_path / "a.png", IMAGE)
    mask = picture(tmp_path / "m.png", np.ones(shape, np.uint8))
    with pytest.raises(InputError, match=sizes) as caught:
        onto(mask, photo)
    assert "30 x 20" in caught.value.message and caught.value.code == "other_size"
    assert "turned" not in caught.value.remedy


def test_a_turned_mask_is_recognised(tmp_path):
    photo = picture(tmp_path / "a.png", IMAGE)
    mask = picture(tmp_path / "m.png", MASK.T.copy())
    with pytest.raises(InputError) as caught:
        onto(mask, photo)
    assert "turned by 90 degrees" in caught.value.remedy


def test_a_mask_from_slicer_on_a_picture(tmp_path):
    photo = picture(tmp_path / "a.jpg", IMAGE, dpi=(72, 72))
    side = 25.4 / 72
    drawn = volume(tmp_path / "m.nrrd", MASK[None], (side, side, 1.0))
    np.testing.assert_array_equal(onto(drawn, photo)[0], MASK)


def test_a_part_of_a_picture_labelled_in_slicer_lies_at_its_place(tmp_path):
    photo = picture(tmp_path / "a.png", IMAGE)
    image = sitk.GetImageFromArray(MASK[None, 4:9, 3:20])
    image.SetOrigin((3, 4, 0))
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    np.testing.assert_array_equal(onto(tmp_path / "m.nrrd", photo)[0], MASK)


def test_a_picture_as_mask_of_a_volume_of_one_slice(tmp_path):
    slice_ = volume(tmp_path / "v.nii.gz", IMAGE[None], (0.4, 0.4, 3.0))
    mask = picture(tmp_path / "m.png", MASK)
    np.testing.assert_array_equal(onto(mask, slice_)[0], MASK)


def test_a_picture_is_no_mask_of_many_slices_and_a_volume_no_mask_of_a_picture(tmp_path):
    many = volume(tmp_path / "v.nii.gz", np.stack([IMAGE] * 4))
    photo, mask = picture(tmp_path / "a.png", IMAGE), picture(tmp_path / "m.png", MASK)
    labels = volume(tmp_path / "m.nii.gz", np.stack([MASK] * 4))
    for one, other in ((mask, many), (labels, photo)):
        with pytest.raises(InputError, match="4 slices") as caught:
            onto(one, other)
        assert caught.value.code == "other_size"
