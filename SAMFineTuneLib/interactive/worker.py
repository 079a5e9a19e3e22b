"""The main function of a correction's process: its input and output, parent and exit codes."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from SAMFineTuneLib.interactive.failure import failure_of
from SAMFineTuneLib.interactive.protocol import SERVER_LOCK_FILE
from SAMFineTuneLib.interactive.settings_file import read_settings, require_folder
from SAMFineTuneLib.jobs.folder import lock_folder
from SAMFineTuneLib.worker import lock_file
from SAMFineTuneLib.worker.events import EventWriter
from SAMFineTuneLib.worker.failure import EXIT_DONE, EXIT_OUR_FAULT, error_event
from SAMFineTuneLib.worker.package_loading import loading_packages
from SAMFineTuneLib.worker.process_tree import WatchedProcess
from SAMFineTuneLib.worker.processor_sharing import share_processors
from SAMFineTuneLib.worker.standard_input import StandardInputLines
from SAMFineTuneLib.worker.standard_output import claim_output, output_as_lines

_LOOK_AFTER_PARENT_S = 1.0
# A worker that replaces one that died may start while the old process is still ending. The
# libraries, which take about 3 s to load, are loaded only after this wait.
_WAIT_FOR_OTHER_S = 6.0


def main(folder: Path, parent: int | None = None) -> int:
    """Serves the session of a folder until it is closed.

    Takes over standard input and output of the process.

    Args:
        folder: holds `session.json`.
        parent: id of the process for which the work is done; the worker ends when that has ended.

    Returns:
        0 if the session was closed, 1 after a fault in the program, 2 for bad input.
    """
    share_processors(os.environ)
    messages = EventWriter(None, claim_output())
    lines = StandardInputLines()
    watch = _Parent(parent)
    with output_as_lines(lambda line: messages.log(line, "debug")):
        try:
            with _alone_in(folder):
                # A second worker and settings at fault are told of at once, not after the
                # libraries have loaded.
                read_settings(folder)
                with loading_packages():
                    from SAMFineTuneLib.interactive.server import CorrectionServer

                server = CorrectionServer(folder, messages.emit, lines.poll)
                server.run(
                    ended=lambda: lines.ended or not watch.alive(),
                    abandoned=lambda: not watch.alive(),
                )
        # The client has to be told of every error.
        except (Exception, KeyboardInterrupt) as error:
            messages.emit(failure_of(error))
            exit_code = error_event(error).exit_code
            if exit_code == EXIT_OUR_FAULT:
                traceback.print_exception(error)
            return exit_code
    return EXIT_DONE


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps a second worker out of the session: each would overwrite the other's masks."""
    require_folder(folder)
    file = folder / SERVER_LOCK_FILE
    remedy = "Close that session first, or begin one in another folder"
    lock_folder(file, "serving the session", remedy, "session_running", _WAIT_FOR_OTHER_S)
    try:
        yield
    finally:
        lock_file.release(file)


class _Parent:
    """The process that started this one; whether it runs is checked once a second at most."""

    def __init__(self, pid: int | None) -> None:
        self._process = None if pid is None else WatchedProcess(pid)
        self._looked_at = time.monotonic()
        self._alive = True

    def alive(self) -> bool:
        """Whether it still ran at the last check."""
        now = time.monotonic()
        if self._process is not None and now - self._looked_at > _LOOK_AFTER_PARENT_S:
            self._looked_at = now
            self._alive = self._process.alive()
        return self._alive
