"""What a structure is in coded terms goes from the labels through the model to what it finds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import ApplyJob, FinetuneJob, make_job, write_job
from SAMFineTuneLib.models.model_file import LabelCard, read_card
from SAMFineTuneLib.volumes import read_labelmap
from Testing.support.in_process import run_here
from Testing.support.job_records import example_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair

BRIGHT = "Category~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Codes~^^~^^"
DARK = "Category~SCT^123037004^Anatomical Structure~SCT^78961009^Spleen~^^~Codes~^^~^^"

pytestmark = pytest.mark.usefixtures("one_thread")


def pair(folder: Path, name: str, terms: dict[int, str], seed: int = 0) -> tuple[Path, Path]:
    volume, labelmap = head(seed=seed)
    few = keep_slices(replace(labelmap, terminologies=terms), [2, 4, 6, 8])
    return write_pair(folder, volume, few, name)


def done(folder: Path, job: Any) -> Any:
    write_job(folder, job)
    outcome = run_here(JobFolder(folder))
    assert outcome.exit_code == 0, outcome.error
    return outcome.result


def test_from_labels_to_what_the_model_finds(tmp_path: Path) -> None:
    volume, labels = pair(tmp_path, "a", {5: BRIGHT})
    model, found = tmp_path / "m.safetensors", tmp_path / "found.seg.nrrd"
    fields: dict[str, Any] = {
        "examples": [{"volume": volume, "segmentation": labels}],
        "output": model,
        "steps": 1,
        "batch": 1,
    }
    result = done(tmp_path / "tune", make_job(FinetuneJob, fields))
    assert [label["terminology"] for label in result["labels"]] == [BRIGHT, ""]
    assert [label.terminology for label in read_card(model).labels] == [BRIGHT, ""]
    fields = {"model": model, "volumes": [volume], "output": found, "compress": False}
    done(tmp_path / "apply", make_job(ApplyJob, fields))
    assert read_labelmap(found, empty_ok=True).terminologies == {5: BRIGHT}
    assert read_labelmap(found, empty_ok=True).names == {5: "bright", 52: "dark"}


def test_the_first_file_that_tells_is_believed(tmp_path: Path) -> None:
    sources = [
        example_of(*pair(tmp_path, name, terms, seed))
        for seed, (name, terms) in enumerate(
            {"a": {52: DARK}, "b": {5: BRIGHT, 52: "other"}}.items()
        )
    ]
    labels = load_examples(sources).labels
    assert {label.value: label.terminology for label in labels} == {5: BRIGHT, 52: DARK}


def test_a_model_from_before_there_were_terms_is_read(tmp_path: Path) -> None:
    card = {
        "format": "SAMFineTune tuned model",
        "format_version": 1,
        "backbone": "starter",
        "checkpoint_sha256": None,
        "strategy": {"method": "vanilla", "scope": "decoder", "rank": 4},
        "labels": [{"value": 5, "name": "liver", "colour": None}],
        "axis": "axial",
        "normalisation": {"kind": "percentiles"},
        "input_size": 256,
    }
    header = json.dumps({"__metadata__": {"samfinetune": json.dumps(card)}}).encode()
    path = tmp_path / "old.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_card(path).labels == [LabelCard(value=5, name="liver", terminology="")]
