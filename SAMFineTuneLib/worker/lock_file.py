"""A lock file: it keeps all processes but one out of a folder, as long as that process runs.

The file holds the process id, for other processes to read. The operating system's lock on the file
is what keeps a second process out: two processes never both get it, even if they ask at the same
moment, and the system releases it when its process ends, however that happens. So a file that a
killed process left can be taken over, and it does not matter if a later process has the same id.

On disks without such locks, and for files that older versions of the program wrote without one, the
process id decides: the lock counts as held if the process of this id started before the file was
written and still runs. There two processes that ask at the same moment may both get the lock.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

# Another process may hold the lock for a moment, to check whether it is taken or delete the file.
_PATIENCE_S = 1.0
_AGAIN_S = 0.01
# Start times of processes and times of files may differ by their resolution, 2 s on some disks.
_CLOCK_TOLERANCE_S = 3.0
# Written after the process id if the system's lock is held too; older versions wrote no line end.
_WITH_SYSTEM_LOCK = "\n"
_UNKNOWN = 0
_LONGEST = 64

# The descriptors of the locks that this process holds; a lock is held while its file is open.
_held: dict[str, int] = {}

if sys.platform == "win32":
    import msvcrt

    # Other processes cannot read a locked byte, so this one lies far behind the process id.
    _LOCKED_BYTE = 1 << 30

    def _lock(descriptor: int) -> None:
        """Takes the system's lock; OSError where that cannot be had."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        """Takes the system's lock; OSError where that cannot be had."""
        # Not lockf, whose lock is lost when this process closes any descriptor of the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_TAKEN_ERRORS = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}


class _Content(NamedTuple):
    """What a lock file says: the process id, and whether that process took the system's lock."""

    pid: int | None
    system_lock: bool


def take(file: Path) -> int | None:
    """Takes the lock of a file, which is made if it does not exist.

    Returns:
        None if this process has the lock now, or had it before; otherwise the id of the process
        that has it, 0 if the id is not known.

    Raises:
        OSError: the file cannot be written.
    """
    key = os.path.realpath(file)
    descriptor = _held.get(key)
    if descriptor is not None and _is_at(descriptor, file):
        return None
    _let_go(key)
    until = time.monotonic() + _PATIENCE_S
    while True:
        last = time.monotonic() > until
        try:
            holder = _try(file, key, last)
        except PermissionError:
            # Windows raises this for a file that is just being deleted.
            if last or sys.platform != "win32":
                raise
        else:
            if holder is None or holder != _UNKNOWN or last:
                return holder
        time.sleep(_AGAIN_S)


def release(file: Path) -> None:
    """Releases the lock and deletes the file."""
    key = os.path.realpath(file)
    if sys.platform == "win32":
        # An open file cannot be deleted. It is emptied first, so that it names no process until it
        # is closed and deleted.
        with suppress(OSError):
            if key in _held:
                os.ftruncate(_held[key], 0)
        _let_go(key)
    with suppress(OSError):
        file.unlink()
    _let_go(key)


def holder_of(file: Path) -> int | None:
    """The id of the process that has the lock, 0 if it is not known; None if no process has it."""
    if os.path.realpath(file) in _held:
        return os.getpid()
    try:
        content, written_at = _content(file.read_bytes()), file.stat().st_mtime
    except OSError:
        return None
    taken = _is_taken(file)
    if taken:
        return _UNKNOWN if content.pid is None else content.pid
    if content.pid is None or (content.system_lock and taken is not None):
        return None
    return content.pid if _was_running(content.pid, written_at) else None


def _try(file: Path, key: str, last: bool) -> int | None:
    """Tries once to take the lock; returns what `take` does, and 0 if trying again may succeed."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    keep = False
    try:
        taken = _taken_by_other(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        content = _content(os.read(descriptor, _LONGEST))
        if taken:
            # The lock may be held only for a moment, by a process that checks whether it is taken.
            running = content.pid is not None and psutil.pid_exists(content.pid)
            return content.pid if content.pid is not None and (running or last) else _UNKNOWN
        if not _is_at(descriptor, file):
            return _UNKNOWN
        other = content.pid not in (None, os.getpid())
        if other and not (content.system_lock and taken is not None):
            assert content.pid is not None
            if _was_running(content.pid, os.fstat(descriptor).st_mtime):
                return content.pid
        _write(descriptor, f"{os.getpid()}{_WITH_SYSTEM_LOCK if taken is not None else ''}")
        _held[key] = descriptor
        keep = True
        return None
    finally:
        if not keep:
            os.close(descriptor)


def _is_taken(file: Path) -> bool | None:
    """Whether a process has the system's lock on a file; None if that cannot be found out."""
    for _ in range(3):
        try:
            descriptor = os.open(file, os.O_RDWR)
        except OSError:
            return None
        try:
            taken = _taken_by_other(descriptor)
        finally:
            os.close(descriptor)
        if not taken:
            return taken
        # Another process may hold it for a moment, to check it too.
        time.sleep(_AGAIN_S)
    return True


def _taken_by_other(descriptor: int) -> bool | None:
    """Takes the system's lock; returns whether another process has it, None without disk locks."""
    try:
        _lock(descriptor)
    except OSError as error:
        return True if error.errno in _TAKEN_ERRORS else None
    return False


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False


def _let_go(key: str) -> None:
    descriptor = _held.pop(key, None)
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _content(data: bytes) -> _Content:
    text = data[:_LONGEST].decode("utf-8", errors="replace")
    digits = text.strip()
    pid = int(digits) if len(digits) <= 10 and digits.isascii() and digits.isdigit() else None
    return _Content(pid, text.endswith(_WITH_SYSTEM_LOCK))


def _was_running(pid: int, then: float) -> bool:
    """Whether the process that had this id at the time `then` still runs; ids are reused."""
    try:
        process = psutil.Process(pid)
        started_before = process.create_time() <= then + _CLOCK_TOLERANCE_S
        return started_before and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError):
        return False
