"""Files that are cut off, before they are opened or while they are in use: words, no sudden end."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive import mask_files
from SAMFineTuneLib.interactive.client import serve_command
from SAMFineTuneLib.interactive.embedding_cache import EmbeddingCache
from SAMFineTuneLib.interactive.protocol import (
    FOUND_FILE,
    GIVEN_FILE,
    SESSION_FILE,
    Answer,
    Box,
    Close,
    Failure,
    FindMask,
    Propagate,
    Ready,
    SessionSettings,
    parse_message,
)
from SAMFineTuneLib.models.model_file import load_model, load_prompted
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.pretraining import saved
from SAMFineTuneLib.pretraining.synthetic import starter_weights
from SAMFineTuneLib.tensor_file import tensors_of
from SAMFineTuneLib.training import feature_cache
from SAMFineTuneLib.training.feature_cache import CachedSample, FeatureCache
from SAMFineTuneLib.training.training_state import STATE_FILE, TrainingState, load_state
from SAMFineTuneLib.volumes import write_volume
from SAMFineTuneLib.weights.checkpoint_file import read_tensors
from Testing.support.full_disk import files_up_to
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import head
from Testing.support.tuned_starter import write_model

SHARES = (0.0, 1e-4, 0.3, 0.9, 0.999999)
VOLUME, _LABELS = head()
SHAPE = VOLUME.geometry.shape
SLICE = 6
BOX = Box(corners=((4, 10, SLICE), (24, 38, SLICE)))


def cut(path: Path, share: float) -> Path:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    return path


# Files of tensors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "head.safetensors", for_prompts=True)


@pytest.mark.parametrize("share", SHARES)
def test_models_and_weights_that_are_cut_off_are_refused(
    share: float, model: Path, tmp_path: Path
) -> None:
    tuned = cut(Path(shutil.copy(model, tmp_path / "tuned.safetensors")), share)
    for load in (load_model, load_prompted):
        with pytest.raises(InputError) as refused:
            load(tuned, lambda card: Path("none"))
        assert refused.value.code == "bad_model" and tuned.name in refused.value.message
    weights = {"image_encoder.pos_embed": torch.ones(1, 64, 64, 768), "b": torch.ones(300_000)}
    for name in ("weights.pth", "weights.safetensors"):
        path = tmp_path / name
        if path.suffix == ".pth":
            torch.save(weights, path)
        else:
            save_file(weights, path)
        with pytest.raises(InputError) as refused:
            read_tensors(cut(path, share))
        assert refused.value.code == "checkpoint_damaged" and name in refused.value.message
    starter = tmp_path / "starter.safetensors"
    save_file(weights, starter, {starter_weights.CARD_KEY: "{}"})
    with pytest.raises(InputError, match=r"starter\.safetensors holds no weights"):
        starter_weights.read_weights(cut(starter, share))


def test_tensors_stay_when_their_file_is_cut_off_later(model: Path, tmp_path: Path) -> None:
    """They were in memory that showed the file, which ended the process."""
    path = Path(shutil.copy(model, tmp_path / "model.safetensors"))
    expected = tensors_of(model)
    tensors = tensors_of(path)
    cut(path, 0.0)
    assert all(torch.equal(each, expected[name]) for name, each in tensors.items())


@pytest.mark.parametrize("share", SHARES)
def test_a_checkpoint_of_a_finetune_that_is_cut_off_is_refused_in_words(
    share: float, tmp_path: Path
) -> None:
    state = TrainingState("mine", step=7, weights={"a": torch.ones(50_000)})
    state.save(tmp_path)
    found = load_state(tmp_path, "mine")
    assert found is not None and found.step == 7
    cut(tmp_path / STATE_FILE, share)
    with pytest.raises(InputError) as refused:
        load_state(tmp_path, "mine")
    assert refused.value.code == "bad_state" and STATE_FILE in refused.value.message
    assert "delete it" in refused.value.remedy


@pytest.mark.parametrize("share", SHARES)
def test_a_state_of_a_pretraining_that_is_cut_off_is_refused(share: float, tmp_path: Path) -> None:
    saved.save_state(tmp_path, {"step": 3, "weights": torch.ones(50_000)})
    cut(tmp_path / saved.STATE_FILE, share)
    with pytest.raises(InputError) as refused:
        saved.load_state(tmp_path)
    assert refused.value.code == "bad_state"


# Embeddings


def features(value: float) -> FeatureState:
    return FeatureState(torch.full((1, 8, 16, 16), value), (torch.full((1, 4, 32, 32), value),))


@pytest.mark.parametrize("share", SHARES)
def test_an_embedding_that_is_cut_off_is_dropped_and_computed_again(
    share: float, tmp_path: Path
) -> None:
    key = ("prompted", 3)
    EmbeddingCache(tmp_path, "image").put(key, features(1.0))
    (file,) = tmp_path.glob("*/*")
    cut(file, share)
    later = EmbeddingCache(tmp_path, "image")
    assert later.get(key) is None and key not in later and not file.exists()
    later.put(key, features(2.0))
    found = EmbeddingCache(tmp_path, "image").get(key)
    assert found is not None and (found.x == 2).all() and (found.skips[0] == 2).all()


def test_an_embedding_of_something_else_is_dropped(tmp_path: Path) -> None:
    key = ("prompted", 3)
    EmbeddingCache(tmp_path, "image").put(key, features(1.0))
    (file,) = tmp_path.glob("*/*")
    save_file({"y": torch.ones(3)}, file)
    assert EmbeddingCache(tmp_path, "image").get(key) is None and not file.exists()


def test_an_embedding_in_use_stays_when_its_file_is_cut_off(tmp_path: Path) -> None:
    key = ("prompted", 3)
    EmbeddingCache(tmp_path, "image").put(key, features(1.0))
    found = EmbeddingCache(tmp_path, "image").get(key)
    (file,) = tmp_path.glob("*/*")
    cut(file, 0.0)
    assert found is not None and (found.x == 1).all()


# Features of a fine-tune


def sample(value: float) -> CachedSample:
    return CachedSample(features(value), torch.full((6, 6), int(value), dtype=torch.int32))


def values(found: CachedSample | None) -> list[float]:
    assert found is not None
    tensors = (found.state.x, *found.state.skips, found.target)
    assert found.state.x.shape == (1, 8, 16, 16) and found.target.shape == (6, 6)
    return [float(each.unique()) for each in tensors]


def test_features_that_are_cut_off_are_computed_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", sample(0), slices=3, variants=2)
    cache.put((0, 1), sample(4))
    cache.put((2, 0), sample(5))
    file = tmp_path / "cache" / "features_0.bin"
    cut(file, 0.5)
    assert values(cache.get((0, 1))) == [4, 4, 4]
    assert cache.get((2, 0)) is None and (2, 0) not in cache
    assert values(cache.put((2, 0), sample(6))) == [6, 6, 6]
    assert values(cache.get((2, 0))) == [6, 6, 6]
    cache.remove()
    assert not (tmp_path / "cache").exists()


def test_features_that_the_disk_has_no_room_for_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written through memory they ended the fine-tune without a word."""
    cache = FeatureCache(tmp_path / "cache", sample(0), slices=3, variants=2)
    cache.put((0, 0), sample(4))

    def refuse(self: Any, place: int, array: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feature_cache._Records, "write", refuse)
        assert values(cache.put((1, 1), sample(7))) == [7, 7, 7]
        assert cache.get((1, 1)) is None
        assert values(cache.get((0, 0))) == [4, 4, 4]
    cache.put((1, 1), sample(8))
    assert values(cache.get((1, 1))) == [8, 8, 8]


