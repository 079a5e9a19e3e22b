"""Interrupted fine-tunes are offered again; caches are shown and cleared, and nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive.stale_sessions import remove_stale_sessions
from SAMFineTuneLib.jobs import storage
from SAMFineTuneLib.jobs.folder import JobFolder, new_job_folder
from SAMFineTuneLib.jobs.interrupted import discard, interrupted_finetunes
from SAMFineTuneLib.jobs.schema import ApplyJob, FinetuneJob, make_job, write_job
from SAMFineTuneLib.jobs.storage import clear_storage, storage_used
from SAMFineTuneLib.worker.events import ErrorEvent, EventWriter, Result
from Testing.support.in_process import Shell, shell_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, which does not exist yet."""
    path = tmp_path / "ein Platz"
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(path))
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path / "models"))
    return path


@pytest.fixture
def other_process() -> Iterator[int]:
    """Id of a process that runs as long as the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def finetune(step: int = 120, **fields: Any) -> JobFolder:
    """The folder of a fine-tune that was killed after some steps."""
    folder = new_job_folder("finetune")
    example = {"volume": "/ct.nrrd", "segmentation": "/labels.nrrd", "labels": [5, 1]}
    job = {"examples": [example], "output": "/out/liver.safetensors", **fields}
    write_job(folder.path, make_job(FinetuneJob, job))
    events = EventWriter(folder.path, None)
    events.log("reading the examples")
    events.progress(step, 640, phase="fine-tune", loss=0.3)
    folder.checkpoint_folder.mkdir()
    (folder.checkpoint_folder / "training.pt").write_bytes(b"x" * 1000)
    return folder


def test_there_is_nothing_at_first(cache: Path) -> None:
    assert interrupted_finetunes() == []
    used = storage_used()
    assert (used.folder, used.bytes, used.running) == (cache, 0, 0)
    assert clear_storage() == 0
    assert not cache.exists()


def test_a_cache_that_is_a_file_holds_nothing(cache: Path) -> None:
    cache.write_text("")
    assert interrupted_finetunes() == [] and storage_used().bytes == 0


def test_an_interrupted_finetune_is_found_with_what_it_told() -> None:
    folder = finetune(step=120)
    (found,) = interrupted_finetunes()
    assert (found.folder, found.output) == (folder.path, Path("/out/liver.safetensors"))
    assert (found.step, found.steps, found.labels) == (120, 640, ["1", "5"])
    assert abs((datetime.now(timezone.utc) - found.when).total_seconds()) < 60


def test_labels_have_the_names_that_the_job_gives_them() -> None:
    finetune(label_names={5: "liver", 1: "spleen"})
    (found,) = interrupted_finetunes()
    assert found.labels == ["spleen", "liver"]


def test_the_latest_comes_first() -> None:
    folders = [finetune(step=number) for number in (1, 2, 3)]
    for age, folder in zip((50, 10, 30), folders, strict=True):
        for file in (folder.events_file, folder.checkpoint_folder / "training.pt"):
            os.utime(file, (time.time() - age,) * 2)
    assert [each.step for each in interrupted_finetunes()] == [2, 3, 1]


def test_a_cancelled_finetune_can_go_on() -> None:
    folder = finetune()
    EventWriter(folder.path, None).emit(
        ErrorEvent(code="cancelled", message="Cancelled", exit_code=3)
    )
    assert [each.folder for each in interrupted_finetunes()] == [folder.path]


def test_the_last_words_are_found_behind_megabytes_of_others() -> None:
    folder = finetune(step=1)
    with folder.events_file.open("a", encoding="utf-8") as file:
        file.write(("ü" * 1000 + "\n") * 2000)
    EventWriter(folder.path, None).progress(77, 640)
    with folder.events_file.open("ab") as stream:
        stream.write(b'{"type": "progress", "step": 78, "ste')
    (found,) = interrupted_finetunes()
    assert found.step == 77


def test_a_finetune_that_told_nothing_yet_is_at_step_0() -> None:
    finetune().events_file.unlink()
    (found,) = interrupted_finetunes()
    assert (found.step, found.steps) == (0, None)


def has_result(folder: JobFolder) -> None:
    EventWriter(folder.path, None).emit(Result(result={"model": "m"}))


def has_no_checkpoint(folder: JobFolder) -> None:
    shutil.rmtree(folder.checkpoint_folder)


def has_features_alone(folder: JobFolder) -> None:
    (folder.checkpoint_folder / "training.pt").rename(folder.checkpoint_folder / "training.pt.part")
    (folder.checkpoint_folder / "features").mkdir()


def has_no_job(folder: JobFolder) -> None:
    folder.job_file.unlink()


def has_half_a_job(folder: JobFolder) -> None:
    folder.job_file.write_text(folder.job_file.read_text()[:-40])


def has_binary_job(folder: JobFolder) -> None:
    folder.job_file.write_bytes(b"\xff\xfe\x00")


def has_a_newer_job(folder: JobFolder) -> None:
    text = folder.job_file.read_text().replace('"schema_version": 1', '"schema_version": 9')
    assert "9" in text
    folder.job_file.write_text(text)


def has_a_folder_for_a_job(folder: JobFolder) -> None:
    folder.job_file.unlink()
    folder.job_file.mkdir()


def is_an_apply(folder: JobFolder) -> None:
    fields = {"model": "/m.safetensors", "volumes": ["/a.nrrd"], "output": "/o.nrrd"}
    write_job(folder.path, make_job(ApplyJob, fields))


@pytest.mark.parametrize(
    "change",
    [
        has_result,
        has_no_checkpoint,
        has_features_alone,
        has_no_job,
        has_half_a_job,
        has_binary_job,
        has_a_newer_job,
        has_a_folder_for_a_job,
        is_an_apply,
    ],
)
def test_what_nobody_can_go_on_with_is_left_out_and_hides_nothing(change: Any) -> None:
    left_out, other = finetune(), finetune()
    change(left_out)
    assert [each.folder for each in interrupted_finetunes()] == [other.path]
    # It takes room all the same.
    used = storage_used()
    assert [job.path for job in used.interrupted] == [other.path]
    assert [job.path for job in used.other_jobs] == [left_out.path]
    assert clear_storage() == used.bytes > 0
    assert not left_out.path.exists() and not other.path.exists()


def test_a_running_finetune_is_neither_offered_nor_discarded(other_process: int) -> None:
    folder = finetune()
    folder.lock_file.write_text(str(other_process))
    assert interrupted_finetunes() == []
    with pytest.raises(InputError, match=f"process {other_process} is doing"):
        discard(folder.path)
    assert folder.has_checkpoint()


def test_a_lock_of_a_process_that_has_gone_counts_for_nothing(other_process: int) -> None:
    folder = finetune()
    for content in ("999999999", "no number", ""):
        folder.lock_file.write_text(content)
        assert len(interrupted_finetunes()) == 1
    # The number was given again, to a process that started after the lock was written.
    folder.lock_file.write_text(str(other_process))
    os.utime(folder.lock_file, (time.time() - 3600,) * 2)
    assert len(interrupted_finetunes()) == 1
    folder.lock()


def test_a_discarded_finetune_is_gone() -> None:
    folder, other = finetune(), finetune()
    discard(folder.path)
    assert not folder.path.exists()
    assert [each.folder for each in interrupted_finetunes()] == [other.path]


@pytest.mark.parametrize("place", ["", "jobs", "jobs/absent", "models", "../elsewhere"])
def test_no_other_folder_is_ever_discarded(place: str, cache: Path) -> None:
    folder = finetune()
    (cache / "models").mkdir()
    (cache.parent / "elsewhere").mkdir()
    with pytest.raises(InputError, match="not one of the jobs"):
        discard(cache / place)
    assert folder.has_checkpoint() and (cache.parent / "elsewhere").is_dir()


def test_a_folder_that_cannot_be_deleted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finetune()
    monkeypatch.setattr(JobFolder, "remove", lambda self: None)
    for act in (lambda: discard(folder.path), clear_storage):
        with pytest.raises(InputError, match="could not be deleted"):
            act()


def weights(cache: Path) -> Path:
    folder = cache / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mobile_sam.pt.part").write_bytes(b"x" * 5000)
    return folder / "mobile_sam.pt.part"


def test_storage_is_shown_item_by_item_and_cleared(cache: Path, tmp_path: Path) -> None:
    part = weights(cache)
    folder = finetune()
    failed = new_job_folder("apply")
    failed.log_file.write_text("a fault")
    (failed.path / "events.jsonl").write_text("")
    kept = tmp_path / "models" / "liver.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"model")
    mine = cache / "notes.txt"
    mine.write_text("mine")
    used = storage_used()
    assert [(each.name, each.bytes) for each in used.checkpoints] == [("vit_t", 5000)]
    (interrupted,) = used.interrupted
    assert interrupted.path == folder.path and 1000 < interrupted.bytes < 3000
    assert [(each.path, each.bytes) for each in used.other_jobs] == [(failed.path, 7)]
    assert used.bytes == 5007 + interrupted.bytes
    assert clear_storage() == used.bytes
    assert storage_used().bytes == 0 and not part.exists() and not folder.path.exists()
    assert kept.read_bytes() == b"model" and mine.read_text() == "mine"


def test_a_running_job_and_what_it_may_need_are_left(cache: Path, other_process: int) -> None:
    part = weights(cache)
    running, idle = finetune(), finetune()
    running.lock_file.write_text(str(other_process))
    used = storage_used()
    assert used.running == 1 and [each.path for each in used.interrupted] == [idle.path]
    freed = clear_storage()
    assert freed == used.interrupted[0].bytes
    assert running.has_checkpoint() and part.exists() and not idle.path.exists()


def embeddings(cache: Path, signature: str = "0a1b2c") -> Path:
    folder = cache / "embeddings" / signature
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"prompted_{number:05d}.safetensors").write_bytes(b"x" * 700)
    return folder


def test_embeddings_are_shown_by_image_and_model_and_cleared(cache: Path) -> None:
    folders = [embeddings(cache, name) for name in ("one", "two")]
    used = storage_used()
    assert [(each.path, each.bytes) for each in used.embeddings] == [
        (folder, 1400) for folder in folders
    ]
    assert clear_storage() == used.bytes == 2800
    assert not (cache / "embeddings").exists()


def test_a_file_of_somebody_else_among_embeddings_is_left(cache: Path) -> None:
    mine = embeddings(cache).parent / "notes.txt"
    mine.write_text("mine")
    clear_storage()
    assert list(mine.parent.iterdir()) == [mine]


def correction(pid: int | None) -> JobFolder:
    """The folder of a correction, as a program makes it that keeps it as long as it runs."""
    folder = new_job_folder("correct")
    for name in ("volume.nrrd", "session.json", "given.raw", "found.raw"):
        (folder.path / name).write_bytes(b"x" * 300)
    if pid is not None:
        folder.lock_file.write_text(str(pid))
    return folder


def test_a_correction_at_work_keeps_its_folder_and_its_embeddings(
    cache: Path, other_process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_STARTING_S", 0.0)
    slices = embeddings(cache)
    at_work, broken_down, unlocked = (
        correction(other_process),
        correction(999999999),
        correction(None),
    )
    used = storage_used()
    left_behind = sorted([broken_down.path, unlocked.path])
    assert used.running == 1 and [each.path for each in used.other_jobs] == left_behind
    assert clear_storage() >= 2 * 4 * 300
    assert len(list(at_work.path.iterdir())) == 5 and len(list(slices.iterdir())) == 2
    # A patient's image does not stay behind a program that broke down.
    assert not broken_down.path.exists() and not unlocked.path.exists()
    at_work.unlock()
    clear_storage()
    assert not at_work.path.exists() and not slices.exists()


def test_the_next_correction_removes_what_a_crash_left(other_process: int) -> None:
    at_work, broken_down, starting = (
        correction(other_process),
        correction(999999999),
        correction(None),
    )
    interrupted = finetune()
    interrupted.lock_file.write_text("999999999")
    remove_stale_sessions()
    assert not broken_down.path.exists()
    assert at_work.path.exists() and starting.path.exists() and interrupted.path.exists()


def test_embeddings_that_cannot_be_deleted_are_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, part = embeddings(cache), weights(cache)

    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage.shutil, "rmtree", fail)
    with pytest.raises(InputError, match="0a1b2c could not be deleted"):
        clear_storage()
    assert folder.is_dir() and not part.exists()


def test_a_job_whose_worker_is_just_starting_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_job_folder("apply")
    assert storage_used().running == 1
    clear_storage()
    assert folder.path.is_dir()
    monkeypatch.setattr(storage, "_STARTING_S", 0.0)
    clear_storage()
    assert not folder.path.exists()


@pytest.mark.skipif(os.name == "nt", reason="disks of Windows do not tell")
def test_sparse_files_count_by_what_they_take() -> None:
    folder = finetune()
    with (folder.checkpoint_folder / "features_0.bin").open("wb") as file:
        file.truncate(1 << 30)
    assert storage_used().bytes < 1 << 20


def test_weights_that_cannot_be_deleted_are_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = weights(cache)
    folder = finetune()

    def fail() -> int:
        raise PermissionError(13, "Permission denied", str(part))

    monkeypatch.setattr(storage, "clear_checkpoints", fail)
    with pytest.raises(InputError, match=r"mobile_sam\.pt\.part could not be deleted"):
        clear_storage()
    assert not folder.path.exists()


def test_the_commands(monkeypatch: Any, capfd: Any, cache: Path) -> None:
    shell: Shell = shell_of(monkeypatch, capfd, cache)
    weights(cache)
    embeddings(cache)
    folder = finetune()
    shown = shell("storage", "show")
    assert shown.code == 0 and shown.result["folder"] == str(cache)
    assert shown.result["checkpoints"][0]["bytes"] == 5000
    assert shown.result["interrupted"][0]["path"] == str(folder.path)
    assert shown.result["embeddings"][0]["bytes"] == 1400 and "embeddings     1" in shown.err
    cleared = shell("storage", "clear")
    assert cleared.code == 0 and cleared.result["freed_bytes"] == shown.result["bytes"] > 6400
    assert shell("storage", "show").result["bytes"] == 0
