"""The transport for the shell and Python: a subprocess whose lines are received in threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO

import psutil

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.worker.environment import worker_environment
from SAMFineTuneLib.worker.line_splitter import LineSplitter
from SAMFineTuneLib.worker.process_tree import descendants, end_processes
from SAMFineTuneLib.worker.transport import Receiver

_LOOK_EVERY_S = 0.05
# A child of the worker that still runs may keep a pipe open, so the wait for lines is limited.
_READERS_S = 2.0


class SubprocessTransport:
    """A `Transport` on one subprocess; the receiver is called from threads of this object.

    Args:
        command: the whole command line.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._noted: list[psutil.Process] = []
        self._due: list[tuple[float, Callable[[], None]]] = []

    @property
    def pid(self) -> int:
        """Process id of the worker, or of its launcher if Python is started by one."""
        if self._process is None:
            raise RuntimeError("the worker has not been started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, receiver: Receiver) -> None:
        """Start the process.

        Raises:
            InputError: the program cannot be started.
        """
        try:
            process = subprocess.Popen(
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
        self._process = process
        readers = [
            threading.Thread(target=_read, args=(stream, take), daemon=True)
            for stream, take in (
                (process.stdout, receiver.take_output),
                (process.stderr, receiver.take_error),
            )
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._watch, args=(readers, receiver), daemon=True).start()

    def write(self, line: str) -> None:
        """Write a line on its standard input."""
        stdin = self._process.stdin if self._process is not None else None
        with suppress(OSError, ValueError):
            if stdin is not None:
                stdin.write(f"{line}\n".encode())
                stdin.flush()

    def note_children(self) -> None:
        """Remember the process and all that it has started."""
        with suppress(psutil.Error):
            if self.is_running:
                self._noted = [*descendants(self.pid), psutil.Process(self.pid), *self._noted]

    def kill(self) -> None:
        """End the process now, with all processes that it started."""
        self.note_children()
        end_processes(set(self._noted))

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a time, unless the process has ended by then."""
        self._due.append((time.monotonic() + seconds, action))

    def _watch(self, readers: list[threading.Thread], receiver: Receiver) -> None:
        process = self._process
        if process is None:
            return
        while process.poll() is None:
            now = time.monotonic()
            for each in [each for each in self._due if each[0] <= now]:
                self._due.remove(each)
                each[1]()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY_S)
        for reader in readers:
            reader.join(_READERS_S)
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        receiver.take_end(process.returncode, "")


def _read(stream: IO[bytes], take: Callable[[str], None]) -> None:
    splitter = LineSplitter()
    with stream:
        while data := os.read(stream.fileno(), 65536):
            for line in splitter.feed(data):
                take(line)
        for line in splitter.rest():
            take(line)


def _creation_flags() -> int:
    """Flags so that on Windows Ctrl-C reaches only the client, and no console window opens."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0
