"""The correction worker's loop: it answers requests, and embeds slices while none is waiting."""

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
from SAMFineTuneLib.examples.channel_names import order_warning
from SAMFineTuneLib.geometry.axes import AXIS_NAMES
from SAMFineTuneLib.geometry.cut_axis import cut_axis
from SAMFineTuneLib.interactive import mask_files
from SAMFineTuneLib.interactive.failure import failure_of
from SAMFineTuneLib.interactive.networks import load_networks
from SAMFineTuneLib.interactive.propagation import propagate
from SAMFineTuneLib.interactive.protocol import (
    FOUND_FILE,
    GIVEN_FILE,
    Answer,
    Close,
    Embedded,
    Failure,
    FindMask,
    LookAt,
    Propagate,
    RankSlices,
    Ready,
    Request,
    Stop,
    parse_request,
)
from SAMFineTuneLib.interactive.settings_file import read_settings
from SAMFineTuneLib.interactive.slice_corrector import Mask, SliceCorrector
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.user_folders import embeddings_folder
from SAMFineTuneLib.volumes.case import read_case
from SAMFineTuneLib.worker.events import Log
from SAMFineTuneLib.worker.line_splitter import LONGEST_LINE, full_length

# Seconds between two looks for requests: short for a while after a request, because others are
# likely to follow soon; longer afterwards, to save a battery.
_AWAKE_S, _RESTING_S, _AWAKE_FOR_S = 0.002, 0.02, 20.0
_REPORT_EVERY_S = 0.3
# Each prompt costs one pass of the decoder, and a user gives a few.
_MOST_PROMPTS = 1000
_EMPTY_SLICE = "this slice has the same value in every pixel: there is nothing to find on it"


