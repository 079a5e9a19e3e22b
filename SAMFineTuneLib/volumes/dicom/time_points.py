"""Sorts DICOM planes that lie at the same places into the frames of an image with an axis of time.

Cine MR, perfusion and other time series have several planes at each place, which differ in a field
that tells their time. Planes that differ in their echo or their b-value are no frames of this kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.dicom.header import Plane

# The fields by which frames are ordered, the one that says most first; see `Plane.phase`. Scanners
# take each slice of a cine in a heart beat of its own, so that only times of one place compare.
_TIMES = ("time point", "trigger time", "acquisition time", "time", "acquisition")
_NO_TIMES = ("echo time", "echo", "b-value")
# Planes closer to each other than this, in mm, are at one place.
_ONE_PLACE = 1e-2

# How far a time between frames may lie off the mean of all, as a part of it.
_UNEVEN = 0.1

Place = tuple[int, ...]


@dataclass(frozen=True)
class TimePoints:
    """The frames of a series.

    Attributes:
        frames: the planes of each frame, in the order of time; one frame for a 3-D volume.
        field: the name of the field that gave the order; "" for one frame.
        step: time from one frame to the next in seconds, the mean over all places; 0 if the field
            does not tell it, or tells uneven ones.
    """

    frames: tuple[tuple[Plane, ...], ...]
    field: str = ""
    step: float = 0.0


def time_points(where: Path, planes: Sequence[Plane]) -> TimePoints:
    """The frames that planes of one series make.

    There is one frame where no two planes are at one place, and also where it is not known why they
    are: then the planes make no volume, and `arrange` says why.

    Args:
        where: the file or folder that messages name.
        planes: the planes, at least one.

    Raises:
        InputError: there are more frames at one place than at another.
    """
    whole = TimePoints((tuple(planes),))
    overviews = [each for each in planes if each.is_localizer]
    slices = [each for each in planes if not each.is_localizer]
    places = _by_place(slices)
    most = max((len(each) for each in places.values()), default=1)
    if most < 2 or any(_differ(each, _NO_TIMES) for each in places.values()):
        return whole
    field = next((name for name in _TIMES if _orders(places, name)), None)
    if field is None:
        return whole
    fewest = min(places.values(), key=len)
    if len(fewest) < most:
        full = next(each for each in places.values() if len(each) == most)
        raise InputError(
            f"the time points of the DICOM series in '{where}' differ in their slices: "
            f"{most} images are at the place of {full[0].name}, and {len(fewest)} at that of "
            f"{fewest[0].name}",
            "Export the series again with all its slices at all times",
            code="uneven_frames",
        )
    ordered = [sorted(each, key=lambda plane: _time(plane, field)) for each in places.values()]
    frames = (tuple(each[number] for each in ordered) for number in range(most))
    # Overviews are left out of each frame, with a remark, by `arrange`.
    step = _step([[each.phase[field] for each in planes] for planes in ordered], field)
    return TimePoints(tuple((*each, *overviews) for each in frames), field, step)


def moved_between(planes: Sequence[Plane]) -> str:
    """A text if planes that make no volume are time points at different places; otherwise ""."""
    numbers: dict[str, set[Place]] = defaultdict(set)
    for each in planes:
        if each.position is None or "time point" not in each.phase:
            return ""
        numbers[each.phase["time point"]].add(_place(each))
    first, *others = numbers.values()
    moved = [name for name, places in list(numbers.items())[1:] if places != first]
    if not moved or len(first) < 2 or any(len(each) != len(first) for each in others):
        return ""
    return f"the slices of time point {moved[0]} lie at other places than those of the first one"


def _by_place(planes: Sequence[Plane]) -> dict[Place, list[Plane]]:
    places: dict[Place, list[Plane]] = defaultdict(list)
    for each in planes:
        if each.position is None:
            return {}
        places[_place(each)].append(each)
    return places


def _place(plane: Plane) -> Place:
    """Position and orientation as whole numbers, so that they can be compared."""
    position = [round(each / _ONE_PLACE) for each in plane.position or ()]
    return (*position, *(round(each * 1000) for each in plane.orientation or ()))


def _differ(planes: Sequence[Plane], names: Sequence[str]) -> bool:
    return any(len({each.phase.get(name) for each in planes}) > 1 for name in names)


def _orders(places: dict[Place, list[Plane]], name: str) -> bool:
    """Whether a field is a number of its own for every plane at one place."""
    for planes in places.values():
        try:
            times = {_time(each, name) for each in planes}
        except (KeyError, ValueError):
            return False
        if len(times) < len(planes):
            return False
    return True


def _step(times: Sequence[Sequence[str]], field: str) -> float:
    """The mean time between frames in seconds, where it is the same between all of them."""
    if field not in ("trigger time", "acquisition time", "time"):
        return 0.0
    try:
        seconds = [[_seconds(each, field) for each in of_place] for of_place in times]
    except ValueError:
        return 0.0
    gaps = [later - time for each in seconds for time, later in pairwise(each)]
    mean = sum(gaps) / len(gaps)
    even = all(abs(gap - mean) < _UNEVEN * mean for gap in gaps)
    return mean if even and mean > 0 else 0.0


def _seconds(text: str, field: str) -> float:
    """Milliseconds after the trigger, or a time of the day, HHMMSS.FFFFFF."""
    if field == "trigger time":
        return float(text) / 1000.0
    digits = text.replace(":", "").ljust(6, "0")
    return int(digits[:2]) * 3600.0 + int(digits[2:4]) * 60.0 + float(digits[4:])


def _time(plane: Plane, name: str) -> float:
    return float(plane.phase[name])
