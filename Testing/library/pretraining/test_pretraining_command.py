"""The command that pre-trains the starter network."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from SAMFineTuneLib import cli
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.pretraining import run as run_module
from SAMFineTuneLib.pretraining import saved
from SAMFineTuneLib.pretraining.saved import load_state, save_state
from SAMFineTuneLib.pretraining.synthetic import run as synthetic_run
from SAMFineTuneLib.pretraining.synthetic.starter_weights import CARD_KEY, read_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from Testing.support.pretraining_runs import QUICKLY

pytestmark = pytest.mark.usefixtures("one_thread")


# The command


class Shell:
    """`pretrain synthetic` in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def __call__(self, *words: object, folder: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        place = ["--folder", folder or self._folder / "run"]
        given = [] if "--output" in words else ["--output", self._folder / "w.safetensors"]
        command = ["pretrain", "synthetic", *place, *given, *QUICKLY, *words]
        self._capsys.readouterr()
        code = cli.main([str(each) for each in command])
        return (code, *self._capsys.readouterr())

    def refusal(self, *words: object, folder: Path | None = None) -> str:
        code, out, err = self(*words, folder=folder)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_the_command_trains_logs_goes_on_and_leaves_weights(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_LOG_EVERY_STEPS", 1)
    folder, output = tmp_path / "run", tmp_path / "new" / "w.safetensors"
    words = ("--output", output, "--seed", 3)
    code, out, err = shell(*words, "--steps", 2, "--snapshots", 12)
    assert code == 0
    result = json.loads(out)
    assert result["weights"] == str(output) and (result["step"], result["images"]) == (2, 12)
    assert len(err.splitlines()) == 2 and err.startswith("step 1, 6 images")
    assert (folder / "images_12.safetensors").is_file()

    code, out, err = shell(*words, "--steps", 3)
    assert code == 0 and (json.loads(out)["step"], json.loads(out)["images"]) == (3, 18)
    assert err.splitlines()[0] == "going on at step 2"
    entries = [json.loads(line) for line in (folder / saved.LOG_FILE).read_text().splitlines()]
    assert [each["step"] for each in entries] == [1, 2, 3]
    assert all(math.isfinite(value) for each in entries for value in each.values())
    assert sorted(each.name for each in folder.iterdir()) == [
        "images_12.safetensors",
        "pretraining.jsonl",
        "pretraining.pt",
    ]
    _check_weights(output, folder)
    state = load_state(folder)
    assert state is not None and [each["from_step"] for each in state["stages"]] == [0, 2]
    _refuses_what_does_not_fit(shell, folder)


def _check_weights(output: Path, folder: Path) -> None:
    """Half precision, with a card, and the running average of the training."""
    assert output.stat().st_size <= 12e6
    with safe_open(output, "pt") as file:
        card = json.loads(file.metadata()[CARD_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {each.dtype for each in tensors.values()} == {torch.float16}
    assert card["licence"] == "Apache-2.0" and "synthetic" in card["data"]
    assert (card["steps"], card["images"], card["seed"]) == (3, 18, 3)
    first, second = card["stages"]
    assert (first["from_step"], first["plan"]["steps"], first["processes"]) == (0, 2, 1)
    assert (second["from_step"], second["plan"]["steps"]) == (2, 3)
    network = build("starter", 256)
    loaded = load_checkpoint(network, output)
    assert loaded.path == output
    state = load_state(folder)
    assert state is not None
    averaged = build("starter", 256)
    averaged.load_state_dict({name: state["average"]["module." + name] for name in tensors})
    for name, each in averaged.state_dict().items():
        if name.startswith("image_encoder") and each.ndim == 4:
            direction = torch.cosine_similarity(each.flatten(), tensors[name].float().flatten(), 0)
            assert float(direction) > 0.9999, name
        else:
            assert torch.equal(tensors[name], each.half()), name
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = [each.image_encoder(image).x for each in (network, averaged)]
    torch.testing.assert_close(*same, atol=0.03, rtol=0.03)


def _refuses_what_does_not_fit(shell: Shell, folder: Path) -> None:
    """A folder with a state of seed 3 and three steps."""
    line = shell.refusal("--steps", 9, "--seed", 4, folder=folder)
    assert "seed 3 there, 4 here" in line and "--folder" in line
    state = load_state(folder)
    assert state is not None
    renamed = {"another." + name: each for name, each in state["network"].items()}
    for wrong in ({**state, "network": renamed}, {"stages": state["stages"]}, [1, 2]):
        save_state(folder, wrong)  # type: ignore[arg-type]
        assert "pretraining.pt is damaged" in shell.refusal("--seed", 3, folder=folder)


def test_one_run_at_a_time_in_a_folder(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (folder / "worker.pid").write_text(str(other.pid))
        line = shell.refusal("--steps", 1, folder=folder)
        assert f"process {other.pid} is doing the job" in line
        assert not (folder / saved.STATE_FILE).exists()
    finally:
        other.communicate(b"\n", timeout=20)
    assert shell("--steps", 1, folder=folder)[0] == 0


def test_a_training_begins_with_earlier_weights(shell: Shell, tmp_path: Path) -> None:
    """Their images count on, their stages stay in the card, and what they lack is new."""
    earlier = tmp_path / "earlier.safetensors"
    assert shell("--output", earlier, "--steps", 1, "--seed", 3)[0] == 0
    tensors, card = read_weights(earlier)
    older = {name: each for name, each in tensors.items() if ".blocks16." not in name}
    save_file(older, earlier, metadata={CARD_KEY: json.dumps(card)})
    output = tmp_path / "later.safetensors"
    words = ("--initial", earlier, "--output", output, "--seed", 4)
    code, out, err = shell(*words, "--steps", 1, folder=tmp_path / "second")
    assert code == 0 and json.loads(out)["images"] == 12
    assert err.startswith("starting from earlier.safetensors, 6 images; 14 tensors are new")
    later, card = read_weights(output)
    assert [stage["plan"]["seed"] for stage in card["stages"]] == [3, 4]
    assert (card["images"], card["seed"]) == (12, 4) and set(later) == set(tensors)
    # One tiny step from there, not from random weights.
    for name in ("mask_decoder.mask_tokens.weight", "context_decoder.base_tokens.weight"):
        assert torch.allclose(later[name], tensors[name], atol=0.02), name

    code, out, err = shell(*words, "--steps", 2, folder=tmp_path / "second")
    assert code == 0 and err.startswith("going on at step 1; earlier.safetensors is where")


def test_what_are_no_weights_is_refused_as_a_beginning(shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    absent = tmp_path / "absent.safetensors"
    assert f"there is no file {absent}" in shell.refusal("--initial", absent)
    for path in (other, empty):
        assert f"{path} holds no weights of the starter" in shell.refusal("--initial", path)
    save_file({"x": torch.zeros(2)}, other, metadata={CARD_KEY: "{}"})
    assert "does not fit the starter network" in shell.refusal("--initial", other)


def test_a_damaged_state_is_refused(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "run" / saved.STATE_FILE
    path.parent.mkdir()
    for content in (b"", b"no archive at all", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        line = shell.refusal()
        assert str(path) in line and "remove it" in line
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--steps", "0"], ["--steps", "'0'"]),
        (["--steps", "1e3"], ["--steps", "whole number"]),
        (["--minutes", "0"], ["--minutes", "above 0"]),
        (["--minutes", "nan"], ["--minutes"]),
        (["--episodes", "0"], ["--episodes"]),
        (["--images", "-1"], ["--images"]),
        (["--sizes", "100"], ["--sizes", "'100'", "multiple of 16"]),
        (["--sizes", "128", "72"], ["--sizes", "'72'"]),
        (["--sizes", "48"], ["--sizes", "from 64"]),
        (["--sizes", "0"], ["--sizes"]),
        (["--sizes"], ["--sizes"]),
        (["--lr", "-0.1"], ["--lr", "above 0"]),
        (["--lr", "0"], ["--lr"]),
        (["--lr", "inf"], ["--lr"]),
        (["--lr", "quick"], ["--lr", "'quick'"]),
        (["--decay", "1.5"], ["--decay", "from 0 to 1"]),
        (["--seed", "-1"], ["--seed"]),
        (["--seed", str(2**63)], ["--seed"]),
        (["--snapshots", "0"], ["--snapshots"]),
        (["--precision", "fp8"], ["--precision"]),
        (["--device", "tpu"], ["--device", "'tpu'"]),
        (["--output", "w.pt"], ["--output", ".safetensors"]),
    ],
)
def test_bad_values_are_refused_before_anything_is_made(
    words: list[str], parts: list[str], shell: Shell, tmp_path: Path
) -> None:
    line = shell.refusal(*words)
    assert all(part in line for part in parts), line
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused_before_the_training(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the training has begun")

    monkeypatch.setattr(synthetic_run, "run_pretraining", never)
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    output = tmp_path / "file" / "w.safetensors"
    assert str(output) in shell.refusal("--output", output)
    assert "is a folder" in shell.refusal("--output", tmp_path / "folder.safetensors")
    assert str(tmp_path / "file") in shell.refusal(folder=tmp_path / "file")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(shell: Shell) -> None:
    assert "CUDA was asked for" in shell.refusal("--device", "cuda")


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "synthetic", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "python -m SAMFineTuneLib pretrain synthetic" in text.split("example", 1)[1]
    assert all(len(line) <= 100 for line in text.splitlines())
