"""The worker process and the client that starts, hears, cancels and outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from SAMFineTuneLib.jobs.client import worker_command
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.process import Outcome, WorkerProcess
from SAMFineTuneLib.jobs.schema import EvaluateJob, FinetuneJob, make_job, write_job
from SAMFineTuneLib.worker.events import ErrorEvent, Event, Log, Progress, Result, parse_line
from Testing.support.in_process import run_here
from Testing.support.repository import REPOSITORY
from Testing.support.time_limits import PATIENCE_S, until, within

FAKE_WORKER = REPOSITORY / "Testing" / "support" / "fake_worker.py"
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "ein Auftrag für Größen"
    folder.mkdir()
    fields = {
        "examples": [{"volume": "/ct.nrrd", "segmentation": "/labels.nrrd"}],
        "output": tmp_path / "Modell ü.safetensors",
    }
    write_job(folder, make_job(FinetuneJob, fields))
    return folder


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails when a test leaves processes behind, and ends them."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [p for p in psutil.Process().children(recursive=True) if p not in before]
    running = [p for p in left if p.status() != psutil.STATUS_ZOMBIE]
    for process in running:
        process.kill()
    assert running == []


pytestmark = pytest.mark.usefixtures("nothing_left")


def command(behaviour: str, folder: Path) -> list[str]:
    return [sys.executable, str(FAKE_WORKER), behaviour, str(folder)]


class Client:
    """A worker with what it told."""

    def __init__(self, behaviour: str, folder: Path, **options: Any) -> None:
        self.events: list[Event] = []
        options.setdefault("command", command(behaviour, folder))
        self.worker = WorkerProcess(folder, self.events.append, **options)
        self.worker.start()

    def wait(self, timeout_s: float = PATIENCE_S) -> Outcome:
        outcome = self.worker.wait(timeout_s)
        if outcome is None:
            self.worker.end_now()
        assert outcome is not None, "the worker did not end"
        return outcome

    def of_type(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def until_progress(self) -> Progress:
        return until(lambda: next(iter(self.of_type(Progress)), None))


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run_directly(behaviour: str, folder: Path, stdin: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(behaviour, folder),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_a_done_job_tells_its_progress_and_result(job: Path) -> None:
    client = Client("done", job)
    outcome = client.wait()
    output = str(job.parent / "Modell ü.safetensors")
    assert outcome.exit_code == 0
    assert outcome.result == {"output": output, "kind": "finetune", "nan": None}
    assert outcome.error is None
    assert isinstance(client.events[-1], Result)
    assert [event.step for event in client.of_type(Progress)] == [1, 2, 3]
    assert client.of_type(Log)[0].message == "2 voxels are not finite: größer als erwartet"
    kept = (job / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [parse_line(line) for line in kept] == client.events
    assert client.worker.wait() is outcome


@POSIX_ONLY
def test_foreign_prints_become_logs_and_break_no_line(job: Path) -> None:
    process = run_directly("noisy", job, subprocess.DEVNULL)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    messages = [event["message"] for event in told if event["type"] == "log"]
    for text in (
        "from Python: äöü \u2028 €",
        "without an end",
        "from the descriptor \ufffd",
        "from a child",
        "from C",
        "held back by C",
    ):
        assert text in messages
    assert told[-1] == {"type": "result", "result": {"done": True}}


@POSIX_ONLY
def test_events_can_go_to_a_file(job: Path) -> None:
    with (job.parent / "out.txt").open("w+", encoding="utf-8") as file:
        done = subprocess.run(
            command("noisy", job),
            stdout=file,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            timeout=PATIENCE_S,
        )
        file.seek(0)
        told = [json.loads(line) for line in file]
    assert done.returncode == 0, done.stderr
    assert told[-1]["result"] == {"done": True}
    assert "from C" in [event.get("message") for event in told]


@pytest.mark.parametrize(
    ("behaviour", "exit_code", "code", "words"),
    [
        ("fault", 1, "internal", "ZeroDivisionError: a fault in two lines"),
        ("refuse", 2, "no_label", "label 7 is absent. Name labels that occur: 1, 5"),
        ("exhausted", 2, "no_memory", "Not enough memory"),
        ("leave", 1, "internal", "SystemExit"),
    ],
)
def test_failures_have_one_line_and_a_code(
    job: Path, behaviour: str, exit_code: int, code: str, words: str
) -> None:
    client = Client(behaviour, job)
    outcome = client.wait()
    assert outcome.exit_code == exit_code
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error.code == code
    assert words in outcome.error.line()
    assert client.of_type(ErrorEvent) == [outcome.error]
    log = job / "worker.log"
    assert log.exists() == (exit_code == 1)
    if log.exists():
        assert "Traceback" in log.read_text(encoding="utf-8")


def test_a_fault_s_exit_code_is_that_of_the_process(job: Path) -> None:
    for behaviour, exit_code in (("fault", 1), ("refuse", 2)):
        process = run_directly(behaviour, job, subprocess.DEVNULL)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == exit_code
        assert [json.loads(line)["type"] for line in out.splitlines()] == ["error"]
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "{", '{"kind": "finetune", "wrong": 1}'])
def test_the_real_command_refuses_a_bad_job_file(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "job.json").write_text(content, encoding="utf-8")
    client = Client("", tmp_path, command=worker_command(tmp_path))
    outcome = client.wait()
    assert outcome.exit_code == 2
    assert outcome.error is not None
    assert "job.json" in outcome.error.message


def test_the_real_command_without_a_folder_makes_none(tmp_path: Path) -> None:
    outcome = Client("", tmp_path / "absent", command=worker_command(tmp_path / "absent")).wait()
    assert outcome.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_cancel_between_steps(job: Path) -> None:
    client = Client("loop", job)
    client.until_progress()
    with within(3, "cancelling"):
        client.worker.cancel()
        outcome = client.wait()
    assert outcome.exit_code == 3
    assert outcome.error is not None
    assert outcome.error.code == "cancelled"
    assert not (job / "cancel").exists()


@pytest.mark.parametrize("way", ["file", "line"])
def test_cancel_during_a_long_step_leaves_no_process(job: Path, way: str) -> None:
    process = run_directly("long_step", job, subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    child = json.loads(process.stdout.readline())["step"]
    with within(3, "cancelling"):
        if way == "file":
            (job / "cancel").touch()
        else:
            process.stdin.write("cancel\n")
            process.stdin.flush()
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert json.loads(out.splitlines()[-1])["code"] == "cancelled"
    assert gone(child)
    assert not (job / "cancel").exists()


def test_a_worker_that_ignores_everything_is_ended_with_its_children(job: Path) -> None:
    deaf = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'])\n"
        'print(\'{"type": "progress", "step": %d}\' % child.pid, flush=True)\n'
        "time.sleep(120)\n"
    )
    client = Client("", job, command=[sys.executable, "-c", deaf], grace_s=0.5)
    child = client.until_progress().step
    pid = client.worker.pid
    with within(3, "ending a worker that ignores everything"):
        client.worker.cancel()
        assert client.wait().exit_code == 3
    assert gone(child)
    assert gone(pid)
    assert not (job / "cancel").exists()


def test_a_child_that_outlives_a_cancelled_worker_is_ended(job: Path) -> None:
    behind_a_launcher = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'])\n"
        'print(\'{"type": "progress", "step": %d}\' % child.pid, flush=True)\n'
        "sys.stdin.readline()\n"
    )
    client = Client("", job, command=[sys.executable, "-c", behind_a_launcher], grace_s=1.0)
    child = client.until_progress().step
    with within(30, "ending a child that outlives its worker"):
        client.worker.cancel()
        assert client.wait().exit_code == 3
    assert gone(child)


@pytest.mark.parametrize("way", ["file", "line", "client"])
def test_finish_early_keeps_the_result(job: Path, way: str) -> None:
    client = Client("loop", job)
    client.until_progress()
    with within(10, "finishing early"):
        if way == "file":
            (job / "finish").touch()
        elif way == "line":
            client.worker._transport.write("finish")
        else:
            client.worker.finish_early()
        outcome = client.wait()
    assert outcome.exit_code == 0
    assert outcome.result is not None
    assert outcome.result["finished_early"] is True
    assert not (job / "finish").exists()


def test_closed_standard_input_is_not_a_cancel(job: Path) -> None:
    process = run_directly("loop", job, subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    assert process.poll() is None
    (job / "finish").touch()
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["type"] == "result"


def test_a_cancelled_job_continues(job: Path) -> None:
    client = Client("resumable", job)
    client.until_progress()
    client.worker.cancel()
    assert client.wait().exit_code == 3
    assert JobFolder(job).has_checkpoint()
    again = Client("resumable", job).wait()
    assert again.result == {"resumed": True}


@POSIX_ONLY
def test_a_killed_worker_is_told_of(job: Path) -> None:
    client = Client("loop", job)
    client.until_progress()
    os.kill(client.worker.pid, signal.SIGKILL)
    outcome = client.wait()
    assert outcome.exit_code == 1
    assert outcome.error is not None
    assert outcome.error.code == "worker_died"
    assert "SIGKILL" in outcome.error.message


def test_a_crash_is_told_with_its_last_words(job: Path) -> None:
    outcome = Client("die", job).wait()
    assert outcome.exit_code == 1
    assert outcome.error is not None
    assert "\n" not in outcome.error.line()
    assert "Fatal Python error: Aborted" in outcome.error.message or os.name == "nt"
    assert "last words" in (job / "worker.log").read_text(encoding="utf-8")


def test_a_worker_that_ends_without_a_word_is_a_fault(job: Path) -> None:
    client = Client("", job, command=[sys.executable, "-c", "print('hello')"])
    outcome = client.wait()
    assert outcome.exit_code == 1
    assert client.of_type(Log) == [Log(level="debug", message="hello")]


def test_a_finished_job_is_never_lost(job: Path) -> None:
    program = (
        'import os\nprint(\'{"type": "result", "result": {"a": 1}}\', flush=True)\nos._exit(139)\n'
    )
    outcome = Client("", job, command=[sys.executable, "-c", program]).wait()
    assert (outcome.exit_code, outcome.result) == (0, {"a": 1})


def test_a_worker_that_hangs_after_its_result_is_ended(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("SAMFineTuneLib.jobs.client.EXIT_GRACE_S", 0.5)
    with within(15, "ending a worker that hangs"):
        outcome = Client("hang_at_end", job).wait()
    assert (outcome.exit_code, outcome.result) == (0, {"done": True})


def test_a_fault_of_the_listener_is_raised_by_wait(job: Path) -> None:
    def listen(event: Event) -> None:
        raise LookupError("listener")

    worker = WorkerProcess(job, listen, command=command("done", job))
    worker.start()
    with pytest.raises(LookupError, match="listener"):
        worker.wait(PATIENCE_S)


def test_the_job_ends_when_its_client_has_vanished(job: Path) -> None:
    program = (
        "import sys, os, time\n"
        "from pathlib import Path\n"
        "from SAMFineTuneLib.jobs.process import WorkerProcess\n"
        "folder = Path(sys.argv[2])\n"
        "words = [sys.executable, sys.argv[1], 'long_step', str(folder), '--parent']\n"
        "worker = WorkerProcess(folder, command=[*words, str(os.getpid())])\n"
        "worker.start()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", program, str(FAKE_WORKER), str(job)],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert client.stdout is not None
    worker = int(client.stdout.readline())
    events = job / "events.jsonl"
    until(lambda: events.exists() and "child" in events.read_text(encoding="utf-8"))
    child = json.loads(events.read_text(encoding="utf-8").splitlines()[0])["step"]
    client.kill()
    client.communicate()
    with within(6, "ending the job of a client that has gone"):
        until(lambda: gone(worker) and gone(child))


@POSIX_ONLY
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_signals_cancel(job: Path, number: str) -> None:
    process = run_directly("loop", job, subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(getattr(signal, number))
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3


def test_evaluate_does_its_job(tmp_path: Path, shared_data: Path) -> None:
    """In this process: the commands' own tests measure through the real worker."""
    organs = shared_data / "ct_abdomen_3mm" / "organs.nii.gz"
    if not organs.is_file():
        pytest.skip("no ct_abdomen_3mm")
    folder = tmp_path / "job"
    folder.mkdir()
    output = tmp_path / "neu" / "Maße.json"
    write_job(
        folder,
        EvaluateJob(prediction=organs, reference=organs, labels=[1, 5], output=output),
    )
    outcome = run_here(JobFolder(folder))
    assert outcome.exit_code == 0, outcome.error
    assert outcome.result is not None
    assert outcome.result["mean_dsc"] == 1.0
    assert [score["label"] for score in outcome.result["labels"]] == [1, 5]
    assert json.loads(output.read_text(encoding="utf-8")) == outcome.result
