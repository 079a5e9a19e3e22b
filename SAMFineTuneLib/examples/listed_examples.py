"""The training set of a list: its slices are prepared in files once, and read when needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.example_labels import Label, LabelsOfExample, number_labels
from SAMFineTuneLib.examples.image_list import (
    ImageList,
    ListedPair,
    evenly_spread,
    read_image_list,
    unreadable_row,
)
from SAMFineTuneLib.examples.listed_case import ListedCase, read_listed_case, read_listed_image
from SAMFineTuneLib.examples.listed_labels import ListedLabels
from SAMFineTuneLib.examples.prepared_slices import (
    PreparedCase,
    PreparedSlices,
    PreparedWriter,
    about_prepared,
    prepared,
    renumbered,
)
from SAMFineTuneLib.examples.read_ahead import read_ahead
from SAMFineTuneLib.examples.training_set import WIDEST, ListedData, TrainingSet
from SAMFineTuneLib.networks.spec import GreyCurve
from SAMFineTuneLib.slices.intensity import (
    IntensityNormalisation,
    VoxelSample,
    find_normalisation,
)
from SAMFineTuneLib.volumes.label_matching import NamedLabel
from SAMFineTuneLib.volumes.merged_labels import Merges

# Slices of the validation list that are measured on, evenly spread over it. They are measured
# twenty times in a fine-tune; with more of them the DSC hardly becomes more certain.
MOST_VALIDATED = 200
# Images that decide whether all are grey, in colour, or in Hounsfield units.
_SAMPLED = 64
_SHARED_SAMPLE = 1 << 14
_MOST_TOLD = 10

Report = Callable[[int, int], None]


class ListSource(NamedTuple):
    """Which lists to learn from, and how.

    Attributes:
        training: the list of images and masks.
        validation: the list to measure on; None for none.
        images: folder of the names; None for that of the list.
        labels: the labels to learn, or all that occur.
        skip_unreadable: whether to go on without files that cannot be read.
        merge: labels that count as one: new label -> its parts.
    """

    training: Path
    validation: Path | None = None
    images: Path | None = None
    labels: Literal["all"] | list[int] = "all"
    skip_unreadable: bool = False
    merge: Merges | None = None


@dataclass(frozen=True)
class Expected:
    """What a fine-tune that starts from a tuned model keeps of it; nothing for a new one.

    `curve` is how the backbone takes grey levels, for a normalisation that is found on the images.
    """

    normalisation: IntensityNormalisation | None = None
    labels: Sequence[Label] = ()
    model: str = ""
    curve: GreyCurve = "equalised"


def load_list(
    source: ListSource,
    folder: Path,
    names: dict[int, str],
    check: Callable[[], None],
    report: Report,
    expected: Expected,
) -> TrainingSet:
    """Checks the lists, prepares their slices in a folder, and opens them.

    Masks are complete: every label is known on every slice, also on one whose mask is empty. Slices
    that an earlier run prepared are used where lists and files are the same.

    Args:
        source: the lists.
        folder: for the prepared slices.
        names: of structures, by their number.
        check: called between images; may raise to stop.
        report: called with the number of prepared rows and of all.
        expected: of the tuned model that is tuned further.

    Raises:
        InputError: the lists name files that do not exist, or one of them cannot be used, or no
            mask shows a label.
    """
    training = read_image_list(source.training, source.images)
    validation = ImageList([], [])
    if source.validation is not None:
        validation = read_image_list(source.validation, source.images)
    measured = [validation.pairs[at] for at in evenly_spread(len(validation.pairs), MOST_VALIDATED)]
    fingerprint = _fingerprint(source, training.pairs, measured, expected)
    if (about_prepared(folder) or {}).get("fingerprint") != fingerprint:
        _prepare(source, [training.pairs, measured], folder, fingerprint, check, report, expected)
    about = about_prepared(folder) or {}
    store = PreparedSlices(folder)
    if not store.labels:
        raise InputError(
            f"no mask of {source.training.name} shows a label: all their values are 0",
            "Check that the second column names the masks",
            code="empty_segmentation",
        )
    wanted = store.labels if source.labels == "all" else source.labels
    _refuse_absent(wanted, store.labels, source.training)
    own_names = {int(value): name for value, name in about["names"].items()}
    colours = {int(value): tuple(colour) for value, colour in about["colours"].items()}
    numbered = number_labels(
        [
            LabelsOfExample(
                source.training.name,
                wanted,
                [NamedLabel(value, own_names.get(value, "")) for value in store.labels],
                colours,
            )
        ],
        names,
        expected.labels,
        expected.model,
    )
    classes = {label.value: number for number, label in enumerate(numbered.labels, start=1)}
    slices = store.slices(
        {value: classes[number] for value, number in numbered.numbers[0].items()},
        np.ones(len(classes) + 1, dtype=bool),
    )
    held_out = np.flatnonzero(store.records["case"] >= about["training_cases"])
    chosen = [int(held_out[at]) for at in evenly_spread(len(held_out), MOST_VALIDATED)]
    return TrainingSet(
        slices=slices,
        labels=numbered.labels,
        axis=about["axis"],
        normalisation=IntensityNormalisation.model_validate(about["normalisation"]),
        volumes=store.cases,
        warnings=[
            *training.remarks,
            *validation.remarks,
            *_in_both(training.pairs, validation.pairs, source),
            *numbered.remarks,
            *about["remarks"],
            *_told(about["skipped"]),
        ],
        listed=ListedData(
            fingerprint,
            None if source.validation is None else tuple(chosen),
            int(np.count_nonzero(store.records["case"] < about["training_cases"])),
            tuple(about["skipped"]),
            store.remove,
            _digest_of_files(training.pairs if source.validation is None else measured),
        ),
    )


def _fingerprint(
    source: ListSource,
    training: Sequence[ListedPair],
    measured: Sequence[ListedPair],
    expected: Expected,
) -> str:
    """Text that differs where another list, a changed file or another choice was read."""
    content = hashlib.sha256()
    content.update(repr((sorted((source.merge or {}).items()), source.skip_unreadable)).encode())
    normalisation = expected.normalisation
    content.update((normalisation.model_dump_json() if normalisation else expected.curve).encode())
    for pairs in (training, measured):
        content.update(f"{len(pairs)} rows\n".encode())
        content.update(_files_of(pairs).encode())
    return content.hexdigest()


def _digest_of_files(pairs: Sequence[ListedPair]) -> str:
    return hashlib.sha256(_files_of(pairs).encode()).hexdigest()


def _files_of(pairs: Sequence[ListedPair]) -> str:
    """Text with the path, size and time of all files of some rows."""
    rows = ([each.image] if each.mask is None else [each.image, each.mask] for each in pairs)
    return "".join(
        json.dumps([(str(one.path), one.size, one.changed) for one in files]) for files in rows
    )


def _prepare(
    source: ListSource,
    lists: Sequence[Sequence[ListedPair]],
    folder: Path,
    fingerprint: str,
    check: Callable[[], None],
    report: Report,
    expected: Expected,
) -> None:
    """Reads all files and writes their slices."""
    normalisation = expected.normalisation or _normalisation_of(lists[0], check, expected.curve)
    labels = ListedLabels()
    remarks: dict[str, None] = {}
    axes: set[str] = set()
    skipped: list[str] = []
    cases = [0, 0]
    total, done = sum(map(len, lists)), 0
    with PreparedWriter(folder) as writer:
        report(0, total)
        for which, pairs in enumerate(lists):
            path = source.validation if which and source.validation else source.training
            for pair, read in _read_all(pairs, normalisation, source.merge):
                check()
                done += 1
                report(done, total)
                if isinstance(read, InputError):
                    if not source.skip_unreadable:
                        raise unreadable_row(path, pair.line, read) from read
                    skipped.append(f"{path.name}, line {pair.line}: {read.message}")
                    continue
                case, ready = read
                shown = {value for each in ready.slices for value in each.shown}
                writer.add(renumbered(ready, labels.numbers(shown, case.names, case.colours)))
                cases[which] += 1
                axes.add(case.axis)
                remarks.update(dict.fromkeys(case.remarks))
        if not cases[0]:
            raise InputError(
                f"none of the files of {source.training.name} can be read: {skipped[0]}",
                "Check the files",
                code="listed_unreadable",
            )
        writer.finish(
            {
                "fingerprint": fingerprint,
                "training_cases": cases[0],
                "axis": axes.pop() if len(axes) == 1 else WIDEST,
                "normalisation": normalisation.model_dump(),
                "names": labels.names,
                "colours": labels.colours,
                "remarks": list(remarks)[:_MOST_TOLD],
                "skipped": skipped,
            }
        )


def _normalisation_of(
    pairs: Sequence[ListedPair], check: Callable[[], None], curve: GreyCurve
) -> IntensityNormalisation:
    """The normalisation that fits a sample of the images; each still gets a window of its own."""
    samples: list[VoxelSample] = []
    for at in evenly_spread(len(pairs), _SAMPLED):
        check()
        try:
            sample = read_listed_image(pairs[at])[1]
        except InputError:
            # It is told of, with its name, when its turn comes.
            continue
        step = max(1, sample.values.size // _SHARED_SAMPLE) | 1
        samples.append(sample._replace(values=sample.values[::step]))
    if not samples:
        return IntensityNormalisation(kind="percentiles", curve=curve)
    return find_normalisation(samples, curve)


_Read = tuple[ListedCase, PreparedCase]


def _read_all(
    pairs: Sequence[ListedPair], normalisation: IntensityNormalisation, merge: Merges | None
) -> Iterator[tuple[ListedPair, _Read | InputError]]:
    """The rows in their order, a few read ahead in threads, or why they cannot be read."""

    def read(pair: ListedPair) -> _Read:
        case = read_listed_case(pair, normalisation, merge)
        window = normalisation.window_for(case.sample)
        return case, PreparedCase(prepared(case.slices, window), window, case.spacing)

    return read_ahead(pairs, read)


def _refuse_absent(wanted: Sequence[int], present: Sequence[int], path: Path) -> None:
    absent = [value for value in wanted if value not in present]
    if absent:
        raise InputError(
            f"label {absent[0]} does not occur in the masks of {path.name}, which have "
            + ", ".join(map(str, present)),
            "Choose among those",
            code="label_absent",
            absent=absent[0],
        )


def _in_both(
    training: Sequence[ListedPair], validation: Sequence[ListedPair], source: ListSource
) -> list[str]:
    common = {each.image.path for each in training} & {each.image.path for each in validation}
    if not common or source.validation is None:
        return []
    return [
        f"{counted(len(common), 'image')} of {source.validation.name} are learnt from as well, as "
        f"they are in {source.training.name}: the validation DSC will be too good"
    ]


def _told(skipped: Sequence[str]) -> list[str]:
    more = len(skipped) - _MOST_TOLD
    told = [f"skipped: {each}" for each in skipped[:_MOST_TOLD]]
    return [*told, f"skipped: {counted(more, 'further row')}"] if more > 0 else told
