"""The worker's process as Slicer sees it: its environment, and output cut anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("module", "scene")

# Speaks as a worker does, and as other programs do in between.
WORKER = """
import sys, time
write = sys.stdout.buffer.write
def say(data):
    write(data); sys.stdout.flush(); time.sleep(0.05)
event = '{"type": "progress", "step": 3, "steps": 9, "phase": "träin"}\\n'.encode()
for cut in (1, 46, 47, 48):
    say(event[:cut]); say(event[cut:])
say(b"Downloading: 50%|#####   |\\r")
say(b"\\xff\\xfe not UTF-8\\n")
say(b'{"type": "unheard of"}\\n')
say(b'{"type": "result", "result": {"said": "\\xe2\\x80')
say(b'\\xa6"}}\\n')
sys.stderr.write("a warning of a library\\n")
"""


@pytest.fixture
def run(process_events, tmp_path, monkeypatch):
    """Runs a script in the worker's place; what was heard, and how it ended."""

    def run(script: str):
        from SAMFineTunePanel.worker import worker_process

        from SAMFineTuneLib.jobs import client

        file = tmp_path / "worker.py"
        file.write_text(script, encoding="utf-8")
        monkeypatch.setattr(
            client, "worker_command", lambda folder, python: [sys.executable, str(file)]
        )
        events, outcomes = [], []
        worker = worker_process.WorkerProcess(tmp_path, events.append, outcomes.append)
        worker.start()
        process_events(lambda: outcomes)
        return events, outcomes[0]

    return run


def test_lines_are_heard_however_they_are_cut(run):
    events, outcome = run(WORKER)
    progress = [event for event in events if event.type == "progress"]
    assert [(event.step, event.steps, event.phase) for event in progress] == [(3, 9, "träin")] * 4
    assert outcome.exit_code == 0 and outcome.result == {"said": "…"}
    words = [event.message for event in events if event.type == "log"]
    assert any("not UTF-8" in each for each in words)
    assert any("a warning of a library" in each for each in words)


def test_a_result_without_a_line_end_counts(run):
    _, outcome = run('print(\'{"type": "result", "result": {}}\', end=\'\')')
    assert outcome.exit_code == 0


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("import sys; sys.exit(5)", 1, "exit code 5"),
        ("raise MemoryError('no room')", 1, "no room"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 1, "SIGKILL"),
        (
            "print('"
            + json.dumps({"type": "error", "code": "x", "message": "No GPU", "exit_code": 2})
            + "')",
            2,
            "No GPU",
        ),
        (
            "print('"
            + json.dumps(
                {"type": "error", "code": "cancelled", "message": "Cancelled", "exit_code": 3}
            )
            + "')",
            3,
            "Cancelled",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_every_ending_has_words(run, script, code, words):
    _, outcome = run(script)
    assert outcome.exit_code == code and words in outcome.error.line()


def test_slicers_python_keeps_its_settings_and_another_does_not_get_them(module, monkeypatch):
    from SAMFineTunePanel.worker.python_program import environmentFor

    monkeypatch.setenv("PYTHONHOME", "/slicer/lib/Python")
    monkeypatch.setenv("PYTHONPATH", "/slicer/bin/Python")
    own = environmentFor(Path("/slicer/bin/PythonSlicer"))
    assert own["PYTHONHOME"] == "/slicer/lib/Python" and own["PYTHONPATH"] == "/slicer/bin/Python"
    other = environmentFor(Path("/usr/bin/python3"))
    assert not {"PYTHONHOME", "PYTHONPATH"} & other.keys() and other["PATH"] == own["PATH"]


def test_the_program_is_slicers_python_where_there_is_one(module, tmp_path, monkeypatch):
    from SAMFineTunePanel.worker.python_program import pythonProgram

    monkeypatch.setenv("PATH", str(tmp_path))
    assert pythonProgram() == Path(sys.executable)
    launcher = tmp_path / ("PythonSlicer.exe" if sys.platform == "win32" else "PythonSlicer")
    launcher.write_text("")
    launcher.chmod(0o755)
    assert pythonProgram() == launcher
