"""Reads the voxels and the geometry of image files and DICOM folders, as the file has them."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.geometry.nifti_forms import read_forms, voxel_file
from SAMFineTuneLib.volumes.decoded_once import kept
from SAMFineTuneLib.volumes.dicom.header import is_dicom
from SAMFineTuneLib.volumes.dicom.series import dicom_time_axis, read_dicom_file, read_series
from SAMFineTuneLib.volumes.frames import ONE_FRAME, TimeAxis, require_frame, time_axis
from SAMFineTuneLib.volumes.image_grid import grid_of
from SAMFineTuneLib.volumes.nibabel_file import (
    geometry_with_nibabel,
    is_for_nibabel,
    read_with_nibabel,
    time_axis_with_nibabel,
)
from SAMFineTuneLib.volumes.nifti_check import DamagedFileError, non_finite_voxels
from SAMFineTuneLib.volumes.nifti_place import Place, nifti_place
from SAMFineTuneLib.volumes.nrrd_slice import read_slice
from SAMFineTuneLib.volumes.pictures.decoding import is_picture, is_tiff
from SAMFineTuneLib.volumes.pictures.image import picture_geometry, read_picture
from SAMFineTuneLib.volumes.pictures.pages import read_pages
from SAMFineTuneLib.volumes.quiet import itk_quiet, sheared_nifti_allowed
from SAMFineTuneLib.volumes.segment_layers import has_layers, layers_as_components
from SAMFineTuneLib.volumes.told_spacing import spacing_remarks
from SAMFineTuneLib.volumes.unreadable import FORMATS, explained, refuse_unreadable

# Formats whose geometry can be read from the header, without reading the voxels.
_HEADER_FIRST = (".nii", ".nii.gz", ".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd")


class ReadImage(NamedTuple):
    """The content of a file or folder.

    Attributes:
        array: voxels, shape (k, j, i), or (k, j, i, layers) for a segmentation in several layers
            and (k, j, i, values) for an image in colour; NaN and infinite values are kept.
        geometry: where the voxels lie.
        header: the fields of the file's header.
        modality: "CT", "MR", ... if DICOM gives it.
        remarks: what the user should know of how it was read, one sentence each.
        series: UID of the DICOM series, None for other formats.
    """

    array: NDArray[Any]
    geometry: Geometry
    header: dict[str, str]
    modality: str | None = None
    remarks: tuple[str, ...] = ()
    series: str | None = None


def read_image(
    path: Path,
    series: str | None = None,
    *,
    frame: int | None = None,
    layers_ok: bool = False,
    colours_ok: bool = False,
) -> ReadImage:
    """The 3-D image of a file, or of a DICOM series in a folder.

    Args:
        path: the file or folder.
        series: which DICOM series, as for `read_series`; None if there is only one.
        frame: which frame of an image with an axis of time; None if there is only one.
        layers_ok: accept a segmentation of 3D Slicer in several layers.
        colours_ok: accept several values a voxel, as colours have.

    Raises:
        InputError: the file is missing, damaged, no image, or not a 3-D one; or it has several
            frames and none is chosen, or there is no such frame.
    """
    _check_readable(path)
    if path.is_file() and not is_dicom(path):
        _refuse_series(path, series)
    if path.is_file() and is_for_nibabel(path):
        found = read_with_nibabel(path, frame)
        return ReadImage(found.array, found.geometry, {}, None, found.remarks)
    if path.is_file() and is_picture(path):
        require_frame(path, ONE_FRAME, frame)
        picture = read_picture(path)
        return ReadImage(picture.array, picture.geometry, {}, None, picture.remarks)
    bad = np.zeros(0, np.int64)
    remarks: tuple[str, ...] = ()
    if path.is_file():
        refuse_unreadable(path)
    forms = None if path.is_dir() else read_forms(path)
    place = None if forms is None else nifti_place(path, forms)
    with itk_quiet():
        if path.is_dir() or is_dicom(path):
            dicom = (read_series if path.is_dir() else read_dicom_file)(path, series, frame)
            return ReadImage(
                dicom.array, dicom.geometry, {}, dicom.modality, dicom.remarks, dicom.series
            )
        try:
            bad = kept(path, "non-finite voxels", lambda: non_finite_voxels(path))
        except DamagedFileError as error:
            raise explained(path) from error
        image, number, modality, remarks = _read_file(path, frame, layers_ok, colours_ok)
        image = layers_as_components(image) if has_layers(image) else image
        place = place or _place(path, image)
        image = _three_dimensional(image)
    array = sitk.GetArrayFromImage(image)
    # The layers of a segmentation and the colours of an image are a fourth axis of the array.
    if array.shape[:3] != place.geometry.shape:
        raise explained(path)
    if bad.size and array.dtype.kind == "f":
        of_frame = bad[(bad >= number * array.size) & (bad < (number + 1) * array.size)]
        array.reshape(-1)[of_frame - number * array.size] = np.nan
    header = {key: _text(image.GetMetaData(key)) for key in image.GetMetaDataKeys()}
    remarks = (*remarks, *place.remarks, *spacing_remarks(path))
    geometry = place.geometry
    if is_tiff(path):
        geometry = replace(geometry, is_picture=True)
    return ReadImage(array, geometry, header, modality, remarks)


def read_geometry(path: Path, series: str | None = None) -> Geometry:
    """The geometry that `read_image` would give; for most files only the header is read.

    Raises:
        InputError: as `read_image`, as far as the header shows it.
    """
    _check_readable(path)
    if path.is_file() and is_for_nibabel(path):
        return geometry_with_nibabel(path)
    if path.is_file() and is_picture(path):
        return picture_geometry(path)
    if not path.is_file() or not path.name.lower().endswith(_HEADER_FIRST):
        return read_image(path, series, frame=0, colours_ok=True).geometry
    refuse_unreadable(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with itk_quiet(), sheared_nifti_allowed():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return read_image(path, frame=0, colours_ok=True).geometry
    size = reader.GetSize()
    forms = read_forms(path)
    if forms is not None:
        return nifti_place(path, forms).geometry
    if len(size) == 4:
        return _grid_of_frame(reader)
    if len(size) != 3:
        return read_image(path, frame=0, colours_ok=True).geometry
    return Geometry(size, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def read_time_axis(path: Path, series: str | None = None) -> TimeAxis:
    """The axis of time of a file or DICOM series, from headers alone.

    Raises:
        InputError: as `read_image`, as far as the header shows it.
    """
    _check_readable(path)
    if path.is_dir() or is_dicom(path):
        return dicom_time_axis(path, series)
    if is_for_nibabel(path):
        return time_axis_with_nibabel(path)
    if is_picture(path):
        return ONE_FRAME
    refuse_unreadable(path)
    with itk_quiet(), sheared_nifti_allowed():
        try:
            if read_slice(path) is not None:
                return ONE_FRAME
            reader = _reader(path)
        except RuntimeError as error:
            raise _unreadable(path, str(error)) from error
        return time_axis(path, reader, _header(reader))


def _grid_of_frame(reader: sitk.ImageFileReader) -> Geometry:
    """The grid of each 3-D image of a 4-D one."""
    (i, j, k), (x, y, z) = reader.GetSize()[:3], reader.GetOrigin()[:3]
    direction = np.reshape(reader.GetDirection(), (4, 4))[:3, :3]
    steps = direction * np.array(reader.GetSpacing()[:3])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, (x, y, z)
    return Geometry.from_affine((i, j, k), affine)


def _place(path: Path, image: sitk.Image) -> Place:
    """The place of the voxels of `image` by ITK, and a remark for a 2-D image."""
    if image.GetDimension() != 2:
        return Place(grid_of(_three_dimensional(image)), ())
    remark = (
        f"{path.name} is 2-D and does not say where it lies along the third axis, nor how thick "
        "its slice is; 0 and 1 mm are taken"
    )
    return Place(grid_of(sitk.JoinSeries([image])), (remark,))


def _refuse_series(path: Path, series: str | None) -> None:
    if series is not None:
        raise InputError(
            f"'{path}' is no DICOM image, so there is no series {series} in it",
            "Choose a series for DICOM folders alone",
            code="no_such_series",
        )


def _check_readable(path: Path) -> None:
    try:
        exists = path.exists()
    except OSError:
        exists = False
    if not exists:
        raise InputError(
            f"no such file or folder: '{path}'",
            "Check the path; it is taken from the current folder",
            code="no_such_file",
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"'{path}' may not be read", "Ask for the right to read it", "no_access")


def _read_file(
    path: Path, frame: int | None, layers_ok: bool, colours_ok: bool
) -> tuple[sitk.Image, int, str | None, tuple[str, ...]]:
    """The image of a frame, the number of the frame, the modality, and remarks."""
    try:
        single = read_slice(path)
    except RuntimeError as error:
        raise explained(path) from error
    if single is not None:
        size, components = single.image.GetSize(), single.image.GetNumberOfComponentsPerPixel()
        _check_values(path, components, {}, colours_ok)
        _check_3d(path, size)
        require_frame(path, ONE_FRAME, frame)
        return single.image, 0, None, single.remarks
    pages = read_pages(path)
    if pages is not None:
        _check_values(path, pages.GetNumberOfComponentsPerPixel(), {}, colours_ok)
        require_frame(path, ONE_FRAME, frame)
        return pages, 0, None, ()
    # The geometry is taken from the header itself, so it does not matter that ITK straightens
    # sheared axes.
    with sheared_nifti_allowed():
        return *_read_with_itk(path, frame, layers_ok, colours_ok), ()


def _reader(path: Path) -> sitk.ImageFileReader:
    """A reader of ITK that has read the header."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    # ITK recognises other formats by their content, but MetaImage only by an ending in lower case.
    if path.suffix.lower() in (".mha", ".mhd"):
        reader.SetImageIO("MetaImageIO")
    reader.ReadImageInformation()
    return reader


