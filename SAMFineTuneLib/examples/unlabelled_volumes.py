"""Volumes without labels, as slices that a fine-tune learns from beside the labelled ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.example import Example
from SAMFineTuneLib.examples.image_list import evenly_spread
from SAMFineTuneLib.examples.kept_slices import KnownSlice
from SAMFineTuneLib.examples.prepared_slices import (
    PreparedCase,
    PreparedSlices,
    PreparedWriter,
    prepared,
)
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.geometry.axes import AXIS_NAMES
from SAMFineTuneLib.geometry.cut_axis import cut_axis
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.intensity import find_normalisation, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume
from SAMFineTuneLib.volumes.case import read_case

# Slices of all volumes that are kept on the disk, at 0.8 MB each for 512 x 512 pixels. A fine-tune
# of preset laptop draws at most as many.
_MOST_SLICES = 2560


@dataclass(frozen=True, eq=False)
class UnlabelledData:
    """What a fine-tune learns from without labels.

    Attributes:
        slices: read from files when they are asked for; no class is known on any.
        names: file names of the volumes that they come from.
        warnings: what the user should know, one sentence each.
        fingerprint: text that identifies the slices.
        release: deletes the files of the slices, which cannot be read any more afterwards.
    """

    slices: list[LabelledSlice] = field(default_factory=list)
    names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""
    release: Callable[[], None] = lambda: None


def load_unlabelled(
    volumes: Sequence[Path],
    examples: TrainingSet,
    sources: Sequence[Example],
    folder: Path,
    check: Callable[[], None] = lambda: None,
    with_examples: bool = False,
    channels: Sequence[Sequence[Path]] = (),
) -> UnlabelledData:
    """Cuts volumes without labels as the examples are cut, one volume in memory at a time.

    Of a volume that is an example too, the slices that the example is learnt from are left out, and
    those behind a slice that is known to be empty, which are likely to be known as empty, too.
    A volume of another kind of image than the examples (CT among MR), or that cannot be read, is
    left out with a warning. One whose slices lie along another axis takes part, with a warning.

    Args:
        volumes: image files or DICOM folders. One that is named twice counts once.
        examples: what is learnt from with labels.
        sources: the examples that it comes from; none for a list.
        folder: where the slices go.
        check: called between volumes; may raise to stop.
        with_examples: whether the volumes of all examples take part as well.
        channels: for each volume the further images of the same case; none for single images.

    Raises:
        InputError: none of the named volumes can be used, or the disk is full.
    """
    known = {each.volume.resolve(): each for each in sources}
    named = [each.resolve() for each in volumes]
    once = list(dict.fromkeys([*named, *known] if with_examples else named))
    once = [once[number] for number in evenly_spread(len(once), _MOST_SLICES)]
    further = dict(zip(named, channels, strict=True)) if channels else {}
    reader = _Reader(examples, known, {*named}, further, _MOST_SLICES // max(1, len(once)))
    names: list[str] = []
    content = hashlib.sha256()
    with PreparedWriter(folder) as writer:
        for path in once:
            check()
            case = reader.read(path)
            if case is None:
                continue
            names.append(path.name)
            for each in case.slices:
                content.update(each.image.tobytes())
            writer.add(case)
        if not names and not named:
            none_left = "no example has other slices that could be learnt from without labels"
            return UnlabelledData(warnings=(*reader.warnings, none_left))
        if not names:
            raise InputError(
                f"none of the volumes without labels can be used: {'; '.join(reader.warnings)}",
                "Name other volumes, or leave them out",
                code="no_unlabelled_volume",
            )
        writer.finish({})
    store = PreparedSlices(folder)
    nothing = np.zeros(len(examples.labels) + 1, dtype=bool)
    return UnlabelledData(
        slices=store.slices({}, nothing),
        names=tuple(names),
        warnings=tuple(reader.warnings),
        fingerprint=content.hexdigest(),
        release=store.remove,
    )


class _Reader:
    """Reads one volume after the other.

    Args:
        examples: what is learnt from with labels.
        sources: the examples that it comes from, by their volumes.
        named: the volumes that the user names.
        channels: their further images, where they have some.
        most: slices of each volume.
    """

    def __init__(
        self,
        examples: TrainingSet,
        sources: Mapping[Path, Example],
        named: Container[Path],
        channels: Mapping[Path, Sequence[Path]],
        most: int,
    ) -> None:
        self._examples = examples
        self._sources = sources
        self._named = named
        self._channels = channels
        self._most = most
        # Slices of a list are too many to read; its images are no volumes that are named again.
        learnt = examples.slices if examples.listed is None else []
        self._learnt = {_content(each.image): each.is_labelled for each in learnt}
        self.warnings: list[str] = []

    def read(self, path: Path) -> PreparedCase | None:
        """The slices of a volume; None, with a warning, where it cannot be used."""
        try:
            volume = as_expected(self._case(path), self._examples.normalisation, path.name)
            sample = sample_voxels(volume)
        except InputError as error:
            self.warnings.append(f"{path.name} is left out: {error}")
            return None
        own = self._examples.normalisation
        if find_normalisation([sample], own.curve).kind != own.kind:
            self.warnings.append(
                f"{path.name} is left out: it is another kind of image than the examples"
            )
            return None
        images = SliceStack.of(volume, self._axis(path, volume))
        window = own.window_for(sample)
        numbers = [each for each in range(len(images)) if np.ptp(images[each]) > 0]
        if path in self._sources:
            levels = (window.apply(images[each]).astype(np.float16) for each in numbers)
            learnt = [self._learnt.get(_content(each)) for each in levels]
            numbers = [numbers[each] for each in _beside_labelled(learnt)]
            if path in self._named:
                self.warnings.append(
                    f"{path.name} is an example too: only its slices that are not learnt from "
                    "with labels are used"
                )
        numbers = [numbers[each] for each in evenly_spread(len(numbers), self._most)]
        if not numbers:
            # Of the examples that nobody has named, it is no news that all slices are known.
            if path in self._named:
                self.warnings.append(f"{path.name} is left out: it has no other slice")
            return None
        return PreparedCase(
            prepared([_unlabelled(number, images[number]) for number in numbers], window),
            window,
            images.pixel_spacing,
        )

    def _case(self, path: Path) -> Volume:
        source = self._sources.get(path)
        if source is None:
            return read_case(path, self._channels.get(path, ()))
        return read_case(path, source.channels, source.series, source.frame)

    def _axis(self, path: Path, volume: Volume) -> str:
        named = self._examples.axis
        axis = cut_axis(volume.geometry, named if named in AXIS_NAMES else None)
        usual = cut_axis(volume.geometry, None)
        if usual not in (axis, "axial"):
            self.warnings.append(
                f"{path.name} has {usual} slices, and is cut into {axis} ones as the examples are"
            )
        return axis


def _beside_labelled(learnt: Sequence[bool | None]) -> list[int]:
    """The slices that are not learnt from and have a labelled one as their next one that is.

    Args:
        learnt: of each slice whether it is labelled or empty; None if it is not learnt from.
    """
    labelled_beside = np.zeros(len(learnt), dtype=bool)
    for order in (range(len(learnt)), reversed(range(len(learnt)))):
        latest = False
        for position in order:
            latest = latest if learnt[position] is None else bool(learnt[position])
            labelled_beside[position] |= latest
    return [each for each, known in enumerate(learnt) if known is None and labelled_beside[each]]


def _unlabelled(number: int, pixels: NDArray[np.generic]) -> KnownSlice:
    nothing = np.zeros(pixels.shape[:2], np.uint8)
    return KnownSlice(number, pixels, nothing, np.zeros(1, dtype=bool))


def _content(image: NDArray[np.generic]) -> tuple[tuple[int, ...], bytes]:
    return image.shape, hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
