"""The module as an installation lays it out: scripts, library and resources in one folder.

It is loaded in a process of its own, from a copy that says which copy it is, with the source tree
out of reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from Testing.support.cmake_lists import install, installed_files
from Testing.support.repository import REPOSITORY

_MARK = "9.9.9.installed"

_SCRIPT = """
import json, subprocess, sys, time
from pathlib import Path

root, folder, work = sys.argv[1:]
sys.path.insert(0, root)
from Testing.host import boot, errors, load_module
slicer = boot()
sys.path[:] = [each for each in sys.path if each and Path(each).resolve() != Path(root)]

container = load_module(Path(folder) / "SAMFineTune.py")
widget = container.widgetRepresentation()
widget.enter()
found = {}

from SAMFineTunePanel.folders import resourcePath
found["icon"] = resourcePath("Icons/SAMFineTune.png")

from SAMFineTuneLib.jobs.client import worker_command
from SAMFineTuneLib.worker.environment import worker_environment
from SAMFineTunePanel.worker.python_program import environmentFor, pythonProgram
from SAMFineTunePanel.worker.worker_process import WorkerProcess
program = pythonProgram()
words = worker_command(Path(work), program)
found["version"] = subprocess.run(
    [*words[: words.index("run")], "--version"], cwd=work, capture_output=True, text=True,
    env=worker_environment(environmentFor(program))).stdout.strip()

Path(work, "job.json").write_text('{"kind": "dance"}')
ended = []
process = WorkerProcess(Path(work), lambda event: None, ended.append)
process.start()
deadline = time.monotonic() + 60
while not ended and time.monotonic() < deadline:
    slicer.app.processEvents()
    time.sleep(0.01)
found["exit_code"] = ended[0].exit_code if ended else None
found["words"] = ended[0].error.message if ended and ended[0].error else ""
found["modules"] = sorted(
    {module.__file__ for name, module in sys.modules.items()
     if name.partition(".")[0] in ("SAMFineTune", "SAMFineTunePanel", "SAMFineTuneLib")})
found["errors"] = [str(error) for error in errors]
widget.exit()
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("qt-scripted-modules")
    install(folder)
    library = folder / "SAMFineTuneLib" / "__init__.py"
    lines = [
        f'__version__ = "{_MARK}"' if line.startswith("__version__") else line
        for line in library.read_text("utf-8").splitlines()
    ]
    library.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def found(installed, tmp_path_factory) -> dict:
    work = tmp_path_factory.mktemp("work")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            _SCRIPT,
            str(REPOSITORY),
            str(installed),
            str(work),
        ],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    answers = [line for line in ended.stdout.splitlines() if line.startswith("FOUND")]
    assert answers, ended.stdout + ended.stderr
    return json.loads(answers[0].removeprefix("FOUND"))


def test_the_panel_opens_without_an_error(found):
    assert found["errors"] == []


def test_module_panel_and_library_come_from_the_installed_folder(found, installed):
    for path in found["modules"]:
        assert Path(path).is_relative_to(installed)
    names = {Path(path).relative_to(installed).parts[0] for path in found["modules"]}
    assert names == {"SAMFineTune.py", "SAMFineTunePanel", "SAMFineTuneLib"}


def test_resources_lie_beside_the_module(found, installed):
    assert Path(found["icon"]) == installed / "Resources" / "Icons" / "SAMFineTune.png"
    assert Path(found["icon"]).is_file()


def test_the_worker_is_the_installed_library(found):
    assert _MARK in found["version"]


def test_a_worker_starts_and_answers(found):
    assert found["exit_code"] == 2
    assert "dance" in found["words"]


def test_nothing_but_the_listed_files_is_there(installed):
    on_disk = {
        path.relative_to(installed).as_posix()
        for path in installed.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert on_disk == set(installed_files())
