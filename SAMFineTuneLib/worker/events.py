"""The events that a worker reports: one JSON object a line on stdout, and in events.jsonl."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field, TypeAdapter

from SAMFineTuneLib.worker.json_text import to_json

EVENTS_FILE = "events.jsonl"
Level = Literal["debug", "info", "warning", "error"]


class Progress(BaseModel):
    """How far the work is: `step` of `steps` (None if not known) in this `phase`."""

    type: Literal["progress"] = "progress"
    step: int
    steps: int | None = None
    phase: str = ""
    eta_s: float | None = None
    loss: float | None = None
    validation_dsc: float | None = None


class Preview(BaseModel):
    """An image to look at while the work goes on: its file, and the slice that it shows."""

    type: Literal["preview"] = "preview"
    path: str
    slice: int | None = None


class Log(BaseModel):
    """A message for the user or, at level "debug", a line that a library printed."""

    type: Literal["log"] = "log"
    level: Level = "info"
    message: str


class Result(BaseModel):
    """The work is done; `result` depends on the kind of job."""

    type: Literal["result"] = "result"
    result: dict[str, Any]


class ErrorEvent(BaseModel):
    """The work ended without a result: what was wrong, what to do, and the exit code.

    `remedy` holds for every front end. A front end that has a remedy of its own for the `code`
    formats it with the `facts`, whose names depend on the code.
    """

    type: Literal["error"] = "error"
    code: str
    message: str
    remedy: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)
    exit_code: int = 1

    def line(self) -> str:
        """One line for a person."""
        text = f"{self.message}. {self.remedy}" if self.remedy else self.message
        return " ".join(text.split())


Event = Progress | Preview | Log | Result | ErrorEvent
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def parse_line(line: str) -> Event:
    """The event on a line of a worker's output; never raises: any other line becomes a `Log`."""
    try:
        return _EVENTS.validate_json(line)
    except ValueError:
        readable = line.encode("utf-8", errors="replace").decode("utf-8").rstrip("\r\n")
        return Log(level="debug", message=readable)


class LineStream(Protocol):
    """The part of a text stream's interface that events are written with."""

    def write(self, line: str, /) -> int:
        """Write a line with its end; returns the number of characters written."""

    def flush(self) -> None:
        """Send on what was written."""


class EventWriter:
    """Writes events to a stream and to the job folder, whole lines at a time, from any thread.

    Args:
        job_folder: folder in which lines are appended to events.jsonl; None writes no file.
        stream: a text stream for the client; None if there is no client.
    """

    def __init__(self, job_folder: Path | None, stream: LineStream | None) -> None:
        self._path = None if job_folder is None else Path(job_folder) / EVENTS_FILE
        self._stream = stream
        self._lock = threading.RLock()

    def emit(self, event: BaseModel) -> None:
        """Write one event; a client that has ended or a full disk does not stop the work."""
        line = to_json(event) + "\n"
        with self._lock:
            self._send(line)
            self._keep(line)

    def leave_folder(self) -> None:
        """Write no more into the job folder, because another worker is using it."""
        with self._lock:
            self._path = None

    def progress(
        self,
        step: int,
        steps: int | None = None,
        phase: str = "",
        eta_s: float | None = None,
        loss: float | None = None,
        validation_dsc: float | None = None,
    ) -> None:
        """Report how far the work is."""
        self.emit(
            Progress(
                step=step,
                steps=steps,
                phase=phase,
                eta_s=eta_s,
                loss=loss,
                validation_dsc=validation_dsc,
            )
        )

    def preview(self, path: Path, slice_number: int | None = None) -> None:
        """Report an image of the work so far."""
        self.emit(Preview(path=str(path), slice=slice_number))

    def log(self, message: str, level: Level = "info") -> None:
        """Log a message for the user."""
        self.emit(Log(level=level, message=message))

    def warning(self, message: str) -> None:
        """Log a warning about something that the user may not have expected."""
        self.log(message, "warning")

    def _send(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None

    def _keep(self, line: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(line)
        except OSError as error:
            lost = self._path
            self._path = None
            message = f"{lost} cannot be written any more: {error.strerror or error}"
            self._send(to_json(Log(level="warning", message=message)) + "\n")
