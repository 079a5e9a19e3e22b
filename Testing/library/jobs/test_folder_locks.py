"""One process at a time in a folder of a job or session, whoever asks when, and whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive import mask_files
from SAMFineTuneLib.interactive.client import serve_command
from SAMFineTuneLib.interactive.protocol import (
    FOUND_FILE,
    SERVER_LOCK_FILE,
    SESSION_FILE,
    Answer,
    Box,
    Close,
    Failure,
    FindMask,
    LookAt,
    Message,
    Ready,
    SessionSettings,
    parse_message,
)
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.process import WorkerProcess
from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job, write_job
from SAMFineTuneLib.volumes import write_volume
from SAMFineTuneLib.worker import lock_file
from SAMFineTuneLib.worker.events import ErrorEvent, parse_line
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import head
from Testing.support.time_limits import PATIENCE_S, until

FAKE_WORKER = REPOSITORY / "Testing" / "support" / "fake_worker.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

# At each moment that it is told, takes the lock, says whether it has it, and holds it until told.
_TAKER = """
import sys, time
from pathlib import Path
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import JobFolder
folder = JobFolder(Path(sys.argv[1]))
print("ready", flush=True)
while line := sys.stdin.readline():
    while time.time() < float(line):
        pass
    try:
        folder.lock()
        print("in", flush=True)
        sys.stdin.readline()
        folder.unlock()
        print("out", flush=True)
    except InputError as error:
        print(error, flush=True)
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for each in processes:
        each.kill()
        each.communicate()


def start(
    started: list[subprocess.Popen[str]], command: Sequence[str], errors: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    started.append(
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env=ENVIRONMENT,
            cwd=REPOSITORY,
        )
    )
    return started[-1]


