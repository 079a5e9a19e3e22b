"""The messages between a program and its correction worker: one JSON object a line.

The program writes `session.json` and starts `python -m SAMFineTuneLib serve FOLDER`. It writes
requests on the worker's standard input; the worker writes messages on its standard output: once
`Ready`, then an `Answer` or a `Failure` to every request, and `Embedded` as it embeds slices in
the background.

Masks pass through two files in the session's folder, each an array (k, j, i) of bytes on the
volume's grid without a header, to be memory-mapped: `GIVEN_FILE` is written by the program,
`FOUND_FILE` by the worker. A request or an answer names the slices whose masks are valid.

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
# The worker's lock file. The program, which outlives its workers, holds the folder's own lock.
SERVER_LOCK_FILE = "serve.pid"

# The mask that prompts correct: none, the tuned model's own, or the one in `GIVEN_FILE`.
Start = Literal["nothing", "model", "given"]
Place = tuple[float, float, float]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SessionSettings(_Message):
    """What a session works on; the content of `session.json`.

    Attributes:
        volume: file of the image, or a DICOM folder.
        series: which series of a DICOM folder, by number or UID; None if it holds only one.
        frame: which frame of an image with an axis of time, counted from 0; None if it has none.
        channels: further images of the same case, in the order of the model.
        model: file of a tuned model; None works with the backbone as it is.
        backbone: which backbone, if there is no model.
        checkpoint: file of the backbone's weights, if they are not in their usual place.
        axis: "axial", "coronal" or "sagittal"; None takes the model's axis or, without a model, the
            axis along which the slices are thickest. An image of a single slice is not cut along
            another axis than its own, whatever is said here.
        device: "auto", "cpu", "cuda", "mps".
    """

    volume: Path
    series: str | None = None
    frame: Annotated[int, Field(ge=0)] | None = None
    channels: list[Path] = []
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
    """A slice is in view: it is embedded before all others, and the answer comes when it is."""

    kind: Literal["look_at"] = "look_at"
    id: int
    slice: int


class FindMask(_Message):
    """The mask of one structure on one slice, from all prompts given there.

    Attributes:
        slice: its number.
        prompts: in the order in which the user gave them; the order matters.
        start: the mask that the prompts correct.
        label: number of the structure in the tuned model; None if the model does not find it.
    """

    kind: Literal["find_mask"] = "find_mask"
    id: int
    slice: int
    prompts: tuple[Prompt, ...] = ()
    start: Start = "nothing"
    label: int | None = None


class Propagate(_Message):
    """Propagate accepted masks: outward from the first and the last, and to the slices between.

    Attributes:
        accepted: slices whose masks in `GIVEN_FILE` are right.
        label: as in `FindMask`.
        outward: the largest number of slices to go beyond the first and the last accepted one.
        between: whether to find masks on the slices between accepted ones.
    """

    kind: Literal["propagate"] = "propagate"
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
    """Breaks off the `Propagate` at work, which then fails with `stopped`; has no answer itself."""

    kind: Literal["stop"] = "stop"


class Close(_Message):
    """The session is over; the worker ends."""

    kind: Literal["close"] = "close"


Request = LookAt | FindMask | Propagate | RankSlices | Stop | Close


class Ready(BaseModel):
    """The worker can answer requests.

    Attributes:
        axis: "axial", "coronal" or "sagittal": the slices on which it finds masks.
        array_axis: the axis of the (k, j, i) array along which these slices are numbered.
        shape: shape of the array.
        labels: number -> name of the structures that the tuned model finds.
        tuned_for_prompts: whether masks come from weights tuned for prompts, or the backbone's own.
        device: name of the device that computes.
    """

    type: Literal["ready"] = "ready"
    axis: str
    array_axis: int
    shape: tuple[int, int, int]
    labels: dict[int, str] = Field(default_factory=dict)
    tuned_for_prompts: bool = False
    device: str = "cpu"


class Embedded(BaseModel):
    """How many slices are embedded (`done`), and how many there are (`slices`)."""

    type: Literal["embedded"] = "embedded"
    done: int
    slices: int


class Answer(BaseModel):
    """A request is done.

    Attributes:
        id: id of the request.
        slices: the slices whose masks are valid in `FOUND_FILE`; for `RankSlices` the ranking.
        confidence: for each of these slices a number from 0 to 1. For `FindMask` it is the IoU
            (intersection over union) that the network predicts for its mask, for `Propagate` the
            share of the mask that the image supports, for `RankSlices` 1 less the uncertainty.
        remark: what the user should know, such as where propagation stopped and why.
        seconds: the time that the worker took.
    """

    type: Literal["answer"] = "answer"
    id: int
    slices: list[int] = Field(default_factory=list)
    confidence: list[float] = Field(default_factory=list)
    remark: str = ""
    seconds: float = 0.0


class Failure(BaseModel):
    """A request cannot be done, but the session goes on; without an id, the session has ended.

    `code`, `remedy` and `facts` are as in `ErrorEvent`.
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
        ValueError: the line is no request (pydantic's ValidationError, which says why).
    """
    # Strict, because otherwise true would be taken for slice 1, and "3" for slice 3.
    return _REQUESTS.validate_json(line, strict=True)


def parse_message(line: str) -> Message:
    """The message on a line of the worker's output; any other line becomes a `Log`."""
    try:
        return _MESSAGES.validate_json(line)
    except ValueError:
        return Log(level="debug", message=line.rstrip("\r\n"))
