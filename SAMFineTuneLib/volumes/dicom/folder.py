"""Finds the image series in a folder of DICOM files, and chooses one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.dicom.header import DamagedHeaderError, DicomFile, Plane, read_header
from SAMFineTuneLib.volumes.dicom.stack import arrange
from SAMFineTuneLib.volumes.dicom.time_points import time_points

# Kinds of DICOM objects that may lie beside the images and are not images to segment.
NOT_IMAGES = {
    "SEG": "a segmentation object",
    "RTSTRUCT": "a set of contours",
    "SR": "a report",
    "PR": "a presentation state",
    "KO": "a selection of images",
    "RTPLAN": "a treatment plan",
    "REG": "a registration",
    "DOC": "a document",
    "RWV": "a mapping of values",
    "FID": "a set of fiducials",
}
_DOSE = "RTDOSE"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

# How much of a UID's end is shown, and the shortest end by which a series can be chosen.
_UID_END, _SHORTEST_END = 8, 4


@dataclass(frozen=True)
class Series:
    """Files that belong together: those of a series, or one file of several frames.

    Attributes:
        uid: UID of the series; if a series holds several volumes in one file each, of the file.
        files: headers of the files.
        folder: the folder that holds the first file.
    """

    uid: str
    files: tuple[DicomFile, ...]
    folder: Path

    @property
    def planes(self) -> list[Plane]:
        """All planes, in the order of the files' names."""
        return [plane for file in self.files for plane in file.planes]

    @property
    def modality(self) -> str:
        """ "CT", "MR", ...; "" if it is not given."""
        return self.files[0].modality

    @property
    def aside(self) -> str:
        """Why it is left out if there are other series, as a text; "" if it is not left out."""
        if all(plane.is_localizer for plane in self.planes):
            return "an overview (localizer)"
        if self.modality == _DOSE:
            return "a dose distribution"
        if self.files[0].kind.startswith(_SECONDARY_CAPTURE) and not self.planes[0].position:
            return "a picture without a place (secondary capture)"
        return ""

    def described(self, below: Path) -> str:
        """One line that describes the series.

        Args:
            below: the folder that was named; if the series lies in a folder below it, the line
                names that.
        """
        first = self.files[0]
        name = f" '{first.description}'" if first.description else ""
        count = f"({len(self.files)} file{'s' if len(self.files) > 1 else ''})"
        columns, rows = self.planes[0].size
        parts = [f"{first.modality or 'unknown modality'}{name} {count}"]
        if first.series_number:
            parts.append(f"series number {first.series_number}")
        if first.date:
            parts.append(f"of {_date(first.date)}")
        parts.append(f"{columns} x {rows} x {len(self.planes)}")
        if self.folder != below:
            parts.append(f"in {self.folder.relative_to(below)}")
        if self.uid != first.series:
            parts.append(f"file {first.path.name}")
        parts.append(f"UID ...{self.uid[-_UID_END:]}" if self.uid else "no UID")
        return ", ".join(parts)


def find_series(folder: Path) -> tuple[list[Series], list[str]]:
    """The image series in a folder or, if it holds none itself, in the folders below.

    Returns:
        The series in the order of dates and series numbers, and remarks on files that cannot be
        read.
    """
    remarks: list[str] = []
    found = _series(_headers(_files(folder), remarks))
    return (found, remarks) if found else find_series_below(folder)


def find_series_below(folder: Path) -> tuple[list[Series], list[str]]:
    """The image series in a folder and in all folders below it; as `find_series`."""
    remarks: list[str] = []
    places = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    return _series(_headers((file for each in places for file in _files(each)), remarks)), remarks


