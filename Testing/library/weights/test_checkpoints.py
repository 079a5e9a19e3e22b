"""Checkpoint files: strict loading, refusals, and downloads from a server on this machine."""

from __future__ import annotations

import copy
import errno
import functools
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import CheckpointJob, make_job, read_job, write_job
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES, CheckpointSource
from SAMFineTuneLib.tasks.runners import RUNNERS
from SAMFineTuneLib.weights import download as checkpoint_download
from SAMFineTuneLib.weights import official as checkpoints
from SAMFineTuneLib.weights import resumable_download
from SAMFineTuneLib.weights.download import get_checkpoint
from SAMFineTuneLib.weights.official import (
    clear_checkpoints,
    list_checkpoints,
    load_checkpoint,
)
from SAMFineTuneLib.worker.environment import worker_environment
from SAMFineTuneLib.worker.events import ErrorEvent, EventWriter, Progress, parse_line
from Testing.support.time_limits import within

# ---------------------------------------------------------------- loading


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny() -> SamNetwork:
    torch.manual_seed(0)
    network = build("vit_t", 256).eval()
    # The official files are laid out for 1024 pixels; nothing in them depends on it.
    assert shapes(network) == shapes(build("vit_t", 1024))
    return network


def shapes(network: SamNetwork) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@functools.cache
def _random_vit_t() -> SamNetwork:
    torch.manual_seed(1)
    return build("vit_t", 256).eval()


def other_vit_t() -> SamNetwork:
    return copy.deepcopy(_random_vit_t())


def is_loaded(network: SamNetwork, source: SamNetwork) -> bool:
    ours, theirs = network.state_dict(), source.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def wrap_nothing(tensors: dict[str, Any]) -> Any:
    return tensors


def wrap_model(tensors: dict[str, Any]) -> Any:
    return {"model": tensors, "optimizer": {"lr": 0.1}, "epoch": 3}


def wrap_state_dict(tensors: dict[str, Any]) -> Any:
    return {"state_dict": tensors}


def wrap_parallel(tensors: dict[str, Any]) -> Any:
    return {f"module.{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize("wrap", [wrap_nothing, wrap_model, wrap_state_dict, wrap_parallel])
def test_pytorch_files_load_strictly(
    tmp_path: Path, tiny: SamNetwork, wrap: Callable[[dict[str, Any]], Any]
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(tiny.state_dict()), path)
    network = other_vit_t()
    assert not is_loaded(network, tiny)
    loaded = load_checkpoint(network, path)
    assert is_loaded(network, tiny)
    assert loaded.path == path
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_old_pytorch_files_and_safetensors_load(tmp_path: Path, tiny: SamNetwork) -> None:
    old = tmp_path / "old.pth"
    torch.save(tiny.state_dict(), old, _use_new_zipfile_serialization=False)
    safe = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(tiny.state_dict(), safe)
    renamed = tmp_path / "renamed.pt"
    renamed.write_bytes(safe.read_bytes())
    for path in (old, safe, renamed):
        network = other_vit_t()
        load_checkpoint(network, path)
        assert is_loaded(network, tiny), path.name


def test_loaded_weights_take_effect_without_a_change_of_mode(
    tmp_path: Path, tiny: SamNetwork
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tiny.state_dict(), path)
    network = other_vit_t()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_()
        images = torch.randn(1, 3, 256, 256)
        load_checkpoint(network, path)
        assert torch.equal(network.image_encoder(images).x, tiny.image_encoder(images).x)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_checkpoint_of_another_architecture_is_named(
    tmp_path: Path, tiny: SamNetwork, name: str
) -> None:
    with torch.device("meta"):
        other = build(name, 1024)
    # One element shown in every place: the shapes of a large checkpoint in a small file.
    tensors = {k: torch.zeros(1).expand(v.shape) for k, v in other.state_dict().items()}
    path = tmp_path / "sam.pth"
    torch.save(tensors, path)
    assert path.stat().st_size < 1_000_000
    message = rf"checkpoint of backbone {name}, not of vit_t\. Choose backbone {name}"
    with pytest.raises(InputError, match=message):
        load_checkpoint(tiny, path)
    torch.save(tiny.state_dict(), path)
    with pytest.raises(InputError, match=f"checkpoint of backbone vit_t, not of {name}"):
        load_checkpoint(other, path)


def test_missing_unknown_and_reshaped_tensors_are_named(tmp_path: Path, tiny: SamNetwork) -> None:
    original = {name: value.clone() for name, value in tiny.state_dict().items()}
    tensors = dict(original)
    del tensors["mask_decoder.iou_token.weight"]
    tensors["extra.weight"] = torch.zeros(1)
    tensors["image_encoder.neck.0.weight"] = torch.zeros(256, 320, 3, 3)
    path = tmp_path / "weights.pth"
    torch.save(tensors, path)
    with pytest.raises(InputError) as caught:
        load_checkpoint(tiny, path)
    for word in ("mask_decoder.iou_token.weight", "extra.weight", "image_encoder.neck.0.weight"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, original[name]) for name, value in tiny.state_dict().items())


