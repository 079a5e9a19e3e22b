"""Finds and ends a process with all processes that it started, on every operating system."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def descendants(pid: int) -> list[psutil.Process]:
    """The children of a process and all their descendants; empty if the process has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def end_processes(processes: Iterable[psutil.Process], wait_s: float = 3.0) -> None:
    """Kill processes and wait until they are gone; those that have ended already are skipped."""
    ended = []
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            # Windows raises this for a process that is just ending.
            pass
        ended.append(process)
    psutil.wait_procs(ended, timeout=wait_s)


class WatchedProcess:
    """Finds out whether a process of another program still runs."""

    def __init__(self, pid: int) -> None:
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._process = None

    def alive(self) -> bool:
        """Whether it runs; a process that has ended but waits for its parent does not."""
        if self._process is None:
            return False
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
