"""The correction worker: requests in, masks out, and slices embedded while nobody asks."""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.geometry.axes import AXIS_NAMES, axis_name
from SAMFineTuneLib.geometry.drawn_axis import widest_axis
from SAMFineTuneLib.interactive import mask_files
from SAMFineTuneLib.interactive.failure import failure_of
from SAMFineTuneLib.interactive.networks import load_networks
from SAMFineTuneLib.interactive.propagation import carry_on
from SAMFineTuneLib.interactive.protocol import (
    FOUND_FILE,
    GIVEN_FILE,
    Answer,
    CarryOn,
    Close,
    Embedded,
    Failure,
    FindMask,
    LookAt,
    RankSlices,
    Ready,
    Request,
    Stop,
    parse_request,
)
from SAMFineTuneLib.interactive.session import CorrectionSession, Mask
from SAMFineTuneLib.interactive.settings_file import read_settings
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.user_folders import embeddings_folder
from SAMFineTuneLib.volumes import Geometry, read_volume
from SAMFineTuneLib.worker.events import Log
from SAMFineTuneLib.worker.line_splitter import LONGEST_LINE, full_length

# A worker that was asked a moment ago will be asked again; one that rests must not cost a battery.
_AWAKE_S, _RESTING_S, _AWAKE_FOR_S = 0.002, 0.02, 20.0
_TELL_EVERY_S = 0.3
# Each costs a round of the network, and a user gives a few.
_MOST_PROMPTS = 1000
_EMPTY_SLICE = "this slice has the same value in every pixel: there is nothing to find on it"


