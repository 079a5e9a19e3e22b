"""A volume: the intensities of its voxels, and where the voxels lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from SAMFineTuneLib.geometry.grid import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image: grey, in colour, or several grey images of one case on one grid.

    Attributes:
        array: intensities, all finite, as in the file; values beyond double precision are shifted
            or scaled, see `number_range`. Shape (k, j, i) for a grey image; (k, j, i, 3) for
            colours, red first; (k, j, i, channels) for several images of one case.
        geometry: where the voxels lie.
        modality: "CT", "MR", ... if DICOM gives it, otherwise None.
        non_finite: how many voxels were NaN or infinite and got the lowest finite value.
        remarks: what the user should know of how the file was read, one sentence each.
        series: UID of the DICOM series, None for other formats.
        is_colour: whether the three channels are red, green and blue.
        further_modalities: those of the second and of further images of the case.
    """

    array: NDArray[Any]
    geometry: Geometry
    modality: str | None = None
    non_finite: int = 0
    remarks: tuple[str, ...] = ()
    series: str | None = None
    is_colour: bool = False
    further_modalities: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        shape = self.array.shape
        channels = 3 if self.is_colour else 1 + len(self.further_modalities)
        if shape[:3] != tuple(self.geometry.shape):
            raise ValueError(f"array {shape} does not fit grid {self.geometry.shape}")
        if shape[3:] != ((channels,) if channels > 1 else ()):
            raise ValueError(f"array {shape} does not have {channels} channels")

    @property
    def images(self) -> int:
        """How many images of the case it holds; one in colour counts as one."""
        return 1 + len(self.further_modalities)
