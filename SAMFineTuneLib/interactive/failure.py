"""The failure message about an exception: as a job reports it, with remedies for corrections."""

from __future__ import annotations

from SAMFineTuneLib.interactive.protocol import Failure
from SAMFineTuneLib.worker.failure import error_event

_REMEDIES = {
    "internal": "Try it again; if it stays so, please report it",
    "no_memory": "Close other programs, or take the CPU, a smaller backbone or a model of a "
    "smaller input size",
}


def failure_of(error: BaseException, request: int | None = None) -> Failure:
    """The message about an exception.

    Args:
        error: what happened.
        request: id of the request that failed; None if the whole session failed.
    """
    event = error_event(error)
    remedy = _REMEDIES.get(event.code, event.remedy)
    return Failure(
        id=request, code=event.code, message=event.message, remedy=remedy, facts=event.facts
    )
