"""The pre-training of the starter network: its plan, its course, its files, its processes."""

from __future__ import annotations

import copy
import json
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from safetensors import SafetensorError, safe_open

from SAMFineTuneLib import cli
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.starter.encoder import give_initial_scale
from SAMFineTuneLib.pretraining import saved
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.saved import load_state, save_state
from SAMFineTuneLib.pretraining.synthetic import starter_weights
from SAMFineTuneLib.pretraining.synthetic import training as training_module
from SAMFineTuneLib.pretraining.synthetic.episode import Episode, draw_episode
from SAMFineTuneLib.pretraining.synthetic.plan import PretrainingPlan
from SAMFineTuneLib.pretraining.synthetic.run import run_pretraining
from SAMFineTuneLib.pretraining.synthetic.starter_weights import CARD_KEY, save_weights
from SAMFineTuneLib.pretraining.synthetic.training import Pretraining
from SAMFineTuneLib.random_source import RandomSource
from Testing.support.pretraining_runs import CPU, QUICKLY, TINY, WITHOUT_EFFECT, started, weights_of
from Testing.support.repository import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")


# The plan


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    plan = PretrainingPlan(steps=1000, learning_rate=0.01, warm_up=100, decay=0.2)
    assert plan.rate_at(0) == pytest.approx(0.0001)
    assert plan.rate_at(49) == pytest.approx(0.005)
    assert {plan.rate_at(step) for step in (99, 100, 500, 800)} == {0.01}
    assert plan.rate_at(900) == pytest.approx(0.005)
    assert plan.rate_at(999) == pytest.approx(0.01 / 200)
    assert plan.rate_at(1000) == 0
    longer = replace(plan, steps=5000)
    assert longer.rate_at(900) == 0.01, "with more steps it falls later"
    assert replace(plan, decay=0.0).rate_at(999) == 0.01


def test_larger_images_are_fewer() -> None:
    plan = PretrainingPlan(images=8)
    assert [plan.images_at(size) for size in (64, 128, 160, 192, 256, 512)] == [12, 12, 8, 6, 3, 3]
    assert PretrainingPlan(images=16).images_at(256) == 6


# The training


def test_the_network_is_small(network: SamNetwork) -> None:
    count = sum(each.numel() for each in network.parameters())
    assert 1_000_000 < count <= 5_000_000


def test_training_goes_on_from_a_state_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noting(random: RandomSource, count: int, size: int) -> Episode:
        seen.append(draw_episode(random, count, size))
        return seen[-1]

    monkeypatch.setattr(training_module, "draw_episode", noting)
    whole = started()
    before = weights_of(whole.network)
    reports, weights, averages = [], [], []
    first_layer = "image_encoder.stride2.0.weight"

    def after_step(report: Any) -> bool:
        reports.append(report)
        weights.append(whole.network.get_parameter(first_layer).detach().clone())
        averages.append(whole.averaged.get_parameter(first_layer).detach().clone())
        if report.step == 2:
            save_state(tmp_path, whole.state())
        return False

    whole.run(after_step)
    assert torch.equal(averages[0], weights[0])
    assert torch.allclose(averages[1], 0.998 * weights[0] + 0.002 * weights[1], atol=1e-7)
    pictures = [each.images for each in seen]
    assert not any(torch.equal(pictures[0], each) for each in pictures[1:]), "never the same twice"
    for name, each in whole.network.named_parameters():
        if not name.endswith(WITHOUT_EFFECT):
            assert not torch.equal(each, before[name]), name
    assert [each.step for each in reports] == [1, 2, 3, 4]
    assert [each.images for each in reports] == [6, 12, 18, 24]
    assert all(math.isfinite(each.loss) for each in reports)

    state = load_state(tmp_path)
    assert state is not None
    resumed = started()
    resumed.restore(state)
    assert (resumed.step, resumed.images) == (2, 12)
    resumed.run(lambda report: False)
    assert _without_time(resumed) == _without_time(whole)
    for one, other in ((resumed.network, whole.network), (resumed.averaged, whole.averaged)):
        expected = weights_of(other)
        for name, each in weights_of(one).items():
            assert torch.equal(each, expected[name]), name


def _without_time(training: Pretraining) -> Any:
    return replace(training.report(), seconds=0.0)


def test_a_training_stops_when_it_is_told_to() -> None:
    training = started(replace(TINY, steps=50))
    training.run(lambda report: True)
    assert training.step == 1


def test_another_seed_begins_with_other_weights() -> None:
    one, same, other = started(), started(), started(replace(TINY, seed=1))
    name = "image_encoder.stride2.0.weight"
    first = one.network.get_parameter(name)
    assert torch.equal(first, same.network.get_parameter(name))
    assert not torch.equal(first, other.network.get_parameter(name))


# The files


def test_weights_that_cannot_be_written_are_told_and_leave_nothing(
    network: SamNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write") as refused:
        save_weights(tmp_path / "file" / "w.safetensors", network, {})
    assert refused.value.code == "cannot_write"

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(starter_weights, "save_file", full)
    with pytest.raises(InputError, match=r"cannot write .*w\.safetensors"):
        save_weights(tmp_path / "w.safetensors", network, {})
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_state_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, {"step": 1})

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="cannot write") as refused:
        save_state(tmp_path, {"step": 2})
    assert refused.value.code == "cannot_write"
    assert load_state(tmp_path) == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        saved.log(tmp_path / "file", {"step": 1})


def test_where_there_is_no_state_there_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "nowhere") is None


