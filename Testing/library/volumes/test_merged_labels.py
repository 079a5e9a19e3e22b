"""Labels that are merged are one structure wherever a segmentation is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from SAMFineTuneLib.cli.arguments import merges_of_labels
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.schema import EvaluateJob, Example, make_job
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, write_labelmap
from SAMFineTuneLib.volumes.merged_labels import merged
from Testing.support.synthetic_volumes import geometry_of

ARRAY = np.array([[[0, 1, 1, 2], [2, 5, 5, 0]]], np.uint8)
NAMES = {1: "left", 2: "right", 5: "bladder"}
COLOURS = {2: (0.0, 1.0, 0.0), 5: (0.0, 0.0, 1.0)}


def kidneys() -> Labelmap:
    return Labelmap(ARRAY, geometry_of(ARRAY.shape), NAMES, COLOURS, terminologies={1: "a~b"})


def test_parts_become_one_with_their_names_and_a_colour() -> None:
    one = merged(kidneys(), {9: [1, 2]}, "k.nrrd")
    assert one.array.tolist() == [[[0, 9, 9, 9], [9, 5, 5, 0]]]
    assert one.names == {9: "left + right", 5: "bladder"} and one.labels == [5, 9]
    assert one.colours == {9: (0.0, 1.0, 0.0), 5: (0.0, 0.0, 1.0)} and one.terminologies == {}
    same = merged(kidneys(), {1: [1, 2]}, "k.nrrd")
    assert same.labels == [1, 5] and same.names[1] == "left + right"
    swapped = merged(kidneys(), {2: [1], 1: [2]}, "k.nrrd")
    assert swapped.array.tolist() == [[[0, 2, 2, 1], [1, 5, 5, 0]]]


def test_all_labels_become_one_without_a_name() -> None:
    one = merged(kidneys(), {1: "all"}, "k.nrrd")
    assert one.labels == [1] and one.names == {} and np.count_nonzero(one.array) == 6
    assert merged(kidneys(), {300: "all"}, "k.nrrd").labels == [300]


def test_a_number_that_is_taken_is_refused() -> None:
    with pytest.raises(InputError, match=r"label 5 of k\.nrrd is a structure already") as told:
        merged(kidneys(), {5: [1, 2]}, "k.nrrd")
    assert told.value.code == "label_taken"


def test_labels_are_named_after_merging(tmp_path: Path) -> None:
    write_labelmap(tmp_path / "k.seg.nrrd", kidneys())
    read = read_labelmap(tmp_path / "k.seg.nrrd", merge={9: [1, 2]}, wanted=[9])
    assert 9 in read.labels and read.names[9] == "left + right"
    assert read_labelmap(tmp_path / "k.seg.nrrd", merge={}).labels == [1, 2, 5]


def test_what_is_typed_and_what_is_written() -> None:
    assert merges_of_labels("1+2=3,5+6=5") == {3: [1, 2], 5: [5, 6]}
    assert merges_of_labels("all=1") == {1: "all"}
    written = Example.model_validate_json(
        '{"volume": "a", "segmentation": "b", "merge": {"3": [1, 2]}}', strict=True
    )
    assert written.merge == {3: [1, 2]}


@pytest.mark.parametrize("merge", [{3: []}, {0: [1]}, {3: [1], 4: [1]}, {1: "all", 2: [3]}, {3: 1}])
def test_merges_that_mean_nothing_are_refused(merge: dict[int, object]) -> None:
    with pytest.raises(InputError, match="merge"):
        make_job(EvaluateJob, {"prediction": "a", "reference": "b", "merge": merge})
