"""What a program asks its correction worker when, with a worker that a script plays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from SAMFineTuneLib.interactive.client import ENDED, READY, STARTING, CorrectionClient
from SAMFineTuneLib.interactive.protocol import (
    Answer,
    Embedded,
    Failure,
    FindMask,
    LookAt,
    Point,
    Propagate,
    Ready,
    parse_request,
)

READY_LINE = Ready(axis="axial", array_axis=0, shape=(4, 8, 8)).model_dump_json()


class Script:
    """A worker's process: what was written to it, and how often it was started and killed."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.starts = self.kills = 0

    def start(self, receiver: Any) -> None:
        self.starts += 1

    def note_children(self) -> None:
        raise AssertionError("only who cancels a job asks for this")

    def call_later(self, seconds: float, action: Any) -> None:
        raise AssertionError("only who cancels a job asks for this")

    def write(self, line: str) -> None:
        parse_request(line)
        self.written.append(json.loads(line))

    def kill(self) -> None:
        self.kills += 1

    @property
    def kinds(self) -> list[str]:
        return [each["kind"] for each in self.written]


class Heard:
    """A client whose worker follows a script, and all that the client reported."""

    def __init__(self) -> None:
        self.script = Script()
        self.messages: list[Any] = []
        self.restarts: list[str] = []
        self.ends: list[str] = []
        self.answers: list[int] = []
        self.failures: list[str] = []
        self.client = CorrectionClient(
            self.script,
            self.messages.append,
            self.restarts.append,
            lambda failure: self.ends.append(failure.line()),
        )
        self.client.start()

    def ready(self) -> Heard:
        self.client.take_output(READY_LINE)
        return self

    def ask(self, question: Any) -> int:
        return self.client.ask(
            question,
            lambda answer: self.answers.append(answer.id),
            lambda failure: self.failures.append(failure.line()),
        )

    def find(self, number: int, clicks: int = 1) -> int:
        points = tuple(Point(at=(each, 0, number)) for each in range(clicks))
        return self.ask(FindMask(id=0, slice=number, prompts=points))

    def answer(self, number: int) -> None:
        self.client.take_output(Answer(id=number, slices=[1]).model_dump_json())


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_questions_wait_until_the_worker_is_ready(heard: Heard) -> None:
    heard.ask(LookAt(id=0, slice=2))
    first = heard.find(2)
    assert heard.client.state == STARTING and heard.script.written == []
    heard.ready()
    assert heard.client.state == READY and heard.script.kinds == ["look_at", "find_mask"]
    assert isinstance(heard.messages[0], Ready)
    heard.answer(first)
    assert heard.answers == [first] and heard.client.open_requests == 1


def test_one_mask_at_a_time_and_the_latest_wins(heard: Heard) -> None:
    heard.ready()
    first = heard.find(2, 1)
    second, third = heard.find(2, 2), heard.find(2, 3)
    elsewhere = heard.find(3, 1)
    assert len(heard.script.written) == 1
    heard.answer(first)
    heard.answer(third)
    heard.answer(elsewhere)
    assert [each["id"] for each in heard.script.written] == [first, third, elsewhere]
    assert heard.answers == [first, third, elsewhere] and second not in heard.answers
    assert len(heard.script.written[1]["prompts"]) == 3 and heard.client.open_requests == 0


def test_no_mask_is_found_while_masks_are_propagated(heard: Heard) -> None:
    heard.ready()
    propagated = heard.ask(Propagate(id=0, accepted=(2,), outward=3))
    found = heard.find(2)
    looked = heard.ask(LookAt(id=0, slice=1))
    assert heard.script.kinds == ["propagate", "look_at"]
    heard.answer(looked)
    assert heard.script.kinds[2:] == []
    heard.answer(propagated)
    assert heard.script.kinds[2:] == ["find_mask"]
    heard.answer(found)
    assert heard.answers == [looked, propagated, found]


def test_propagation_is_stopped_at_work_and_while_it_waits(heard: Heard) -> None:
    heard.ready()
    heard.client.stop()
    assert heard.script.written == []
    propagated = heard.ask(Propagate(id=0, accepted=(2,)))
    heard.client.stop()
    assert heard.script.kinds == ["propagate", "stop"] and heard.failures == []
    stopped = Failure(id=propagated, code="stopped", message="Stopped")
    heard.client.take_output(stopped.model_dump_json())
    assert heard.failures == ["Stopped"]
    heard.find(1)
    heard.ask(Propagate(id=0, accepted=(2,)))
    heard.client.stop()
    assert heard.failures == ["Stopped"] * 2 and heard.script.kinds[2:] == ["find_mask"]


