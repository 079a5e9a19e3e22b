"""The client's side of a worker: start it, hear its events, cancel it, learn how it ended.

Imports neither torch nor a user interface: Slicer's process and the shell use it alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import RUNNING, JobFolder
from SAMFineTuneLib.jobs.worker_output import Outcome, WorkerEar
from SAMFineTuneLib.worker.environment import worker_environment
from SAMFineTuneLib.worker.events import Event
from SAMFineTuneLib.worker.line_splitter import LineSplitter
from SAMFineTuneLib.worker.process_tree import descendants, end_processes

CANCEL_GRACE_S = 2.0
_EXIT_GRACE_S = 10.0


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
        self._ear = WorkerEar(self.folder, on_event)
        self._grace_s = grace_s
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []
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
                env=worker_environment(os.environ),
                creationflags=_creation_flags(),
            )
        except OSError as error:
            raise InputError(
                f"cannot start {self._command[0]}: {error.strerror or error}",
                "Name the Python in which SAMFineTune is installed",
                code="no_python",
            ) from error
        for stream, take in (
            (self._process.stdout, self._ear.take_output),
            (self._process.stderr, self._ear.take_error),
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
        if self._ear.listener_fault is not None:
            raise self._ear.listener_fault
        return self._outcome

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the worker has not been started")
        return self._process

    def _ask(self, word: str, file: Path) -> None:
        with suppress(OSError):
            file.touch()
        stdin = self._started().stdin
        with suppress(OSError, ValueError):
            if stdin is not None:
                stdin.write(f"{word}\n".encode())
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
            spoke_last_at = self._ear.spoke_last_at
            if spoke_last_at is not None and now > spoke_last_at + _EXIT_GRACE_S:
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
        outcome = self._ear.outcome(process.returncode, self.cancel_asked)
        # Where another worker has the folder, requests there are for that one.
        mine = outcome.error is None or outcome.error.code != RUNNING
        if mine and self.folder.path.is_dir():
            with suppress(OSError):
                self.folder.clear_requests()
        return outcome


def _read(stream: IO[bytes], take: Callable[[str], None]) -> None:
    splitter = LineSplitter()
    with stream:
        while data := os.read(stream.fileno(), 65536):
            for line in splitter.feed(data):
                take(line)
        for line in splitter.rest():
            take(line)


def _creation_flags() -> int:
    """On Windows: Ctrl-C in the shell reaches the client alone, and no console window opens."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0
