"""The correction worker: one that lives in this process, and real ones."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel

from SAMFineTuneLib import finetune
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive import mask_files
from SAMFineTuneLib.interactive.client import serve_command
from SAMFineTuneLib.interactive.networks import load_networks
from SAMFineTuneLib.interactive.protocol import (
    FOUND_FILE,
    GIVEN_FILE,
    SESSION_FILE,
    Answer,
    Box,
    Close,
    Embedded,
    Failure,
    FindMask,
    LookAt,
    Point,
    Propagate,
    RankSlices,
    Ready,
    SessionSettings,
    Stop,
    parse_message,
)
from SAMFineTuneLib.interactive.server import CorrectionServer
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.volumes import read_volume, write_labelmap, write_volume
from SAMFineTuneLib.worker.events import Log
from Testing.support.films import write_film
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import dsc, geometry_of, head
from Testing.support.tuned_starter import write_model

VOLUME, LABELS = head()
BRIGHT = LABELS.array == 5
SHAPE = BRIGHT.shape
SLICE = 6
CLICKS = (Point(at=(16, 24, SLICE)), Point(at=(40, 40, SLICE), positive=False))
BOX = Box(corners=((4, 10, SLICE), (24, 38, SLICE)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of volume.nrrd and model.safetensors."""
    folder = tmp_path_factory.mktemp("ein Kopf für Größen")
    write_volume(folder / "volume.nrrd", VOLUME.array, VOLUME.geometry)
    write_model(folder / "model.safetensors", for_prompts=False)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def session_folder(folder: Path, volume: Path, **fields: Any) -> Path:
    """A folder with session.json."""
    folder.mkdir()
    settings = SessionSettings(volume=volume, device="cpu", **fields)
    (folder / SESSION_FILE).write_text(settings.model_dump_json(), encoding="utf-8")
    return folder


def masks(folder: Path, name: str) -> NDArray[np.uint8]:
    return mask_files.opened(folder / name, SHAPE)  # type: ignore[arg-type]


# A server in this process


