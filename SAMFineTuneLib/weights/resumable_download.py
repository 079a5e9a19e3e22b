"""A download that goes on where it was interrupted, in the same call or in a later one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

Progress = Callable[[int, int], None]

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_BARREN_ATTEMPTS = 4
_PAUSE_S = 1.0


class IncompleteDownload(requests.RequestException):
    """The connection ended before the file did."""


class ResumableDownload:
    """A downloader for pooch that keeps what has arrived in a file beside the destination.

    The rest is asked for by an HTTP range; a server that ignores the range sends all of it, and
    the download starts over. What arrived is not trusted: pooch checks the hash at the end.

    Args:
        part: where the bytes are collected; it outlives an interruption.
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
            requests.RequestException: several attempts in a row brought nothing.
            OSError: it cannot be written.
        """
        barren = 0
        while self._arrived() != self.size:
            before = self._arrived()
            try:
                self._attempt(url)
            except requests.RequestException as error:
                barren = 0 if self._arrived() > before else barren + 1
                if barren == _BARREN_ATTEMPTS or _is_final(error):
                    raise
                time.sleep(_PAUSE_S * barren)
        self.part.replace(output_file)

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, url: str) -> None:
        start = self._arrived()
        if start > self.size:
            self.part.unlink()
            start = 0
        # A compressed transfer would count other bytes than the file has.
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
    """Whether asking again would bring the same answer."""
    return error.response is not None and error.response.status_code < 500
