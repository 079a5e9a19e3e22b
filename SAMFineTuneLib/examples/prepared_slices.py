"""The prepared slices of a list, in files from which single slices are read when they are needed.

The files are read, not mapped: what a process has read from a mapped file counts as its memory,
and twenty thousand pictures of 512 x 512 are ten gigabytes. The operating system keeps what is read
often in memory that it can spare.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.kept_slices import KnownSlice
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.slices.intensity import ChannelWindows, IntensityWindow, PixelWindow

# Raised where the files are written otherwise, so that older ones are made again.
FORMAT = 1
_IMAGES, _TARGETS, _INDEX, _ABOUT = "images.bin", "targets.bin", "index.npz", "about.json"
_KNOTS = 65
_RECORD = np.dtype(
    [
        ("image_at", "<i8"),
        ("target_at", "<i8"),
        ("rows", "<i4"),
        ("columns", "<i4"),
        # 0 for a grey slice without an axis of channels.
        ("channels", "<i4"),
        # Pictures of 8 bits are kept as they are, which loses nothing; others as grey levels.
        ("is_raw", "?"),
        ("has_large_labels", "?"),
        ("case", "<i4"),
        ("number", "<i4"),
        ("row_spacing", "<f8"),
        ("column_spacing", "<f8"),
    ]
)


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A row of a list, ready to be written."""

    slices: list[PreparedSlice]
    window: PixelWindow
    spacing: tuple[float, float]


@dataclass(frozen=True, eq=False)
class PreparedSlice:
    """A slice as it is written: pixels of 8 bits, or float16 levels; and the mask's numbers."""

    number: int
    image: NDArray[Any]
    mask: NDArray[Any]
    shown: list[int]


def prepared(slices: Iterable[KnownSlice], window: PixelWindow) -> list[PreparedSlice]:
    """Slices in the types in which they are written.

    Args:
        slices: of one volume.
        window: its intensity window.
    """
    return [
        PreparedSlice(
            each.number,
            np.ascontiguousarray(each.pixels)
            if each.pixels.dtype == np.uint8
            else window.apply(each.pixels).astype(np.float16),
            np.ascontiguousarray(each.mask, np.uint8 if each.mask.max() < 256 else np.uint16),
            [int(value) for value in np.flatnonzero(np.bincount(each.mask.ravel())) if value],
        )
        for each in slices
    ]


def renumbered(case: PreparedCase, numbers: Mapping[int, int]) -> PreparedCase:
    """The case with other numbers in its masks.

    Args:
        case: the case.
        numbers: for each number that its masks show, the new one.
    """
    if all(old == new for old, new in numbers.items()):
        return case
    table = np.zeros(1 << 16, dtype=np.uint16)
    table[list(numbers)] = list(numbers.values())
    kind = np.uint8 if max(numbers.values()) < 256 else np.uint16
    slices = [
        PreparedSlice(
            each.number,
            each.image,
            table[each.mask].astype(kind),
            sorted({numbers[value] for value in each.shown}),
        )
        for each in case.slices
    ]
    return PreparedCase(slices, case.window, case.spacing)


