"""A download that resumes where it was interrupted, in the same call or in a later one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

Progress = Callable[[int, int], None]

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_ATTEMPTS_WITHOUT_PROGRESS = 4
_PAUSE_S = 1.0


class IncompleteDownload(requests.RequestException):
    """The connection ended before the file did."""


class ResumableDownload:
    """A downloader for pooch that keeps the bytes received in a file beside the destination.

    The rest is requested by an HTTP range; if the server ignores the range and sends the whole
    file, the download starts over. In the end pooch checks the hash of the whole file.

    Args:
        part: the file in which the bytes are collected; it is kept if the download is interrupted.
        size: length of the whole file in bytes.
        progress: called with (bytes so far, bytes in all).
    """

    def __init__(self, part: Path, size: int, progress: Progress | None = None) -> None:
        self.part = part
        self.size = size
        self.progress = progress

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """Fetches `url` and moves it to the path `output_file` once it is whole.

        Raises:
            requests.RequestException: several attempts in a row brought no further bytes.
            OSError: it cannot be written.
        """
        without_progress = 0
        while self._arrived() != self.size:
            before = self._arrived()
            try:
                self._attempt(url)
            except requests.RequestException as error:
                without_progress = 0 if self._arrived() > before else without_progress + 1
                if without_progress == _ATTEMPTS_WITHOUT_PROGRESS or _is_final(error):
                    raise
                time.sleep(_PAUSE_S * without_progress)
        self.part.replace(output_file)

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, url: str) -> None:
        start = self._arrived()
        if start > self.size:
            self.part.unlink()
            start = 0
        # Without compression, so that the bytes received are those of the file.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            response.raise_for_status()
            continued = _continues_at(response, start)
            self._collect(response, "ab" if continued else "wb", start if continued else 0)
        if self._arrived() < self.size:
            raise IncompleteDownload(f"{url} ended at {self._arrived()} of {self.size} bytes")

    def _collect(self, response: requests.Response, mode: str, done: int) -> None:
        with self.part.open(mode) as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if self.progress is not None:
                    self.progress(min(done, self.size), self.size)


def _continues_at(response: requests.Response, start: int) -> bool:
    if response.status_code != requests.codes.partial_content:
        return False
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _is_final(error: requests.RequestException) -> bool:
    """Whether another attempt would get the same error."""
    return error.response is not None and error.response.status_code < 500
