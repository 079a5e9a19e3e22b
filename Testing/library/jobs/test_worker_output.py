"""What a client makes of a worker's bytes and lines, without a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.worker_output import WorkerOutput
from SAMFineTuneLib.worker.environment import worker_environment
from SAMFineTuneLib.worker.events import ErrorEvent, Event, Log, Progress, Result
from SAMFineTuneLib.worker.json_text import to_json
from SAMFineTuneLib.worker.line_splitter import LineSplitter
from Testing.support.repository import REPOSITORY

TEXT = "größer\r\n€ 肝臓 😀\rthird\n\nlast"
LINES = ["größer", "€ 肝臓 😀", "third", "", "last"]


def lines_of(chunks: list[bytes]) -> list[str]:
    splitter = LineSplitter()
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    return found + splitter.rest()


@pytest.mark.parametrize("size", range(1, 12))
def test_lines_are_the_same_wherever_the_bytes_are_cut(size: int) -> None:
    data = TEXT.encode()
    assert lines_of([data[n : n + size] for n in range(0, len(data), size)]) == LINES


def test_every_single_cut_gives_the_same_lines() -> None:
    data = TEXT.encode()
    for cut in range(len(data) + 1):
        assert lines_of([data[:cut], b"", data[cut:]]) == LINES, cut


def test_a_line_comes_out_as_soon_as_it_is_whole() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == ["one"]
    assert splitter.feed(b"o\r") == ["two"]
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"\n") == [""]
    assert splitter.rest() == []


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert lines_of([b"a\xffb\n", b"\xe2\x82"]) == ["a\ufffdb", "\ufffd"]


def test_what_is_left_comes_out_once() -> None:
    splitter = LineSplitter()
    splitter.feed(b"begun")
    assert splitter.rest() == ["begun"]
    assert splitter.rest() == []


def test_a_line_without_end_takes_no_memory() -> None:
    splitter = LineSplitter()
    chunk = b"x" * (1 << 20)
    tracemalloc.start()
    for _ in range(200):
        assert splitter.feed(chunk) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20
    (line, following) = splitter.feed(b"\nnext\n")
    assert line.startswith("xxx") and line.endswith(f"({200 << 20} bytes in one line)")
    assert len(line) < 3000 and following == "next"


def test_a_long_event_is_whole() -> None:
    event = Result(result={"slice_uncertainty": [0.1234] * 400_000})
    data = to_json(event).encode() + b"\n"
    assert len(data) > 3_000_000
    (line,) = lines_of([data[n : n + 65536] for n in range(0, len(data), 65536)])
    output = WorkerOutput(JobFolder(Path("absent")))
    output.take_output(line)
    assert output.outcome(0, False).result == event.result


class Heard:
    """A worker's output with what it reported."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        self.output = WorkerOutput(JobFolder(folder), self.events.append)


def test_events_are_told_in_their_order(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    lines = [to_json(Progress(step=1, steps=2)), "printed by a library", "{"]
    for line in lines:
        heard.output.take_output(line)
    heard.output.take_error("a warning")
    assert heard.events == [
        Progress(step=1, steps=2),
        Log(level="debug", message="printed by a library"),
        Log(level="debug", message="{"),
        Log(level="debug", message="a warning"),
    ]
    assert not heard.output.gave_ending


def test_a_result_counts_whatever_the_process_returns(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    heard.output.take_output(to_json(Result(result={"model": "m"})))
    assert heard.output.gave_ending
    for returned, cancel_asked in ((0, False), (-9, True), (1, False)):
        outcome = heard.output.outcome(returned, cancel_asked)
        assert (outcome.exit_code, outcome.result, outcome.error) == (0, {"model": "m"}, None)


def test_an_error_tells_its_own_exit_code(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    error = ErrorEvent(code="no_label", message="label 7 is absent", exit_code=2)
    heard.output.take_output(to_json(error))
    outcome = heard.output.outcome(0, True)
    assert (outcome.exit_code, outcome.error) == (2, error)


def test_a_worker_that_was_cancelled_and_said_nothing_is_cancelled(tmp_path: Path) -> None:
    outcome = Heard(tmp_path).output.outcome(-9, True)
    assert outcome.exit_code == 3 and outcome.error is not None
    assert outcome.error.code == "cancelled"
    assert not JobFolder(tmp_path).log_file.exists()


@pytest.mark.parametrize(
    ("returned", "how"), [(0, "exit code 0"), (-9, "SIGKILL"), (-200, "signal 200")]
)
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_worker_that_died_leaves_its_last_words(returned: int, how: str, tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    for line in ("MemoryError: 2 GiB für nichts", "", "goodbye"):
        heard.output.take_error(line)
    outcome = heard.output.outcome(returned, False)
    assert outcome.exit_code == 1 and outcome.error is not None
    assert outcome.error.code == "worker_died"
    assert how in outcome.error.message
    assert outcome.error.message.endswith("MemoryError: 2 GiB für nichts")
    kept = JobFolder(tmp_path).log_file.read_text(encoding="utf-8")
    assert how in kept and "MemoryError: 2 GiB für nichts\ngoodbye\n" in kept


def test_a_folder_that_went_away_does_not_hide_how_it_ended(tmp_path: Path) -> None:
    outcome = Heard(tmp_path / "gone").output.outcome(1, False)
    assert outcome.error is not None and outcome.error.code == "worker_died"


def test_a_listener_at_fault_is_told_and_not_called_again(tmp_path: Path) -> None:
    calls = []

    def listener(event: Event) -> None:
        calls.append(event)
        raise LookupError("mine")

    output = WorkerOutput(JobFolder(tmp_path), listener)
    assert output.listener_fault is None
    output.take_output("one")
    output.take_output(to_json(Result(result={})))
    assert isinstance(output.listener_fault, LookupError)
    assert len(calls) == 1
    assert output.outcome(0, False).result == {}


def test_the_environment_lets_a_worker_find_the_library() -> None:
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": "elsewhere", "GOMP_SPINCOUNT": "7"}
    if "SYSTEMROOT" in os.environ:
        base["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    before = dict(base)
    environment = worker_environment(base)
    assert base == before
    assert environment["PYTHONPATH"] == f"{REPOSITORY}{os.pathsep}elsewhere"
    assert environment["GOMP_SPINCOUNT"] == "7"
    program = "import sys, SAMFineTuneLib; print(sys.stdout.encoding, SAMFineTuneLib.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8"
    )
    encoding, file = done.stdout.split(maxsplit=1)
    assert encoding == "utf-8" and Path(file.strip()).is_relative_to(REPOSITORY), done.stderr
