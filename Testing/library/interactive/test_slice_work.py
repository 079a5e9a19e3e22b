"""What is computed for each slice of a correction: when, how often, and where it is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.interactive.embedding_cache import EmbeddingCache
from SAMFineTuneLib.interactive.slice_work import SliceWork, SliceWorker
from SAMFineTuneLib.networks.staged_encoder import FeatureState

KEY = ("prompted", 3)
# Features of `state`: 1000 numbers of two bytes.
BYTES = 2000


def state(value: float = 1.0) -> FeatureState:
    x = torch.linspace(-value, value, 600).reshape(1, 6, 10, 10)
    return FeatureState(x, (torch.full((1, 3, 10, 10), value), torch.zeros(1, 1, 10, 10)))


def equal(one: FeatureState | None, other: FeatureState) -> bool:
    assert one is not None and len(one.skips) == len(other.skips)
    return all(
        torch.equal(mine, theirs)
        for mine, theirs in zip((one.x, *one.skips), (other.x, *other.skips), strict=True)
    )


def half(features: FeatureState) -> FeatureState:
    return FeatureState(features.x.half(), tuple(each.half() for each in features.skips))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*"))


# The cache


def test_features_come_back_in_half_precision(tmp_path: Path) -> None:
    given = FeatureState(state().x * 1.001, state(3.3).skips)
    assert equal(EmbeddingCache(tmp_path, "s").put(KEY, given), half(given))
    cache = EmbeddingCache(tmp_path, "s")
    assert KEY in cache and ("prompted", 4) not in cache and ("automatic", 3) not in cache
    assert equal(cache.get(KEY), half(given))
    assert cache.get(("automatic", 3)) is None
    without_skips = EmbeddingCache(tmp_path, "t").put(KEY, FeatureState(given.x))
    assert equal(EmbeddingCache(tmp_path, "t").get(KEY), without_skips)


def test_features_of_another_signature_are_never_given(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "one").put(KEY, state())
    other = EmbeddingCache(tmp_path, "other")
    assert KEY not in other and other.get(KEY) is None


def test_memory_is_bounded_and_the_disk_has_the_rest(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "s", memory_bytes=3 * BYTES)
    for number in range(6):
        cache.put(("a", number), state(number))
    cache.get(("a", 3))
    cache.put(("a", 6), state(6))
    for path in tmp_path.glob("*/*"):
        path.unlink()
    # What was used latest is what is left.
    assert [number for number in range(7) if ("a", number) in cache] == [3, 5, 6]


def test_one_is_kept_in_memory_however_large() -> None:
    cache = EmbeddingCache(None, "s", memory_bytes=10)
    cache.put(("a", 0), state())
    cache.put(("a", 1), state(2))
    assert equal(cache.get(("a", 1)), half(state(2))) and cache.get(("a", 0)) is None


@pytest.mark.parametrize("bound", [4 * BYTES, 4 * BYTES + 700])
def test_without_a_disk_it_is_full_before_anything_is_pushed_out(bound: int) -> None:
    cache = EmbeddingCache(None, "s", memory_bytes=bound)
    number = 0
    while not cache.is_full:
        cache.put(("a", number), state())
        number += 1
        assert number <= 4
    assert number == 4 and all(("a", each) in cache for each in range(4))


def age(folder: Path, seconds: float) -> None:
    for path in folder.glob("*"):
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_the_disk_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    for name, seconds in (("old", 3000), ("new", 1000)):
        for number in range(4):
            EmbeddingCache(tmp_path, name).put(("a", number), state())
        age(tmp_path / name, seconds)
    bound = 11 * bytes_in(tmp_path) // 8
    cache = EmbeddingCache(tmp_path, "now", disk_bytes=bound)
    for number in range(5):
        cache.put(("a", number), state())
        assert bytes_in(tmp_path) <= bound
    left = {name: len(list((tmp_path / name).glob("*"))) for name in ("old", "new", "now")}
    assert left["old"] < 4 and (left["new"], left["now"]) == (4, 5)


def test_it_is_full_before_a_session_pushes_out_its_own_slices(tmp_path: Path) -> None:
    size = 10 * BYTES
    counts = []
    for name in ("now", "now", "other"):
        cache = EmbeddingCache(tmp_path, name, memory_bytes=1, disk_bytes=10 * size)
        number = 0
        while not cache.is_full:
            cache.put(("a", number), state())
            number += 1
            assert number < 200
        assert all(("a", each) in cache for each in range(number))
        assert bytes_in(tmp_path) <= 10 * size
        counts.append(number)
    # The second time everything is there already.
    assert counts[0] > 20 and counts[1] == 0 and counts[2] == counts[0]


def test_it_goes_on_when_its_folder_is_removed_meanwhile(tmp_path: Path) -> None:
    warnings: list[str] = []
    cache = EmbeddingCache(tmp_path, "s", warnings.append, memory_bytes=1)
    for number in range(2):
        cache.put(("a", number), state())
    for path in (tmp_path / "s").iterdir():
        path.unlink()
    (tmp_path / "s").rmdir()
    assert cache.get(("a", 0)) is None
    cache.put(("a", 0), state())
    cache.put(("a", 1), state())
    assert files(tmp_path) == ["a_00000.safetensors", "a_00001.safetensors"]
    assert warnings == []


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    blocked = tmp_path / "embeddings"
    blocked.write_text("a file in its place")
    warnings: list[str] = []
    cache = EmbeddingCache(blocked, "s", warnings.append)
    for number in range(3):
        cache.put(("a", number), state(number))
    assert len(warnings) == 1 and "not kept on the disk" in warnings[0]
    assert equal(cache.get(("a", 1)), half(state(1)))
    assert blocked.read_text() == "a file in its place"


def test_a_folder_that_cannot_be_looked_into_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(tmp_path, "a")
    cache.put(("prompted", 1), state(1))

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert ("prompted", 1) in cache
    assert ("prompted", 2) not in cache


def test_a_full_disk_is_told_once_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(tensors: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("SAMFineTuneLib.interactive.embedding_cache.save_file", fill)
    warnings: list[str] = []
    cache = EmbeddingCache(tmp_path, "s", warnings.append)
    for number in range(2):
        cache.put(("a", number), state())
    assert len(warnings) == 1 and "No space left" in warnings[0]
    assert files(tmp_path) == [] and ("a", 1) in cache


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, None])
def test_a_file_that_is_cut_off_is_made_anew(tmp_path: Path, content: bytes | None) -> None:
    EmbeddingCache(tmp_path, "s").put(KEY, state())
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    cache = EmbeddingCache(tmp_path, "s")
    assert cache.get(KEY) is None
    cache.put(KEY, state())
    assert equal(EmbeddingCache(tmp_path, "s").get(KEY), half(state()))


# The work


class Counted:
    """Two kinds of features in three steps, which count what is computed."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.steps: list[tuple[str, float]] = []

    def work(self, name: str, scale: float) -> SliceWork:
        def begin(number: int) -> FeatureState:
            self.begun.append((name, number))
            return FeatureState(torch.tensor([number * scale + 0.1]))

        def step(add: float) -> Callable[[FeatureState], FeatureState]:
            def run(state: FeatureState) -> FeatureState:
                self.steps.append((name, add))
                return FeatureState(state.x + add, (*state.skips, state.x))

            return run

        return SliceWork(name, begin, [step(1.0), step(2.0), step(4.0)])

    def worker(self, slices: int, cache: EmbeddingCache | None = None) -> SliceWorker:
        works = [self.work("one", 10.0), self.work("two", -10.0)]
        return SliceWorker(works, slices, cache or EmbeddingCache(None, ""))

    @property
    def order(self) -> list[int]:
        """Slices of the first kind, as they were begun."""
        return [number for name, number in self.begun if name == "one"]