class CorrectionServer:
    """One session: its volume, its networks, and the conversation about them.

    Args:
        folder: holds `session.json`.
        say: sends a message.
        hear: the lines that have come since it was called last.

    Raises:
        InputError: settings, volume or model cannot be used.
    """

    def __init__(
        self, folder: Path, say: Callable[[BaseModel], None], hear: Callable[[], Sequence[str]]
    ) -> None:
        self._say = say
        self._hear = hear
        self._waiting: deque[Request] = deque()
        settings = read_settings(folder)
        volume = read_volume(settings.volume, settings.series)
        for remark in volume.remarks:
            self._warn(remark)
        axis = settings.axis or _axis_of_thickest(volume.geometry)
        networks = load_networks(settings, max(SliceStack.of(volume, axis)[0].shape))
        if networks.card is not None and networks.card.axis in AXIS_NAMES:
            axis = settings.axis or networks.card.axis
            if axis != networks.card.axis:
                self._warn(
                    f"the model was tuned on {networks.card.axis} slices; on {axis} ones its "
                    f"masks are less reliable"
                )
        self._session = CorrectionSession(volume, axis, networks, embeddings_folder(), self._warn)
        stack, shape = self._session.stack, volume.geometry.shape
        self._mask_files = [folder / name for name in (GIVEN_FILE, FOUND_FILE)]
        for path in self._mask_files:
            mask_files.create(path, shape)
        self._given, self._found = (
            SliceStack(mask_files.opened(path, shape), volume.geometry, stack.axis)
            for path in self._mask_files
        )
        self._told_at = self._asked_at = time.monotonic()
        self._abandoned: Callable[[], bool] = lambda: False
        say(
            Ready(
                axis=axis,
                array_axis=stack.axis,
                shape=shape,
                labels=networks.structures,
                tuned_for_prompts=networks.tuned,
                device=str(networks.device),
            )
        )

    def run(self, ended: Callable[[], bool], abandoned: Callable[[], bool] = lambda: False) -> None:
        """Answers until the session is closed or the other side has gone.

        Args:
            ended: whether no more requests will come; those that came are answered.
            abandoned: whether nobody waits for answers any more; long work is broken off.
        """
        self._abandoned = abandoned
        while True:
            self._listen()
            if self._waiting:
                self._asked_at = time.monotonic()
                request = self._waiting.popleft()
                if isinstance(request, Close):
                    return
                self._serve(request)
            elif ended():
                return
            elif not self._session.worker.finished:
                self._session.worker.advance()
                self._tell_progress()
            else:
                awake = time.monotonic() - self._asked_at < _AWAKE_FOR_S
                time.sleep(_AWAKE_S if awake else _RESTING_S)

    def _listen(self) -> None:
        for line in self._hear():
            if not line:
                continue
            length = full_length(line)
            if length is not None:
                words = f"{length / 1e6:.0f} MB in one line; {LONGEST_LINE >> 20} MiB are the most"
                self._refuse(line, words, _id_in_beginning(line))
                continue
            try:
                self._waiting.append(parse_request(line))
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                self._refuse(line, f"{fault['msg']} ({fault['loc']})", _id_in(line))

    def _refuse(self, line: str, why: str, number: int | None) -> None:
        words = f"not understood: {why}: {line[:200]}"
        if number is None:
            self._warn(words)
        else:
            # Else whoever asked would wait for ever.
            self._say(Failure(id=number, code="bad_request", message=words))

    def _serve(self, request: LookAt | FindMask | CarryOn | RankSlices | Stop) -> None:
        if isinstance(request, Stop):
            return
        started = time.perf_counter()
        try:
            answer = self._answer(request)
        except Cancelled:
            self._say(Failure(id=request.id, code="stopped", message="Stopped"))
        # One request that fails must not end the session: the client gets it in words.
        except Exception as error:
            self._fail(request, error)
        else:
            seconds = time.perf_counter() - started
            self._say(answer.model_copy(update={"seconds": round(seconds, 4)}))

    def _fail(self, request: LookAt | FindMask | CarryOn | RankSlices, error: Exception) -> None:
        failure = failure_of(error, request.id)
        if failure.code == "internal":
            self._say(Log(level="debug", message="".join(traceback.format_exception(error))))
        self._say(failure)

    def _answer(self, request: LookAt | FindMask | CarryOn | RankSlices) -> Answer:
        if isinstance(request, LookAt):
            self._session.require_slice(request.slice)
            self._session.worker.look_at(request.slice)
            self._tell_progress()
            return Answer(id=request.id, slices=[request.slice])
        if isinstance(request, FindMask):
            return self._find_mask(request)
        if isinstance(request, RankSlices):
            return self._rank(request)
        return self._carry_on(request)

    def _require_masks(self) -> None:
        for path in self._mask_files:
            mask_files.require_whole(path, self._given.geometry.shape)

    def _find_mask(self, request: FindMask) -> Answer:
        self._session.require_slice(request.slice)
        if len(request.prompts) > _MOST_PROMPTS:
            raise InputError(
                f"{len(request.prompts)} points and boxes were given for one mask, and "
                f"{_MOST_PROMPTS} are the most",
                "give fewer",
                code="too_many_prompts",
            )
        self._require_masks()
        given = self._given[request.slice] > 0 if request.start == "given" else None
        found = self._session.find_mask(
            request.slice, request.prompts, request.start, request.label, given
        )
        # JSON has no word for what is no number, and the client would wait for ever.
        if not math.isfinite(found.confidence):
            raise InputError(
                "the network's answer is no number",
                "check the volume's values, or fine-tune the model anew",
                code="no_number",
            )
        self._require_masks()
        self._found[request.slice][...] = found.mask
        pixels = self._session.stack[request.slice]
        return Answer(
            id=request.id,
            slices=[request.slice],
            confidence=[found.confidence],
            words=_EMPTY_SLICE if pixels.min() == pixels.max() else "",
        )

    def _rank(self, request: RankSlices) -> Answer:
        ranking = self._session.doubtful_slices(request.label)
        seen, all_of_them = len(ranking), len(self._session.stack)
        return Answer(
            id=request.id,
            slices=[each.number for each in ranking],
            confidence=[1 - each.uncertainty for each in ranking],
            words="" if seen == all_of_them else f"{seen} of {all_of_them} slices looked at so far",
        )

    def _carry_on(self, request: CarryOn) -> Answer:
        numbers = dict.fromkeys(request.accepted)
        for number in numbers:
            self._session.require_slice(number)
        self._require_masks()
        accepted: dict[int, Mask] = {number: self._given[number] > 0 for number in numbers}
        carried = carry_on(
            self._session,
            accepted,
            request.label,
            request.outward,
            request.between,
            self._stop_if_asked,
        )
        self._require_masks()
        for number, mask in carried.masks.items():
            self._found[number][...] = mask
        return Answer(
            id=request.id,
            slices=list(carried.masks),
            confidence=[carried.confidence[number] for number in carried.masks],
            words=carried.words,
        )

    def _stop_if_asked(self, done: int, steps: int) -> None:
        self._listen()
        stopped = any(isinstance(each, Stop | Close) for each in self._waiting)
        if stopped or self._abandoned():
            self._waiting = deque(each for each in self._waiting if not isinstance(each, Stop))
            raise Cancelled

    def _tell_progress(self) -> None:
        worker = self._session.worker
        if worker.finished or time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self._say(Embedded(done=worker.done, slices=len(self._session.stack)))

    def _warn(self, words: str) -> None:
        self._say(Log(level="warning", message=words))


def _axis_of_thickest(geometry: Geometry) -> str:
    """Along which slices lie farthest apart; axial where they do along no single axis."""
    widest = widest_axis(geometry.spacing[::-1])
    return "axial" if widest is None else axis_name(geometry, widest)


def _id_in(line: str) -> int | None:
    """The id of a request that is otherwise not understood."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None
    number = request.get("id") if isinstance(request, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _id_in_beginning(line: str) -> int | None:
    """The id of a request of which only the beginning is known: it stands ahead of the prompts."""
    found = re.search(r'"id"\s*:\s*(-?\d{1,18})\s*,', line)
    return None if found is None else int(found[1])