class Client:
    """What a program would write and hear."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[Any] = []
        self.lines: list[str] = []
        self.server = CorrectionServer(folder, self._take, self._poll)
        self.ready: Ready = self.heard[-1]
        self.given, self.found = (masks(folder, name) for name in (GIVEN_FILE, FOUND_FILE))

    def tell(self, *requests: BaseModel | str) -> list[Any]:
        """What the worker says to requests, or to lines, until all of them are done."""
        self.lines += [
            each if isinstance(each, str) else each.model_dump_json() for each in requests
        ]
        before = len(self.heard)
        self.server.run(ended=lambda: True)
        return self.heard[before:]

    def answer(self, request: BaseModel) -> Answer:
        (answer,) = (each for each in self.tell(request) if not isinstance(each, Embedded))
        assert isinstance(answer, Answer), answer
        return answer

    def failure(self, request: BaseModel | str) -> Failure:
        (failure,) = (each for each in self.tell(request) if not isinstance(each, Embedded))
        assert isinstance(failure, Failure), failure
        return failure

    def _take(self, message: BaseModel) -> None:
        # As it would come from another process.
        self.heard.append(parse_message(message.model_dump_json()))

    def _poll(self) -> Sequence[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def client(tmp_path: Path, files: Path) -> Client:
    return Client(session_folder(tmp_path / "session", files / "volume.nrrd"))


@pytest.fixture
def tuned(tmp_path: Path, files: Path) -> Client:
    """With a tuned model."""
    model = files / "model.safetensors"
    return Client(session_folder(tmp_path / "tuned", files / "volume.nrrd", model=model))


def test_it_tells_what_it_answers_for(client: Client) -> None:
    ready = client.ready
    assert (ready.axis, ready.array_axis, ready.shape) == ("axial", 0, SHAPE)
    assert ready.labels == {} and not ready.tuned_for_prompts and ready.device == "cpu"
    assert not client.given.any() and not client.found.any()


def test_masks_are_those_of_a_session(client: Client, files: Path) -> None:
    networks = load_networks(SessionSettings(volume=Path("unused"), device="cpu"), 48)
    session = SliceCorrector(read_volume(files / "volume.nrrd"), "axial", networks)
    given = np.roll(BRIGHT[SLICE], 3, axis=1)
    client.given[SLICE] = given
    for number, prompts in enumerate([CLICKS[:1], CLICKS, (*CLICKS, BOX), (BOX,)]):
        for start in ("nothing", "given"):
            request = FindMask(id=number, slice=SLICE, prompts=prompts, start=start)  # type: ignore[arg-type]
            answer = client.answer(request)
            expected = session.find_mask(
                SLICE,
                prompts,
                start,  # type: ignore[arg-type]
                given=given if start == "given" else None,
            )
            assert answer.id == number and answer.slices == [SLICE] and answer.seconds > 0
            assert answer.confidence == [pytest.approx(expected.confidence, abs=1e-4)]
            assert (client.found[SLICE] == expected.mask).all()
    # Bytes 0 and 1, and nothing on other slices.
    assert set(np.unique(client.found)) == {0, 1}
    client.found[SLICE] = 0
    assert not client.found.any()
    assert (client.given[SLICE] > 0).sum() == given.sum()


def test_looking_embeds_and_tells_it(client: Client) -> None:
    told = client.tell(LookAt(id=1, slice=3))
    assert [each.type for each in told] == ["answer"] and told[0].slices == [3]
    for number in range(12):
        told += client.tell(LookAt(id=number, slice=number))
    (last,) = (each for each in told if isinstance(each, Embedded) and each.done == 12)
    assert last.slices == 12


def test_accepted_masks_are_propagated(client: Client) -> None:
    for number in (3, 9):
        client.given[number] = BRIGHT[number]
    answer = client.answer(Propagate(id=4, accepted=(9, 3), outward=1))
    assert sorted(answer.slices) == [2, 4, 5, 6, 7, 8, 10] or "stopped" in answer.remark
    assert len(answer.confidence) == len(answer.slices)
    between = [4, 5, 6, 7, 8]
    assert set(between) <= set(answer.slices)
    assert dsc(client.found[between] > 0, BRIGHT[between]) > 0.8
    # Accepted slices are not its own to write.
    assert not client.found[[3, 9]].any()


def test_the_tuned_model_starts_masks_and_ranks_slices(tuned: Client) -> None:
    assert tuned.ready.labels == {5: "bright", 52: "dark"}
    assert tuned.answer(RankSlices(id=1)).slices == []
    tuned.tell(LookAt(id=2, slice=4), LookAt(id=3, slice=8))
    ranking = tuned.answer(RankSlices(id=4, label=5))
    assert sorted(ranking.slices) == [4, 8] and "2 of 12" in ranking.remark
    assert ranking.confidence == sorted(ranking.confidence)
    answer = tuned.answer(FindMask(id=5, slice=4, start="model", label=52))
    assert answer.slices == [4] and 0 <= answer.confidence[0] <= 1
    assert tuned.failure(FindMask(id=6, slice=4, start="model", label=9)).code == "no_label"


def test_slices_of_another_axis_than_the_models_are_warned_of(tmp_path: Path, files: Path) -> None:
    client = Client(
        session_folder(
            tmp_path / "session",
            files / "volume.nrrd",
            model=files / "model.safetensors",
            axis="coronal",
        )
    )
    assert (client.ready.axis, client.ready.array_axis) == ("coronal", 1)
    (warning,) = (each for each in client.heard if isinstance(each, Log))
    assert warning.level == "warning" and "axial slices; on coronal" in warning.message
    click = Point(at=(16, 24, 6))
    assert client.answer(FindMask(id=1, slice=24, prompts=(click,))).slices == [24]
    assert client.found[:, 24].any() and client.found[6, 24, 16] == 1


@pytest.mark.parametrize("axis", [None, "sagittal"])
@pytest.mark.parametrize("model", [False, True])
def test_a_picture_is_corrected_whole(
    model: bool, axis: str | None, tmp_path: Path, files: Path
) -> None:
    """Whatever the spacing of its rows, the model's axis, or the axis that is asked for."""
    picture = np.ascontiguousarray(VOLUME.array[SLICE][:, None])
    write_volume(
        tmp_path / "picture.nrrd", picture, geometry_of(picture.shape, spacing=(2.5, 1.0, 2.0))
    )
    folder = session_folder(
        tmp_path / "session",
        tmp_path / "picture.nrrd",
        model=files / "model.safetensors" if model else None,
        axis=axis,
    )
    heard: list[Any] = []
    CorrectionServer(folder, heard.append, lambda: [])
    (ready,) = (each for each in heard if isinstance(each, Ready))
    assert (ready.axis, ready.array_axis) == ("coronal", 1)


