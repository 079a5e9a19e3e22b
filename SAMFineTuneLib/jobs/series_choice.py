"""Which DICOM series is read for each volume of a job that is a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from SAMFineTuneLib.errors import InputError


def series_of_volumes(volumes: Sequence[Path], series: Sequence[str]) -> list[str | None]:
    """The chosen series of each volume; None for files, and for folders without a choice.

    Args:
        volumes: files and folders.
        series: empty, one choice for all folders, or one for each of them in their order.

    Raises:
        InputError: there is neither one choice for all folders nor one for each.
    """
    folders = [index for index, path in enumerate(volumes) if path.is_dir()]
    if not series:
        return [None] * len(volumes)
    if not folders or len(series) not in (1, len(folders)):
        raise InputError(
            f"{len(series)} DICOM series are chosen for {len(folders)} volumes that are folders",
            "Choose one series for each folder, in the same order, or one for all",
            code="contrary_options",
            folders=len(folders),
        )
    chosen: list[str | None] = [None] * len(volumes)
    for place, index in enumerate(folders):
        chosen[index] = series[0] if len(series) == 1 else series[place]
    return chosen
