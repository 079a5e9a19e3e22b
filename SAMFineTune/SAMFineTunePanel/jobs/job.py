"""A job as Slicer sees it: inputs out of the scene, a worker, results into the scene, all without waiting."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.texts.error_text import errorText, textOf
from SAMFineTunePanel.worker.worker_process import WorkerProcess

if TYPE_CHECKING:
    from SAMFineTuneLib.jobs.worker_output import Outcome
    from SAMFineTuneLib.worker.events import Event, Log, Preview, Progress

# So long is the scene worked on at a time; Slicer draws and listens in between.
_PIECE_S = 0.012
_KEPT_LOG_LINES = 2000

PREPARING, RUNNING, IMPORTING = "preparing", "running", "importing"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
_ENDED = (DONE, FAILED, CANCELLED)


class JobFailedError(RuntimeError):
    """A job ended without a result; the message is for the user."""


class JobCancelledError(RuntimeError):
    """A job was cancelled."""


class JobRunningError(RuntimeError):
    """Another job is at work, and there is one at a time."""


class Job:
    """One job from its start to its end.

    Listeners are called as `listener(job, event)` with event "state", "progress", "preview" or "log".

    Attributes:
        log: what the worker has told, the last lines of it.
        warnings: what the user should know of the result, each once.

    Args:
        kind: "finetune", "apply" or "checkpoint".
        title: what is done, for the user.
        folder: of the job; it is removed at the end unless something is left to resume.
        prepare: pieces of work that write the inputs and job.json; () where they are there.
        conclude: makes pieces of work from the worker's result; the last value that they yield is `result`.
    """

    def __init__(
        self,
        kind: str,
        title: str,
        folder: Path,
        prepare: Iterable[None],
        conclude: Callable[[dict[str, Any]], Iterator[Any]],
    ) -> None:
        self.kind = kind
        self.title = title
        self.folder = folder
        self.state = PREPARING
        self.step = 0
        self.steps: int | None = None
        self.phase = ""
        self.etaSeconds: float | None = None
        self.loss: float | None = None
        self.validationDsc: float | None = None
        self.losses: list[tuple[int, float]] = []
        self.validations: list[tuple[int, float]] = []
        self.previewPath = ""
        self.log: list[str] = []
        self.warnings: list[str] = []
        self.result: Any = None
        self.errorMessage = ""
        self._prepare = iter(prepare)
        self._conclude = conclude
        self._listeners: list[Callable[[Job, str], None]] = []
        self._process: WorkerProcess | None = None
        self._cancelAsked = self._finishAsked = False
        self._isClosing = False
        self._readsScene = prepare != ()
        self._isInPiece = False
        self._isInScene = False
        self._pieces: Iterator[Any] = iter(())
        self._whenPiecesDone: Callable[[], None] = lambda: None
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._doPieces)

    @property
    def isFinished(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self.state in _ENDED

    @property
    def canFinishNow(self) -> bool:
        """Whether there is something worth keeping, and nobody has asked for it yet."""
        isAsked = self._cancelAsked or self._finishAsked
        return self.kind == "finetune" and self.state == RUNNING and self.step > 0 and not isAsked

    @property
    def isFinishing(self) -> bool:
        """Whether it was asked to end and to keep the best, and has not ended yet."""
        return self._finishAsked and not self._cancelAsked and not self.isFinished

    @property
    def isCancelling(self) -> bool:
        """Whether it was cancelled and has not ended yet."""
        return self._cancelAsked and not self.isFinished

    @property
    def needsScene(self) -> bool:
        """Whether it cannot go on without the scene that it was started in."""
        return self.kind == "apply" or (self.state == PREPARING and self._readsScene)

    @property
    def resumable(self) -> bool:
        """Whether the job, started again, goes on where it stopped."""
        from SAMFineTuneLib.jobs.folder import JobFolder

        # Nobody asked for its end where Slicer was closed.
        isUnasked = self.state == FAILED or (self.state == CANCELLED and self._isClosing)
        return self.kind == "finetune" and isUnasked and JobFolder(self.folder).has_checkpoint()

    @property
    def processID(self) -> int:
        """The worker's process ID; 0 when there is none."""
        return self._process.processID if self._process is not None else 0

    def addListener(self, listener: Callable[[Job, str], None]) -> None:
        """Call `listener` at every change."""
        self._listeners.append(listener)

    def removeListener(self, listener: Callable[[Job, str], None]) -> None:
        """Call `listener` no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def start(self) -> None:
        """Begin; returns at once."""
        self._doInPieces(self._prepare, self._startWorker)

    def cancel(self) -> None:
        """Stop without a result; returns at once, and at most 3 seconds later the worker has gone.

        It does nothing once the whole result is in the scene, when only the job's files are left to delete.
        """
        if self.isFinished or self._cancelAsked or self._isInScene:
            return
        self._cancelAsked = True
        if self._process is not None and self.state == RUNNING:
            self._process.cancel()
            self._notify("state")
        elif not self._isInPiece:
            self._end(CANCELLED)

    def finishNow(self) -> None:
        """Have a fine-tune end now and keep the best so far; before its first step there is nothing to keep."""
        if self._process is not None and self.canFinishNow:
            self._finishAsked = True
            self._process.finishEarly()
            self._notify("state")

    def endForClosing(self) -> None:
        """Stop and wait, at most 3 seconds: Slicer is closing. A fine-tune leaves what it can be resumed from."""
        from SAMFineTuneLib.jobs.client import CANCEL_GRACE_S

        if self._isInScene and not self.isFinished:
            self._end(DONE)
        if not self._cancelAsked:
            self._isClosing = True
            self.cancel()
        if self._process is not None and not self._process.waitUntilEnded(round(1000 * CANCEL_GRACE_S)):
            self._process.endNow()
            self._process.waitUntilEnded(1000)

    def wait(self, progress: Callable[[Job], None] | None = None) -> Any:
        """Wait for the end while Slicer stays alive; gives the result.

        Args:
            progress: called whenever the worker tells how far it is.

        Raises:
            JobFailedError: with the worker's message.
            JobCancelledError: it was cancelled.
        """

        def tell(job: Job, event: str) -> None:
            if event == "progress" and progress is not None:
                progress(job)

        self.addListener(tell)
        try:
            while not self.isFinished:
                slicer.app.processEvents()
                time.sleep(0.005)
        except KeyboardInterrupt:
            self.cancel()
            raise
        finally:
            self.removeListener(tell)
        if self.state == FAILED:
            raise JobFailedError(self.errorMessage)
        if self.state == CANCELLED:
            raise JobCancelledError(_("{title}: cancelled").format(title=self.title))
        return self.result

    def _doInPieces(self, pieces: Iterator[Any], whenDone: Callable[[], None]) -> None:
        self._pieces, self._whenPiecesDone = pieces, whenDone
        self._timer.start()

    def _doPieces(self) -> None:
        until = time.monotonic() + _PIECE_S
        self._isInPiece = True
        try:
            while time.monotonic() < until and not self._cancelAsked:
                self.result = next(self._pieces)
        except StopIteration:
            self._timer.stop()
            self._whenPiecesDone()
        except Exception as error:
            self._timer.stop()
            if _isUsersToMend(error):
                self._end(FAILED, textOf(error))
            else:
                self._end(FAILED, f"{type(error).__name__}: {error}")
                raise
        finally:
            self._isInPiece = False
        # Asked for by something that a piece of the work brought about.
        if self._cancelAsked and not self.isFinished and self.state != RUNNING:
            self._end(CANCELLED)

    def _startWorker(self) -> None:
        if self.isFinished:
            return
        self._process = WorkerProcess(self.folder, self._take, self._onWorkerEnded)
        self._setState(RUNNING)
        self._process.start()

    def _take(self, event: Event) -> None:
        if event.type == "progress":
            self._takeProgress(event)
        elif event.type == "preview":
            self._takePreview(event)
        elif event.type == "log":
            self._takeLog(event)

    def _takeProgress(self, event: Progress) -> None:
        self.step, self.steps, self.phase = event.step, event.steps, event.phase
        self.etaSeconds, self.loss = event.eta_s, event.loss
        if event.loss is not None and event.phase != "prompts":
            # The loss of points and boxes is another quantity, and its steps begin anew.
            self.losses.append((event.step, event.loss))
        if event.validation_dsc is not None and event.validation_dsc != self.validationDsc:
            self.validationDsc = event.validation_dsc
            self.validations.append((event.step, event.validation_dsc))
        self._notify("progress")

    def _takePreview(self, event: Preview) -> None:
        self.previewPath = event.path
        self._notify("preview")

    def _takeLog(self, event: Log) -> None:
        if event.level == "warning" and event.message not in self.warnings:
            self.warnings.append(event.message)
        prefix = "" if event.level == "info" else f"{event.level}: "
        self.log.append(prefix + event.message)
        del self.log[:-_KEPT_LOG_LINES]
        self._notify("log")

    def _onWorkerEnded(self, outcome: Outcome) -> None:
        if outcome.result is not None and self._cancelAsked and (self.kind == "apply" or self._isClosing):
            # The model of a fine-tune is in the library already; nobody is there to be told.
            self._end(CANCELLED)
        elif outcome.result is not None:
            # Asked to stop too late: the model is there, and saying otherwise would hide it.
            self._cancelAsked = False
            self._setState(IMPORTING)
            self._doInPieces(self._bringIn(outcome.result), lambda: self._end(DONE))
        elif outcome.exit_code == 3:
            self._end(CANCELLED)
        else:
            error = outcome.error
            text = errorText(error.message, error.remedy, error.code, error.facts) if error is not None else ""
            self._end(FAILED, text)

    def _bringIn(self, result: dict[str, Any]) -> Iterator[Any]:
        from SAMFineTuneLib.jobs.folder import JobFolder

        yield from self._conclude(result)
        self._isInScene = True
        for _part in JobFolder(self.folder).remove_in_parts():
            yield self.result

    def _end(self, state: str, message: str = "") -> None:
        self._timer.stop()
        self.state, self.errorMessage = state, message
        if state != DONE:
            self.result = None
        if message:
            self.log += [*self._tracebackLines(), message]
        # So that files are closed, and what was begun in the scene is taken back.
        for pieces in (self._prepare, self._pieces):
            if not self._isInPiece:
                getattr(pieces, "close", lambda: None)()
        if not self.resumable:
            self._removeFolder()
        self._notify("state")
        self._letGo()

    def _letGo(self) -> None:
        """Drop what refers to the scene: Qt's timers and processes keep this object until Slicer ends."""
        self._listeners.clear()
        self._prepare, self._pieces = iter(()), iter(())
        self._conclude = _concludeNothing
        self._whenPiecesDone = _doNothing

    def forgetResult(self) -> None:
        """The scene closes: nodes of the result must not outlive it."""
        self.result = None

    def _tracebackLines(self) -> list[str]:
        """What the worker has left about a fault in the program."""
        from SAMFineTuneLib.jobs.folder import JobFolder

        try:
            return JobFolder(self.folder).log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
        except OSError:
            return []

    def _removeFolder(self) -> None:
        """The inputs are a patient's images: they do not stay on the disk."""
        from SAMFineTuneLib.jobs.folder import JobFolder

        JobFolder(self.folder).remove()

    def _setState(self, state: str) -> None:
        self.state = state
        self._notify("state")

    def _notify(self, event: str) -> None:
        for listener in list(self._listeners):
            try:
                listener(self, event)
            # A listener at fault must not stop the job: its fault goes where Slicer shows faults.
            except Exception:
                sys.excepthook(*sys.exc_info())


def _doNothing() -> None:
    return


def _concludeNothing(result: dict[str, Any]) -> Iterator[Any]:
    return iter(())


def _isUsersToMend(error: Exception) -> bool:
    """A segment that vanished, a full disk, a choice that does not fit; not a fault in the program."""
    from SAMFineTuneLib.errors import InputError

    return isinstance(error, (ValueError, OSError, InputError))
