"""Cases with several images in jobs and in files of examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.schema import (
    ApplyJob,
    FinetuneJob,
    make_job,
    read_examples,
    read_job,
    write_job,
)
from SAMFineTuneLib.volumes.case import read_case


def test_a_list_in_place_of_a_volume_is_a_case(tmp_path: Path) -> None:
    file = tmp_path / "examples.json"
    entry = {
        "volume": ["t1.nii.gz", "flair.nii.gz"],
        "segmentation": "s.nii.gz",
        "label_names": {"3": "lesion"},
        "merge": {"3": [1, 2]},
    }
    file.write_text(json.dumps([entry]))
    (read,) = read_examples(file, {})
    assert read.images == [tmp_path / "t1.nii.gz", tmp_path / "flair.nii.gz"]
    assert read.label_names == {3: "lesion"} and read.merge == {3: [1, 2]}
    job = make_job(FinetuneJob, {"examples": [entry], "output": "m.safetensors"})
    assert job.examples[0].images == [Path("t1.nii.gz"), Path("flair.nii.gz")]
    write_job(tmp_path, job)
    again = read_job(tmp_path)
    assert isinstance(again, FinetuneJob)
    assert [each.name for each in again.examples[0].images] == ["t1.nii.gz", "flair.nii.gz"]
    assert again.examples[0].volume.is_absolute() and again.examples[0].channels[0].is_absolute()


def test_more_than_three_images_are_refused(tmp_path: Path) -> None:
    four = ["a", "b", "c", "d"]
    entry = {"volume": four, "segmentation": "s"}
    with pytest.raises(InputError, match=r"names 4 images of one case\. Name 3 at most"):
        make_job(FinetuneJob, {"examples": [entry], "output": "m.safetensors"})
    fields = {"model": "m.safetensors", "output": "out", "volumes": [["a"], four]}
    with pytest.raises(InputError, match=r"names 4 images of one case\. Name 3 at most"):
        make_job(ApplyJob, fields)
    with pytest.raises(InputError, match="It should have at most 2 items, not 3"):
        make_job(ApplyJob, {**fields, "volumes": ["a"], "channels": [four[1:]]})
    with pytest.raises(InputError, match="has 4 images"):
        read_case(tmp_path / "a", [tmp_path / each for each in four[1:]])


def test_volumes_to_segment_may_be_cases(tmp_path: Path) -> None:
    fields = {"model": "m.safetensors", "output": "out", "volumes": [["a", "b"], ["c", "d"]]}
    job = make_job(ApplyJob, fields)
    assert job.volumes == [Path("a"), Path("c")]
    assert [job.further_images(each) for each in range(2)] == [[Path("b")], [Path("d")]]
    write_job(tmp_path, job)
    again = read_job(tmp_path)
    assert isinstance(again, ApplyJob)
    assert [each.name for each in again.further_images(1)] == ["d"]
    plain = make_job(ApplyJob, {**fields, "volumes": ["a", "c"]})
    assert plain.channels == [] and plain.further_images(1) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"volumes": [["a", "b"]], "channels": [["c"]]},
        {"volumes": [[]]},
        {"volumes": ["a", "b"], "channels": [["c"]]},
        {"volumes": [["a", "b", "c", "d"]]},
    ],
)
def test_cases_that_do_not_fit_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"channels|images of (a|one) case"):
        make_job(ApplyJob, {"model": "m.safetensors", "output": "out", **changed})
