"""Dialogs that would wait for a person: kept as records, and answered by the test.

A dialog that no test has an answer for is an error, and is cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6.QtWidgets import QDialog, QFileDialog, QInputDialog, QMenu, QMessageBox

from .collected_errors import record


@dataclass(frozen=True)
class Shown:
    """What a person would have seen: kind ("error", "confirm", "open file" …), and its words."""

    kind: str
    text: str


shown: list[Shown] = []
_answers: list[Any] = []


def answer_next(answer: Any) -> None:
    """Answers the next dialog: a path, a list of paths, a text, or whether to go on."""
    _answers.append(answer)


def unused_answers() -> list[Any]:
    """Answers whose dialogs have not come."""
    return list(_answers)


def forget() -> None:
    """Starts afresh, as each test does."""
    shown.clear()
    _answers.clear()


def ask(kind: str, text: str, otherwise: Any) -> Any:
    """Keeps the dialog and gives the test's answer; without one, records an error."""
    shown.append(Shown(kind, text))
    if _answers:
        return _answers.pop(0)
    record(f"a dialog ({kind}: {text!r}) waits for an answer that no test gives")
    return otherwise


def confirm(text: str) -> bool:
    """Keeps a question and gives the test's answer; without one, no."""
    shown.append(Shown("confirm", text))
    return bool(_answers.pop(0)) if _answers else False


def tell(kind: str, text: str) -> None:
    """Keeps a message that needs no answer."""
    shown.append(Shown(kind, text))


def _open_file(parent: Any = None, caption: str = "", *rest: Any, **named: Any) -> str:
    return str(ask("open file", caption, ""))


def _open_files(parent: Any = None, caption: str = "", *rest: Any, **named: Any) -> tuple[str, ...]:
    return tuple(str(path) for path in ask("open files", caption, ()))


def _save_file(parent: Any = None, caption: str = "", *rest: Any, **named: Any) -> str:
    return str(ask("save file", caption, ""))


def _existing_folder(parent: Any = None, caption: str = "", *rest: Any, **named: Any) -> str:
    return str(ask("folder", caption, ""))


def _text(parent: Any, title: str, label: str, *rest: Any, **named: Any) -> str:
    # PythonQt leaves out the bool `ok` that C++ returns by pointer.
    return str(ask("text", label, ""))


def _run(dialog: QDialog, *arguments: Any) -> Any:
    text = dialog.text if isinstance(dialog, QMessageBox) else dialog.windowTitle
    return ask("dialog", text, QDialog.DialogCode.Rejected)


def _message(parent: Any, title: str, text: str, *rest: Any) -> Any:
    return ask("message box", text, QMessageBox.StandardButton.Cancel)


def _pop_up(menu: QMenu, *arguments: Any) -> Any:
    """The answer is the text of the entry to choose."""
    wanted = ask("menu", menu.title, None)
    for action in menu.actions():
        if action.text == wanted:
            action.trigger()
            return action
    return None


def return_as_python_qt() -> None:
    """For a person: real file dialogs, without the filter that C++ returns by pointer."""
    for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName"):
        original = getattr(QFileDialog, name)
        replacement = staticmethod(lambda *given, original=original: original(*given)[0])
        setattr(QFileDialog, name, replacement)
    for kind in (QDialog, QMenu):
        kind.exec_ = kind.exec


def install() -> None:
    """Replaces what opens a dialog and waits, with PythonQt's return values."""
    QFileDialog.getOpenFileName = staticmethod(_open_file)
    QFileDialog.getOpenFileNames = staticmethod(_open_files)
    QFileDialog.getSaveFileName = staticmethod(_save_file)
    QFileDialog.getExistingDirectory = staticmethod(_existing_folder)
    QInputDialog.getText = staticmethod(_text)
    for kind in (QDialog, QMessageBox, QFileDialog, QInputDialog):
        kind.exec = _run
        kind.exec_ = _run
    for name in ("information", "question", "warning", "critical"):
        setattr(QMessageBox, name, staticmethod(_message))
    QMenu.exec = _pop_up
    QMenu.exec_ = _pop_up
