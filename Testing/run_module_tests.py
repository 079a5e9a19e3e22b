"""Runs the module's tests, each file of Testing/module in a process of its own.

    python Testing/run_module_tests.py [word of a file's name ...] [-- arguments for pytest]

A crash takes only its own file along. Two files run at a time, and what a file prints is shown when
it has ended. Tests that are marked `alone` come last, one file at a time: they measure how long
Slicer is held up, and another file beside them would count into that. Exit code 0 if all passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "Testing" / "module"
TIMEOUT_S = 1200
FILES_AT_A_TIME = 2
BESIDE_OTHERS = ("-m", "not slow and not alone")
ALONE = ("-m", "alone and not slow")
# What pytest returns when it has found no test to run.
NOTHING_TO_RUN = 5


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
        how = {0: "passed", NOTHING_TO_RUN: "nothing to run", 124: "timed out"}.get(self.code)
        if how is None:
            how = f"crashed (signal {-self.code})" if self.code < 0 else "FAILED"
        return f"{self.name:32} {how:20} {self.seconds:6.1f} s"


def run_file(path: Path, arguments: list[str]) -> Outcome:
    """Runs one file's tests."""
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", str(path), *arguments]
    environment = {"QT_QPA_PLATFORM": "offscreen", **os.environ}
    start = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        code, printed = ended.returncode, ended.stdout
    except subprocess.TimeoutExpired as late:
        code, printed = 124, late.stdout or b""
    seconds = time.monotonic() - start
    return Outcome(path.name, code, seconds, printed.decode("utf-8", "replace"))


def run_files(files: list[Path], arguments: list[str], at_a_time: int) -> list[Outcome]:
    """Runs the files, several at a time, and shows what each printed."""
    outcomes = []
    with ThreadPoolExecutor(at_a_time) as pool:
        for running in as_completed([pool.submit(run_file, each, arguments) for each in files]):
            outcome = running.result()
            print(outcome.printed, flush=True)
            outcomes.append(outcome)
    return sorted(outcomes, key=lambda each: each.name)


def run_all(files: list[Path], arguments: list[str]) -> list[Outcome]:
    """Runs what can run beside others, then the rest; an option -m of the caller counts instead."""
    if "-m" in arguments:
        return run_files(files, arguments, 1)
    # A long file that begins last would keep one processor waiting.
    longest_first = sorted(files, key=lambda path: path.stat().st_size, reverse=True)
    outcomes = run_files(longest_first, [*arguments, *BESIDE_OTHERS], FILES_AT_A_TIME)
    measuring = [path for path in files if "pytest.mark.alone" in path.read_text("utf-8")]
    return outcomes + run_files(measuring, [*arguments, *ALONE], 1)


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
    outcomes = run_all(files, for_pytest)
    print("\n" + "\n".join(str(one) for one in outcomes))
    return 0 if all(one.passed for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
