"""Loads MONAI in the worker without packages that only its other users need.

MONAI imports all of its parts at once, and for functions that are not used here these look for
packages of tables, statistics, plots and signals. Without those, it is loaded in 1.4 s of
processor time in place of 4.1 s, which a user waits for at the start of every fine-tune.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_NEEDED = ("pandas", "sklearn", "matplotlib", "scipy.signal", "torch.utils.tensorboard")


def load_monai() -> None:
    """Imports MONAI; to be called in a worker's process alone, before anything else imports it.

    MONAI keeps in mind which packages it has not found, so in a process that belongs to somebody
    else its other functions would stay without them.
    """
    with _hidden([name for name in _NOT_NEEDED if name not in sys.modules]):
        import monai  # noqa: F401


@contextmanager
def _hidden(names: list[str]) -> Iterator[None]:
    """Imports of these modules fail meanwhile, as if they were not installed."""
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
