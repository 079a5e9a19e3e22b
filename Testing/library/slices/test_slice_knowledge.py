"""What a clinician says of slices beside painting them: complete, unfinished, empty, the extent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.jobs.schema import Example, FinetuneJob, make_job, read_job, write_job
from SAMFineTuneLib.slices.known_labels import known_labels
from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge
from SAMFineTuneLib.slices.stack import SliceStack
from Testing.support.job_records import example_of
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices, write_pair


def stack_of(slices: dict[int, list[int]], count: int = 12) -> SliceStack:
    """A labelmap whose slices hold the labels given, one voxel each."""
    array = np.zeros((count, 4, 4), np.uint8)
    for number, labels in slices.items():
        for place, label in enumerate(labels):
            array[number, 1, place] = label
    return SliceStack(array, geometry_of(array.shape), 0)


def known_slices(known: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(column).tolist() for column in known.T]


PAINT = stack_of({3: [1], 5: [1, 2], 8: [2]})


def test_a_complete_slice_tells_of_every_label() -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty="none", complete=[3, 6]))
    assert known_slices(known) == [[3, 5, 6], [3, 5, 6, 8]]


def test_complete_adds_to_a_list_of_labelled_slices() -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(labelled=[8], empty="none", complete=[3]))
    assert known_slices(known) == [[3, 8], [3, 8]]


def test_paint_on_an_unfinished_slice_does_not_count() -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty="none", unfinished=[5, 7]))
    assert known_slices(known) == [[3], [8]]


def test_a_structure_does_not_end_before_its_unfinished_paint() -> None:
    stack = stack_of({3: [1], 5: [1], 8: [1]})
    known = known_labels(stack, [1], SliceKnowledge(empty="outside", unfinished=[8]))
    assert known_slices(known) == [[0, 1, 2, 3, 5, 9, 10, 11]]
    # The largest gap is now that up to the unfinished slice.
    known = known_labels(stack, [1], SliceKnowledge(unfinished=[8]))
    assert known_slices(known) == [[0, 3, 5, 11]]


def test_unfinished_slices_do_not_make_one_labelled_slice_several() -> None:
    stack = stack_of({4: [1], 5: [1], 6: [1]})
    known = known_labels(stack, [1], SliceKnowledge(unfinished=[5, 6]))
    assert known_slices(known) == [[4]]
    known = known_labels(stack, [1], SliceKnowledge(empty="outside", unfinished=[4, 5, 6]))
    assert known_slices(known) == [[]]


def test_an_unfinished_slice_without_paint_is_not_known_to_be_empty() -> None:
    stack = stack_of({3: [1], 5: [1]})
    known = known_labels(stack, [1], SliceKnowledge(empty="outside", unfinished=[0, 11]))
    assert known_slices(known) == [[1, 2, 3, 5, 6, 7, 8, 9, 10]]


def test_known_empty_adds_to_what_empty_says() -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty="none", known_empty=[0, 4]))
    assert known_slices(known) == [[0, 3, 4, 5], [0, 4, 5, 8]]
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty=[11], known_empty=[0]))
    assert known_slices(known) == [[0, 3, 5, 11], [0, 5, 8, 11]]
    outside = known_labels(PAINT, [1, 2], SliceKnowledge(empty="outside"))
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty="outside", known_empty=[7]))
    assert not outside[7, 1] and known[7].all()


@pytest.mark.parametrize("empty", ["auto", "outside", "none"])
def test_beyond_the_extent_all_is_empty_whatever_the_word_says(empty: Any) -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty=empty, extent=(2, 9)))
    assert known_slices(known) == [[0, 1, 3, 5, 10, 11], [0, 1, 5, 8, 10, 11]]


def test_listed_empty_slices_count_within_the_extent() -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(empty=[7], extent=(0, 11), known_empty=[6]))
    assert known_slices(known) == [[3, 5, 6, 7], [5, 6, 7, 8]]


def test_an_unfinished_slice_may_lie_beyond_the_extent_and_stays_unknown() -> None:
    known = known_labels(PAINT, [1, 2], SliceKnowledge(unfinished=[3], extent=(4, 9)))
    assert known_slices(known) == [[0, 1, 2, 5, 10, 11], [0, 1, 2, 5, 8, 10, 11]]


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ({"complete": [12]}, "slice_out_of_range", "no slice 12"),
        ({"unfinished": [40]}, "slice_out_of_range", "no slice 40"),
        ({"known_empty": [12]}, "slice_out_of_range", "no slice 12"),
        ({"extent": (0, 12)}, "slice_out_of_range", "no slice 12"),
        ({"known_empty": [0, 8]}, "not_empty", "slice 8 was called empty but holds label 2"),
        ({"extent": (4, 11)}, "outside_extent", "slice 3 holds label 1"),
        ({"extent": (3, 7)}, "outside_extent", "slices 3 to 7"),
    ],
)
def test_what_the_labelmap_contradicts_is_refused(
    said: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        known_labels(PAINT, [1, 2], SliceKnowledge(**said))
    assert refused.value.code == code and refused.value.remedy


def test_other_labels_may_lie_beyond_the_extent() -> None:
    known = known_labels(PAINT, [2], SliceKnowledge(extent=(4, 9)))
    assert known_slices(known) == [[0, 1, 2, 3, 5, 8, 10, 11]]


def example(**said: Any) -> dict[str, Any]:
    return {"volume": "/ct.nrrd", "segmentation": "/labels.nrrd", **said}


def job_of(**said: Any) -> FinetuneJob:
    fields = {"examples": [example(**said)], "output": "/m.safetensors"}
    return make_job(FinetuneJob, fields)


def test_a_job_keeps_what_was_said(tmp_path: Path) -> None:
    said = {"complete": [4], "unfinished": [5, 6], "known_empty": [0], "extent": (2, 30)}
    job = job_of(**said)
    write_job(tmp_path, job)
    read = read_job(tmp_path)
    assert read == job and isinstance(read, FinetuneJob)
    assert {name: getattr(read.examples[0], name) for name in said} == said


def test_a_job_from_before_says_nothing() -> None:
    read = job_of().examples[0]
    assert (read.complete, read.unfinished, read.known_empty, read.extent) == ([], [], [], None)


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"complete": [3], "unfinished": [3, 4]}, "unfinished", 'slice 3, which "complete"'),
        ({"complete": [3], "known_empty": [3]}, "known_empty", 'slice 3, which "complete"'),
        ({"unfinished": [9, 7], "known_empty": [7]}, "known_empty", 'slice 7, which "unfinished"'),
        ({"labelled": [3], "unfinished": [3]}, "unfinished", 'slice 3, which "labelled"'),
        ({"empty": [3], "unfinished": [3]}, "unfinished", 'slice 3, which "empty"'),
        ({"complete": [3, 3]}, "complete", "twice"),
        ({"complete": [-1]}, "complete", "whole numbers"),
        ({"unfinished": "all"}, "unfinished", "list of whole numbers"),
        ({"known_empty": [True]}, "known_empty", "whole numbers"),
        ({"known_empty": [2.0]}, "known_empty", "whole numbers"),
        ({"extent": [9, 3]}, "extent", "not below the first"),
        ({"extent": [3]}, "extent", "first and the last"),
        ({"extent": [-2, 3]}, "extent", "whole numbers"),
        ({"extent": "all"}, "extent", "first and the last"),
    ],
)
def test_a_job_that_contradicts_itself_is_refused(
    said: dict[str, Any], field: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as made:
        job_of(**said)
    job = {"kind": "finetune", "examples": [example(**said)], "output": "/m.safetensors"}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    with pytest.raises(InputError) as read:
        read_job(tmp_path)
    for refused in (made.value, read.value):
        assert f"examples[0].{field}" in refused.message and words in str(refused)
        assert "\n" not in str(refused)


def test_the_same_slices_may_be_called_labelled_and_complete() -> None:
    assert Example(**example(labelled=[3], complete=[3])).complete == [3]
    assert Example(**example(empty=[3], known_empty=[3])).known_empty == [3]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A volume of 12 slices, labelled on 2, 4, 6, 8."""
    volume, labelmap = head()
    return write_pair(tmp_path, volume, keep_slices(labelmap, [2, 4, 6, 8]), "a")


