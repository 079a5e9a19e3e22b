"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from SAMFineTuneLib.worker.processor_sharing import share_processors
from Testing.support.time_limits import TRIED_AGAIN, has_limit

# Tests compute in this process too, on machines that others use.
share_processors(os.environ)
# So do the processes that tests start, while another test process uses the second processor.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the module's tests out unless their folder, or a file in it, is asked for by name.

    They need Slicer's scene and Qt, which change the whole process and are not everywhere.
    """
    here = Path(__file__).parent / "module"
    if collection_path != here:
        return None
    asked = [Path(config.invocation_params.dir, one.partition("::")[0]) for one in config.args]
    if any(path.resolve() == here or here in path.resolve().parents for path in asked):
        return None
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A limit of time that is missed is tried again."""
    for each in items:
        if isinstance(each, pytest.Function) and has_limit(each.function):
            each.add_marker(TRIED_AGAIN)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images that lies beside the checkout; tests that need it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real images at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same threads and random numbers wherever a test that computes is run.

    One thread, because two test processes at a time are enough for two processors: with two
    threads in each, a step of a fine-tune took half as much again of the processors' time.
    """
    # Many tests need no torch, and one makes sure that it is not imported.
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small_inputs() -> Iterator[None]:
    """Networks may have inputs of 64 pixels, and a job that leaves the size open has that size.

    Users have 256 pixels at least, with which a step of the starter takes ten times as long. For
    tests of what does not depend on the size.
    """
    from SAMFineTuneLib.networks.spec import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        for name, spec in BACKBONES.items():
            smaller = replace(
                spec, input_sizes=range(64, 1025, 16), smallest_tuned_input=64, enlargement=1
            )
            patch.setitem(BACKBONES, name, smaller)
        yield