class PreparedWriter:
    """Writes the slices of a list; the folder appears whole at the end, or not at all.

    Args:
        folder: replaced if it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder.with_name(folder.name + ".part")
        self._records: list[tuple[Any, ...]] = []
        self._shown: list[list[int]] = []
        self._windows: list[NDArray[np.float64]] = []
        self._image_at = self._target_at = 0

    def __enter__(self) -> PreparedWriter:
        shutil.rmtree(self._unfinished, ignore_errors=True)
        try:
            self._unfinished.mkdir(parents=True)
            self._images = (self._unfinished / _IMAGES).open("wb")
            self._targets = (self._unfinished / _TARGETS).open("wb")
        except OSError as error:
            raise _full(self._unfinished, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._images.close()
        self._targets.close()
        # After `finish` the folder has its final name, and there is nothing to delete.
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def add(self, case: PreparedCase) -> None:
        """Writes the slices of the next volume.

        Raises:
            InputError: the disk is full.
        """
        for each in case.slices:
            rows, columns = each.image.shape[:2]
            self._records.append(
                (
                    self._image_at,
                    self._target_at,
                    rows,
                    columns,
                    each.image.shape[2] if each.image.ndim > 2 else 0,
                    each.image.dtype == np.uint8,
                    each.mask.dtype == np.uint16,
                    len(self._windows),
                    each.number,
                    *case.spacing,
                )
            )
            self._shown.append(each.shown)
            try:
                self._images.write(each.image.data)
                self._targets.write(each.mask.data)
            except OSError as error:
                raise _full(self._unfinished, error) from error
            self._image_at += each.image.nbytes
            self._target_at += each.mask.nbytes
        self._windows.append(_packed(case.window))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Writes the index, and gives the folder its final name.

        Args:
            about: what is to be known of the list, as JSON.

        Raises:
            InputError: the disk is full.
        """
        try:
            self._images.close()
            self._targets.close()
            np.savez(
                self._unfinished / _INDEX,
                records=np.array(self._records, _RECORD),
                windows=np.array(self._windows),
                shown=np.array([value for each in self._shown for value in each], np.uint16),
                shown_count=np.array([len(each) for each in self._shown], np.int64),
            )
            text = json.dumps({"format": FORMAT, **about}, ensure_ascii=False)
            (self._unfinished / _ABOUT).write_text(text, encoding="utf-8")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._unfinished.replace(self._folder)
        except OSError as error:
            raise _full(self._unfinished, error) from error


def about_prepared(folder: Path) -> dict[str, Any] | None:
    """What was written about the prepared slices of a folder; None where there are none."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("format") == FORMAT else None


class PreparedSlices:
    """Reads prepared slices.

    Args:
        folder: where `PreparedWriter` wrote them.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / _INDEX) as index:
            self.records = index["records"]
            self._windows = index["windows"]
            shown, counts = index["shown"], index["shown_count"]
        self._folder = folder
        self._images = _Bytes(folder / _IMAGES)
        self._targets = _Bytes(folder / _TARGETS)
        ends = np.cumsum(counts)
        # Thousands of slices show the same few sets of labels.
        kept: dict[bytes, frozenset[int]] = {}
        self._shown = []
        for end, count in zip(ends.tolist(), counts.tolist(), strict=True):
            values = shown[end - count : end]
            found = kept.get(values.tobytes())
            if found is None:
                found = kept[values.tobytes()] = frozenset(values.tolist())
            self._shown.append(found)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def cases(self) -> int:
        """How many volumes there are."""
        return len(self._windows)

    @property
    def labels(self) -> list[int]:
        """All numbers that the masks show, ascending."""
        return sorted(frozenset().union(*set(self._shown)))

    def slices(self, classes: Mapping[int, int], known: NDArray[np.bool_]) -> list[LabelledSlice]:
        """The slices as the network learns from them; they are read when they are asked for.

        Args:
            classes: number in the masks -> class number.
            known: (classes,) bool, background first; the same for all slices.
        """
        table = np.zeros(1 << 16, dtype=np.uint8 if len(known) <= 256 else np.int32)
        table[list(classes)] = list(classes.values())
        sets = {
            shown: {classes[value] for value in shown if value in classes}
            for shown in set(self._shown)
        }
        return [
            _PreparedSlice(self, position, known, table, sets[shown])
            for position, shown in enumerate(self._shown)
        ]

    def window(self, position: int) -> PixelWindow:
        """The intensity window of the volume of a slice."""
        return _unpacked(self._windows[self.records[position]["case"]])

    def image(self, position: int) -> NDArray[np.float16]:
        """The levels of a slice, (rows, columns) or (rows, columns, channels)."""
        record = self.records[position]
        kind = np.dtype(np.uint8 if record["is_raw"] else np.float16)
        shape = _shape(record) + ((int(record["channels"]),) if record["channels"] else ())
        stored = self._images.read(int(record["image_at"]), kind, shape)
        if not record["is_raw"]:
            return stored
        window = self.window(position)
        values = np.arange(256, dtype=np.uint8)
        if isinstance(window, IntensityWindow):
            return _looked_up(window.apply(values), stored)
        parts = range(len(window.windows))
        return np.stack(
            [
                _looked_up(
                    window.windows[part].apply(values),
                    stored if stored.ndim == 2 else stored[..., part],
                )
                for part in parts
            ],
            axis=-1,
        )

    def mask(self, position: int) -> NDArray[Any]:
        """The numbers of the mask of a slice, (rows, columns)."""
        record = self.records[position]
        kind = np.dtype(np.uint16 if record["has_large_labels"] else np.uint8)
        return self._targets.read(int(record["target_at"]), kind, _shape(record))

    def remove(self) -> None:
        """Deletes the files; no slice can be read afterwards."""
        # A file that is still open cannot be deleted on Windows.
        self._images.close()
        self._targets.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _PreparedSlice(LabelledSlice):
    """A slice that is read from the prepared files whenever its pixels are asked for."""

    def __init__(
        self,
        store: PreparedSlices,
        position: int,
        known: NDArray[np.bool_],
        table: NDArray[Any],
        classes: set[int],
    ) -> None:
        self._store = store
        self._position = position
        self._known = known
        self._table = table
        self._classes = classes

    @property
    def image(self) -> NDArray[np.float16]:
        return self._store.image(self._position)

    @property
    def target(self) -> NDArray[Any]:
        return _looked_up(self._table, self._store.mask(self._position))

    @property
    def known(self) -> NDArray[np.bool_]:
        return self._known

    @property
    def window(self) -> PixelWindow:
        return self._store.window(self._position)

    @property
    def spacing(self) -> tuple[float, float]:
        record = self._store.records[self._position]
        return float(record["row_spacing"]), float(record["column_spacing"])

    @property
    def volume(self) -> int:
        return int(self._store.records[self._position]["case"])

    @property
    def number(self) -> int:
        return int(self._store.records[self._position]["number"])

    @property
    def shape(self) -> tuple[int, int]:
        return _shape(self._store.records[self._position])

    @property
    def is_labelled(self) -> bool:
        return bool(self._classes)

    @property
    def classes(self) -> set[int]:
        return self._classes


