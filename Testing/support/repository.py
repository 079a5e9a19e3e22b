"""Where the sources lie."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "SAMFineTune" / "SAMFineTune.py"
LIBRARY = REPOSITORY / "SAMFineTuneLib"
