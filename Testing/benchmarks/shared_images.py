"""Where the real images are that the benchmarks measure on."""

from __future__ import annotations

import argparse
from pathlib import Path

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Adds --data: the folder of images, beside the checkout unless told otherwise."""
    parser.add_argument("--data", type=Path, default=SHARED_DATA, metavar="FOLDER")
