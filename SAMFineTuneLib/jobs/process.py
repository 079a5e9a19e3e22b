"""The client's side of a worker: start it, hear its events, cancel it, learn how it ended.

Imports neither torch nor a user interface: Slicer's process and the shell use it alike.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.events import ErrorEvent, Event, Log, Result, parse_line
from SAMFineTuneLib.jobs.failure import EXIT_CANCELLED, EXIT_DONE, EXIT_OUR_FAULT
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.process_tree import descendants, end_processes
from SAMFineTuneLib.jobs.processor_sharing import share_processors

CANCEL_GRACE_S = 2.0
_EXIT_GRACE_S = 10.0
_KEPT_ERROR_LINES = 400


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        exit_code: 0 done, 1 a fault in the program, 2 bad input, 3 cancelled.
        result: what came out, when the exit code is 0.
        error: what went wrong, otherwise.
    """

    exit_code: int
    result: dict[str, Any] | None = None
    error: ErrorEvent | None = None


def worker_command(folder: Path, python: Path | None = None) -> list[str]:
    """The command line that does the job of a folder for this process."""
    program = str(python or sys.executable)
    return [program, "-m", "SAMFineTuneLib", "run", str(folder), "--parent", str(os.getpid())]


class WorkerProcess:
    """One worker at work on one job folder.

    Args:
        folder: holds job.json.
        on_event: called with each event, from a thread of this object.
        python: the Python to run; by default the one that runs this.
        grace_s: seconds that a cancelled worker has to end by itself.
        command: the whole command line, in place of the usual one.
    """

    def __init__(
        self,
        folder: Path,
        on_event: Callable[[Event], None] | None = None,
        python: Path | None = None,
        grace_s: float = CANCEL_GRACE_S,
        command: Sequence[str] | None = None,
    ) -> None:
        self.folder = JobFolder(Path(folder).absolute())
        self._command = list(command or worker_command(self.folder.path, python))
        self._on_event = on_event
        self._grace_s = grace_s
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self._error_lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
        self._result: dict[str, Any] | None = None
        self._error: ErrorEvent | None = None
        self._last_word_at: float | None = None
        self._listener_fault: BaseException | None = None
        self.cancel_asked = False
        self._ender: threading.Thread | None = None
        self._outcome: Outcome | None = None

    @property
    def pid(self) -> int:
        """Process id of the worker (of its launcher, where Python is behind one)."""
        return self._started().pid

    def start(self) -> None:
        """Start the worker.

        Raises:
            InputError: the Python to run cannot be started.
        """
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=_environment(),
                creationflags=_creation_flags(),
            )
        except OSError as error:
            raise InputError(
                f"cannot start {self._command[0]}: {error.strerror or error}",
                "Name the Python in which SAMFineTune is installed",
                code="no_python",
            ) from error
        for stream, take in (
            (self._process.stdout, self._take_output),
            (self._process.stderr, self._take_error_line),
        ):
            reader = threading.Thread(target=_read, args=(stream, take), daemon=True)
            reader.start()
            self._readers.append(reader)

    def running(self) -> bool:
        """Whether the worker still runs."""
        return self._process is not None and self._process.poll() is None

    def cancel(self) -> None:
        """Ask the worker to stop; after the grace time end it with all its children.

        Returns at once; `wait` tells when it is over.
        """
        if self.cancel_asked:
            return
        # Also when it has just ended: Ctrl-C in a shell reaches the worker too.
        self.cancel_asked = True
        if not self.running():
            return
        family = self._family()
        self._ask("cancel", self.folder.cancel_file)
        self._ender = threading.Thread(target=self._end_after_grace, args=(family,), daemon=True)
        self._ender.start()

    def finish_early(self) -> None:
        """Ask the worker to stop early and keep the best so far."""
        if self.running():
            self._ask("finish", self.folder.finish_file)

    def end_now(self) -> None:
        """End the worker with all its children, without asking."""
        self.cancel_asked = True
        end_processes(self._family())

    def wait(self, timeout_s: float | None = None) -> Outcome | None:
        """How the job ended; None when it has not after `timeout_s`.

        Raises:
            BaseException: what `on_event` raised, if it did.
        """
        if self._outcome is None:
            if not self._wait_for_exit(timeout_s):
                return None
            self._outcome = self._close()
        if self._listener_fault is not None:
            raise self._listener_fault
        return self._outcome

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the worker has not been started")
        return self._process

    def _take_output(self, line: str) -> None:
        event = parse_line(line)
        if isinstance(event, Result):
            self._result = event.result
            self._last_word_at = time.monotonic()
        elif isinstance(event, ErrorEvent):
            self._error = event
            self._last_word_at = time.monotonic()
        self._tell(event)

    def _take_error_line(self, line: str) -> None:
        self._error_lines.append(line)
        self._tell(Log(level="debug", message=line))

    def _tell(self, event: Event) -> None:
        if self._on_event is None or self._listener_fault is not None:
            return
        try:
            self._on_event(event)
        # Kept for `wait`: a listener at fault must not leave the worker's pipe unread.
        except Exception as error:
            self._listener_fault = error

    def _ask(self, word: str, file: Path) -> None:
        with suppress(OSError):
            file.touch()
        stdin = self._started().stdin
        with suppress(OSError, ValueError):
            if stdin is not None:
                stdin.write(word + "\n")
                stdin.flush()

    def _family(self) -> list[psutil.Process]:
        pid = self._started().pid
        with suppress(psutil.Error):
            if self.running():
                return [*descendants(pid), psutil.Process(pid)]
        return []

    def _end_after_grace(self, family: list[psutil.Process]) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._started().wait(self._grace_s)
        # Both lists: what was started since, and what has outlived its parent.
        end_processes({*self._family(), *family})

    def _wait_for_exit(self, timeout_s: float | None) -> bool:
        process = self._started()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while process.poll() is None:
            now = time.monotonic()
            if until is not None and now >= until:
                return False
            if self._last_word_at is not None and now > self._last_word_at + _EXIT_GRACE_S:
                # It has said how the job ended, and hangs while it ends.
                end_processes(self._family())
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05 if until is None else min(0.05, max(until - now, 0.001)))
        return True

    def _close(self) -> Outcome:
        if self._ender is not None:
            self._ender.join()
        for reader in self._readers:
            # A grandchild that is left may keep the pipe open.
            reader.join(timeout=2.0)
        process = self._started()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        if self.folder.path.is_dir():
            with suppress(OSError):
                self.folder.clear_requests()
        return self._judge(process.returncode)

    def _judge(self, returned: int) -> Outcome:
        if self._result is not None:
            return Outcome(EXIT_DONE, result=self._result)
        if self._error is not None:
            return Outcome(self._error.exit_code, error=self._error)
        if self.cancel_asked:
            cancelled = ErrorEvent(code="cancelled", message="Cancelled", exit_code=EXIT_CANCELLED)
            return Outcome(EXIT_CANCELLED, error=cancelled)
        message = f"The worker ended without a result ({_how_it_ended(returned)})"
        lines = [line for line in self._error_lines if line.strip()]
        telling = [line for line in lines if "error" in line.lower()]
        last = (telling or lines or [""])[-1].strip()
        self._keep_error_lines(message, lines)
        return Outcome(
            EXIT_OUR_FAULT,
            error=ErrorEvent(
                code="worker_died",
                message=f"{message}; its last words: {last}" if last else message,
                remedy="If memory ran out, take a smaller batch or input size; else see worker.log "
                "of the job folder",
                exit_code=EXIT_OUR_FAULT,
            ),
        )

    def _keep_error_lines(self, message: str, lines: list[str]) -> None:
        with (
            suppress(OSError),
            self.folder.log_file.open("a", encoding="utf-8", errors="replace") as file,
        ):
            file.write("\n".join([message, *lines, ""]))


def _how_it_ended(returned: int) -> str:
    if returned >= 0:
        return f"exit code {returned}"
    try:
        return f"killed by {signal.Signals(-returned).name}"
    except ValueError:
        return f"killed by signal {-returned}"


def _read(stream: IO[str], take: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            take(line.rstrip("\r\n"))


def _environment() -> dict[str, str]:
    environment = dict(os.environ, PYTHONIOENCODING="utf-8", PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    share_processors(environment)
    root = Path(__file__).resolve().parents[2]
    # Installed, the worker finds the library by itself, and site-packages ahead of the standard
    # library would let a package of the same name replace a part of it.
    if root.name not in ("site-packages", "dist-packages"):
        paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _creation_flags() -> int:
    """On Windows: Ctrl-C in the shell reaches the client alone, and no console window opens."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0