class CorrectionServer:
    """Serves one session: reads its volume and model, and answers requests about them.

    Args:
        folder: holds `session.json`.
        send: sends a message.
        receive: returns the lines that have come since it was called last.

    Raises:
        InputError: settings, volume or model cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        send: Callable[[BaseModel], None],
        receive: Callable[[], Sequence[str]],
    ) -> None:
        self._send = send
        self._receive = receive
        self._waiting: deque[Request] = deque()
        settings = read_settings(folder)
        volume = read_case(settings.volume, settings.channels, settings.series, settings.frame)
        axis = cut_axis(volume.geometry, settings.axis)
        networks = load_networks(settings, max(SliceStack.of(volume, axis).slice_shape))
        if networks.card is not None:
            card, name = networks.card, settings.volume.name
            volume = as_expected(volume, card.normalisation, name, tuple(card.channels))
            files = [settings.volume, *settings.channels]
            doubt = order_warning(tuple(card.channels), files) if card.channels else ""
            if doubt:
                self._warn(doubt)
        for remark in volume.remarks:
            self._warn(remark)
        if networks.card is not None and networks.card.axis in AXIS_NAMES:
            axis = cut_axis(volume.geometry, settings.axis or networks.card.axis)
            if axis != networks.card.axis:
                self._warn(
                    f"the model was tuned on {networks.card.axis} slices; on {axis} ones its "
                    f"masks are less reliable"
                )
        self._corrector = SliceCorrector(volume, axis, networks, embeddings_folder(), self._warn)
        stack, shape = self._corrector.stack, volume.geometry.shape
        self._mask_files = [folder / name for name in (GIVEN_FILE, FOUND_FILE)]
        for path in self._mask_files:
            mask_files.create(path, shape)
        self._given, self._found = (
            SliceStack(mask_files.opened(path, shape), volume.geometry, stack.axis)
            for path in self._mask_files
        )
        self._reported_at = self._asked_at = time.monotonic()
        self._abandoned: Callable[[], bool] = lambda: False
        send(
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
        """Answers requests until the session is closed or no more can come.

        Args:
            ended: whether no more requests can come; those that came are still answered.
            abandoned: whether nobody waits for answers any more; long work is then broken off.
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
            elif not self._corrector.worker.finished:
                self._corrector.worker.advance()
                self._report_progress()
            else:
                awake = time.monotonic() - self._asked_at < _AWAKE_FOR_S
                time.sleep(_AWAKE_S if awake else _RESTING_S)

    def _listen(self) -> None:
        for line in self._receive():
            if not line:
                continue
            length = full_length(line)
            if length is not None:
                reason = f"{length / 1e6:.0f} MB in one line; {LONGEST_LINE >> 20} MiB are the most"
                self._refuse(line, reason, _id_in_beginning(line))
                continue
            try:
                self._waiting.append(parse_request(line))
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                self._refuse(line, f"{fault['msg']} ({fault['loc']})", _id_in(line))

    def _refuse(self, line: str, reason: str, number: int | None) -> None:
        text = f"not understood: {reason}: {line[:200]}"
        if number is None:
            self._warn(text)
        else:
            # The client waits for an answer with this id.
            self._send(Failure(id=number, code="bad_request", message=text))

    def _serve(self, request: LookAt | FindMask | Propagate | RankSlices | Stop) -> None:
        if isinstance(request, Stop):
            return
        started = time.perf_counter()
        try:
            answer = self._answer(request)
        except Cancelled:
            self._send(Failure(id=request.id, code="stopped", message="Stopped"))
        # A request that fails must not end the session: the client is sent a failure.
        except Exception as error:
            self._fail(request, error)
        else:
            seconds = time.perf_counter() - started
            self._send(answer.model_copy(update={"seconds": round(seconds, 4)}))

    def _fail(self, request: LookAt | FindMask | Propagate | RankSlices, error: Exception) -> None:
        failure = failure_of(error, request.id)
        if failure.code == "internal":
            self._send(Log(level="debug", message="".join(traceback.format_exception(error))))
        self._send(failure)

    def _answer(self, request: LookAt | FindMask | Propagate | RankSlices) -> Answer:
        if isinstance(request, LookAt):
            self._corrector.require_slice(request.slice)
            self._corrector.worker.look_at(request.slice)
            self._report_progress()
            return Answer(id=request.id, slices=[request.slice])
        if isinstance(request, FindMask):
            return self._find_mask(request)
        if isinstance(request, RankSlices):
            return self._rank(request)
        return self._propagate(request)

    def _require_masks(self) -> None:
        for path in self._mask_files:
            mask_files.require_whole(path, self._given.geometry.shape)

    def _find_mask(self, request: FindMask) -> Answer:
        self._corrector.require_slice(request.slice)
        if len(request.prompts) > _MOST_PROMPTS:
            raise InputError(
                f"{len(request.prompts)} points and boxes were given for one mask, and "
                f"{_MOST_PROMPTS} are the most",
                "give fewer",
                code="too_many_prompts",
            )
        self._require_masks()
        given = self._given[request.slice] > 0 if request.start == "given" else None
        found = self._corrector.find_mask(
            request.slice, request.prompts, request.start, request.label, given
        )
        # JSON cannot express NaN or infinity, and the client could not read the answer.
        if not math.isfinite(found.confidence):
            raise InputError(
                "the network's answer is no number",
                "check the volume's values, or fine-tune the model anew",
                code="no_number",
            )
        self._require_masks()
        self._found[request.slice][...] = found.mask
        pixels = self._corrector.stack[request.slice]
        return Answer(
            id=request.id,
            slices=[request.slice],
            confidence=[found.confidence],
            remark=_EMPTY_SLICE if pixels.min() == pixels.max() else "",
        )

    def _rank(self, request: RankSlices) -> Answer:
        ranking = self._corrector.doubtful_slices(request.label)
        seen, all_of_them = len(ranking), len(self._corrector.stack)
        return Answer(
            id=request.id,
            slices=[each.number for each in ranking],
            confidence=[1 - each.uncertainty for each in ranking],
            remark=(
                "" if seen == all_of_them else f"{seen} of {all_of_them} slices looked at so far"
            ),
        )

    def _propagate(self, request: Propagate) -> Answer:
        numbers = dict.fromkeys(request.accepted)
        for number in numbers:
            self._corrector.require_slice(number)
        self._require_masks()
        accepted: dict[int, Mask] = {number: self._given[number] > 0 for number in numbers}
        propagated = propagate(
            self._corrector,
            accepted,
            request.label,
            request.outward,
            request.between,
            self._stop_if_asked,
        )
        self._require_masks()
        for number, mask in propagated.masks.items():
            self._found[number][...] = mask
        return Answer(
            id=request.id,
            slices=list(propagated.masks),
            confidence=[propagated.confidence[number] for number in propagated.masks],
            remark=propagated.remark,
        )

    def _stop_if_asked(self, done: int, steps: int) -> None:
        self._listen()
        stopped = any(isinstance(each, Stop | Close) for each in self._waiting)
        if stopped or self._abandoned():
            self._waiting = deque(each for each in self._waiting if not isinstance(each, Stop))
            raise Cancelled

    def _report_progress(self) -> None:
        worker = self._corrector.worker
        if worker.finished or time.monotonic() - self._reported_at > _REPORT_EVERY_S:
            self._reported_at = time.monotonic()
            self._send(Embedded(done=worker.done, slices=len(self._corrector.stack)))

    def _warn(self, text: str) -> None:
        self._send(Log(level="warning", message=text))


def _id_in(line: str) -> int | None:
    """The id of a request that is otherwise not understood; None if it has none."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None
    number = request.get("id") if isinstance(request, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _id_in_beginning(line: str) -> int | None:
    """The id of a request of which only the beginning is known; it stands before the prompts."""
    found = re.search(r'"id"\s*:\s*(-?\d{1,18})\s*,', line)
    return None if found is None else int(found[1])
