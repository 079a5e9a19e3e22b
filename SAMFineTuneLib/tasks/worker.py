"""The worker process of a job: it reads the job, reports events, and receives requests."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import read_job
from SAMFineTuneLib.worker.events import ErrorEvent, EventWriter, Result
from SAMFineTuneLib.worker.failure import EXIT_CANCELLED, EXIT_DONE, EXIT_OUR_FAULT, error_event
from SAMFineTuneLib.worker.process_tree import WatchedProcess, descendants, end_processes
from SAMFineTuneLib.worker.processor_sharing import share_processors
from SAMFineTuneLib.worker.standard_input import StandardInputLines
from SAMFineTuneLib.worker.standard_output import claim_output, output_as_lines

GRACE_S = 1.5
_POLL_S = 0.1


def main(job_folder: Path, parent: int | None = None) -> int:
    """Does the job of a folder and reports its events as JSON lines on standard output.

    Takes over standard input and output of the process, so it is called once, by a process of its
    own. A cancelled job that does not stop by itself within 1.5 s is ended with all its children.

    Args:
        job_folder: holds job.json.
        parent: id of the process for which the work is done; the job is cancelled when it ends.

    Returns:
        0 done, 1 a fault in the program, 2 bad input, 3 cancelled.
    """
    share_processors(os.environ)
    folder = JobFolder(Path(job_folder).absolute())
    events = EventWriter(folder.path if folder.path.is_dir() else None, claim_output())
    with suppress(OSError, ValueError, AttributeError, RuntimeError):
        faulthandler.enable()
    return _Run(folder, events, parent).run()


class _Run:
    """The run of one job, and the thread that receives requests meanwhile."""

    def __init__(self, folder: JobFolder, events: EventWriter, parent: int | None) -> None:
        self._folder = folder
        self._events = events
        self._control = Control(folder)
        self._parent = None if parent is None else WatchedProcess(parent)
        # Held by the thread that ends the job: the main thread with its result, or the watching
        # thread where the job is ended early.
        self._ending = threading.Lock()
        self._ended = threading.Event()
        self._folder_is_mine = True

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        watch.start()
        try:
            with output_as_lines(lambda line: self._events.log(line, "debug")):
                result = self._work()
        # The client must be informed of every exception, including those of libraries.
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            return self._fail(error)
        return self._succeed(result)

    def _work(self) -> dict[str, object]:
        job = read_job(self._folder.path)
        from SAMFineTuneLib.tasks.runners import RUNNERS

        self._lock()
        try:
            self._control.raise_if_cancelled()
            return RUNNERS[job.kind](job, self._folder, self._events, self._control)
        finally:
            self._folder.unlock()

    def _lock(self) -> None:
        try:
            self._folder.lock()
        except InputError:
            # Events and requests in the folder belong to another worker.
            self._folder_is_mine = False
            self._events.leave_folder()
            raise

    def _succeed(self, result: dict[str, object]) -> int:
        with self._ending:
            try:
                self._events.emit(Result(result=result))
            except TypeError as error:
                return self._report(error)
            self._ended.set()
            self._folder.clear_requests()
        return EXIT_DONE

    def _fail(self, error: BaseException) -> int:
        with self._ending:
            return self._report(error)

    def _report(self, error: BaseException) -> int:
        event = error_event(error)
        if event.exit_code == EXIT_OUR_FAULT:
            self._keep_traceback(error)
        self._end_with(event)
        return event.exit_code

    def _keep_traceback(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            with self._folder.log_file.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{stamp}\n{text}\n")
        except OSError:
            _print_error(text)

    def _end_with(self, event: ErrorEvent) -> None:
        self._ended.set()
        self._events.emit(event)
        _print_error(event.line())
        if self._folder_is_mine:
            self._folder.clear_requests()
        end_processes(descendants(os.getpid()), wait_s=1.0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._control.request_cancel()

    def _watch(self) -> None:
        """Receives requests until the work has ended; ends it if it does not stop in time."""
        lines = StandardInputLines()
        while not self._ended.wait(_POLL_S):
            for line in lines.poll():
                self._receive(line)
            if self._parent is not None and not self._parent.alive():
                self._control.request_cancel()
            if self._control.cancelled():
                if not self._ended.wait(GRACE_S):
                    self._stop_hard()
                return

    def _receive(self, line: str) -> None:
        if line == "cancel":
            self._control.request_cancel()
        elif line == "finish":
            self._control.request_finish()

    def _stop_hard(self) -> None:
        with self._ending:
            if self._ended.is_set():
                return
            self._report(KeyboardInterrupt())
            if self._folder.worker_at_work() == os.getpid():
                self._folder.unlock()
            os._exit(EXIT_CANCELLED)


def _print_error(text: str) -> None:
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)