def taker(started: list[subprocess.Popen[str]], folder: Path) -> subprocess.Popen[str]:
    process = start(started, [sys.executable, "-c", _TAKER, str(folder)])
    assert heard(process) == "ready"
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_of_many_that_ask_at_the_same_moment_one_gets_in(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Whatever a process that has gone left in the file."""
    folder = JobFolder(tmp_path)
    processes = [taker(started, tmp_path) for _ in range(5)]
    for left in (None, "", "no number", f"{dead_pid()}", f"{dead_pid()}\n"):
        if left is not None:
            folder.lock_file.write_bytes(left.encode())
        moment = str(time.time() + 0.2)
        for each in processes:
            tell(each, moment)
        words = [heard(each) for each in processes]
        (inside,) = [each for each, said in zip(processes, words, strict=True) if said == "in"]
        refused = [said for said in words if said != "in"]
        assert all(f"process {inside.pid} is doing the job" in said for said in refused), refused
        assert folder.worker_at_work() == inside.pid
        tell(inside, "")
        assert heard(inside) == "out" and not folder.lock_file.exists()


def test_the_lock_of_a_killed_process_is_taken_over(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    folder = JobFolder(tmp_path)
    first = taker(started, tmp_path)
    tell(first, "0")
    assert heard(first) == "in" and folder.worker_at_work() == first.pid
    with pytest.raises(InputError, match=f"process {first.pid} is doing the job") as refused:
        folder.lock()
    assert refused.value.code == "job_running" and refused.value.remedy
    first.kill()
    first.wait()
    assert folder.lock_file.exists() and folder.worker_at_work() is None
    folder.lock()
    assert folder.worker_at_work() == os.getpid()
    assert int(folder.lock_file.read_text()) == os.getpid()
    folder.unlock()


def test_a_process_that_got_the_id_of_a_killed_one_does_not_count(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Even where it seems to be older than the lock, because the clock was changed."""
    folder = JobFolder(tmp_path)
    first = taker(started, tmp_path)
    tell(first, "0")
    assert heard(first) == "in"
    left = folder.lock_file.read_bytes().decode()
    first.kill()
    first.wait()
    other = start(started, [sys.executable, "-c", "input()"])
    folder.lock_file.write_bytes(left.replace(str(first.pid), str(other.pid)).encode())
    ahead = time.time() + 3600
    os.utime(folder.lock_file, (ahead, ahead))
    assert folder.worker_at_work() is None
    folder.lock()
    folder.unlock()


def test_a_holder_whose_id_means_nothing_here_counts(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """As in a container, where ids are others, or after the clock was set forward."""
    folder = JobFolder(tmp_path)
    first = taker(started, tmp_path)
    tell(first, "0")
    assert heard(first) == "in"
    os.utime(folder.lock_file, (1000, 1000))
    assert folder.worker_at_work() == first.pid
    folder.lock_file.write_bytes(f"{dead_pid()}\n".encode())
    assert folder.worker_at_work() is not None
    with pytest.raises(InputError, match="is doing the job"):
        folder.lock()


def test_looking_takes_no_lock_away(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    folder = JobFolder(tmp_path)
    folder.lock()
    looking = (
        "import sys; from pathlib import Path; from SAMFineTuneLib.jobs.folder import JobFolder\n"
        "print({JobFolder(Path(sys.argv[1])).worker_at_work() for _ in range(200)})"
    )
    watchers = [start(started, [sys.executable, "-c", looking, str(tmp_path)]) for _ in range(2)]
    for each in watchers:
        assert heard(each) == str({os.getpid()})
    folder.lock()
    folder.unlock()
    assert folder.worker_at_work() is None and not list(tmp_path.iterdir())


def test_the_holder_may_lock_again_and_remove_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "job"
    path.mkdir()
    folder = JobFolder(path)
    for _ in range(2):
        folder.lock()
        JobFolder(tmp_path / "." / "job").lock()
    folder.remove()
    assert not path.exists() and folder.worker_at_work() is None
    # A folder of the same name is another one.
    path.mkdir()
    assert folder.worker_at_work() is None
    folder.lock()
    assert folder.worker_at_work() == os.getpid()
    folder.unlock()
    folder.unlock()


def test_without_locks_of_the_system_the_process_id_decides(
    tmp_path: Path, started: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock_file, "_lock", refuse)
    folder = JobFolder(tmp_path)
    other = start(started, [sys.executable, "-c", "input()"])
    for ending in ("", "\n"):
        folder.lock_file.write_bytes(f"{other.pid}{ending}".encode())
        assert folder.worker_at_work() == other.pid
        with pytest.raises(InputError, match=f"process {other.pid} is doing the job"):
            folder.lock()
    folder.lock_file.write_text(str(dead_pid()))
    folder.lock()
    assert folder.lock_file.read_text() == str(os.getpid())
    folder.unlock()


def test_a_folder_that_cannot_be_locked_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        JobFolder(tmp_path / "absent").lock()
    assert str(tmp_path / "absent") in refused.value.message and refused.value.remedy


# Jobs


def fake(behaviour: str, folder: Path) -> list[str]:
    return [sys.executable, str(FAKE_WORKER), behaviour, str(folder)]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "Auftrag"
    folder.mkdir()
    fields = {
        "examples": [{"volume": "/ct.nrrd", "segmentation": "/labels.nrrd"}],
        "output": tmp_path / "m.safetensors",
    }
    write_job(folder, make_job(FinetuneJob, fields))
    return folder


def test_a_second_worker_leaves_the_first_ones_job_alone(
    job: Path, started: list[subprocess.Popen[str]]
) -> None:
    """It neither writes among the events nor forgets what the user asked of the first one."""
    folder = JobFolder(job)
    first = start(started, fake("loop", job))
    until(lambda: folder.worker_at_work() == first.pid and folder.events_file.exists())
    second = WorkerProcess(job, command=fake("done", job))
    second.start()
    outcome = second.wait(PATIENCE_S)
    assert outcome is not None and outcome.error is not None and outcome.exit_code == 2
    assert outcome.error.code == "job_running" and str(first.pid) in outcome.error.message
    events = [parse_line(line) for line in folder.events_file.read_text("utf-8").splitlines()]
    assert events and not any(isinstance(each, ErrorEvent) for each in events)
    # What is asked in the meantime is asked of the first one.
    psutil.Process(first.pid).suspend()
    folder.finish_file.touch()
    assert start(started, fake("done", job)).wait(PATIENCE_S) == 2
    assert folder.finish_file.exists()
    psutil.Process(first.pid).resume()
    assert first.wait(PATIENCE_S) == 0
    assert not folder.lock_file.exists() and not folder.finish_file.exists()


@pytest.mark.parametrize("behaviour", ["done", "refuse", "fault", "leave", "long_step"])
def test_the_lock_goes_however_a_job_ends(
    behaviour: str, job: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = start(started, fake(behaviour, job))
    if behaviour == "long_step":
        until(lambda: JobFolder(job).worker_at_work() == process.pid)
        tell(process, "cancel")
    process.communicate(timeout=PATIENCE_S)
    assert not JobFolder(job).lock_file.exists()


# Sessions

VOLUME, LABELS = head()
SHAPE = VOLUME.geometry.shape
SLICE = 6
BOX = Box(corners=((4, 10, SLICE), (24, 38, SLICE)))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(ENVIRONMENT, "SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "Sitzung"
    folder.mkdir()
    write_volume(folder / "volume.nrrd", VOLUME.array, VOLUME.geometry)
    settings = SessionSettings(volume=folder / "volume.nrrd", device="cpu")
    (folder / SESSION_FILE).write_text(settings.model_dump_json(), encoding="utf-8")
    return folder


def until_type(process: subprocess.Popen[str], *kinds: type[Any]) -> Message:
    while line := heard(process):
        message = parse_message(line)
        if isinstance(message, kinds):
            return message
    raise AssertionError("it said no more")


def test_a_second_worker_is_refused_until_the_first_has_gone(
    session: Path, started: list[subprocess.Popen[str]]
) -> None:
    """The masks stay meanwhile. One that is ending is replaced; of killed ones other tests tell."""
    # The program's own lock of the folder, which its workers share, is none of theirs.
    JobFolder(session).lock()
    first = start(started, serve_command(session))
    until_type(first, Ready)
    tell(first, FindMask(id=1, slice=SLICE, prompts=(BOX,)).model_dump_json())
    until_type(first, Answer)
    found = mask_files.opened(session / FOUND_FILE, SHAPE)
    before = np.array(found)
    assert before.any()
    refused = start(started, serve_command(session), subprocess.PIPE)
    failure = until_type(refused, Failure)
    assert isinstance(failure, Failure)
    assert failure.code == "session_running" and failure.id is None and failure.remedy
    assert f"process {first.pid} is serving the session" in failure.message
    assert refused.wait(PATIENCE_S) == 2
    assert (found == before).all()
    tell(first, LookAt(id=2, slice=3).model_dump_json())
    until_type(first, Answer)

    second = start(started, serve_command(session))
    time.sleep(1.0)
    tell(first, Close().model_dump_json())
    assert isinstance(until_type(second, Ready, Failure), Ready)
    tell(second, Close().model_dump_json())
    assert second.wait(PATIENCE_S) == 0 and not (session / SERVER_LOCK_FILE).exists()
    assert JobFolder(session).worker_at_work() == os.getpid()
    JobFolder(session).unlock()


def test_whoever_looks_at_masks_that_are_made_anew_sees_the_old_ones(tmp_path: Path) -> None:
    """Memory that shows a file which is cut off ends the process that looks at it."""
    path = tmp_path / FOUND_FILE
    mask_files.create(path, SHAPE)
    old = mask_files.opened(path, SHAPE)
    old[1, 2, 3] = 1
    mask_files.create(path, SHAPE)
    assert old.sum() == 1 and not mask_files.opened(path, SHAPE).any()
    assert list(tmp_path.iterdir()) == [path]