def test_two_images_in_each_others_place_are_told_of(tmp_path: Path) -> None:
    volume, labels = head((4, 24, 24))
    files = [tmp_path / f"{name}.nrrd" for name in ("t1", "flair")]
    for number, file in enumerate(files):
        write_volume(file, volume.array * (1 - 2 * number), volume.geometry)
    write_labelmap(tmp_path / "l.seg.nrrd", labels)
    model = tmp_path / "m.safetensors"
    finetune(
        [{"volume": files, "segmentation": tmp_path / "l.seg.nrrd"}],
        model,
        **{"steps": 1, "batch": 1, "input_size": 256, "weights": "random", "validation": "none"},
    )
    told = []
    for number, order in enumerate((files, files[::-1])):
        heard: list[Any] = []
        folder = session_folder(
            tmp_path / f"session{number}", order[0], channels=order[1:], model=model
        )
        CorrectionServer(folder, heard.append, lambda: [])
        told.append([each.message for each in heard if isinstance(each, Log)])
    assert told[0] == [] and len(told[1]) == 1 and "in the wrong order" in told[1][0]


BAD_REQUESTS = [
    (LookAt(id=8, slice=12), "no_such_slice"),
    (LookAt(id=8, slice=-1), "no_such_slice"),
    (FindMask(id=8, slice=99), "no_such_slice"),
    (FindMask(id=8, slice=5, prompts=CLICKS), "other_slice"),
    (FindMask(id=8, slice=SLICE, prompts=(Point(at=(-3, 2, SLICE)),)), "outside"),
    (FindMask(id=8, slice=SLICE, prompts=(Box(corners=((3, 3, 6), (3, 9, 6))),)), "empty_box"),
    (FindMask(id=8, slice=SLICE, start="model"), "no_label"),
    (FindMask(id=8, slice=SLICE, start="model", label=5), "no_model"),
    (RankSlices(id=8), "no_model"),
    (Propagate(id=8, accepted=()), "nothing_accepted"),
    (Propagate(id=8, accepted=(2, 4)), "nothing_accepted"),
    (Propagate(id=8, accepted=(2, 12)), "no_such_slice"),
    ('{"kind": "find_mask", "id": 8, "slice": 1, "colour": "red"}', "bad_request"),
    ('{"kind": "find_mask", "id": 8, "slice": 1.5}', "bad_request"),
    ('{"kind": "paint", "id": 8}', "bad_request"),
    # Numbers that are none cannot be written as JSON.
    ('{"kind": "look_at", "id": 8, "slice": null}', "bad_request"),
]


def test_bad_requests_fail_in_words_and_the_session_goes_on(client: Client) -> None:
    for request, code in BAD_REQUESTS:
        failure = client.failure(request)
        assert (failure.id, failure.code) == (8, code), failure
        assert failure.message
    assert not client.found.any()
    assert client.answer(FindMask(id=9, slice=SLICE, prompts=CLICKS)).slices == [SLICE]


@pytest.mark.parametrize(
    "line",
    ["no JSON", "{", "[]", "null", '"text"', "\ufffd\x00", "[" * 20000, '{"id": true}', "{}"],
)
def test_lines_that_are_no_requests_are_warned_of(client: Client, line: str) -> None:
    (warning, answer) = client.tell(line, "", LookAt(id=1, slice=SLICE))
    assert isinstance(warning, Log) and warning.level == "warning" and len(warning.message) < 600
    assert isinstance(answer, Answer)


def test_propagation_can_be_stopped(client: Client) -> None:
    client.given[2:4] = BRIGHT[2:4]
    request = Propagate(id=5, accepted=(2, 3), outward=12)
    told = client.tell(request, Stop(), LookAt(id=6, slice=0))
    failure, answer = (each for each in told if not isinstance(each, Embedded))
    assert (failure.id, failure.code, answer.id) == (5, "stopped", 6)
    assert not client.found.any()
    # One that was told before counts for nothing.
    assert [each.type for each in client.tell(Stop(), request)][-1] == "answer"


def test_closing_breaks_propagation_off(client: Client) -> None:
    client.given[2] = BRIGHT[2]
    failure = client.tell(
        Propagate(id=5, accepted=(2,), outward=12), Close(), LookAt(id=6, slice=0)
    )
    assert [(each.id, each.code) for each in failure] == [(5, "stopped")]


def test_nobody_waits_for_what_an_orphan_propagates(client: Client) -> None:
    client.given[2] = BRIGHT[2]
    client.lines = [Propagate(id=5, accepted=(2,), outward=12).model_dump_json()]
    client.server.run(ended=lambda: True, abandoned=lambda: True)
    assert client.heard[-1].code == "stopped"