def test_features_beyond_what_may_be_written(tmp_path: Path) -> None:
    example = CachedSample(
        FeatureState(torch.ones(1, 64, 64, 64)), torch.zeros(4, dtype=torch.int32)
    )
    cache = FeatureCache(tmp_path / "cache", example, slices=4, variants=1)
    with files_up_to(700_000):
        for number in range(4):
            kept = cache.put((number, 0), example)
            assert (kept.state.x == 1).all()
        assert [(number, 0) in cache for number in range(4)] == [True, False, False, False]


# Masks


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real worker in a session's folder, called `session`."""
    folder = tmp_path / "session"
    folder.mkdir()
    write_volume(folder / "volume.nrrd", VOLUME.array, VOLUME.geometry)
    settings = SessionSettings(volume=folder / "volume.nrrd", device="cpu")
    (folder / SESSION_FILE).write_text(settings.model_dump_json(), encoding="utf-8")
    process = subprocess.Popen(
        serve_command(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SAMFINETUNE_CACHE": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
        },
        cwd=REPOSITORY,
    )
    yield process
    process.kill()
    process.communicate()


def tell(process: Any, request: Any) -> None:
    process.stdin.write(request.model_dump_json() + "\n")
    process.stdin.flush()


def until_type(process: Any, *kinds: type[Any]) -> Any:
    for line in process.stdout:
        message = parse_message(line)
        if isinstance(message, kinds):
            return message
    raise AssertionError(f"it ended: {process.wait(10)}")


@pytest.mark.skipif(os.name == "nt", reason="Windows cuts no file that memory shows")
def test_masks_that_are_cut_off_or_gone_end_no_worker(worker: Any, tmp_path: Path) -> None:
    """It died by a signal without a word."""
    folder = tmp_path / "session"
    until_type(worker, Ready)
    for name in (GIVEN_FILE, FOUND_FILE):
        mask_files.opened(folder / GIVEN_FILE, SHAPE)[SLICE] = 1
        file = folder / name
        os.truncate(file, 100)
        for request in (
            FindMask(id=1, slice=SLICE, prompts=(BOX,), start="given"),
            FindMask(id=1, slice=SLICE, prompts=(BOX,)),
            Propagate(id=1, accepted=(SLICE,), outward=1),
        ):
            tell(worker, request)
            failure = until_type(worker, Answer, Failure)
            assert isinstance(failure, Failure) and failure.id == 1
            assert failure.code == "bad_file" and name in failure.message and failure.remedy
        os.truncate(file, int(np.prod(SHAPE)))
        tell(worker, FindMask(id=2, slice=SLICE, prompts=(BOX,)))
        assert isinstance(until_type(worker, Answer, Failure), Answer)
    # Nor does a session's folder that disappears, which Windows does not remove.
    shutil.rmtree(folder)
    tell(worker, FindMask(id=3, slice=SLICE, prompts=(BOX,)))
    failure = until_type(worker, Answer, Failure)
    assert isinstance(failure, Failure) and (failure.id, failure.code) == (3, "no_such_file")
    tell(worker, Close())
    assert worker.wait(30) == 0