def test_the_encoder_is_brought_back_to_its_first_scale(network: SamNetwork) -> None:
    grown = copy.deepcopy(network.image_encoder)
    with torch.no_grad():
        for each in grown.modules():
            if isinstance(each, torch.nn.Conv2d):
                each.weight.mul_(3.0)
    give_initial_scale(grown)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            grown(image).x, network.image_encoder(image).x, atol=1e-4, rtol=1e-3
        )
    for (name, each), (_, first) in zip(
        grown.named_parameters(),
        build("starter", 64 * 4).image_encoder.named_parameters(),
        strict=True,
    ):
        if each.ndim == 4:
            ratio = each.detach().norm() / first.detach().norm()
            assert float(ratio) == pytest.approx(1, abs=0.1), name


def test_a_run_goes_on_under_another_plan_and_stops_when_its_time_is_over(tmp_path: Path) -> None:
    training = started()
    training.run(lambda report: True)
    save_state(tmp_path / "run", training.state())
    said: list[str] = []
    plan = replace(TINY, steps=50, learning_rate=1e-4)
    found = run_pretraining(
        plan, tmp_path / "run", tmp_path / "w.safetensors", "cpu", 1e-9, report=said.append
    )
    assert said == ["going on at step 1"]
    assert found is not None and found["step"] == 2
    assert (tmp_path / "w.safetensors").is_file()


def test_an_interrupted_run_goes_on_at_the_very_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The request comes in the middle of a step; that one is taken and saved."""
    said: list[str] = []
    requests = iter((signal.SIGTERM, signal.SIGINT))

    def interrupted(*words: Any) -> Episode:
        os.kill(os.getpid(), next(requests))
        return draw_episode(*words)

    monkeypatch.setattr(training_module, "draw_episode", interrupted)
    folder, output = tmp_path / "run", tmp_path / "w.safetensors"
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(replace(TINY, steps=50), folder, output, "cpu", report=said.append)
        assert said[-1] == f"interrupted; the same command goes on at step {step}"
        state = load_state(folder)
        assert state is not None and state["step"] == step
    assert not output.exists() and not (folder / "worker.pid").exists()
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


# Several processes

# The command, and behind it what this process has.
_TELLING = """
import hashlib, json, os, sys
from pathlib import Path
from SAMFineTuneLib import cli
from SAMFineTuneLib.pretraining.synthetic import training

inner = training.Pretraining.run

def run(self, after_step):
    inner(self, after_step)
    digest = hashlib.sha256()
    for each in self.network.state_dict().values():
        digest.update(each.numpy().tobytes())
    found = {"weights": digest.hexdigest(), "loss": self.report().loss}
    Path(os.environ["TOLD"], os.environ["RANK"]).write_text(json.dumps(found))

training.Pretraining.run = run
if __name__ == "__main__":
    sys.exit(cli.main())
"""


class TwoProcesses:
    """A pre-training of two steps in two processes, each of which tells what it has."""

    def __init__(self, folder: Path) -> None:
        (folder / "telling.py").write_text(_TELLING)
        (folder / "told").mkdir()
        self._folder = folder
        self._output = folder / "w.safetensors"
        self.words = ["pretrain", "synthetic", "--steps", "2", *QUICKLY]
        self.words += ["--folder", str(folder / "run"), "--output", str(self._output)]
        self.environment = {"TOLD": str(folder / "told"), "OMP_NUM_THREADS": "1"}

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Python with these words."""
        return subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self._folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(self._folder), str(REPOSITORY)]),
                **self.environment,
                **environment,
            },
        )

    def check(self, out: str) -> None:
        """One result, one network, and images of each process's own."""
        (line,) = out.splitlines()
        result = json.loads(line)
        assert (result["step"], result["images"]) == (2, 2 * 2 * 6)
        first, second = (json.loads((self._folder / "told" / rank).read_text()) for rank in "01")
        assert first["weights"] == second["weights"]
        assert first["loss"] != second["loss"], "but each saw images of its own"
        with safe_open(self._output, "pt") as file:
            card = json.loads(file.metadata()[CARD_KEY])
        assert card["stages"][0]["processes"] == 2


@pytest.fixture
def two(tmp_path: Path) -> TwoProcesses:
    if not distributed.is_available():
        pytest.skip("torch without processes")
    return TwoProcesses(tmp_path)


@pytest.mark.slow
def test_two_processes_train_one_network_and_tell_one_result(
    two: TwoProcesses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """This process is the first one; both have what torchrun says in the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in {**two.environment, **both, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    # Where the other one ends too early, this one would wait for half an hour.
    join = partial(distributed.init_process_group, timeout=timedelta(seconds=120))
    monkeypatch.setattr(distributed, "init_process_group", join)
    monkeypatch.setattr(Pretraining, "run", Pretraining.run)
    runpy.run_path(str(tmp_path / "telling.py"))
    second = two.start("-m", "telling", *two.words, **both, RANK="1")
    try:
        code = cli.main(two.words)
        out, err = second.communicate(timeout=120)
    finally:
        second.kill()
    assert (code, second.returncode, out) == (0, 0, ""), err
    two.check(capsys.readouterr().out)


@pytest.mark.slow
def test_torchrun_starts_two_processes(two: TwoProcesses) -> None:
    launched = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "telling")
    done = two.start(*launched, *two.words)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    two.check(out)


def test_alone_nothing_is_waited_for() -> None:
    alone = ProcessGroup(CPU)
    assert (alone.rank, alone.size, alone.is_first) == (0, 1, True)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    alone.average_gradients([parameter])
    assert parameter.grad.tolist() == [1, 2]
    answers: list[Callable[[], bool]] = [lambda: alone.any(True), lambda: alone.any(False)]
    assert [each() for each in answers] == [True, False]
    alone.close()