def choose_series(folder: Path, found: Sequence[Series], wanted: str | None) -> Series:
    """The series that the user means.

    Args:
        folder: the folder that was named.
        found: the series in it, at least one.
        wanted: its number in the list that is shown, its UID or the end of the UID; None if there
            is only one.

    Raises:
        InputError: no series fits, or several do.
    """
    if wanted is None:
        usual = [each for each in found if not each.aside] or list(found)
        if len(usual) == 1:
            return usual[0]
        raise InputError(
            f"'{folder}' holds {len(found)} DICOM series: {_listed(folder, found)}",
            "Choose one by its number or its UID",
            code="several_series",
        )
    chosen = matching(found, wanted)
    if len(chosen) == 1:
        return chosen[0]
    what = "several" if chosen else "no"
    raise InputError(
        f"'{folder}' holds {what} DICOM series {wanted}, but these: {_listed(folder, found)}",
        "Choose one by its number or its whole UID",
        code="no_such_series",
        listed=len(found),
    )


def matching(found: Sequence[Series], wanted: str) -> list[Series]:
    """The series with this number in the list, this UID, or a UID with this end."""
    wanted = wanted.strip()
    if wanted.isdecimal() and 1 <= int(wanted) <= len(found):
        return [found[int(wanted) - 1]]
    exact = [each for each in found if wanted in (each.uid, each.files[0].series)]
    end = wanted.lstrip(".\u2026")
    if exact or len(end) < _SHORTEST_END:
        return exact
    return [each for each in found if each.uid.endswith(end)]


def aside_remark(folder: Path, found: Sequence[Series], chosen: Series) -> list[str]:
    """Remarks on the series that were left out, if the user chose none."""
    return [
        f"left out beside the images: {each.described(folder)}, {each.aside}"
        for each in found
        if each is not chosen
    ]


def _listed(folder: Path, found: Sequence[Series]) -> str:
    return "; ".join(f"{n}: {each.described(folder)}" for n, each in enumerate(found, start=1))


def _date(text: str) -> str:
    if len(text) == 8 and text.isdecimal():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _headers(files: Iterable[Path], remarks: list[str]) -> list[DicomFile]:
    """The headers of all files with images; damaged files are named in the remarks."""
    found, damaged = [], []
    for path in files:
        try:
            header = read_header(path)
        except DamagedHeaderError:
            damaged.append(path.name)
            continue
        if header is not None and header.planes and header.modality not in NOT_IMAGES:
            found.append(header)
    if damaged:
        names = ", ".join(damaged[:3]) + (", ..." if len(damaged) > 3 else "")
        remarks.append(f"left out, because the DICOM header is damaged: {names}")
    return found


def _series(headers: Sequence[DicomFile]) -> list[Series]:
    groups: dict[str, list[DicomFile]] = defaultdict(list)
    for header in headers:
        groups[header.series].append(header)
    found = [series for uid, files in groups.items() for series in _split(uid, files)]
    return sorted(found, key=_rank)


def _rank(series: Series) -> tuple[object, ...]:
    first = series.files[0]
    number = int(first.series_number) if first.series_number.lstrip("-").isdecimal() else 0
    return first.date, number, str(series.folder), series.uid


def _split(uid: str, files: Sequence[DicomFile]) -> list[Series]:
    """One series; several if it is in two folders, or if each of its files is a volume."""
    by_folder: dict[Path, list[DicomFile]] = defaultdict(list)
    for file in files:
        by_folder[file.path.parent].append(file)
    if len(by_folder) > 1 and len({each.identifier for each in files}) < len(files):
        return [part for each in by_folder.values() for part in _split(uid, each)]
    folder = files[0].path.parent
    several = [each for each in files if len(each.planes) > 1]
    whole = Series(uid, tuple(files), folder)
    if not several or len(files) == 1 or _makes_a_volume(whole):
        return [whole]
    single = tuple(each for each in files if len(each.planes) == 1)
    parts: dict[str, list[DicomFile]] = defaultdict(list)
    for each in several:
        parts[each.concatenation or each.identifier].append(each)
    found = [Series(name, tuple(each), folder) for name, each in parts.items()]
    return [*found, Series(uid, single, folder)] if single else found


def _makes_a_volume(series: Series) -> bool:
    if any(plane.position is None for plane in series.planes):
        return False
    try:
        for frame in time_points(series.folder, series.planes).frames:
            arrange(series.folder, frame)
    except InputError:
        return False
    return True