def test_truncated_and_foreign_files_are_refused(tmp_path: Path, tiny: SamNetwork) -> None:
    whole = io.BytesIO()
    torch.save(tiny.state_dict(), whole)
    legacy = io.BytesIO()
    torch.save(tiny.state_dict(), legacy, _use_new_zipfile_serialization=False)
    safe = safetensors.torch.save(tiny.state_dict())
    contents = {
        "half.pth": whole.getvalue()[: len(whole.getvalue()) // 2],
        "start.pth": whole.getvalue()[:100],
        "legacy_tenth.pth": legacy.getvalue()[: len(legacy.getvalue()) // 10],
        "legacy_start.pth": legacy.getvalue()[:3000],
        "legacy_half.pth": legacy.getvalue()[: len(legacy.getvalue()) // 2],
        "half.safetensors": safe[: len(safe) // 2],
        "empty.pth": b"",
        "empty.safetensors": b"",
        "page.pth": b"<!DOCTYPE html><html><body>404</body></html>",
        "noise.pth": bytes(range(256)) * 40,
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_checkpoint(tiny, path)
        assert caught.value.code == "checkpoint_damaged", name
        assert name in str(caught.value)
    with pytest.raises(InputError, match="there is no checkpoint file"):
        load_checkpoint(tiny, tmp_path / "absent.pth")


class Payload:
    """Runs a command when unpickled by anything that runs pickled code."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.witness),)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path, tiny: SamNetwork) -> None:
    witness = tmp_path / "executed"
    content = {**tiny.state_dict(), "extra": Payload(witness)}
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(witness)))
    (tmp_path / "bare0.pth").write_bytes(pickle.dumps(Payload(witness), protocol=0))
    torch.save(tiny, tmp_path / "module.pth")
    for name in ("new.pth", "old.pth", "bare.pth", "bare0.pth", "module.pth"):
        with pytest.raises(InputError, match="pickled code") as caught:
            load_checkpoint(tiny, tmp_path / name)
        assert caught.value.code == "checkpoint_code"
        assert not witness.exists(), name
    pickle.loads((tmp_path / "bare.pth").read_bytes())
    assert witness.is_dir(), "the payload would have worked"


def test_a_file_without_tensors_is_refused(tmp_path: Path, tiny: SamNetwork) -> None:
    for content in ([1, 2], {}, {"epoch": 3}, torch.zeros(3)):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InputError, match="not a dictionary of tensors"):
            load_checkpoint(tiny, tmp_path / "other.pth")


# ---------------------------------------------------------------- downloads


CONTENT = bytes(i * 7 % 251 for i in range(3_000_000))


class Request(NamedTuple):
    range: str | None
    status: int


@dataclass
class Server:
    """What the test server sends, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    status: int = 200
    breaks_after: list[int] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            start = int(asked.split("=")[1].rstrip("-")) if asked and state.ranges else 0
            partial = 206 if asked and state.ranges else 200
            status = partial if state.status == 200 else state.status
            state.requests.append(Request(asked, status))
            body = state.content[start:] if state.status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 206:
                last = len(state.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(state.content)}")
            self.end_headers()
            # A client that was cancelled goes away.
            with suppress(ConnectionError):
                self.wfile.write(body[: state.breaks_after.pop(0)] if state.breaks_after else body)

        def log_message(self, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/weights/test.pth"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    source = CheckpointSource(server.url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    monkeypatch.setitem(BACKBONES, "vit_t", replace(BACKBONES["vit_t"], checkpoint=source))
    monkeypatch.setattr(resumable_download, "_PAUSE_S", 0.0)
    return tmp_path / "cache" / "checkpoints"


def vit_t_in_cache() -> checkpoints.CachedCheckpoint:
    return next(cached for cached in list_checkpoints() if cached.name == "vit_t")


def test_download_with_progress_then_from_the_cache(server: Server, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert not vit_t_in_cache().present
    path = get_checkpoint("vit_t", lambda done, total: seen.append((done, total)))
    assert path == cache / "test.pth" and path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen) and len(seen) > 1
    assert vit_t_in_cache().present and vit_t_in_cache().bytes_present == len(CONTENT)
    assert get_checkpoint("vit_t") == path
    assert len(server.requests) == 1
    assert [file.name for file in cache.iterdir()] == ["test.pth"]


def test_interrupted_transfer_goes_on_in_the_same_call(server: Server, cache: Path) -> None:
    server.breaks_after = [1_200_000, 0, 900_000]
    done: list[int] = []
    path = get_checkpoint("vit_t", lambda now, _: done.append(now))
    assert path.read_bytes() == CONTENT
    starts = [
        0 if r.range is None else int(re.findall(r"\d+", r.range)[0]) for r in server.requests
    ]
    assert starts == sorted(starts) and starts[0] == 0 and starts[-1] > 0
    assert [r.status for r in server.requests] == [200, 206, 206, 206]
    assert done == sorted(done)


def test_interrupted_transfer_goes_on_in_the_next_call(server: Server, cache: Path) -> None:
    server.breaks_after = [1_500_000, 0, 0, 0, 0]
    with pytest.raises(InputError, match="could not download") as caught:
        get_checkpoint("vit_t")
    assert caught.value.code == "unreachable"
    kept = vit_t_in_cache().bytes_present
    assert 0 < kept <= 1_500_000 and not vit_t_in_cache().present
    server.requests.clear()
    assert get_checkpoint("vit_t").read_bytes() == CONTENT
    assert server.requests == [Request(f"bytes={kept}-", 206)]


def test_server_without_ranges_starts_over(server: Server, cache: Path) -> None:
    server.ranges = False
    server.breaks_after = [1_500_000]
    assert get_checkpoint("vit_t").read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [200, 200]
    assert server.requests[1].range is not None


def test_a_part_that_is_too_long_starts_over(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "test.pth.part").write_bytes(CONTENT + b"more")
    assert get_checkpoint("vit_t").read_bytes() == CONTENT
    assert server.requests == [Request(None, 200)]


def test_wrong_hash_is_refused_and_nothing_kept(server: Server, cache: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(InputError, match="SHA-256") as caught:
        get_checkpoint("vit_t")
    assert caught.value.code == "checkpoint_hash"
    assert list(cache.iterdir()) == []
    server.content = CONTENT
    assert get_checkpoint("vit_t").read_bytes() == CONTENT


def test_damaged_file_in_the_cache_is_fetched_again(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "test.pth").write_bytes(b"damaged")
    assert not vit_t_in_cache().present
    assert get_checkpoint("vit_t").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, 4)])
def test_server_errors(server: Server, cache: Path, status: int, attempts: int) -> None:
    server.status = status
    with pytest.raises(InputError, match=f"the server answered {status}"):
        get_checkpoint("vit_t")
    assert len(server.requests) == attempts


def test_unreachable_says_how_to_do_without(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = CheckpointSource("http://127.0.0.1:9/test.pth", "0" * 64, 10)
    monkeypatch.setitem(BACKBONES, "vit_t", replace(BACKBONES["vit_t"], checkpoint=source))
    with pytest.raises(InputError) as caught:
        get_checkpoint("vit_t")
    assert caught.value.code == "unreachable"
    assert caught.value.facts["backbone"] == "vit_t" and str(cache / "test.pth") in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_no_space_left(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(NamedTuple):
        free: int = 1000

    monkeypatch.setattr(checkpoint_download.shutil, "disk_usage", lambda _: Full())
    with pytest.raises(InputError, match=r"no space left in .*3 MB") as caught:
        get_checkpoint("vit_t")
    assert caught.value.code == "no_space" and server.requests == []
    monkeypatch.undo()


def test_no_space_left_on_the_way(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resumable_download.ResumableDownload, "_collect", fail)
    with pytest.raises(InputError, match="no space left"):
        get_checkpoint("vit_t")


def test_cache_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, cache: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write to"):
        get_checkpoint("vit_t")


def test_clear_frees_what_was_downloaded_and_nothing_else(server: Server, cache: Path) -> None:
    get_checkpoint("vit_t")
    (cache / "mine.pth").write_bytes(b"mine")
    (cache / "sam_vit_b_01ec64.pth.part").write_bytes(b"12345")
    assert clear_checkpoints() == len(CONTENT) + 5
    assert [file.name for file in cache.iterdir()] == ["mine.pth"]
    assert clear_checkpoints() == 0


def test_backbones_without_download_say_so(cache: Path) -> None:
    fetched = {"lite_medsam", "vit_t", "vit_b", "vit_l", "vit_h"}
    assert {cached.name for cached in list_checkpoints()} == fetched
    with pytest.raises(InputError, match="no backbone 'vit_x'"):
        get_checkpoint("vit_x")
    if BACKBONES["starter"].checkpoint is None:
        with pytest.raises(InputError, match="starter has no checkpoint"):
            get_checkpoint("starter")


# ---------------------------------------------------------------- as a job


def fetch_by_job(tmp_path: Path, control: Control | None = None) -> tuple[dict[str, Any], Any]:
    """Result and progress of a job that fetches vit_t, done in this process."""
    folder = JobFolder(tmp_path / "job")
    write_job(folder.path, make_job(CheckpointJob, {"backbone": "vit_t"}))
    job = read_job(folder.path)
    events = EventWriter(folder.path, None)
    try:
        result = RUNNERS[job.kind](job, folder, events, control or Control(folder))
    finally:
        lines = folder.events_file.read_text(encoding="utf-8").splitlines()
        told = [event for event in map(parse_line, lines) if isinstance(event, Progress)]
    return result, told


def test_a_job_fetches_weights_and_tells_megabytes(
    server: Server, cache: Path, tmp_path: Path
) -> None:
    result, told = fetch_by_job(tmp_path)
    assert result == {"name": "vit_t", "path": str(cache / "test.pth")}
    assert (cache / "test.pth").read_bytes() == CONTENT
    assert (told[-1].step, told[-1].steps, told[-1].phase) == (3, 3, "download")
    requests = len(server.requests)
    assert fetch_by_job(tmp_path)[0] == result
    assert len(server.requests) == requests


class CancelsLater(Control):
    """Cancelled by the user while the second megabyte arrives."""

    asked = 0

    def cancelled(self) -> bool:
        self.asked += 1
        return self.asked > 2


def test_a_cancelled_job_goes_on_where_it_stopped(
    server: Server, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        fetch_by_job(tmp_path, CancelsLater())
    arrived = (cache / "test.pth.part").stat().st_size
    assert 0 < arrived < len(CONTENT)
    fetch_by_job(tmp_path)
    assert server.requests[-1].range == f"bytes={arrived}-"
    assert (cache / "test.pth").read_bytes() == CONTENT


def test_a_job_for_a_backbone_without_weights_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"backbone" has the value "vit_x"'):
        make_job(CheckpointJob, {"backbone": "vit_x"})
    with pytest.raises(InputError, match='"backbone" is missing'):
        make_job(CheckpointJob, {})
    if BACKBONES["starter"].checkpoint is None:
        write_job(tmp_path, make_job(CheckpointJob, {"backbone": "starter"}))
        folder = JobFolder(tmp_path)
        job = read_job(tmp_path)
        with pytest.raises(InputError, match="starter has no checkpoint"):
            RUNNERS[job.kind](job, folder, EventWriter(None, None), Control(folder))


def test_a_worker_tells_that_the_source_is_out_of_reach(cache: Path, tmp_path: Path) -> None:
    """The real worker, whose proxy is a port where nobody listens."""
    write_job(tmp_path / "job", make_job(CheckpointJob, {"backbone": "vit_t"}))
    environment = worker_environment({**os.environ, "https_proxy": "http://127.0.0.1:9"})
    with within(60, "saying that the source is out of reach"):
        done = subprocess.run(
            [sys.executable, "-m", "SAMFineTuneLib", "run", str(tmp_path / "job")],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
    last = parse_line(done.stdout.splitlines()[-1])
    assert done.returncode == 2 and isinstance(last, ErrorEvent), done.stderr
    assert last.code == "unreachable" and "mobile_sam.pt" in last.message
