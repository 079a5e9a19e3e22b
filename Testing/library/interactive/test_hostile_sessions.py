"""Settings, requests and pipes of a correction that are not as they should be: words, or an end."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive.client import serve_command
from SAMFineTuneLib.interactive.protocol import (
    SESSION_FILE,
    Answer,
    Embedded,
    Failure,
    FindMask,
    LookAt,
    Point,
    Ready,
    SessionSettings,
    parse_message,
)
from SAMFineTuneLib.interactive.server import CorrectionServer
from SAMFineTuneLib.interactive.settings_file import read_settings
from SAMFineTuneLib.volumes import write_volume
from SAMFineTuneLib.worker.events import Log
from SAMFineTuneLib.worker.line_splitter import LONGEST_LINE, LineSplitter
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import head
from Testing.support.time_limits import within

VOLUME, _LABELS = head()
SLICE = 6


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "head.nrrd"
    write_volume(path, VOLUME.array, VOLUME.geometry)
    return path


@pytest.fixture
def session(volume: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "session"
    folder.mkdir()
    settings = SessionSettings(volume=volume, device="cpu")
    (folder / SESSION_FILE).write_text(settings.model_dump_json(), encoding="utf-8")
    return folder


# Settings

GOOD = {"volume": "head.nrrd"}
BAD_SETTINGS = [
    {"volume": ""},
    {"volume": "."},
    {"volume": None},
    {"volume": 7},
    {"volume": True},
    {"volume": ["head.nrrd"]},
    {"volume": "a\x00b.nrrd"},
    {"volume": "n" * 5000},
    {"volume": "n/" * 5000},
    {"volume": "\ud800.nrrd"},
    {**GOOD, "model": ""},
    {**GOOD, "model": 7},
    {**GOOD, "model": "m" * 5000},
    {**GOOD, "checkpoint": ""},
    {**GOOD, "checkpoint": "\x00"},
    {**GOOD, "backbone": 7},
    {**GOOD, "backbone": None},
    {**GOOD, "axis": ""},
    {**GOOD, "axis": 0},
    {**GOOD, "device": ""},
    {**GOOD, "device": "cuda:99999999999999999999999x"},
    {**GOOD, "more": 1},
]


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=lambda each: repr(each)[:40])
def test_settings_that_cannot_be_name_the_field(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / SESSION_FILE).write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_settings(tmp_path)
    said = refused.value
    field = "volume" if settings.get("volume") != "head.nrrd" else next(reversed(settings))
    assert said.code == "bad_job" and said.remedy and len(str(said)) < 500
    # Text that is no Unicode belongs to no field: the file as a whole is not JSON.
    assert field in said.message or "\\ud800" in json.dumps(settings)


BAD_FILES = [
    b"",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{",
    b"\xff\xfe{}",
    b"\x00" * 100,
    b"[" * 1_000_000,
    b'{"volume":' * 50_000,
    b'{"volume": "' + b"x" * (2 << 20) + b'"}',
    b'{"volume": "a", "volume": NaN}',
    b'{"volume": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("content", BAD_FILES, ids=lambda each: repr(each[:16]))
def test_a_file_that_holds_no_settings_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / SESSION_FILE).write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_settings(tmp_path)
    assert refused.value.code == "bad_job" and SESSION_FILE in refused.value.message
    assert len(str(refused.value)) < 700


def test_a_folder_in_the_place_of_the_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / SESSION_FILE).mkdir()
    with pytest.raises(InputError) as refused:
        read_settings(tmp_path)
    assert "is not a file" in refused.value.message


# Requests


class Client:
    """A server in this process: what it says to lines."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[Any] = []
        self.lines: list[str] = []
        self.server = CorrectionServer(folder, self._take, self._poll)

    def tell(self, *lines: str) -> list[Any]:
        self.lines += lines
        before = len(self.heard)
        self.server.run(ended=lambda: True)
        return [each for each in self.heard[before:] if not isinstance(each, Embedded)]

    def _take(self, message: BaseModel) -> None:
        self.heard.append(parse_message(message.model_dump_json()))

    def _poll(self) -> Sequence[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def client(session: Path) -> Client:
    return Client(session)


def mask(prompts: str, number: str = str(SLICE)) -> str:
    return f'{{"kind": "find_mask", "id": 8, "slice": {number}, "prompts": [{prompts}]}}'


def point(*at: object) -> str:
    return f'{{"kind": "point", "at": [{", ".join(map(str, at))}]}}'


BAD_REQUESTS = [
    (mask(point("1e308", 3, SLICE)), "outside"),
    (mask(point("-1e308", "1e308", SLICE)), "outside"),
    (mask(point(3, 3, "1e308")), "other_slice"),
    (mask(point("NaN", 3, SLICE)), "outside"),
    (mask(point(3, "Infinity", SLICE)), "outside"),
    (mask(point(3, 3, "-Infinity")), "outside"),
    (mask(point(3, 3, "1e999")), "outside"),
    (mask(point("9" * 400, 3, SLICE)), "outside"),
    (mask(point("true", 3, SLICE)), "bad_request"),
    (mask(point('"3"', 3, SLICE)), "bad_request"),
    (mask(point("null", 3, SLICE)), "bad_request"),
    (mask(point(3, 3)), "bad_request"),
    (mask(point(3, 3, SLICE, 1)), "bad_request"),
    (mask('{"kind": "point", "at": [3, 3, 6], "positive": 1}'), "bad_request"),
    (mask('{"kind": "box", "corners": [[3, 3, 6]]}'), "bad_request"),
    (mask('{"kind": "box", "corners": [[NaN, 3, 6], [9, 9, 6]]}'), "outside"),
    (mask('{"kind": "box", "corners": [[-1e300, -1e300, 6], [-1e299, -1e299, 6]]}'), "empty_box"),
    (mask('{"kind": "circle"}'), "bad_request"),
    (mask("", "true"), "bad_request"),
    (mask("", '"6"'), "bad_request"),
    (mask("", "6.0"), "bad_request"),
    (mask("", "NaN"), "bad_request"),
    (mask("", "9" * 30), "no_such_slice"),
    (mask("", "-" + "9" * 30), "no_such_slice"),
    (mask(", ".join([point(16, 24, SLICE)] * 1001)), "too_many_prompts"),
    ('{"kind": "propagate", "id": 8, "accepted": [true]}', "bad_request"),
    ('{"kind": "propagate", "id": 8, "accepted": [6], "between": 1}', "bad_request"),
    ('{"kind": "propagate", "id": 8, "accepted": [99999999999999999999999]}', "no_such_slice"),
    ('{"kind": "propagate", "id": 8, "accepted": [6, 6, 6], "outward": 1e400}', "bad_request"),
    ('{"kind": "look_at", "id": 8, "slice": false}', "bad_request"),
    ('{"kind": "rank_slices", "id": 8, "label": "5"}', "bad_request"),
]


def test_requests_that_cannot_be_fail_in_words_and_the_session_goes_on(client: Client) -> None:
    for line, code in BAD_REQUESTS:
        told = client.tell(line)
        assert len(told) == 1, (line[:80], told)
        assert isinstance(told[0], Failure), (line[:80], told)
        assert (told[0].id, told[0].code) == (8, code), (line[:80], told)
        assert 0 < len(told[0].message) < 900
    told = client.tell(LookAt(id=9, slice=SLICE).model_dump_json())
    assert isinstance(told[0], Answer)


def test_a_million_points_are_refused_by_their_length(client: Client) -> None:
    line = mask(", ".join([point(16, 24, SLICE)] * 1_000_000))
    assert len(line) > LONGEST_LINE
    splitter = LineSplitter()
    data = line.encode() + b"\n"
    (cut,) = [
        each for n in range(0, len(data), 1 << 16) for each in splitter.feed(data[n:][:65536])
    ]
    (failure,) = client.tell(cut)
    assert isinstance(failure, Failure) and (failure.id, failure.code) == (8, "bad_request")
    assert "MB in one line; 16 MiB are the most" in failure.message
    # Without an id nobody waits for an answer.
    (warning,) = client.tell(cut.replace('"id"', '"di"'))
    assert isinstance(warning, Log) and warning.level == "warning"


def test_propagation_stops_at_the_last_slice_however_far_it_may_go(client: Client) -> None:
    client.server._given[SLICE][10:30, 10:30] = 1
    with within(120, "four propagations"):
        for outward in (10**9, 10**30, -5):
            line = f'{{"kind": "propagate", "id": 8, "accepted": [6], "outward": {outward}}}'
            (answer,) = client.tell(line)
            assert isinstance(answer, Answer), answer
        accepted = ", ".join(["6"] * 1_000_000)
        (answer,) = client.tell(f'{{"kind": "propagate", "id": 8, "accepted": [{accepted}]}}')
    assert isinstance(answer, Answer)


# Pipes


@pytest.fixture
def serve(session: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path = session, **pipes: int) -> subprocess.Popen[bytes]:
        given = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | pipes
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        command = serve_command(folder)
        started.append(subprocess.Popen(command, **given, env=environment, cwd=REPOSITORY))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def messages(output: bytes) -> list[Any]:
    return [parse_message(line) for line in output.decode().splitlines()]


# The next test ends its worker in the same way, after other input.
@pytest.mark.slow
def test_an_input_that_is_closed_at_once_ends_the_worker(
    serve: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = serve(stdin=subprocess.DEVNULL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert any(isinstance(each, Ready) for each in messages(out))


def test_bytes_that_are_no_text_are_warned_of_and_the_rest_is_answered(
    serve: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """Even when no more can come, because the pipe was closed before the worker was ready."""
    click = Point(at=(16, 24, SLICE))
    find_mask = FindMask(id=6, slice=SLICE, prompts=(click,)).model_dump_json().encode()
    lines = (
        b"\xff\xfe\x00\x01\n",
        b'{"kind": "look_at", "id": 4, "slice": "\xc3("}\n',
        b"\x00" * 1000 + b"\n",
        find_mask + b"\n",
        b'{"kind": "look_at", "id": 5, "slice": 2}',
    )
    process = serve()
    out, err = process.communicate(b"".join(lines), timeout=120)
    assert process.returncode == 0, err
    assert any(isinstance(each, Ready) for each in messages(out))
    told = [each for each in messages(out) if isinstance(each, Answer | Failure)]
    expected = [(4, "failure"), (6, "answer"), (5, "answer")]
    assert [(each.id, each.type) for each in told] == expected
    warned = [each for each in messages(out) if isinstance(each, Log) and each.level == "warning"]
    assert len(warned) == 2


def test_a_reader_that_goes_away_is_no_fault(
    serve: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = serve()
    assert process.stdin is not None and process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    for number in range(20):
        process.stdin.write(LookAt(id=number, slice=number % 12).model_dump_json().encode() + b"\n")
    process.stdin.close()
    assert process.wait(120) == 0
    process.stdin = process.stdout = process.stderr = None


@pytest.mark.parametrize("name", ["absent", "", "a\x00b", "n" * 5000, SESSION_FILE])
def test_a_folder_that_cannot_be_ends_the_worker_in_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SAMFineTuneLib.interactive.worker import _alone_in

    monkeypatch.chdir(tmp_path)
    (tmp_path / SESSION_FILE).write_text("{}")
    with pytest.raises(InputError) as refused, _alone_in(Path(name)):
        pass
    assert refused.value.remedy and len(str(refused.value)) < 500


def test_settings_at_fault_end_the_worker_with_code_2(
    serve: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    for text in ('{"volume": ""}', '{"volume": "a\\u0000b"}', '{"volume": "' + "n" * 5000 + '"}'):
        folder = tmp_path / f"of {len(text)}"
        folder.mkdir()
        (folder / SESSION_FILE).write_text(text)
        process = serve(folder)
        out, _ = process.communicate(timeout=120)
        (failure,) = (each for each in messages(out) if isinstance(each, Failure))
        assert process.returncode == 2 and failure.id is None and failure.remedy
        assert "volume" in failure.message
        assert sorted(each.name for each in folder.iterdir()) == [SESSION_FILE]
