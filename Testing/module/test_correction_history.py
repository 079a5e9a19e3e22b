"""Steps of a correction, back and forth."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("module")


class Prompts:
    """A list that is changed step by step."""

    def __init__(self, history) -> None:
        self.history, self.given, self.locked = history, [], False

    def give(self, prompt: str) -> None:
        self.given.append(prompt)
        self.history.add(prompt, self.take_back, lambda: self.given.append(prompt))

    def take_back(self) -> None:
        if self.locked:
            raise ValueError("was edited since")
        self.given.pop()


@pytest.fixture
def prompts():
    from SAMFineTunePanel.correction.correction_history import CorrectionHistory

    return Prompts(CorrectionHistory(limit=3))


def test_steps_go_back_and_forth(prompts):
    history = prompts.history
    prompts.give("a")
    prompts.give("b")
    assert (history.undoText, history.redoText) == ("b", "")
    assert history.undo() == "b" and prompts.given == ["a"]
    assert (history.undoText, history.redoText) == ("a", "b")
    assert history.undo() == "a" and prompts.given == []
    assert not history.canUndo() and history.canRedo()
    assert [history.redo(), history.redo()] == ["a", "b"] and prompts.given == ["a", "b"]
    assert not history.canRedo()


def test_a_new_step_ends_what_could_be_done_again(prompts):
    prompts.give("a")
    prompts.history.undo()
    prompts.give("b")
    assert not prompts.history.canRedo() and prompts.given == ["b"]
    with pytest.raises(ValueError, match="nothing to redo"):
        prompts.history.redo()


def test_the_oldest_steps_are_forgotten(prompts):
    for prompt in "abcde":
        prompts.give(prompt)
    while prompts.history.canUndo():
        prompts.history.undo()
    assert prompts.given == ["a", "b"]
    with pytest.raises(ValueError, match="nothing to undo"):
        prompts.history.undo()


def test_a_step_that_cannot_be_taken_back_stays(prompts):
    prompts.give("a")
    prompts.locked = True
    with pytest.raises(ValueError, match="edited since"):
        prompts.history.undo()
    assert prompts.history.undoText == "a" and not prompts.history.canRedo()
    prompts.locked = False
    assert prompts.history.undo() == "a" and prompts.given == []


def test_what_happens_during_a_replay_is_no_step(prompts):
    history = prompts.history
    seen = []
    history.add("x", lambda: seen.append(history.isReplaying), lambda: prompts.give("y"))
    history.undo()
    assert seen == [True] and not history.isReplaying
    with pytest.raises(RuntimeError, match="while another one"):
        history.redo()
    assert history.redoText == "x" and not history.isReplaying


def test_everything_can_be_forgotten(prompts):
    prompts.give("a")
    prompts.give("b")
    prompts.history.undo()
    prompts.history.forget()
    assert not prompts.history.canUndo() and not prompts.history.canRedo()
