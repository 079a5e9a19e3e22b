"""Settings with which a worker shares the processors with other programs."""

from __future__ import annotations

from collections.abc import MutableMapping

# A torch thread that waits for the others spins for a long time before it yields its processor. If
# another program computes as well, each operation then waits for a thread that is itself waiting
# for a processor: on two cores beside one such program a fine-tune took 1.4 s a step, and 0.55 s
# with a short spin; alone on the machine 0.23 s and 0.24 s.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def share_processors(environment: MutableMapping[str, str]) -> None:
    """Sets a short spin for GNU's and LLVM's OpenMP, unless the user has chosen.

    Has an effect only before torch is imported.
    """
    for name, value in _SHORT_SPIN.items():
        environment.setdefault(name, value)
