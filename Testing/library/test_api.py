"""The library as a Python user has it: no job folders, no processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import SAMFineTuneLib as sft
from Testing.support.films import film, write_film
from Testing.support.repository import REPOSITORY
from Testing.support.synthetic_volumes import head, write_pair

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, small_inputs: None
) -> tuple[Path, Path, Path, list[str]]:
    folder = tmp_path_factory.mktemp("api")
    volume, labels = write_pair(folder, *head((8, 40, 40)), "head")
    kinds: list[str] = []
    card = sft.finetune(
        [{"volume": volume, "segmentation": labels, "complete": [0]}],
        folder / "head.safetensors",
        steps=20,
        prompts=False,
        batch=2,
        on_event=lambda event: kinds.append(event.type),
    )
    assert [label.value for label in card.labels] == read_values(labels)
    return volume, labels, folder / "head.safetensors", kinds


def read_values(path: Path) -> list[int]:
    return sft.read_labelmap(path).labels


def test_what_is_learnt_is_found(tuned: tuple[Path, Path, Path, list[str]]) -> None:
    volume, labels, file, kinds = tuned
    assert {"progress", "log"} <= set(kinds)
    model = sft.load_model(file, device="cpu")
    truth = sft.read_labelmap(labels)
    found = sft.apply(model, sft.read_volume(volume), largest_component=True)
    assert found.geometry.same_as(truth.geometry)
    assert (sft.apply(file, volume).array == sft.apply(model, volume).array).all()
    report = sft.evaluate(found, truth).to_json()
    assert report["mean_dsc"] > 0.8, report


def test_what_is_no_image_is_refused_in_words(tuned: tuple[Path, Path, Path, list[str]]) -> None:
    with pytest.raises(sft.InputError, match="no image is named"):
        sft.apply(tuned[2], [])
    with pytest.raises(sft.InputError, match=r"ndarray is neither .* Volume\(array, geometry\)"):
        sft.apply(tuned[2], head((4, 8, 8))[0].array)  # type: ignore[arg-type]


def test_a_film_frame_by_frame(tuned: tuple[Path, Path, Path, list[str]], tmp_path: Path) -> None:
    _, _, file, _ = tuned
    volumes, labels = film(3, (6, 40, 40))
    path = write_film(tmp_path / "film.nii", [each.array for each in volumes], labels[0].geometry)
    model, time = sft.load_model(file, device="cpu"), sft.read_time(path)
    found = [sft.apply(model, path, frame=number) for number in range(time.frames)]
    for number, each in enumerate(found):
        assert (each.array == sft.apply(model, sft.read_volume(path, frame=number)).array).all()
    sft.write_frames(tmp_path / "found.seq.nrrd", found, time)
    back = sft.read_labelmap(tmp_path / "found.seq.nrrd", frame=2)
    assert (back.array == found[2].array).all() and back.names == found[2].names
    assert sft.read_time(tmp_path / "found.seq.nrrd").step == time.step
    with pytest.raises(sft.InputError, match="frame 1 is asked for of a volume"):
        sft.apply(model, sft.read_volume(path, frame=0), frame=1)
    with pytest.raises(sft.InputError, match="3 frames"):
        sft.apply(model, path)
    moved = replace(found[1], geometry=replace(found[1].geometry, origin=(1.0, 2.0, 3.0)))
    with pytest.raises(sft.InputError, match="frame 1"):
        sft.write_frames(tmp_path / "moved.nii", [found[0], moved])


def test_a_pair_of_files_is_an_example_and_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sft.InputError, match="no such file"):
        sft.finetune([(tmp_path / "ct.nrrd", tmp_path / "l.nrrd")], tmp_path / "m.safetensors")
    with pytest.raises(sft.InputError, match="steps"):
        sft.finetune([("ct.nrrd", "l.nrrd")], tmp_path / "m.safetensors", steps=-1)
    with pytest.raises(sft.InputError, match="a volume and its segmentation"):
        sft.finetune([("ct.nrrd", "l.nrrd", 3)], tmp_path / "m.safetensors")  # type: ignore[list-item]
    with pytest.raises(sft.InputError, match="no frames to write"):
        sft.write_frames(tmp_path / "none.nii", [])
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        sft.fine_tune  # noqa: B018


def test_the_package_alone_loads_nothing() -> None:
    program = "import sys, SAMFineTuneLib; print(sorted({'torch', 'SimpleITK'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert set(sft.__all__) <= set(dir(sft))
