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
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.interactive import mask_files
from SAMFineTuneLib.interactive.protocol import (
    FOUND_FILE,
    GIVEN_FILE,
    SESSION_FILE,
    Answer,
    Close,
    Embedded,
    Failure,
    FindMask,
    LookAt,
    Propagate,
    RankSlices,
    Ready,
    Stop,
    parse_request,
)

RADIUS = 6
_AXES = {"axial": 0, "coronal": 1, "sagittal": 2}


class FakeWorker:
    def __init__(self, behaviour: str, folder: Path) -> None:
        self.habits = set(behaviour.split("+"))
        self.folder = folder
        self.wait: list[Any] = []
        settings = json.loads((folder / SESSION_FILE).read_text(encoding="utf-8"))
        self.axis = _AXES[settings["axis"] or "axial"]
        shape = _shape(Path(settings["volume"]))
        for name in (GIVEN_FILE, FOUND_FILE):
            mask_files.create(folder / name, shape)
        self.given, self.found = (
            np.moveaxis(mask_files.opened(folder / name, shape), self.axis, 0)
            for name in (GIVEN_FILE, FOUND_FILE)
        )
        labels = {1: "model", 2: ""} if settings["model"] else {}
        axis = settings["axis"] or "axial"
        self.say(Ready(axis=axis, array_axis=self.axis, shape=shape, labels=labels))
        self.say(Embedded(done=len(self.given), slices=len(self.given)))

    def say(self, message: Any) -> None:
        if "garbage" in self.habits:
            sys.stdout.buffer.write(b'\xff\xfe 50%|####\r{"type": "answer"}\n')
        print(message.model_dump_json(), flush=True)

    def run(self) -> None:
        for line in sys.stdin:
            request = parse_request(line)
            if isinstance(request, Close):
                return
            if isinstance(request, LookAt):
                self.say(Answer(id=request.id, slices=[request.slice]))
            elif isinstance(request, RankSlices):
                self.say(Answer(id=request.id, slices=[*range(len(self.given))][::-1]))
            elif not isinstance(request, Stop):
                self.answer(request)

    def answer(self, request: FindMask | Propagate) -> None:
        mark = self.folder / "died"
        if "die_always" in self.habits or ("die" in self.habits and not mark.exists()):
            mark.touch()
            print("RuntimeError: pretended", file=sys.stderr, flush=True)
            os.abort()
        if "refuse" in self.habits:
            self.say(Failure(id=request.id, code="x", message="No", remedy="Ask another"))
            return
        if "slow" in self.habits:
            time.sleep(0.5)
        masks = self.mask(request) if isinstance(request, FindMask) else self.propagated(request)
        for number, mask in masks.items():
            self.found[number] = mask
        remark = "" if isinstance(request, FindMask) else "The structure ends there."
        certain = [0.5] * len(masks)
        self.say(Answer(id=request.id, slices=list(masks), confidence=certain, remark=remark))

    def mask(self, request: FindMask) -> dict[int, NDArray[np.bool_]]:
        rows, columns = np.indices(self.given.shape[1:])
        mask = np.zeros(rows.shape, bool)
        if request.start == "given":
            mask = self.given[request.slice] > 0
        if request.start == "model":
            mask[2:5, 2:5] = True
        for prompt in request.prompts:
            if prompt.kind == "point":
                row, column = self.in_slice(prompt.at)
                near = (rows - row) ** 2 + (columns - column) ** 2 < RADIUS**2
                mask = mask | near if prompt.positive else mask & ~near
            else:
                (top, left), (bottom, right) = sorted(map(self.in_slice, prompt.corners))
                mask = mask | (
                    (rows >= top)
                    & (rows <= bottom)
                    & (columns >= min(left, right))
                    & (columns <= max(left, right))
                )
        return {request.slice: mask}

    def propagated(self, request: Propagate) -> dict[int, NDArray[np.bool_]]:
        low, high = min(request.accepted), max(request.accepted)
        numbers = set(range(low - request.outward, low)) | set(
            range(high + 1, high + 1 + request.outward)
        )
        if request.between:
            numbers |= set(range(low, high)) - set(request.accepted)
        masks = {}
        for number in sorted(numbers & set(range(len(self.given)))):
            nearest = min(request.accepted, key=lambda each: abs(each - number))
            masks[number] = self.given[nearest] > 0
        return masks

    def in_slice(self, place: tuple[float, float, float]) -> list[float]:
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
