"""What a program loads that has the library in its own process, as 3D Slicer has."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from Testing.support.repository import REPOSITORY

# Everything that a client uses: jobs, corrections, the folder of models, lists to choose from.
CLIENT_SIDE = (
    "SAMFineTuneLib.weights.availability",
    "SAMFineTuneLib.weights.official",
    "SAMFineTuneLib.interactive.client",
    "SAMFineTuneLib.interactive.mask_files",
    "SAMFineTuneLib.interactive.client",
    "SAMFineTuneLib.interactive.mask_files",
    "SAMFineTuneLib.interactive.protocol",
    "SAMFineTuneLib.worker.events",
    "SAMFineTuneLib.jobs.folder",
    "SAMFineTuneLib.jobs.interrupted",
    "SAMFineTuneLib.worker.line_splitter",
    "SAMFineTuneLib.worker.transport",
    "SAMFineTuneLib.jobs.client",
    "SAMFineTuneLib.jobs.process",
    "SAMFineTuneLib.worker.process_tree",
    "SAMFineTuneLib.jobs.schema",
    "SAMFineTuneLib.jobs.worker_output",
    "SAMFineTuneLib.worker.environment",
    "SAMFineTuneLib.models.model_file",
    "SAMFineTuneLib.models.library",
    "SAMFineTuneLib.slices.suggestion",
    "SAMFineTuneLib.jobs.storage",
    "SAMFineTuneLib.training.presets",
)
HEAVY = (
    "torch",
    "SimpleITK",
    "monai",
    "torchvision",
    "timm",
    "matplotlib",
    "scipy",
    "safetensors",
    "PIL",
)


def loaded_by(program: str) -> set[str]:
    """The packages in memory after a program of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys, json; print(json.dumps([*sys.modules]))"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.fixture(scope="module", autouse=True)
def heavy_packages_are_installed() -> None:
    """Else nobody could tell that they were not loaded."""
    assert all(find_spec(name) for name in ("torch", "SimpleITK", "monai"))


def test_the_client_side_loads_no_tensor_or_image_library() -> None:
    loaded = loaded_by("\n".join(f"import {name}" for name in CLIENT_SIDE))
    assert "pydantic" in loaded
    assert loaded & set(HEAVY) == set()


def test_lists_to_choose_from_are_made_without_them(tmp_path: Path) -> None:
    loaded = loaded_by(
        f"import os; os.environ['SAMFINETUNE_CACHE'] = os.environ['SAMFINETUNE_MODELS'] = "
        f"{str(tmp_path)!r}\n"
        "from SAMFineTuneLib.weights.availability import list_backbones\n"
        "from SAMFineTuneLib.models.library import list_models, new_model_path\n"
        "from SAMFineTuneLib.jobs.storage import clear_storage, storage_used\n"
        "list_backbones(), list_models(), new_model_path('a'), storage_used(), clear_storage()"
    )
    assert loaded & set(HEAVY) == set()


def test_presets_need_nothing_that_has_to_be_installed() -> None:
    loaded = loaded_by("import SAMFineTuneLib.training.presets")
    assert loaded & {*HEAVY, "pydantic", "numpy", "psutil", "pooch", "requests"} == set()


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {each.name.lower(): each for each in parsed}


def dependencies() -> list[str]:
    """The list in pyproject.toml, which Python 3.10 has no reader for."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.split("\ndependencies = ", 1)[1].split("\n]", 1)[0] + "]"
    found: list[str] = ast.literal_eval(listed)
    return found


def test_slicer_installs_what_the_package_asks_for() -> None:
    text = (REPOSITORY / "Resources" / "SAMFineTuneRequirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    ours = requirements(lines)
    assert len(ours) == len(lines)
    theirs = requirements(dependencies())
    # torch comes with 3D Slicer's PyTorch extension, for the machine's GPU.
    torch = theirs.pop("torch")
    assert str(torch) == "torch>=2.2"
    assert {name: str(each) for name, each in ours.items()} == {
        name: str(each) for name, each in theirs.items()
    }
    for each in ours.values():
        (bound,) = each.specifier
        assert bound.operator == ">=" and each.marker is None and not each.extras
