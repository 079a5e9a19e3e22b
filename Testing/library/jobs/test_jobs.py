"""Job files, events, and what an exception means to the user."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, new_job_folder, require_writable
from SAMFineTuneLib.jobs.schema import (
    ApplyJob,
    EvaluateJob,
    Example,
    FinetuneJob,
    make_job,
    read_examples,
    read_job,
    write_job,
)
from SAMFineTuneLib.networks.spec import BACKBONES, BackboneName
from SAMFineTuneLib.worker.events import (
    ErrorEvent,
    EventWriter,
    Log,
    Preview,
    Progress,
    Result,
    parse_line,
)
from SAMFineTuneLib.worker.failure import error_event
from SAMFineTuneLib.worker.json_text import to_json
from Testing.support.repository import REPOSITORY


def finetune_fields(**changed: Any) -> dict[str, Any]:
    fields = {
        "kind": "finetune",
        "schema_version": 1,
        "examples": [{"volume": "/data/ct.nii.gz", "segmentation": "/data/labels.nii.gz"}],
        "output": "/data/model.safetensors",
    }
    return {**fields, **changed}


def example_fields(**changed: Any) -> dict[str, Any]:
    return {"volume": "/data/ct.nii.gz", "segmentation": "/data/labels.nii.gz", **changed}


def refused(folder: Path, content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "job.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_job(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert "pydantic" not in line
    return line


def test_a_written_job_is_read_back_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "Bilder für Größen"
    folder = tmp_path / "ein Auftrag"
    here.mkdir()
    folder.mkdir()
    monkeypatch.chdir(here)
    job = make_job(
        FinetuneJob,
        finetune_fields(
            examples=[example_fields(volume="ct ü.nii.gz", labels=[1, 5], empty=[0, 2])],
            output="modell.safetensors",
            minutes=2,
            label_names={1: "Milz"},
        ),
    )
    write_job(folder, job)
    monkeypatch.chdir(tmp_path)
    read = read_job(folder)
    assert isinstance(read, FinetuneJob)
    assert read.examples[0].volume == here / "ct ü.nii.gz"
    assert read.output == here / "modell.safetensors"
    assert read.examples[0].labels == [1, 5]
    assert read.examples[0].empty == [0, 2]
    assert read.label_names == {1: "Milz"}
    assert read.minutes == 2.0
    assert sorted(path.name for path in folder.iterdir()) == ["job.json"]


@pytest.mark.parametrize(
    "job",
    [
        ApplyJob(model=Path("/m.safetensors"), volumes=[Path("/a.nrrd")], output=Path("/o.nrrd")),
        EvaluateJob(prediction=Path("/p.nrrd"), reference=Path("/r.nrrd"), slices=[3, 4]),
    ],
)
def test_other_kinds_are_read_back_unchanged(tmp_path: Path, job: ApplyJob | EvaluateJob) -> None:
    write_job(tmp_path, job)
    assert read_job(tmp_path) == job


def test_defaults_are_those_of_the_command_line() -> None:
    job = make_job(FinetuneJob, finetune_fields())
    assert (job.preset, job.backbone, job.method, job.scope) == (
        "laptop",
        "starter",
        "auto",
        "auto",
    )
    assert job.examples[0] == Example(
        volume=Path("/data/ct.nii.gz"),
        segmentation=Path("/data/labels.nii.gz"),
        labels="all",
        axis="auto",
        labelled="nonempty",
        empty="auto",
    )
    assert (job.input_size, job.seed, job.rank, job.device) == ("auto", 0, 4, "auto")


@pytest.mark.parametrize(
    ("preset", "chosen", "learnt_from"),
    [
        ("laptop", None, False),
        ("laptop", True, True),
        ("thorough", None, True),
        ("thorough", False, False),
    ],
)
def test_other_slices_are_learnt_from_as_the_preset_or_the_user_says(
    tmp_path: Path, preset: str, chosen: bool | None, learnt_from: bool
) -> None:
    job = make_job(FinetuneJob, finetune_fields(preset=preset, unlabelled_examples=chosen))
    assert job.unlabelled_examples is learnt_from
    write_job(tmp_path, job)
    assert read_job(tmp_path) == job


def test_unlabelled_cases_of_several_images_are_taken_apart() -> None:
    named = {"unlabelled": [["/a-t1.nrrd", "/a-flair.nrrd"], "/b.nrrd"]}
    job = make_job(FinetuneJob, finetune_fields(**named))
    assert job.unlabelled == [Path("/a-t1.nrrd"), Path("/b.nrrd")]
    assert job.unlabelled_channels == [[Path("/a-flair.nrrd")], []]
    for wrong, message in (
        ({**named, "unlabelled_channels": [[]]}, "unlabelled_channels"),
        ({"unlabelled": ["/a"], "unlabelled_channels": [["/b"], []]}, "an item for each"),
        ({"unlabelled": [["/a", "/b", "/c", "/d"]]}, "4 images of one case"),
    ):
        with pytest.raises(InputError, match=message):
            make_job(FinetuneJob, finetune_fields(**wrong))


def test_a_list_has_no_other_slices() -> None:
    fields = finetune_fields(examples=[], image_list="/data/train.csv", preset="thorough")
    assert make_job(FinetuneJob, fields).unlabelled_examples is False
    with pytest.raises(InputError, match="unlabelled_examples"):
        make_job(FinetuneJob, {**fields, "unlabelled_examples": True})


def test_a_job_of_an_older_program_is_the_same_job() -> None:
    # It wrote false where nothing was said.
    older = make_job(FinetuneJob, finetune_fields(unlabelled_examples=False))
    assert older == make_job(FinetuneJob, finetune_fields())


def test_relative_paths_of_a_hand_written_job_are_taken_from_its_folder(tmp_path: Path) -> None:
    text = json.dumps(finetune_fields(output="model.safetensors"))
    # With the mark that Windows editors put in front.
    (tmp_path / "job.json").write_text(text, encoding="utf-8-sig")
    job = read_job(tmp_path)
    assert isinstance(job, FinetuneJob)
    assert job.output == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"steps": "200"}, '"steps"'),
        ({"steps": 0}, '"steps"'),
        ({"steps": 1.5}, '"steps"'),
        ({"steps": True}, '"steps"'),
        ({"minutes": -1}, '"minutes"'),
        ({"minutes": float("inf")}, '"minutes"'),
        ({"seed": None}, '"seed"'),
        ({"rank": 0}, '"rank"'),
        ({"preset": "desktop"}, '"preset"'),
        ({"backbone": "vit_x"}, '"backbone"'),
        ({"device": "tpu"}, '"device"'),
        ({"input_size": 100}, '"input_size"'),
        ({"input_size": "big"}, '"input_size"'),
        ({"output": "model.pt"}, '"output"'),
        ({"output": 3}, '"output"'),
        ({"examples": []}, '"examples"'),
        ({"examples": "ct.nii.gz"}, '"examples"'),
        ({"examples": [example_fields(labels=[])]}, '"examples[0].labels"'),
        ({"examples": [example_fields(labels=[0])]}, '"examples[0].labels"'),
        ({"examples": [example_fields(labels="some")]}, '"examples[0].labels"'),
        ({"examples": [example_fields(labels=["1"])]}, '"examples[0].labels"'),
        ({"examples": [example_fields(labelled=[3, 3])]}, '"examples[0].labelled"'),
        ({"examples": [example_fields(labelled=[-1])]}, '"examples[0].labelled"'),
        ({"examples": [example_fields(empty="inside")]}, '"examples[0].empty"'),
        ({"examples": [example_fields(axis="oblique")]}, '"examples[0].axis"'),
        ({"examples": [example_fields(), example_fields(volume=7)]}, '"examples[1].volume"'),
        ({"examples": [{"volume": "/a.nrrd"}]}, '"examples[0].segmentation" is missing'),
        ({"examples": [example_fields(lables="all")]}, 'Did you mean "labels"?'),
        ({"learning_rat": 1e-4}, 'Did you mean "learning_rate"?'),
        ({"colour": "red"}, '"colour" is unknown'),
        ({"kind": "train"}, '"kind" has the value "train"'),
        ({"schema_version": 0}, '"schema_version"'),
        ({"schema_version": 2}, "Update SAMFineTune"),
        ({"schema_version": 2, "new_field": 1}, '"schema_version" is 2'),
    ],
)
def test_a_job_that_does_not_fit_is_refused_by_the_field_s_name(
    tmp_path: Path, changed: dict[str, Any], field: str
) -> None:
    assert field in refused(tmp_path, finetune_fields(**changed))


def test_a_job_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "is not JSON" in refused(tmp_path, '{"kind": "finetune",')
    assert "line 2, column 2" in refused(tmp_path, "{\n}}")
    assert "is not a JSON object" in refused(tmp_path, [1, 2])
    assert "is not JSON" in refused(tmp_path, "")
    assert '"kind"' in refused(tmp_path, {"schema_version": 1})
    assert "nested too deeply" in refused(tmp_path, "[" * 100_000)
    (tmp_path / "job.json").write_bytes(b'{"kind": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8"):
        read_job(tmp_path)
    (tmp_path / "job.json").unlink()
    with pytest.raises(InputError, match=r"no job\.json"):
        read_job(tmp_path)
    with pytest.raises(InputError, match=r"no job\.json"):
        read_job(tmp_path / "absent")


def test_several_volumes_need_a_folder(tmp_path: Path) -> None:
    fields = {"model": "/m.safetensors", "volumes": ["/a.nrrd", "/b.nrrd"]}
    with pytest.raises(InputError, match='"output" must be a folder'):
        make_job(ApplyJob, {**fields, "output": "/o.nii.gz"})
    with pytest.raises(InputError, match='"uncertainty" must be a folder'):
        make_job(ApplyJob, {**fields, "output": "/o", "uncertainty": "/u.nrrd"})
    with pytest.raises(InputError, match="must be a folder or end in one of"):
        make_job(ApplyJob, {**fields, "volumes": ["/a.nrrd"], "output": "/o.jpg"})
    dotted = tmp_path / "v1.2"
    dotted.mkdir()
    assert make_job(ApplyJob, {**fields, "output": dotted}).output == dotted


def test_backbones_and_sizes_are_those_of_the_registry() -> None:
    assert set(get_args(BackboneName)) == set(BACKBONES)
    for name, spec in BACKBONES.items():
        for size in (spec.input_sizes[0], 272, spec.input_sizes[-1]):
            job = make_job(FinetuneJob, finetune_fields(backbone=name, input_size=size))
            assert job.input_size == size
        larger = spec.input_sizes[-1] + 16
        with pytest.raises(InputError, match="input_size"):
            make_job(FinetuneJob, finetune_fields(backbone=name, input_size=larger))


def test_examples_take_their_own_choice_before_the_shared_one(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").touch()
    listed = [
        {"volume": "a.nrrd", "segmentation": "/s.nrrd", "labelled": [12], "empty": [2, 30]},
        {"volume": "a.nrrd", "segmentation": "/s.nrrd"},
    ]
    file = tmp_path / "examples.json"
    file.write_text(json.dumps(listed), encoding="utf-8")
    first, second = read_examples(file, {"labels": [1], "empty": "none"})
    assert first.volume == tmp_path / "a.nrrd"
    assert (first.labels, first.labelled, first.empty) == ([1], [12], [2, 30])
    assert (second.labels, second.labelled, second.empty) == ([1], "nonempty", "none")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "is not a list of examples"),
        ("[]", "is not a list of examples"),
        ("[3]", "example 0 is not an object"),
        ("[", "is not JSON"),
        ('[{"volume": "a"}]', 'field "segmentation" is missing'),
        ('[{"volume": "a", "segmentation": "b", "label": [1]}]', 'Did you mean "labels"?'),
    ],
)
def test_an_examples_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "examples.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_examples(file, {})
    assert words in str(caught.value)


def test_every_event_survives_its_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    events = EventWriter(tmp_path, stream)
    events.progress(3, 10, phase="fine-tune", eta_s=float("nan"), loss=0.5)
    events.preview(tmp_path / "ü.png", 4)
    events.warning("zwei\nZeilen\u2028drei")
    events.emit(Result(result={"dsc": float("inf"), "output": tmp_path}))
    events.emit(ErrorEvent(code="x", message="m", remedy="r", exit_code=2))
    text = stream.getvalue()
    assert len(text.splitlines()) == 5
    read = [parse_line(line) for line in text.splitlines()]
    assert read == [
        Progress(step=3, steps=10, phase="fine-tune", eta_s=None, loss=0.5),
        Preview(path=str(tmp_path / "ü.png"), slice=4),
        Log(level="warning", message="zwei\nZeilen\u2028drei"),
        Result(result={"dsc": None, "output": str(tmp_path)}),
        ErrorEvent(code="x", message="m", remedy="r", exit_code=2),
    ]
    assert (tmp_path / "events.jsonl").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Loading weights ...",
        "{",
        "null",
        "[1, 2]",
        '{"type": "progress"}',
        '{"type": "other", "step": 1}',
        '{"step": 1}',
        "\ud800",
        "[" * 100_000,
        '{"type": "progress", "step": "x"}',
    ],
)
def test_a_line_that_is_no_event_becomes_a_log(line: str) -> None:
    event = parse_line(line)
    assert isinstance(event, Log)
    assert len(event.message) == len(line)


def test_a_client_that_went_away_does_not_stop_the_work(tmp_path: Path) -> None:
    stream = io.StringIO()
    events = EventWriter(tmp_path, stream)
    stream.close()
    events.log("one")
    events.log("two")
    kept = (tmp_path / "events.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["message"] for line in kept.splitlines()] == ["one", "two"]


def test_events_that_cannot_be_kept_are_told_once(tmp_path: Path) -> None:
    stream = io.StringIO()
    (tmp_path / "events.jsonl").mkdir()
    events = EventWriter(tmp_path, stream)
    events.log("one")
    events.log("two")
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages[0] == "one"
    assert "cannot be written any more" in messages[1]
    assert messages[2:] == ["two"]


def test_json_of_what_json_does_not_know() -> None:
    numpy = pytest.importorskip("numpy")
    value = {1: numpy.float32(0.5), "a": numpy.array([1, 2]), "p": Path("x"), "n": (float("nan"),)}
    assert json.loads(to_json(value)) == {"1": 0.5, "a": [1, 2], "p": "x", "n": [None]}
    assert json.loads(to_json("\udcff")) == "\udcff"
    to_json("\udcff").encode("utf-8")
    with pytest.raises(TypeError):
        to_json(object())


def test_control_obeys_files_and_calls(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    control = Control(folder)
    control.raise_if_cancelled()
    assert not control.finish_requested()
    folder.finish_file.touch()
    assert control.finish_requested()
    assert not control.cancelled()
    folder.cancel_file.touch()
    with pytest.raises(Cancelled):
        control.raise_if_cancelled()
    folder.clear_requests()
    assert list(tmp_path.iterdir()) == []
    assert control.cancelled()


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (InputError("no such file", "Check the name", "no_such_file"), 2, "no_such_file"),
        (Cancelled(), 3, "cancelled"),
        (KeyboardInterrupt(), 3, "cancelled"),
        (MemoryError(), 2, "no_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "no_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "no_memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "no_space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "no_space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "no_access"),
        (ValueError("a\nb"), 1, "internal"),
        (SystemExit(0), 1, "internal"),
    ],
)
def test_exceptions_and_what_they_mean(error: BaseException, exit_code: int, code: str) -> None:
    event = error_event(error)
    assert (event.exit_code, event.code) == (exit_code, code)
    assert "\n" not in event.line()
    assert event.remedy or exit_code == 3


def test_job_folders_of_one_second_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "ein Platz"))
    folders = {new_job_folder("apply").path for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.parent == tmp_path / "ein Platz" / "jobs" for folder in folders)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot make the job folder"):
        new_job_folder("apply")


def test_a_folder_is_removed_a_part_of_a_large_file_at_a_time(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    (folder.path / "inputs").mkdir(parents=True)
    large = folder.path / "inputs" / "volume0.nrrd"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    folder.log_file.write_text("")
    sizes = [large.stat().st_size for _part in folder.remove_in_parts() if large.exists()]
    assert set(sizes) >= {136 << 20, 72 << 20, 8 << 20}
    assert not folder.path.exists()


def test_outputs_that_cannot_be_written_are_found_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "model.safetensors")
    require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        require_writable(tmp_path / "file" / "model.safetensors")


def test_client_side_loads_no_tensor_library() -> None:
    program = (
        "import sys, SAMFineTuneLib.jobs.process, SAMFineTuneLib.jobs.schema, SAMFineTuneLib.cli;"
        "print([m for m in ('torch', 'monai', 'torchvision', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("word", ["killpg", "SIGKILL", "preexec_fn", "os.fork", "setsid"])
def test_nothing_that_windows_lacks(word: str) -> None:
    package = REPOSITORY / "SAMFineTuneLib"
    users = [file.name for file in package.rglob("*.py") if word in file.read_text("utf-8")]
    assert users == []


def test_a_job_is_done_by_one_worker_at_a_time(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder.lock_file.write_text(str(other.pid), encoding="utf-8")
        with pytest.raises(InputError, match=f"process {other.pid} is doing the job"):
            folder.lock()
        other.kill()
    folder.lock()
    assert int(folder.lock_file.read_text(encoding="utf-8")) != other.pid
    folder.lock()
    folder.unlock()
    assert not folder.lock_file.exists()