def test_a_failure_belongs_to_its_question_and_the_session_goes_on(heard: Heard) -> None:
    heard.ready()
    first = heard.find(1)
    failure = Failure(id=first, code="outside", message="Beyond the image", remedy="Click inside")
    heard.client.take_output(failure.model_dump_json())
    assert heard.failures == ["Beyond the image. Click inside"] and heard.client.state == READY
    second = heard.find(1)
    heard.answer(second)
    assert heard.answers == [second] and heard.ends == []


def test_other_lines_are_words_and_unknown_answers_are_passed_over(heard: Heard) -> None:
    heard.ready()
    heard.client.take_output("Downloading: 50%")
    heard.client.take_output('{"type": "answer"}')
    heard.client.take_output(Embedded(done=2, slices=4).model_dump_json())
    heard.answer(99)
    kinds = [each.type for each in heard.messages]
    assert kinds == ["ready", "log", "log", "embedded"] and heard.answers == []


def test_a_dead_worker_is_started_again_and_asked_again(heard: Heard) -> None:
    heard.ready()
    first = heard.find(1)
    looked = heard.ask(LookAt(id=0, slice=1))
    waiting = heard.find(2)
    heard.client.take_error("RuntimeError: out of memory")
    heard.client.take_error("  in some other line")
    heard.client.take_end(-9, "")
    assert heard.restarts == [
        "The correction worker ended (killed by SIGKILL); its last message: "
        "RuntimeError: out of memory"
    ]
    assert heard.script.starts == 2 and heard.client.state == STARTING and heard.ends == []
    before = len(heard.script.written)
    heard.ready()
    again = [each["id"] for each in heard.script.written[before:]]
    assert again == [first, looked]
    for number in (first, looked, waiting):
        heard.answer(number)
    assert heard.answers == [first, looked, waiting]


def test_a_newer_prompt_takes_the_place_of_one_that_death_has_left_open(heard: Heard) -> None:
    heard.ready()
    heard.find(1, 1)
    heard.find(1, 2)
    heard.client.take_end(1, "")
    newer = heard.find(1, 3)
    heard.ready()
    assert [each["id"] for each in heard.script.written[1:]] == [newer]


def test_a_second_death_ends_the_session_with_its_last_words(heard: Heard) -> None:
    heard.ready()
    heard.find(1)
    heard.client.take_end(1, "")
    heard.client.take_error("ImportError: no torch")
    heard.client.take_end(1, "")
    assert len(heard.restarts) == 1 and len(heard.ends) == 1 and heard.script.starts == 2
    assert "ImportError: no torch" in heard.ends[0] and heard.client.state == ENDED
    assert heard.ends[0].endswith("what was accepted is in the segment")
    assert heard.find(1) == 0 and heard.client.open_requests == 0
    heard.client.take_end(1, "")
    assert len(heard.ends) == 1


def test_a_failure_without_an_id_ends_the_session_at_once(heard: Heard) -> None:
    failure = Failure(code="no_such_file", message="volume.nrrd is missing", remedy="Start again")
    heard.client.take_output(failure.model_dump_json())
    heard.client.take_end(2, "")
    assert heard.ends == ["volume.nrrd is missing. Start again"]
    assert heard.script.kills == 1 and heard.script.starts == 1 and heard.restarts == []


def test_close_tells_the_worker_and_hears_nothing_more(heard: Heard) -> None:
    heard.ready()
    first = heard.find(1)
    heard.client.close()
    heard.client.close()
    heard.answer(first)
    heard.client.take_end(0, "")
    assert heard.script.kinds == ["find_mask", "close"]
    assert heard.answers == [] and heard.ends == [] and heard.restarts == []


def test_masks_that_nobody_wants_any_more_are_dropped(heard: Heard) -> None:
    heard.ready()
    first, other = heard.find(1), heard.find(2)
    heard.client.drop_masks(1)
    heard.answer(first)
    heard.answer(other)
    assert heard.answers == [other]
    heard.find(1)
    heard.find(2)
    heard.client.drop_masks()
    assert heard.client.open_requests == 1


def test_a_fault_of_a_listener_does_not_hold_up_the_next_question(heard: Heard) -> None:
    def fail(answer: Answer) -> None:
        raise ZeroDivisionError

    heard.ready()
    first = heard.client.ask(FindMask(id=0, slice=1), fail, heard.messages.append)
    second = heard.find(2)
    with pytest.raises(ZeroDivisionError):
        heard.answer(first)
    heard.answer(second)
    assert heard.answers == [second]
