"""What a program and its correction worker say to each other: one JSON object a line.

The program writes `session.json` and starts `python -m SAMFineTuneLib serve FOLDER`. It writes
requests on the worker's standard input; the worker writes messages on its standard output: once
`Ready`, then an `Answer` or a `Failure` to every request, and `Embedded` as it goes on in the
background.

Masks pass through two files in the session's folder, each an array (k, j, i) of bytes on the
volume's grid without a header, to be memory-mapped: `GIVEN_FILE` is written by the program,
`FOUND_FILE` by the worker. A request or an answer names the slices that are valid in it.

Slices are numbered from 0 along an axis of the array; places are voxel indices (i, j, k) of the
volume, not rounded, whole numbers at the centres of voxels. Nothing here loads a tensor library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from SAMFineTuneLib.jobs.schema import Device
from SAMFineTuneLib.worker.events import Log

SESSION_FILE = "session.json"
GIVEN_FILE = "given.raw"
FOUND_FILE = "found.raw"
# Of the worker; the lock of the folder itself is the program's, which outlives its workers.
SERVER_LOCK_FILE = "serve.pid"

# Which mask prompts correct: none; the tuned model's own; that in `GIVEN_FILE`.
Start = Literal["nothing", "model", "given"]
Place = tuple[float, float, float]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SessionSettings(_Message):
    """What a session is about; the content of `session.json`.

    Attributes:
        volume: file of the image, or a DICOM folder.
        series: of a DICOM folder, by number or UID; None where it holds only one.
        model: a tuned model; None works with the backbone as it is.
        backbone: without a model, which.
        checkpoint: the backbone's weights, where they are in no usual place.
        axis: "axial", "coronal" or "sagittal"; None is the model's, or that of the thickest slices.
        device: "auto", "cpu", "cuda", "mps".
    """

    volume: Path
    series: str | None = None
    model: Path | None = None
    backbone: str = "starter"
    checkpoint: Path | None = None
    axis: Literal["axial", "coronal", "sagittal"] | None = None
    device: Device = "auto"


class Point(_Message):
    """A click: the structure is here, or it is not."""

    kind: Literal["point"] = "point"
    at: Place
    positive: bool = True


class Box(_Message):
    """Two opposite corners around the structure."""

    kind: Literal["box"] = "box"
    corners: tuple[Place, Place]


Prompt = Annotated[Point | Box, Field(discriminator="kind")]


class LookAt(_Message):
    """The slice that is in view: it is embedded before all others. Answered when it is."""

    kind: Literal["look_at"] = "look_at"
    id: int
    slice: int


class FindMask(_Message):
    """The mask of one structure on one slice, from all prompts given there.

    Attributes:
        slice: its number.
        prompts: in the order in which the user gave them; the order matters.
        start: the mask that they correct.
        label: number of the structure in the tuned model; None when it is not one of them.
    """

    kind: Literal["find_mask"] = "find_mask"
    id: int
    slice: int
    prompts: tuple[Prompt, ...] = ()
    start: Start = "nothing"
    label: int | None = None


class CarryOn(_Message):
    """Accepted masks to other slices: outward from the first and last, and between them.

    Attributes:
        accepted: slices whose masks in `GIVEN_FILE` are right.
        label: as in `FindMask`.
        outward: how many slices to go beyond the first and the last accepted one at most; 0 none.
        between: whether to fill what lies between accepted slices.
    """

    kind: Literal["carry_on"] = "carry_on"
    id: int
    accepted: tuple[int, ...]
    label: int | None = None
    outward: int = 0
    between: bool = True


class RankSlices(_Message):
    """Which slices the tuned model is least certain about, the worst first."""

    kind: Literal["rank_slices"] = "rank_slices"
    id: int
    label: int | None = None


class Stop(_Message):
    """Breaks off the `CarryOn` at work; not answered itself, but that one fails with `stopped`."""

    kind: Literal["stop"] = "stop"


class Close(_Message):
    """The session is over; the worker ends."""

    kind: Literal["close"] = "close"


Request = LookAt | FindMask | CarryOn | RankSlices | Stop | Close


class Ready(BaseModel):
    """The worker is at work.

    Attributes:
        axis: "axial", "coronal" or "sagittal": the slices that it answers for.
        array_axis: of the (k, j, i) array, along which these are numbered.
        shape: of the array.
        labels: number -> name of the structures that the tuned model finds.
        tuned_for_prompts: whether weights tuned for prompts answer, or the backbone's own.
        device: in words.
    """

    type: Literal["ready"] = "ready"
    axis: str
    array_axis: int
    shape: tuple[int, int, int]
    labels: dict[int, str] = Field(default_factory=dict)
    tuned_for_prompts: bool = False
    device: str = "cpu"


class Embedded(BaseModel):
    """How many slices of how many are embedded."""

    type: Literal["embedded"] = "embedded"
    done: int
    slices: int


class Answer(BaseModel):
    """A request is done.

    Attributes:
        id: of the request.
        slices: whose masks are valid in `FOUND_FILE`; for `RankSlices` the ranking.
        confidence: of each of these slices, from 0 to 1: the overlap (intersection over union)
            that the network expects of its mask.
        words: what the user should know of it, such as where carrying on stopped and why.
        seconds: that the worker took.
    """

    type: Literal["answer"] = "answer"
    id: int
    slices: list[int] = Field(default_factory=list)
    confidence: list[float] = Field(default_factory=list)
    words: str = ""
    seconds: float = 0.0


class Failure(BaseModel):
    """A request cannot be done; the session goes on. Without an id: the session cannot.

    `code`, `remedy` and `facts` are those of `ErrorEvent`.
    """

    type: Literal["failure"] = "failure"
    id: int | None = None
    code: str
    message: str
    remedy: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)

    def line(self) -> str:
        """One line for a person."""
        text = f"{self.message}. {self.remedy}" if self.remedy else self.message
        return " ".join(text.split())


Message = Ready | Embedded | Answer | Failure | Log
_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse_request(line: str) -> Request:
    """The request on a line.

    Raises:
        ValueError: it is none (pydantic's ValidationError, which tells why).
    """
    # Strict: else true would pass for slice 1, and "3" for slice 3.
    return _REQUESTS.validate_json(line, strict=True)


def parse_message(line: str) -> Message:
    """The message on a line of the worker's output; any other line becomes a `Log`."""
    try:
        return _MESSAGES.validate_json(line)
    except ValueError:
        return Log(level="debug", message=line.rstrip("\r\n"))
