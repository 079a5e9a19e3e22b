"""Runs the module's tests, each file of Testing/module in a process of its own.

    python Testing/run_module_tests.py [word of a file's name ...] [-- arguments for pytest]

A crash takes only its own file along. On Linux each process is a copy of one that has imported
Slicer's packages, which takes four seconds; elsewhere each imports them itself. Two files run at a
time, and what a file prints is shown when it has ended. Files with tests that are marked `alone`
come last, one at a time: they measure how long Slicer is held up, and another file beside them
would count into that. Exit code 0 if all passed.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "Testing" / "module"
TIMEOUT_S = 1200
FILES_AT_A_TIME = 2
NOT_SLOW = ("-m", "not slow")
# What each file's process needs anyway; nothing in it begins to work when it is imported. The host
# and the library's parts take 0.7 s of a processor, which each of the files would spend otherwise.
IMPORTED_ONCE = [
    *("pytest", "numpy", "PySide6.QtWidgets", "PySide6.QtTest", "vtk", "slicer"),
    *("Testing.host.ctk_widgets", "Testing.host.mrml", "unittest", "http.client"),
    *("SAMFineTuneLib.models.library", "SAMFineTuneLib.jobs.client", "SAMFineTuneLib.jobs.storage"),
    *("SAMFineTuneLib.jobs.interrupted", "SAMFineTuneLib.interactive.client"),
    *("SAMFineTuneLib.interactive.mask_files", "SAMFineTuneLib.slices.suggestion"),
    "SAMFineTuneLib.weights.availability",
]
# Small files that take long, because real workers compute in them.
COMPUTING = ("test_walkthrough.py", "test_logic_jobs.py", "test_correction_script.py")
# What pytest returns when it has found no test to run.
NOTHING_TO_RUN = 5
TIMED_OUT = 124


@dataclass(frozen=True)
class Outcome:
    """How one file went."""

    name: str
    code: int
    seconds: float
    printed: str

    @property
    def passed(self) -> bool:
        return self.code in (0, NOTHING_TO_RUN)

    def __str__(self) -> str:
        how = {0: "passed", NOTHING_TO_RUN: "nothing to run", TIMED_OUT: "timed out"}.get(self.code)
        if how is None:
            how = f"crashed (signal {-self.code})" if self.code < 0 else "FAILED"
        return f"{self.name:32} {how:20} {self.seconds:6.1f} s"


def run_in_this_process(
    path: Path, arguments: list[str], printed: Path, is_beside_others: bool
) -> None:
    """Runs one file's tests and ends the process; what is printed goes into a file.

    Temporary files go into that file's folder: a process of multiprocessing ends without deleting
    its own.
    """
    # What was imported stays; each garbage collection of pytest would take 0.09 s to go through it.
    gc.freeze()
    if is_beside_others:
        # Workers' threads would wait for each other while the other file has the processor.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    tempfile.tempdir = os.environ["TMPDIR"] = str(printed.parent)
    with printed.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    faulthandler.enable()
    os.chdir(REPOSITORY)
    # Not this script's folder, whose subfolders are packages under other names.
    others = [each for each in sys.path if Path(each).resolve() != REPOSITORY / "Testing"]
    sys.path[:] = [str(REPOSITORY), *others]
    sys.exit(int(pytest.main([str(path), *arguments])))


def run_file(path: Path, arguments: list[str], is_beside_others: bool = False) -> Outcome:
    """Runs one file's tests in a process of their own."""
    processes = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        processes.set_forkserver_preload(IMPORTED_ONCE)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder, "printed")
        process = processes.Process(
            target=run_in_this_process, args=(path, arguments, printed, is_beside_others)
        )
        process.start()
        process.join(TIMEOUT_S)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            code = TIMED_OUT
        said = printed.read_bytes() if printed.exists() else b""
    return Outcome(path.name, code, time.monotonic() - start, said.decode("utf-8", "replace"))


def run_files(files: list[Path], arguments: list[str], at_a_time: int) -> list[Outcome]:
    """Runs the files, several at a time, and shows what each printed."""
    outcomes = []
    with ThreadPoolExecutor(at_a_time) as pool:
        several = min(len(files), at_a_time) > 1
        started = [pool.submit(run_file, each, arguments, several) for each in files]
        for running in as_completed(started):
            outcome = running.result()
            print(outcome.printed, flush=True)
            outcomes.append(outcome)
    return sorted(outcomes, key=lambda each: each.name)


def run_all(files: list[Path], arguments: list[str]) -> list[Outcome]:
    """Runs what can run beside others, then the rest; an option -m of the caller counts instead."""
    if "-m" in arguments:
        return run_files(files, arguments, 1)
    # A long file that begins last would keep one processor waiting.
    longest_first = sorted(
        files, key=lambda path: (path.name in COMPUTING, path.stat().st_size), reverse=True
    )
    measuring = [path for path in files if "pytest.mark.alone" in path.read_text("utf-8")]
    beside_others = [path for path in longest_first if path not in measuring]
    outcomes = run_files(beside_others, [*arguments, *NOT_SLOW], FILES_AT_A_TIME)
    return outcomes + run_files(measuring, [*arguments, *NOT_SLOW], 1)


def main(arguments: list[str]) -> int:
    """Runs the files and prints a summary; the exit code."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    words, for_pytest = arguments[:cut], arguments[cut + 1 :]
    files = [
        path
        for path in sorted(FOLDER.rglob("test_*.py"))
        if not words or any(word in path.name for word in words)
    ]
    if not files:
        print(f"no test files in {FOLDER} have one of {words} in their names", file=sys.stderr)
        return 1
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    # The process that imports once finds this project's packages in the current folder.
    os.chdir(REPOSITORY)
    outcomes = run_all(files, for_pytest)
    print("\n" + "\n".join(str(one) for one in outcomes))
    return 0 if all(one.passed for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
