"""The commands as a shell sees them: exit code, standard output, standard error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from SAMFineTuneLib import cli
from SAMFineTuneLib.jobs import process
from SAMFineTuneLib.jobs.schema import ApplyJob, FinetuneJob, read_job
from Testing.support.fake_cli import command_of
from Testing.support.repository import REPOSITORY
from Testing.support.time_limits import PATIENCE_S, within

FAKE_CLI = REPOSITORY / "Testing" / "support" / "fake_cli.py"
COMMANDS = (
    *("finetune", "apply", "evaluate", "models", "checkpoints", "storage", "hardware"),
    *("describe", "pretrain", "run"),
)
PAIR = ["--volume", "ct.nrrd", "--segmentation", "labels.nrrd"]
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in an own folder, with an own cache; `fake` pretends the work."""
    here = tmp_path / "Ordner mit Lücken"
    here.mkdir()

    def run(*words: str, fake: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            program(fake, *words),
            capture_output=True,
            encoding="utf-8",
            cwd=here,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        )

    return run


@pytest.fixture
def shell_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same without a process for the command itself, which the tests of `shell` start.

    The pretended worker is a process of its own all the same.
    """
    here = tmp_path / "Ordner mit Lücken"
    here.mkdir()
    monkeypatch.chdir(here)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)

    def run(*words: str, fake: str | None = None) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            if fake is not None:
                patch.setattr(process, "worker_command", command_of(fake))
            code = cli.main(list(words))
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run


Shell = Callable[..., subprocess.CompletedProcess[str]]


def program(fake: str | None, *words: str) -> list[str]:
    start = ["-m", "SAMFineTuneLib"] if fake is None else [str(FAKE_CLI), fake]
    return [sys.executable, *start, *words]


def environment(tmp_path: Path) -> dict[str, str]:
    cache = str(tmp_path / "cache")
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "SAMFINETUNE_CACHE": cache}


def job_folders(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "cache" / "jobs"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"python -m SAMFineTuneLib {command}" in text.split("example", 1)[1]
    parser_words = ("help", "show this help message")
    for line in text.splitlines():
        assert len(line) <= 100
    assert all(word in text for word in parser_words)


def test_general_help_names_all_commands(shell: Shell) -> None:
    done = shell("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "COMMAND"),
        (["train"], "train"),
        (["finetune"], "--output"),
        (["finetune", "--output", "m.safetensors"], "no volume to learn from"),
        (["finetune", "--output", "m.safetensors", "--volume", "a"], "do not pair"),
        (["finetune", *PAIR, "--examples", "e.json", "--output", "m.safetensors"], "--examples"),
        (["finetune", "--examples", "e.json", "--output", "m.safetensors"], "e.json"),
        (["finetune", *PAIR, "--output", "m.pt"], "--output"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--steps", "x"], "--steps"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--steps", "0"], "--steps"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--lr", "-1"], "--lr"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--labels", "1,x"], "--labels"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--labels", "0"], "--labels"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--empty", "inside"], "--empty"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--axis", "x"], "--axis"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--extent", "9", "3"], "--extent"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--extent", "9"], "--extent"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--input-size", "9"], "--input-size"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--device", "tpu"], "--device"),
        (["finetune", *PAIR, "--output", "m.safetensors", "--step", "3"], "--step"),
        (["apply", "--model", "m.safetensors", "--volume", "a"], "--output"),
        (["evaluate", "--prediction", "p", "--reference", "r", "--slices", "-"], "--slices"),
        (["evaluate", "--prediction", "p", "--reference", "r", "--tolerance", "0"], "--tolerance"),
        (["describe", "--classes", "0"], "--classes"),
        (["checkpoints"], "list|get|clear"),
        (["checkpoints", "get", "vit_x"], "vit_x"),
        (["models"], "list|rename|delete|export|import"),
        (["models", "delete", "liver"], "no tuned model called 'liver'"),
        (["models", "import", "liver.safetensors"], "liver.safetensors"),
        (["storage"], "show|clear"),
    ],
)
def test_bad_arguments_get_one_line(
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path / "models"))
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert refusal(subprocess.CompletedProcess(words, code, out, err))
    assert line in err
    assert list(tmp_path.iterdir()) == []


def test_no_such_file_is_refused_by_the_real_worker(shell: Shell, tmp_path: Path) -> None:
    done = shell("evaluate", "--prediction", "nicht da.nrrd", "--reference", "r.nrrd")
    assert "nicht da.nrrd" in refusal(done)
    assert job_folders(tmp_path) == []


def test_finetune_writes_the_job_and_prints_the_result(shell: Shell, tmp_path: Path) -> None:
    done = shell(
        *("finetune", *PAIR, "--volume", "b ü.nrrd", "--segmentation", "c.nrrd"),
        *("--output", "m.safetensors", "--labels", "1,5", "--labelled", "3,9", "--empty", "0"),
        *("--axis", "coronal", "--lr", "0.001", "--minutes", "2", "--job", "Auftrag 1"),
        fake="done",
    )
    here = tmp_path / "Ordner mit Lücken"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == str(here / "m.safetensors")
    assert len(done.stdout.splitlines()) == 1
    assert "warning: 2 voxels are not finite: größer als erwartet" in done.stderr.splitlines()
    assert "3 of 3" in done.stderr
    job = read_job(here / "Auftrag 1")
    assert isinstance(job, FinetuneJob)
    assert [example.volume for example in job.examples] == [here / "ct.nrrd", here / "b ü.nrrd"]
    assert job.examples[1].labels == [1, 5]
    assert (job.examples[1].labelled, job.examples[1].empty) == ([3, 9], [0])
    assert (job.examples[0].axis, job.learning_rate, job.minutes) == ("coronal", 0.001, 2.0)
    assert job_folders(tmp_path) == []


def test_examples_file(shell_here: Shell, tmp_path: Path) -> None:
    here = tmp_path / "Ordner mit Lücken"
    listed = [{"volume": "a.nrrd", "segmentation": "s.nrrd", "labelled": [12], "empty": [2, 30]}]
    (here / "examples.json").write_text(json.dumps(listed), encoding="utf-8")
    words = ["finetune", "--examples", "examples.json", "--output", "m.safetensors"]
    done = shell_here(*words, "--labels", "4", "--job", "job", fake="done")
    assert done.returncode == 0, done.stderr
    job = read_job(here / "job")
    assert isinstance(job, FinetuneJob)
    (example,) = job.examples
    assert example.volume == here / "a.nrrd"
    assert (example.labels, example.labelled, example.empty) == ([4], [12], [2, 30])


def test_apply_writes_its_job(shell_here: Shell, tmp_path: Path) -> None:
    words = ["apply", "--model", "m.safetensors", "--volume", "a", "--volume", "b"]
    done = shell_here(*words, "--output", "out", "--largest-component", "--job", "j", fake="done")
    assert done.returncode == 0, done.stderr
    job = read_job(tmp_path / "Ordner mit Lücken" / "j")
    assert isinstance(job, ApplyJob)
    assert len(job.volumes) == 2
    assert job.largest_component


@POSIX_ONLY
def test_library_prints_stay_away_from_the_result(shell: Shell, tmp_path: Path) -> None:
    done = shell("finetune", *PAIR, "--output", "m.safetensors", fake="noisy")
    assert json.loads(done.stdout) == {"done": True}
    assert job_folders(tmp_path) == []


def test_bad_input_gets_one_line_and_leaves_nothing(shell: Shell, tmp_path: Path) -> None:
    done = shell("finetune", *PAIR, "--output", "m.safetensors", fake="refuse")
    assert refusal(done) == "error: label 7 is absent. Name labels that occur: 1, 5"
    assert job_folders(tmp_path) == []
    assert list((tmp_path / "Ordner mit Lücken").iterdir()) == []


def test_our_fault_keeps_the_job(shell_here: Shell, tmp_path: Path) -> None:
    done = shell_here("finetune", *PAIR, "--output", "m.safetensors", fake="fault")
    assert done.returncode == 1
    assert done.stdout == ""
    (folder,) = job_folders(tmp_path)
    assert str(folder) in done.stderr
    assert "ZeroDivisionError" in (folder / "worker.log").read_text(encoding="utf-8")


@POSIX_ONLY
def test_a_worker_that_dies_is_told_in_a_line_and_keeps_the_job(
    shell_here: Shell, tmp_path: Path
) -> None:
    done = shell_here("finetune", *PAIR, "--output", "m.safetensors", fake="die")
    assert (done.returncode, done.stdout) == (1, "")
    (folder,) = job_folders(tmp_path)
    assert f"run {folder}" in done.stderr and (folder / "job.json").is_file()
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


@POSIX_ONLY
@pytest.mark.parametrize(
    ("behaviour", "number", "group"),
    [("resumable", "SIGINT", True), ("long_step", "SIGINT", False), ("loop", "SIGTERM", False)],
)
def test_interrupt_cancels(tmp_path: Path, behaviour: str, number: str, group: bool) -> None:
    """As Ctrl-C in a shell, which reaches the whole group, or as a signal to the client alone."""
    client = subprocess.Popen(
        program(behaviour, "finetune", *PAIR, "--output", "m.safetensors"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment(tmp_path),
        start_new_session=True,
    )
    try:
        assert client.stderr is not None
        client.stderr.readline()
        family = psutil.Process(client.pid).children(recursive=True)
        with within(3.5, "cancelling"):
            if group:
                os.killpg(client.pid, getattr(signal, number))
            else:
                client.send_signal(getattr(signal, number))
            out, err = client.communicate(timeout=PATIENCE_S)
    finally:
        client.kill()
    assert client.returncode == 3, err
    assert out == ""
    assert "Cancelled" in err.splitlines()
    assert "Traceback" not in err
    assert family
    assert not any(child.is_running() for child in family)
    (folder,) = job_folders(tmp_path)
    assert str(folder) in err
    assert not (folder / "cancel").exists()


def test_a_stopped_job_continues_in_its_folder(shell_here: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "Ordner mit Lücken" / "j"
    words = ["finetune", *PAIR, "--output", "m.safetensors", "--job", "j"]
    assert shell_here(*words, fake="fault").returncode == 1
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "state").touch()
    done = shell_here(*words, fake="resumable")
    assert json.loads(done.stdout) == {"resumed": True}
    other = shell_here(*words, "--seed", "1", fake="done")
    assert "holds another job" in refusal(other)


def test_describe_prints_one_object(shell_here: Shell) -> None:
    done = shell_here("describe", "--backbone", "vit_b", "--method", "lora", "--classes", "2")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["total"] == sum(part["total"] for part in told["parts"])
    assert round(told["total"] / 1e6, 2) == 93.77
    assert round(told["trainable"] / 1e6, 2) == 0.80
    assert "image encoder" in done.stderr


def test_describe_refuses_a_size_that_does_not_fit(shell_here: Shell) -> None:
    assert "100" in refusal(shell_here("describe", "--input-size", "100"))


@pytest.mark.parametrize("to_file", [True, False])
def test_output_on_errors_keeps_standard_output_free(tmp_path: Path, to_file: bool) -> None:
    text = (
        "import os, subprocess, sys\n"
        "from SAMFineTuneLib.worker.standard_output import output_on_errors\n"
        "print('before')\n"
        "with output_on_errors():\n"
        "    print('python')\n"
        "    os.write(1, b'descriptor\\n')\n"
        "print('after')\n"
    )
    with (tmp_path / "out.txt").open("w+") as file:
        done = subprocess.run(
            [sys.executable, "-c", text],
            stdout=file if to_file else subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(tmp_path),
        )
        file.seek(0)
        out = file.read() if to_file else done.stdout
    assert out.splitlines() == ["before", "after"], done.stderr
    assert sorted(done.stderr.splitlines()) == ["descriptor", "python"]


def test_checkpoints_list_and_clear(shell_here: Shell, tmp_path: Path) -> None:
    done = shell_here("checkpoints", "list")
    told = json.loads(done.stdout)
    assert told["folder"] == str(tmp_path / "cache")
    names = {entry["name"]: entry for entry in told["checkpoints"]}
    assert set(names) == {"lite_medsam", "vit_t", "vit_b", "vit_l", "vit_h"}
    file = Path(names["vit_t"]["path"])
    file.parent.mkdir(parents=True)
    file.write_bytes(b"0" * 1000)
    assert json.loads(shell_here("checkpoints", "clear").stdout) == {"freed_bytes": 1000}
    assert not file.exists()


def test_a_fault_in_a_command_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        raise LookupError("broken")

    monkeypatch.setattr("SAMFineTuneLib.weights.official.list_checkpoints", broken)
    assert cli.main(["checkpoints", "list"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: A fault in the program (LookupError: broken)")
