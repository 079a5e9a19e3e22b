"""Measures all segmentations of a list: a table of every case and label, with mean and spread."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.evaluation.label_numbers import in_numbers_of_reference
from SAMFineTuneLib.evaluation.report import LabelScore, evaluate
from SAMFineTuneLib.examples.image_list import (
    ListedPair,
    one_frame_each,
    read_image_list,
    unreadable_row,
)
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.image_endings import volume_stem
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import EvaluateJob
from SAMFineTuneLib.tasks.apply_outputs import SEGMENTATION_MARK, result_names
from SAMFineTuneLib.tasks.list_progress import rows_progress
from SAMFineTuneLib.volumes import read_labelmap
from SAMFineTuneLib.worker.events import EventWriter
from SAMFineTuneLib.worker.json_text import write_json

_COLUMNS = ("case", "label", "name", "dsc", "iou", "nsd", "hd95_mm")
_FIGURES = _COLUMNS[3:]
_MOST_TOLD = 10


class _Case(NamedTuple):
    name: str
    line: int
    prediction: Path
    reference: Path


class _Row(NamedTuple):
    case: str
    score: LabelScore


def run_evaluate_list(
    job: EvaluateJob, path: Path, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Measures the cases of a list; writes the table to `job.output` if given.

    Raises:
        InputError: the list or one of its files cannot be used, or a prediction is missing.
    """
    cases = _cases(job, path, events)
    if job.output is not None:
        read = {each.prediction: "a segmentation" for each in cases}
        read |= {each.reference: "a reference" for each in cases}
        refuse_overwriting([job.output], {path: "the list", **read})
        require_writable_file(job.output)
    rows: list[_Row] = []
    skipped: list[str] = []
    remarks: dict[str, None] = {}
    report = rows_progress(events, "measure")
    for done, case in enumerate(cases):
        control.raise_if_cancelled()
        report(done, len(cases))
        try:
            with one_frame_each():
                scores, told = _scores(job, case)
        except InputError as error:
            if not job.skip_unreadable:
                raise unreadable_row(path, case.line, error) from error
            skipped.append(f"{path.name}, line {case.line}: {error.message}")
            continue
        rows += [_Row(case.name, each) for each in scores]
        remarks.update(dict.fromkeys(told))
    report(len(cases), len(cases))
    for remark in [*list(remarks)[:_MOST_TOLD], *(f"skipped: {each}" for each in skipped)]:
        events.warning(remark)
    result: dict[str, Any] = {
        "cases": len(cases) - len(skipped),
        "skipped": skipped,
        "tolerance_mm": job.tolerance_mm,
        "labels": _summary(rows),
    }
    if job.output is not None:
        _write(job.output, rows, result)
    return result


def _cases(job: EvaluateJob, path: Path, events: EventWriter) -> list[_Case]:
    listed = read_image_list(path, job.images)
    for remark in listed.remarks:
        events.warning(remark)
    pairs = listed.pairs
    names = result_names([each.image.path for each in pairs])
    predictions = [each.image.path for each in pairs]
    if job.predictions is not None:
        predictions = _predictions(job.predictions, pairs, names)
        stems = [volume_stem(each.image.path) for each in pairs]
        if names != stems:
            events.warning(
                "images of different folders have the same name: their segmentations are told "
                "apart by their order, so give the list that apply was given"
            )
    return [
        _Case(name, pair.line, prediction, pair.mask.path)
        for name, pair, prediction in zip(names, pairs, predictions, strict=True)
        if pair.mask is not None
    ]


def _predictions(folder: Path, pairs: Sequence[ListedPair], names: Sequence[str]) -> list[Path]:
    """The segmentation of each image in a folder of results.

    It has the name that `apply` gives it, or that of the image or of its mask.
    """
    try:
        files = sorted(each for each in folder.iterdir() if each.is_file())
    except OSError as error:
        raise InputError(
            f"the folder of predictions {folder} cannot be read: {error.strerror or error}",
            "Name the folder that apply has written to",
            code="no_such_file",
        ) from error
    by_stem = {volume_stem(each): each for each in reversed(files)}
    found = []
    for name, pair in zip(names, pairs, strict=True):
        assert pair.mask is not None
        stems = (name + SEGMENTATION_MARK, name, volume_stem(pair.mask.path))
        found.append(next((by_stem[each] for each in stems if each in by_stem), None))
    missing = [name for name, each in zip(names, found, strict=True) if each is None]
    if missing:
        more = f" and {len(missing) - _MOST_TOLD} more" if len(missing) > _MOST_TOLD else ""
        raise InputError(
            f"{folder} has no segmentation of {counted(len(missing), 'image')}: "
            + ", ".join(missing[:_MOST_TOLD])
            + more,
            "Segment all images of the list first, or take these out of it",
            code="no_such_file",
        )
    return [each for each in found if each is not None]


def _scores(job: EvaluateJob, case: _Case) -> tuple[tuple[LabelScore, ...], list[str]]:
    labels = None if job.labels == "all" else job.labels
    reference = read_labelmap(
        case.reference, empty_ok=True, wanted=labels, on_top=job.on_top, merge=job.merge
    )
    prediction = read_labelmap(case.prediction, empty_ok=True, on_top=job.on_top)
    shapes = reference.geometry.shape, prediction.geometry.shape
    if 1 in shapes[0] and shapes[0] != shapes[1]:
        raise InputError(
            f"{case.prediction.name} and {case.reference.name} are of different size",
            "Give a segmentation of the reference's size",
            code="other_size",
        )
    prediction, told = in_numbers_of_reference(
        prediction,
        reference,
        labels,
        job.label_names,
        case.prediction.name,
        case.reference.name,
    )
    reference = replace(reference, names={**reference.names, **job.label_names})
    found = evaluate(prediction, reference, labels, job.slices, job.axis, job.tolerance_mm)
    shown = tuple(each for each in found.labels if each.dsc is not None)
    # Pictures have no place; this need not be told of each of thousands.
    is_picture = 1 in shapes[0]
    return shown, [] if is_picture else [*prediction.remarks, *reference.remarks, *told]


def _summary(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """For each label its name, the number of cases, and mean and deviation of each figure."""
    by_label: dict[int, list[LabelScore]] = {}
    for row in rows:
        by_label.setdefault(row.score.label, []).append(row.score)
    summary = []
    for label, scores in sorted(by_label.items()):
        entry: dict[str, Any] = {
            "label": label,
            "name": next((each.name for each in scores if each.name), ""),
            "cases": len(scores),
        }
        for figure in _FIGURES:
            values = [value for each in scores if (value := getattr(each, figure)) is not None]
            entry[f"mean_{figure}"] = float(np.mean(values)) if values else None
            # The cases are a sample, hence one degree of freedom less.
            entry[f"sd_{figure}"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary.append(entry)
    return summary


def _write(output: Path, rows: Sequence[_Row], result: Mapping[str, Any]) -> None:
    lines = [
        [row.case, row.score.label, row.score.name, *(getattr(row.score, n) for n in _FIGURES)]
        for row in rows
    ]
    if output.suffix.lower() == ".json":
        table = [dict(zip(_COLUMNS, line, strict=True)) for line in lines]
        write_json(output, {**result, "table": table})
        return
    for title, kind in (("mean", "mean"), ("standard deviation", "sd")):
        lines += [
            [title, each["label"], each["name"], *(each[f"{kind}_{n}"] for n in _FIGURES)]
            for each in result["labels"]
        ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(each) for each in line] for line in lines)
    with written_whole(output) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8")


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
