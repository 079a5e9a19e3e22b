"""Lays a mask over a picture, pixel by pixel: a picture does not say where it lies."""

from __future__ import annotations

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import ON_GRID, Geometry, index_map


def fits_by_pixels(mask: Geometry, image: Geometry) -> bool:
    """Whether a mask belongs to an image pixel by pixel, whatever spacing and place are assumed.

    The resolution that many JPEG files tell (72 pixels an inch) is one of printing; a mask of the
    same picture stored as PNG tells none. So only sizes are compared where one is a picture, or a
    TIFF file of several pages. A
    segmentation of another format that covers a part of a picture lies at its place.

    Args:
        mask: the grid of the segmentation.
        image: the grid of the image.

    Raises:
        InputError: one of both is a picture, the sizes differ, and the mask is no part.
    """
    if not (mask.is_picture or image.is_picture):
        return False
    if tuple(mask.size) == tuple(image.size):
        return True
    if _is_stack(mask) and _is_stack(image):
        raise InputError(
            f"the mask has {_pages(mask)}, and the image {_pages(image)}",
            "Give the mask that was drawn on this image, with a page of its size for each page",
            code="other_size",
        )
    # A stack beside a volume of another kind: one of both covers a part of the other.
    if (_is_stack(mask) and not image.is_picture) or (_is_stack(image) and not mask.is_picture):
        return False
    if _is_part(mask, image):
        return False
    if mask.size[2] != image.size[2]:
        one, many = ("mask", image) if mask.is_picture else ("image", mask)
        other = "image" if one == "mask" else "mask"
        raise InputError(
            f"the {one} is a picture, and the {other} has {many.size[2]} slices",
            "Give the mask that was drawn on this image",
            code="other_size",
        )
    turned = mask.size[:2] == image.size[1::-1]
    raise InputError(
        f"the mask has {_pixels(mask)} pixels and the image {_pixels(image)}",
        "Give the mask that was drawn on this image, in its size"
        + (
            "; one of both was turned by 90 degrees, such as by its EXIF orientation"
            if turned
            else "; masks of pictures are not resized"
        ),
        code="other_size",
    )


def _is_part(mask: Geometry, image: Geometry) -> bool:
    """Whether a mask that has a place shares the pixel centres and axes of a picture."""
    if mask.is_picture or mask.size[2] != 1:
        return False
    to_mask = index_map(mask, image)
    shift = to_mask[:3, 3]
    stretch = np.abs(to_mask[:2, :2] - np.eye(2)) @ image.size[:2]
    off_grid = np.abs(shift - np.rint(shift)).max()
    return bool(max(stretch.max(), off_grid) < ON_GRID and abs(shift[2]) < ON_GRID)


def picture_obstacle(geometry: Geometry) -> str:
    """Why a picture file cannot hold a geometry; "" if it can."""
    if geometry.size[2] != 1:
        return f"a picture has one slice, and the volume {geometry.size[2]}"
    if geometry.is_picture:
        return ""
    upright = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    if any(geometry.origin) or tuple(geometry.direction) != upright:
        return "a picture cannot say where in the patient it lies"
    return ""


def _is_stack(geometry: Geometry) -> bool:
    """Whether a grid is that of a picture file of several pages."""
    return geometry.is_picture and geometry.size[2] > 1


def _pages(geometry: Geometry) -> str:
    return f"{geometry.size[2]} pages of {_pixels(geometry)} pixels"


def _pixels(geometry: Geometry) -> str:
    return f"{geometry.size[0]} x {geometry.size[1]}"