def finish(worker: SliceWorker) -> int:
    pieces = 0
    while not worker.finished:
        worker.advance()
        pieces += 1
        assert pieces < 1000
    return pieces


def test_slices_are_computed_outward_from_the_one_in_view() -> None:
    counted = Counted()
    worker = counted.worker(7)
    worker.look_at(4)
    assert (worker.done, worker.done_slices) == (1, [4])
    finish(worker)
    assert counted.order == [4, 3, 5, 2, 6, 1, 0]
    assert (worker.done, worker.done_slices) == (7, [*range(7)])


def test_another_slice_in_view_comes_first_at_once() -> None:
    counted = Counted()
    worker = counted.worker(9)
    worker.look_at(1)
    for _ in range(4):
        worker.advance()
    worker.look_at(7)
    finish(worker)
    assert counted.order[0] == 1 and 7 in counted.order[1:3]
    rest = counted.order[counted.order.index(7) + 1 :]
    assert rest[:3] == [6, 8, 5]
    assert sorted(set(counted.order)) == [*range(9)]


def test_the_background_works_in_pieces_of_one_step() -> None:
    counted = Counted()
    worker = counted.worker(3)
    before = 0
    while not worker.finished:
        worker.advance()
        assert len(counted.steps) - before <= 1
        before = len(counted.steps)
    assert before == 3 * 2 * 3


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    counted = Counted()
    worker = counted.worker(5, EmbeddingCache(tmp_path, "s"))
    worker.features("two", 2)
    worker.look_at(3)
    finish(worker)
    worker.look_at(2)
    worker.features("one", 0)
    assert len(counted.begun) == len(set(counted.begun)) == 10
    # Nor in a later session.
    worker = counted.worker(5, EmbeddingCache(tmp_path, "s"))
    worker.look_at(0)
    finish(worker)
    assert len(counted.begun) == 10 and worker.done == 5


def test_features_are_the_same_at_once_and_in_pieces() -> None:
    at_once, in_pieces = Counted().worker(4), Counted().worker(4)
    finish(in_pieces)
    for number in range(4):
        for name in ("one", "two"):
            assert equal(in_pieces.features(name, number), at_once.features(name, number))


def test_the_background_stops_where_nothing_more_can_be_kept() -> None:
    counted = Counted()
    # Four numbers of two bytes for each kind.
    worker = counted.worker(100, EmbeddingCache(None, "", memory_bytes=6 * 16 + 5))
    worker.look_at(50)
    finish(worker)
    assert worker.done == 6 and set(worker.done_slices) >= {50}
    begun = len(counted.begun)
    worker.advance()
    worker.features("one", 50)
    assert len(counted.begun) == begun
    # What is asked for is computed all the same.
    worker.look_at(0)
    assert 0 in worker.done_slices