class _Bytes:
    """A file of which arrays are read, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("rb", buffering=0)

    def read(self, at: int, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.empty(shape, kind)
        left = memoryview(array.reshape(-1).view(np.uint8).data)
        with self._lock:
            self._file.seek(at)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise InputError(
                        f"the prepared slices in {self._path.parent} are cut short",
                        "Start the fine-tune again",
                        code="prepared_slices_damaged",
                    )
                left = left[count:]
        return array

    def close(self) -> None:
        self._file.close()


def _shape(record: Any) -> tuple[int, int]:
    return int(record["rows"]), int(record["columns"])


def _looked_up(table: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """The table's entry for each number; levels in half precision."""
    entries = table.astype(np.float16) if table.dtype.kind == "f" else table
    found: NDArray[Any] = entries[numbers]
    return found


def _packed(window: PixelWindow) -> NDArray[np.float64]:
    """(channels, 69): low, high, mean, deviation, and the levels of the curve at 65 places."""
    windows = [window] if isinstance(window, IntensityWindow) else list(window.windows)
    places = np.linspace(0, 1, _KNOTS)
    return np.array(
        [
            [
                *(each.low, each.high, each.mean, each.standard_deviation),
                # A curve is either this long or a straight line.
                *np.interp(places, np.linspace(0, 1, len(each.curve)), each.curve),
            ]
            for each in windows
        ]
    )


def _unpacked(rows: NDArray[np.float64]) -> PixelWindow:
    windows = tuple(
        IntensityWindow(
            low=low, high=high, mean=mean, standard_deviation=deviation, curve=tuple(curve)
        )
        for low, high, mean, deviation, *curve in rows.tolist()
    )
    return windows[0] if len(windows) == 1 else ChannelWindows(windows)


def _full(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the slices of the list cannot be prepared in {folder}: {error.strerror or error}",
        "Make room on this disk, or keep the job in a folder on another one",
        code="not_writable",
    )