def test_a_fault_in_the_program_is_told_and_the_session_goes_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise RuntimeError("pretended")

    with monkeypatch.context() as patch:
        patch.setattr(SliceCorrector, "find_mask", fail)
        log, failure = client.tell(FindMask(id=3, slice=1))
        assert (failure.id, failure.code) == (3, "internal") and "pretended" in failure.message
        # There is no job with a log here.
        assert "worker.log" not in failure.remedy
        assert log.level == "debug" and "Traceback" in log.message
    assert client.answer(FindMask(id=4, slice=1)).id == 4


def test_embeddings_go_to_the_cache(client: Client, cache: Path) -> None:
    client.tell(LookAt(id=1, slice=SLICE))
    (found,) = (cache / "embeddings").glob("*/*")
    assert found.name == "prompted_00006.safetensors"


def refusal(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        Client(folder)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "no_such_file"),
        ("", "bad_job"),
        ("{", "bad_job"),
        ("{}", "bad_job"),
        ('{"volume": "a.nrrd", "modle": "m"}', "bad_job"),
        ('{"volume": "a.nrrd", "axis": "oblique"}', "bad_job"),
        ('{"volume": "a.nrrd", "frame": -1}', "bad_job"),
        ('{"volume": "absent.nrrd"}', None),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, text: str | None, code: str | None) -> None:
    if text is not None:
        (tmp_path / SESSION_FILE).write_text(text)
    assert refusal(tmp_path).code in (code, "no_such_file")


def test_a_device_that_there_is_not_is_refused(tmp_path: Path) -> None:
    volume = tmp_path / "volume.nrrd"
    write_volume(volume, VOLUME.array, VOLUME.geometry)
    settings = {"volume": str(volume), "device": "abacus"}
    (tmp_path / SESSION_FILE).write_text(json.dumps(settings))
    assert refusal(tmp_path).code == "bad_job"


def test_settings_in_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / SESSION_FILE).write_bytes(b"\xff\xfe{")
    assert refusal(tmp_path).code == "bad_job"


def test_an_image_of_one_value_is_refused(tmp_path: Path) -> None:
    volume = tmp_path / "empty.nrrd"
    write_volume(volume, np.full(SHAPE, 7, np.float32), VOLUME.geometry)
    refusal(session_folder(tmp_path / "session", volume))


def test_one_frame_of_a_film_is_corrected(tmp_path: Path, files: Path) -> None:
    film = write_film(tmp_path / "film.nii.gz", [VOLUME.array * 0, VOLUME.array], VOLUME.geometry)
    error = refusal(session_folder(tmp_path / "none", film))
    assert error.code == "frame_not_chosen" and "2 frames" in error.message
    client = Client(session_folder(tmp_path / "session", film, frame=1))
    still = Client(session_folder(tmp_path / "still", files / "volume.nrrd"))
    request = FindMask(id=1, slice=SLICE, prompts=(BOX,))
    assert client.answer(request).slices == still.answer(request).slices
    np.testing.assert_array_equal(client.found[SLICE], still.found[SLICE])
    assert client.found[SLICE].any()


def test_a_slice_of_one_value_is_told(tmp_path: Path) -> None:
    pixels = VOLUME.array.copy()
    pixels[SLICE] = pixels[0, 0, 0]
    write_volume(tmp_path / "volume.nrrd", pixels, VOLUME.geometry)
    client = Client(session_folder(tmp_path / "session", tmp_path / "volume.nrrd"))
    told = client.answer(FindMask(id=1, slice=SLICE, prompts=(BOX,)))
    assert "nothing to find" in told.remark
    beside = Point(at=(16, 24, SLICE + 1))
    assert client.answer(FindMask(id=2, slice=SLICE + 1, prompts=(beside,))).remark == ""


def test_a_model_that_is_none_is_refused(tmp_path: Path, files: Path) -> None:
    volume = files / "volume.nrrd"
    assert refusal(session_folder(tmp_path / "session", volume, model=volume)).code == "bad_model"


def test_a_full_disk_is_refused_before_masks_are_lost(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mask_files.os, "fsync", fill)
    error = refusal(session_folder(tmp_path / "session", files / "volume.nrrd"))
    assert error.code == "no_space" and "No space left" in error.message


