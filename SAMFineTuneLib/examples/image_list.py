"""Lists of a data set: a text file that names an image and its mask on each line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError

# The first line is a header if these words alone are in its cells.
_HEADER_WORDS = {
    *("image", "images", "img", "imgs", "file", "files", "filename", "path", "volume", "scan"),
    *("mask", "masks", "label", "labels", "segmentation", "seg", "reference", "prediction", "gt"),
    *("annotation", "target", "truth", "id", "name", "case"),
}
_DELIMITERS = ("\t", ";", ",", " ")
# On network disks a question takes milliseconds, so several are asked at once.
_ASKING_AT_ONCE = 16
_ROWS_OF_A_TASK = 500
_MOST_NAMED = 10
# By so many lines it is judged what separates the columns.
_LINES_FOR_SEPARATOR = 20


class FileStamp(NamedTuple):
    """A file with what tells whether it has changed: size in bytes and time of change in ns."""

    path: Path
    size: int
    changed: int


class ListedPair(NamedTuple):
    """A row of a list.

    Attributes:
        line: its line in the list, from 1.
        image: the file of the first column.
        mask: the file of the second column; None where only the first one is asked for.
    """

    line: int
    image: FileStamp
    mask: FileStamp | None


class ImageList(NamedTuple):
    """The rows of a list whose files all exist.

    Attributes:
        pairs: in the list's order, each once.
        remarks: what the user should know, one sentence each.
    """

    pairs: list[ListedPair]
    remarks: list[str]


class _Row(NamedTuple):
    line: int
    cells: tuple[str, ...]


def read_image_list(path: Path, images: Path | None = None, columns: int = 2) -> ImageList:
    """Reads a list and looks for all of its files, without opening them.

    Columns are separated by tabs, semicolons, commas or blanks, and may be quoted as in CSV files;
    names with blanks need one of the other three. Empty lines and a header line are passed over,
    and columns beyond those asked for are ignored. A relative name is taken from `images` or, where
    this is not given, from the list's folder or the folder above. A name with a leading slash is
    taken from there as well, if there is no such absolute file: so it is in the lists of
    https://github.com/mazurowski-lab/finetune-SAM.

    Args:
        path: the list, UTF-8 or UTF-16 text.
        images: the folder of the names.
        columns: 1 for images alone, 2 for images and masks.

    Raises:
        InputError: the list cannot be read or names nothing, a row has too few columns, files do
            not exist, or an image is its own mask.
    """
    rows = _rows(path, columns)
    places = (
        [images] if images is not None else [path.absolute().parent, path.absolute().parents[1]]
    )
    pairs = _found(path, rows, _place_of(rows[0], places), columns)
    for each in pairs:
        if each.mask is not None and each.mask.path == each.image.path:
            raise InputError(
                f"{path.name}, line {each.line}: {each.image.path.name} is its own mask",
                "Name the image in the first column and its mask in the second",
                code="bad_list",
            )
    once = list({(each.image.path, each.mask and each.mask.path): each for each in pairs}.values())
    remarks = []
    if len(once) < len(pairs):
        remarks.append(
            f"{path.name} names {counted(len(pairs) - len(once), 'row')} more than once; "
            "each is taken once"
        )
    return ImageList(once, remarks)


def _rows(path: Path, columns: int) -> list[_Row]:
    text = _text(path)
    written = (line.strip() for line in text.splitlines() if line.strip())
    first = list(islice(written, _LINES_FOR_SEPARATOR))
    if not first:
        raise InputError(
            f"the list {path} is empty", "Name an image and its mask on each line", code="bad_list"
        )
    rows = list(_split(path, text, _delimiter(first, columns)))
    if rows and _is_header(rows[0].cells[:columns]):
        del rows[0]
    if not rows:
        raise InputError(f"the list {path} names no image", "Add rows", code="bad_list")
    short = [row for row in rows if len(row.cells) < columns or not all(row.cells[:columns])]
    if short:
        others = f", and {counted(len(short) - 1, 'other line')}" if len(short) > 1 else ""
        raise InputError(
            f"{path.name}, line {short[0].line}{others}: a column is missing",
            "Write an image and its mask on each line, with a comma between",
            code="bad_list",
        )
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the list {path} cannot be read: {error.strerror or error}",
            "Check the name",
            code="no_such_file",
        ) from error
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"the list {path} is not UTF-8 text", "Save it as UTF-8", "not_utf8"
        ) from error


def _delimiter(lines: Sequence[str], columns: int) -> str:
    """The separator that gives enough columns on most lines, so that one line at fault is told of.

    A comma where none does, so that a quoted name is read.
    """

    def fits(delimiter: str) -> bool:
        fitting = sum(len(_cells(line, delimiter)) >= max(2, columns) for line in lines)
        return 2 * fitting > len(lines)

    found = next(filter(fits, _DELIMITERS), ",")
    # In a list of images alone, blanks belong to the names.
    return "," if columns == 1 and found == " " else found


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        # The line is told of when the list is read.
        return []


def _split(path: Path, text: str, delimiter: str) -> Iterator[_Row]:
    stripped = "\n".join(line.strip(" \r") for line in text.splitlines())
    reader = csv.reader(io.StringIO(stripped), delimiter=delimiter, skipinitialspace=True)
    before = 0
    try:
        for cells in reader:
            if reader.line_num > before + 1:
                raise InputError(
                    f"{path.name}, line {before + 1}: a quotation mark is opened and not closed",
                    "Close it on the same line, or take it away",
                    code="bad_list",
                )
            before = reader.line_num
            if any(cell.strip() for cell in cells):
                yield _Row(reader.line_num, tuple(cell.strip() for cell in cells))
    except csv.Error as error:
        raise InputError(
            f"{path.name}, line {reader.line_num} cannot be read: {error}",
            "Correct it there",
            code="bad_list",
        ) from error


def _is_header(cells: Sequence[str]) -> bool:
    words = [word for cell in cells for word in cell.casefold().replace("_", " ").split()]
    return bool(words) and all(word in _HEADER_WORDS for word in words)


def _place_of(row: _Row, places: Sequence[Path]) -> Path:
    """The folder that the names of a list are relative to, by its first row."""
    return next((place for place in places if _stamp(row.cells[0], place)), places[0])


def _found(path: Path, rows: list[_Row], place: Path, columns: int) -> list[ListedPair]:
    def look(task: list[_Row]) -> list[list[FileStamp | None]]:
        return [[_stamp(cell, place) for cell in row.cells[:columns]] for row in task]

    tasks = [
        rows[start : start + _ROWS_OF_A_TASK] for start in range(0, len(rows), _ROWS_OF_A_TASK)
    ]
    with ThreadPoolExecutor(_ASKING_AT_ONCE) as pool:
        stamps = [found for answers in pool.map(look, tasks) for found in answers]
    _refuse_missing(path, rows, stamps, place)
    pairs = []
    for row, (image, *rest) in zip(rows, stamps, strict=True):
        assert image is not None
        pairs.append(ListedPair(row.line, image, rest[0] if rest else None))
    return pairs


def _refuse_missing(
    path: Path, rows: list[_Row], stamps: list[list[FileStamp | None]], place: Path
) -> None:
    missing = [
        (row.line, cell)
        for row, found in zip(rows, stamps, strict=True)
        for cell, stamp in zip(row.cells, found, strict=False)
        if stamp is None
    ]
    if not missing:
        return
    named = ", ".join(f"{cell} (line {line})" for line, cell in missing[:_MOST_NAMED])
    more = len(missing) - _MOST_NAMED
    raise InputError(
        f"{counted(len(missing), 'file')} of {path.name} cannot be found in {place}: {named}"
        + (f" and {more} more" if more > 0 else ""),
        "Correct the names, or name the folder that they are relative to",
        code="listed_files_missing",
        missing=len(missing),
    )


def _stamp(cell: str, place: Path) -> FileStamp | None:
    """The file of a cell; None where there is none."""
    written = [cell] if os.sep == "\\" or "\\" not in cell else [cell, cell.replace("\\", "/")]
    for text in written:
        inside = place / text.lstrip("/\\")
        # Few of a hundred thousand names are absolute; the others need one path alone.
        may_be_absolute = text[0] in "/\\" or text[1:2] == ":"
        for path in (Path(text), inside) if may_be_absolute else (inside,):
            try:
                state = path.stat()
            except (OSError, ValueError):
                continue
            return FileStamp(path, state.st_size, state.st_mtime_ns)
    return None


@contextmanager
def one_frame_each() -> Iterator[None]:
    """Tells what to do with an image of a list that has several frames, where one is read.

    Raises:
        InputError: one that is read in the block has several.
    """
    try:
        yield
    except InputError as error:
        if error.code != "frame_not_chosen":
            raise
        raise InputError(
            f"{error.message}; images of a list have one frame",
            "Take it out of the list and give it as a volume of its own, or save its frames as "
            "files of their own",
            code="frames_in_list",
        ) from error


def unreadable_row(path: Path, line: int, error: InputError) -> InputError:
    """What is told of a row of a list whose file cannot be used."""
    return InputError(
        f"{path.name}, line {line}: {error.message}",
        f"{error.remedy}, take the row out of the list, or skip all rows that cannot be read",
        code="listed_unreadable",
    )


def evenly_spread(count: int, most: int) -> list[int]:
    """At most `most` positions of `count`, evenly spread, ascending."""
    if count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]
