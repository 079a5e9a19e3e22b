"""A volume: one intensity for each voxel, and where the voxels lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from SAMFineTuneLib.geometry.grid import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D scalar image.

    Attributes:
        array: intensities, shape (k, j, i), all finite, as in the file; values beyond double
            precision are shifted or scaled, see `number_range`.
        geometry: where the voxels lie.
        modality: "CT", "MR", ... if DICOM gives it, otherwise None.
        non_finite: how many voxels were NaN or infinite and got the lowest finite value.
        remarks: what the user should know of how the file was read, one sentence each.
        series: UID of the DICOM series, None for other formats.
    """

    array: NDArray[Any]
    geometry: Geometry
    modality: str | None = None
    non_finite: int = 0
    remarks: tuple[str, ...] = ()
    series: str | None = None

    def __post_init__(self) -> None:
        if self.array.shape != tuple(self.geometry.shape):
            raise ValueError(f"array {self.array.shape} does not fit grid {self.geometry.shape}")
