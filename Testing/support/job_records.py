"""Records of jobs with only those fields that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from SAMFineTuneLib.jobs.schema import Example, FinetuneJob


def example_of(volume: Path, segmentation: Path, **fields: Any) -> Example:
    """An example of two files."""
    return Example(volume=volume, segmentation=segmentation, **fields)


def choices_of(**fields: Any) -> FinetuneJob:
    """The choices of a fine-tune; its example and its output do not exist."""
    nothing = example_of(Path("none.nrrd"), Path("none.seg.nrrd"))
    return FinetuneJob(examples=[nothing], output=Path("none.safetensors"), **fields)
