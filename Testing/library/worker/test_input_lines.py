"""Lines that come through pipes: any length in time that grows with it, none without a bound."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from SAMFineTuneLib.worker import standard_input
from SAMFineTuneLib.worker.line_splitter import LONGEST_LINE, LineSplitter, full_length
from SAMFineTuneLib.worker.standard_input import StandardInputLines
from SAMFineTuneLib.worker.standard_output import _read_lines
from Testing.support.time_limits import require_faster

MB = 1 << 20


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Descriptors to read from and to write to."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def write(descriptor: int, data: bytes, piece: int = 4096) -> threading.Thread:
    """Writes in small pieces from another thread, then closes."""

    def run() -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left[:piece]) :]
        os.close(descriptor)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def from_standard_input(data: bytes) -> tuple[float, list[str]]:
    """Seconds until all has been read, and the lines."""
    reading, writing = os.pipe()
    lines: list[str] = []
    began = time.process_time()
    thread = write(writing, data)
    source = StandardInputLines(reading)
    while not source.ended:
        lines += source.poll()
        time.sleep(0.001)
    took = time.process_time() - began
    thread.join()
    os.close(reading)
    return took, lines


def from_printed(data: bytes) -> tuple[float, list[str]]:
    reading, writing = os.pipe()
    lines: list[str] = []
    began = time.process_time()
    thread = write(writing, data)
    _read_lines(reading, lines.append)
    took = time.process_time() - began
    thread.join()
    return took, lines


def from_pieces(data: bytes) -> tuple[float, list[str]]:
    splitter = LineSplitter()
    began = time.process_time()
    lines = [line for n in range(0, len(data), 64) for line in splitter.feed(data[n : n + 64])]
    return time.process_time() - began, lines


@pytest.mark.parametrize("read", [from_standard_input, from_printed, from_pieces])
@pytest.mark.parametrize("many", [False, True], ids=["one line", "many lines"])
def test_four_times_as_much_takes_four_times_as_long(
    read: Callable[[bytes], tuple[float, list[str]]], many: bool
) -> None:
    """One line was read in a time that grew with the square of its length: 30 MB took minutes."""
    size = 7 * MB // 4 // 128 * 128

    def seconds_for(length: int) -> float:
        data = (b"x" * 127 + b"\n") * (length // 128) if many else b"x" * (length - 1) + b"\n"
        seconds, lines = read(data)
        assert sum(map(len, lines)) + len(lines) == length
        return seconds

    # By turns, so that a machine that slows down slows both.
    pairs = [(seconds_for(size), seconds_for(4 * size)) for _ in range(3)]
    little, much = (min(times) for times in zip(*pairs, strict=True))
    # Sixteen times as long, if it grew with the square.
    require_faster(much, 8 * little, "four times as much")


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_lines_come_out_whole_however_they_are_cut(pipe: tuple[int, int], piece: int) -> None:
    reading, writing = pipe
    thread = write(writing, "größer\r\n  € 肝臓 😀 \n\n\xff".encode() + b"\xff\nlast", piece)
    source = StandardInputLines(reading)
    lines = []
    while not source.ended:
        lines += source.poll()
    thread.join()
    # The last one has no line end: the client has said all that it had to say.
    assert lines == ["größer", "€ 肝臓 😀", "", "ÿ\ufffd", "last"]
    assert source.poll() == []


def test_nothing_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    source = StandardInputLines(reading)
    assert source.poll() == [] and not source.ended
    os.write(writing, b"one\ntw")
    assert source.poll() == ["one"] and source.poll() == []
    os.write(writing, b"o\n")
    assert source.poll() == ["two"] and not source.ended
    os.close(writing)
    assert source.poll() == [] and source.ended


def test_a_line_without_end_takes_no_memory_and_says_how_long_it_was(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    data = b"x" * (LONGEST_LINE * 2) + b"\nnext\n"
    thread = write(writing, data, 1 << 16)
    source = StandardInputLines(reading)
    tracemalloc.start()
    lines = []
    while not source.ended:
        lines += source.poll()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    thread.join()
    shortened, following = lines
    assert following == "next" and peak < 3 * LONGEST_LINE
    assert len(shortened) < 3000 and full_length(shortened) == 2 * LONGEST_LINE
    assert full_length(following) is None and full_length("x" * 5000) is None


def test_a_client_that_never_stops_writing_lets_the_work_go_on(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    monkeypatch.setattr(standard_input, "_MOST_AT_ONCE", 1 << 16)
    thread = write(writing, b"again\n" * 100_000, 1 << 16)
    source = StandardInputLines(reading)
    found = []
    while not source.ended:
        lines = source.poll()
        assert len(lines) < 2 * (1 << 16) / 6
        found += lines
    thread.join()
    assert found == ["again"] * 100_000


def test_the_longest_line_comes_out_whole() -> None:
    splitter = LineSplitter()
    (line,) = splitter.feed(b"x" * LONGEST_LINE + b"\n")
    assert len(line) == LONGEST_LINE and full_length(line) is None
    (line,) = splitter.feed(b"x" * (LONGEST_LINE + 1) + b"\n")
    assert full_length(line) == LONGEST_LINE + 1


def test_an_input_that_is_closed_at_once_has_ended() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    source = StandardInputLines(reading)
    os.close(reading)
    assert source.poll() == [] and source.ended
