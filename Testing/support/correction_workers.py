"""Correction workers for tests of the module: pretended ones, and waiting for them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from Testing.support.repository import REPOSITORY

FAKE = REPOSITORY / "Testing" / "support" / "fake_correction_worker.py"


def pretend(monkeypatch, behaviour: str = "well") -> None:
    """Have corrections served by a pretended worker of this behaviour from now on.

    What it is asked must be a request that the real worker would take.
    """
    from SAMFineTunePanel.correction import correction_worker
    from SAMFineTunePanel.worker.qprocess_transport import QProcessTransport

    from SAMFineTuneLib.interactive import client
    from SAMFineTuneLib.interactive.protocol import parse_request

    class CheckedTransport(QProcessTransport):
        def write(self, line: str) -> None:
            parse_request(line)
            super().write(line)

    # Without the site packages, of which it needs none, it starts sooner.
    command = [sys.executable, "-S", str(FAKE), behaviour]
    monkeypatch.setattr(client, "serve_command", lambda folder, python: [*command, str(folder)])
    monkeypatch.setattr(correction_worker, "QProcessTransport", CheckedTransport)


def session_folders() -> list:
    """The folders of corrections in the cache."""
    from SAMFineTuneLib.jobs.folder import jobs_folder

    found = jobs_folder().glob("*-correct-*") if jobs_folder().is_dir() else []
    return list(found)


def wait_until_idle(correction, process_events: Callable[..., None]) -> None:
    """Wait until the session is ready and nothing is being looked for."""
    process_events(
        lambda: (
            not correction.session.isOpen
            or (correction.session.state == "ready" and not correction.isWorking)
        )
    )