def _header(reader: sitk.ImageFileReader) -> dict[str, str]:
    return {key: _text(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys()}


def _read_with_itk(
    path: Path, frame: int | None, layers_ok: bool, colours_ok: bool
) -> tuple[sitk.Image, int, str | None]:
    try:
        reader = _reader(path)
    except RuntimeError as error:
        raise _unreadable(path, str(error)) from error
    header = _header(reader)
    modality = header.get("0008|0060", "").strip() or None
    axis = time_axis(path, reader, header)
    if not (layers_ok and has_layers(reader)):
        if not axis.along_components:
            _check_values(path, reader.GetNumberOfComponents(), header, colours_ok)
        if axis.frames == 1:
            _check_3d(path, reader.GetSize())
        number = require_frame(path, axis, frame)
    else:
        axis, number = ONE_FRAME, require_frame(path, ONE_FRAME, frame)
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise InputError(f"'{path}' holds complex numbers", "Save its magnitude", code="not_scalar")
    try:
        image = reader.Execute() if axis.frames == 1 else _frame(path, reader, axis, number)
    except RuntimeError as error:
        raise _unreadable(path, str(error)) from error
    return image, number, modality


def _frame(path: Path, reader: sitk.ImageFileReader, axis: TimeAxis, number: int) -> sitk.Image:
    """One frame of a 4-D image.

    ITK reads a frame of an uncompressed NIfTI or MetaImage file alone, for which memory holds this
    frame; all others are decoded whole.
    """
    if axis.along_components:
        whole = kept(path, "image", reader.Execute)
        found = sitk.VectorIndexSelectionCast(whole, number)
    else:
        size, index = [*reader.GetSize()[:3], 0], [0, 0, 0, number]
        size += [0] * (reader.GetDimension() - 4)
        index += [0] * (reader.GetDimension() - 4)
        if _streams(path):
            reader.SetExtractSize(size)
            reader.SetExtractIndex(index)
            found = reader.Execute()
        else:
            collapse = sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX
            found = sitk.Extract(kept(path, "image", reader.Execute), size, index, collapse)
    for key in reader.GetMetaDataKeys():
        found.SetMetaData(key, _text(reader.GetMetaData(key)))
    return found


def _streams(path: Path) -> bool:
    """Whether ITK can read a part of a file without reading all of it."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        with voxel_file(path).open("rb") as stream:
            return stream.read(2) != b"\x1f\x8b"
    return name.endswith((".mha", ".mhd"))


def _check_values(path: Path, components: int, header: dict[str, str], colours_ok: bool) -> None:
    if components > 1 and any(key.startswith("Segment0_") for key in header):
        raise InputError(
            f"'{path}' is a segmentation in {components} layers, not an image",
            "Give an image",
            code="not_scalar",
        )
    if components > 1 and not colours_ok:
        raise InputError(
            f"'{path}' has {components} values a voxel (colour or vector), not one",
            "Save it with one value a voxel",
            code="not_scalar",
        )


def _check_3d(path: Path, size: tuple[int, ...]) -> None:
    if len(size) > 3 and math.prod(size[3:]) > 1:
        raise InputError(
            f"'{path}' is {len(size)}-D ({' x '.join(map(str, size))}), not 3-D",
            "Save one time point or channel as a volume of its own",
            code="not_3d",
        )


def _three_dimensional(image: sitk.Image) -> sitk.Image:
    """The image with three axes: a slice gets a third one; more axes, of length 1, are removed."""
    dimension = image.GetDimension()
    if dimension == 2:
        return sitk.JoinSeries([image])
    if dimension == 3:
        return image
    extract = sitk.ExtractImageFilter()
    extract.SetSize([*image.GetSize()[:3], *[0] * (dimension - 3)])
    extract.SetDirectionCollapseToStrategy(sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX)
    flat = extract.Execute(image)
    for key in image.GetMetaDataKeys():
        flat.SetMetaData(key, image.GetMetaData(key))
    return flat


def _unreadable(path: Path, itk_text: str) -> InputError:
    if "orthonormal" in itk_text or "irection" in itk_text:
        return InputError(
            f"the axes of '{path}' are not perpendicular to each other",
            "Resample it in 3D Slicer (Resample Scalar Volume) and save it again",
            code="not_an_image",
        )
    if "Unable to determine ImageIO" in itk_text or not itk_text:
        return InputError(
            f"'{path}' is not an image that can be read", f"Give {FORMATS}", code="not_an_image"
        )
    return explained(path)


def _text(value: str) -> str:
    """A text of the header in which bytes that cannot be decoded are replaced."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
