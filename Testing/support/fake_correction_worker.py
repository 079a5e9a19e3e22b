"""A correction worker without a network: `fake_correction_worker.py BEHAVIOUR FOLDER`.

It answers a disc around each positive point less one around each negative point, what is within a
box, and propagates a mask unchanged to slices within `outward` and between the accepted ones.
BEHAVIOUR, words joined by "+", says what is amiss:

die        ends at the first question about a mask; started again, it does not
die_always ends at each question about a mask
leave      cannot be used at all
refuse     fails every question about a mask
garbage    prints other things in between
slow       takes half a second for a mask

It imports no package, and so starts in a tenth of the time that numpy and pydantic would need. What
it is asked is checked against the protocol by `correction_workers.pretend`, and what it says by the
client.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

# As in SAMFineTuneLib.interactive.protocol.
GIVEN_FILE, FOUND_FILE, SESSION_FILE = "given.raw", "found.raw", "session.json"
RADIUS = 6
_AXES = {"axial": 0, "coronal": 1, "sagittal": 2}

# A mask of a slice, row by row, 1 where it holds a voxel.
Mask = list[bytearray]


class MaskFile:
    """A file of masks (k, j, i), mapped into memory, as slices along an axis."""

    def __init__(self, path: Path, shape: tuple[int, int, int], axis: int) -> None:
        steps = [shape[1] * shape[2], shape[2], 1]
        self.slices, self._step = shape[axis], steps[axis]
        (self.rows, self._row_step), (self.columns, self._column_step) = (
            (shape[other], steps[other]) for other in range(3) if other != axis
        )
        # Replaced rather than rewritten: who has the old file mapped goes on seeing it.
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(bytes(shape[0] * shape[1] * shape[2]))
        part.replace(path)
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)

    def _row(self, number: int, row: int) -> slice:
        start = number * self._step + row * self._row_step
        end = start + (self.columns - 1) * self._column_step + 1
        return slice(start, end, self._column_step)

    def read(self, number: int) -> Mask:
        return [bytearray(self._bytes[self._row(number, row)]) for row in range(self.rows)]

    def write(self, number: int, mask: Mask) -> None:
        for row, values in enumerate(mask):
            self._bytes[self._row(number, row)] = bytes(values)

    def empty(self) -> Mask:
        return [bytearray(self.columns) for _ in range(self.rows)]


class FakeWorker:
    def __init__(self, behaviour: str, folder: Path) -> None:
        self.habits = set(behaviour.split("+"))
        self.folder = folder
        settings = json.loads((folder / SESSION_FILE).read_text(encoding="utf-8"))
        axis = settings["axis"] or "axial"
        self.axis = _AXES[axis]
        shape = _shape(Path(settings["volume"]))
        self.given, self.found = (
            MaskFile(folder / name, shape, self.axis) for name in (GIVEN_FILE, FOUND_FILE)
        )
        labels = {1: "model", 2: ""} if settings["model"] else {}
        self.say("ready", axis=axis, array_axis=self.axis, shape=shape, labels=labels)
        self.say("embedded", done=self.given.slices, slices=self.given.slices)

    def say(self, kind: str, **content: Any) -> None:
        if "garbage" in self.habits:
            sys.stdout.buffer.write(b'\xff\xfe 50%|####\r{"type": "answer"}\n')
        print(json.dumps({"type": kind, **content}), flush=True)

    def run(self) -> None:
        for line in sys.stdin:
            request = json.loads(line)
            kind = request["kind"]
            if kind == "close":
                return
            if kind == "look_at":
                self.say("answer", id=request["id"], slices=[request["slice"]])
            elif kind == "rank_slices":
                ranking = [*range(self.given.slices)][::-1]
                self.say("answer", id=request["id"], slices=ranking)
            elif kind != "stop":
                self.answer(request)

    def answer(self, request: dict[str, Any]) -> None:
        mark = self.folder / "died"
        if "die_always" in self.habits or ("die" in self.habits and not mark.exists()):
            mark.touch()
            print("RuntimeError: pretended", file=sys.stderr, flush=True)
            os.abort()
        if "refuse" in self.habits:
            self.say("failure", id=request["id"], code="x", message="No", remedy="Ask another")
            return
        if "slow" in self.habits:
            time.sleep(0.5)
        masks = {"find_mask": self.mask, "propagate": self.propagated}[request["kind"]](request)
        for number, mask in masks.items():
            self.found.write(number, mask)
        remark = "" if request["kind"] == "find_mask" else "The structure ends there."
        certain = [0.5] * len(masks)
        self.say("answer", id=request["id"], slices=[*masks], confidence=certain, remark=remark)

    def mask(self, request: dict[str, Any]) -> dict[int, Mask]:
        mask = self.given.empty()
        if request["start"] == "given":
            mask = self.given.read(request["slice"])
        if request["start"] == "model":
            for row in range(2, 5):
                mask[row][2:5] = b"\1\1\1"
        for prompt in request["prompts"]:
            if prompt["kind"] == "point":
                self.draw_disc(mask, self.in_slice(prompt["at"]), int(prompt["positive"]))
            else:
                self.fill_box(mask, sorted(map(self.in_slice, prompt["corners"])))
        return {request["slice"]: mask}

    def draw_disc(self, mask: Mask, centre: list[float], value: int) -> None:
        for row in self.near(centre[0], self.given.rows):
            for column in self.near(centre[1], self.given.columns):
                if (row - centre[0]) ** 2 + (column - centre[1]) ** 2 < RADIUS**2:
                    mask[row][column] = value

    def near(self, place: float, count: int) -> range:
        return range(max(0, int(place) - RADIUS), min(count, int(place) + RADIUS + 2))

    def fill_box(self, mask: Mask, corners: list[list[float]]) -> None:
        (top, left), (bottom, right) = corners
        left, right = sorted((left, right))
        for row in range(self.given.rows):
            for column in range(self.given.columns):
                if top <= row <= bottom and left <= column <= right:
                    mask[row][column] = 1

    def propagated(self, request: dict[str, Any]) -> dict[int, Mask]:
        accepted, outward = request["accepted"], request["outward"]
        low, high = min(accepted), max(accepted)
        numbers = set(range(low - outward, low)) | set(range(high + 1, high + 1 + outward))
        if request["between"]:
            numbers |= set(range(low, high)) - set(accepted)
        return {
            number: self.given.read(min(accepted, key=lambda each, here=number: abs(each - here)))
            for number in sorted(numbers & set(range(self.given.slices)))
        }

    def in_slice(self, place: list[float]) -> list[float]:
        return [round(each, 3) for axis, each in enumerate(place[::-1]) if axis != self.axis]


def _shape(volume: Path) -> tuple[int, int, int]:
    with volume.open("rb") as file:
        for line in file:
            if line.startswith(b"sizes: "):
                # Of colours, the first size is that of the values in a voxel.
                i, j, k = map(int, line.split()[-3:])
                return k, j, i
    raise ValueError(f"{volume} has no sizes")


if __name__ == "__main__":
    if "leave" in sys.argv[1]:
        sys.exit("ImportError: no network here")
    FakeWorker(sys.argv[1], Path(sys.argv[2])).run()