def numbers(source: Example) -> dict[int, bool]:
    """Slice -> whether a structure is to be seen on it."""
    return {each.number: each.is_labelled for each in load_examples([source]).slices}


def test_a_fine_tune_learns_what_was_said(files: tuple[Path, Path]) -> None:
    source = example_of(
        *files, empty="none", complete=[6], unfinished=[4], known_empty=[0], extent=(1, 9)
    )
    assert numbers(source) == {0: False, 2: True, 6: True, 8: True, 10: False, 11: False}


def test_slices_named_one_by_one_are_all_kept(tmp_path: Path) -> None:
    volume, labelmap = head((40, 24, 24))
    pair = write_pair(tmp_path, volume, keep_slices(labelmap, [20]), "a")
    listed = example_of(*pair, empty="none", known_empty=list(range(30, 40)))
    assert len(numbers(listed)) == 11
    # Those that only follow from the extent look alike: a selection does.
    followed = example_of(*pair, extent=(20, 20))
    assert 1 < len(numbers(followed)) <= 5
    complete = example_of(*pair, empty="none", complete=list(range(30, 40)))
    assert len(numbers(complete)) == 11


def test_a_volume_with_nothing_but_unfinished_slices_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="none of the slices"):
        load_examples([example_of(*files, unfinished=[2, 4, 6, 8])])