def test_mask_files_take_their_space_and_are_looked_at_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / GIVEN_FILE
    mask_files.create(path, (3, 1500, 1001))
    assert path.stat().st_size == 3 * 1500 * 1001
    mask_files.opened(path, (3, 1500, 1001))[1, 2, 3] = 1
    assert mask_files.opened(path, (3, 1500, 1001)).sum() == 1
    for shape in ((3, 1500, 1000), (4, 1500, 1001)):
        with pytest.raises(InputError):
            mask_files.opened(path, shape)
    with pytest.raises(InputError) as caught:
        mask_files.opened(tmp_path / "absent", (1, 1, 1))
    assert caught.value.code == "no_such_file"


# Real workers


class Worker:
    """A worker process, and what it says."""

    def __init__(self, folder: Path, command: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            command or serve_command(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.heard: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.put(parse_message(line))

    def write(self, *requests: BaseModel | str) -> None:
        assert self.process.stdin is not None
        for each in requests:
            line = each if isinstance(each, str) else each.model_dump_json()
            self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, wanted: Callable[[Any], bool], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while True:
            message = self.heard.get(timeout=max(0.01, end - time.monotonic()))
            if wanted(message):
                return message

    def until_type(self, *kinds: type[Any]) -> Any:
        return self.until(lambda message: isinstance(message, kinds))

    def wait(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path, files: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers, and sees to it that none is left."""
    started: list[Worker] = []

    def start_one(**fields: Any) -> Worker:
        folder = session_folder(tmp_path / "ein Ort", files / "volume.nrrd", **fields)
        started.append(Worker(folder))
        return started[-1]

    yield start_one
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_a_session_from_ready_to_close(start: Callable[..., Worker]) -> None:
    worker = start()
    ready = worker.until_type(Ready)
    assert ready.shape == SHAPE
    # In the background it embeds all slices without being asked.
    worker.until(lambda message: isinstance(message, Embedded) and message.done == 12)
    given, found = (masks(worker.folder, name) for name in (GIVEN_FILE, FOUND_FILE))
    worker.write("no request", FindMask(id=1, slice=SLICE, prompts=(*CLICKS, BOX)))
    assert worker.until_type(Log).level == "warning"
    answer = worker.until_type(Answer, Failure)
    assert (answer.id, answer.slices) == (1, [SLICE])
    assert dsc(found[SLICE] > 0, BRIGHT[SLICE]) > 0.85
    given[SLICE] = found[SLICE]
    worker.write(Propagate(id=2, accepted=(SLICE,), outward=9), Stop())
    assert worker.until_type(Answer, Failure).code == "stopped"
    worker.write(Propagate(id=3, accepted=(SLICE,), outward=1))
    answer = worker.until_type(Answer, Failure)
    assert sorted(answer.slices) == [SLICE - 1, SLICE + 1]
    assert dsc(found[SLICE + 1] > 0, BRIGHT[SLICE + 1]) > 0.8
    worker.write(LookAt(id=4, slice=12), Close())
    assert worker.until_type(Answer, Failure).code == "no_such_slice"
    assert worker.wait() == 0


# test_hostile_sessions.py asserts the same of settings that cannot be.
@pytest.mark.slow
def test_a_worker_that_cannot_begin_says_why(tmp_path: Path) -> None:
    worker = Worker(session_folder(tmp_path / "session", tmp_path / "absent.nrrd"))
    failure = worker.until_type(Failure)
    assert failure.id is None and failure.remedy and "absent.nrrd" in failure.line()
    assert worker.wait() == 2
    worker.process.communicate()


_PARENT = """
import json, subprocess, sys
from SAMFineTuneLib.interactive.client import serve_command
from pathlib import Path
worker = subprocess.Popen(serve_command(Path(sys.argv[1])), stdin=sys.stdin, stdout=sys.stdout)
print(json.dumps({"pid": worker.pid}), flush=True)
worker.wait()
"""


def test_a_worker_ends_when_its_program_has_gone(tmp_path: Path, files: Path) -> None:
    """Even if somebody else holds its standard input open."""
    folder = session_folder(tmp_path / "session", files / "volume.nrrd")
    parent = Worker(folder, [sys.executable, "-c", _PARENT, str(folder)])
    number = json.loads(parent.until(lambda message: "pid" in str(message)).message)["pid"]
    worker = psutil.Process(number)
    parent.until_type(Ready)
    assert worker.is_running()
    parent.process.kill()
    try:
        worker.wait(20)
    finally:
        if worker.is_running():
            worker.kill()
        parent.process.communicate()
