"""Volumes without labels beside the examples: which slices take part, and which volumes do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples import unlabelled_volumes
from SAMFineTuneLib.examples.example import Example
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.examples.unlabelled_volumes import UnlabelledData, load_unlabelled
from SAMFineTuneLib.volumes import write_volume
from Testing.support.job_records import example_of
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices, write_pair


@pytest.fixture
def example(tmp_path: Path) -> tuple[TrainingSet, Example]:
    volume, labelmap = head()
    files = write_pair(tmp_path, volume, keep_slices(labelmap, [4, 6]), "a")
    source = example_of(*files, empty="none")
    return load_examples([source]), source


def other_head(folder: Path, seed: int = 1) -> Path:
    path = folder / f"other{seed}.nii.gz"
    volume, _ = head(seed=seed)
    write_volume(path, volume.array, volume.geometry)
    return path


def loaded(
    example: tuple[TrainingSet, Example],
    volumes: list[Path],
    folder: Path,
    with_examples: bool = False,
) -> UnlabelledData:
    examples, source = example
    return load_unlabelled(
        volumes, examples, [source], folder / "unlabelled", with_examples=with_examples
    )


def test_all_slices_of_a_volume_take_part(
    example: tuple[TrainingSet, Example], tmp_path: Path
) -> None:
    path = other_head(tmp_path)
    found = loaded(example, [path, path], tmp_path)
    assert [each.number for each in found.slices] == list(range(12))
    assert not any(each.known.any() or each.target.any() for each in found.slices)
    assert found.slices[0].shape == example[0].slices[0].shape
    assert found.slices[0].spacing == example[0].slices[0].spacing
    assert found.names == (path.name,) and found.warnings == ()
    found.release()
    assert not (tmp_path / "unlabelled").exists()


def test_of_an_example_only_the_other_slices_take_part(
    example: tuple[TrainingSet, Example], tmp_path: Path
) -> None:
    named = loaded(example, [example[1].volume], tmp_path)
    asked_for = loaded(example, [], tmp_path, with_examples=True)
    for found in (named, asked_for):
        assert {each.number for each in found.slices} == {*range(12)} - {4, 6}
    assert len(named.warnings) == 1 and "is an example too" in named.warnings[0]
    assert asked_for.warnings == ()


def test_slices_behind_an_empty_one_of_an_example_do_not_take_part(tmp_path: Path) -> None:
    volume, labelmap = head()
    files = write_pair(tmp_path, volume, keep_slices(labelmap, [4, 6]), "a")
    source = example_of(*files, empty=[1, 10])
    found = loaded((load_examples([source]), source), [], tmp_path, with_examples=True)
    assert [each.number for each in found.slices] == [2, 3, 5, 7, 8, 9]


def test_examples_without_another_slice_are_learnt_from_alone(tmp_path: Path) -> None:
    volume, labelmap = head()
    source = example_of(*write_pair(tmp_path, volume, labelmap, "a"), empty="outside")
    found = loaded((load_examples([source]), source), [], tmp_path, with_examples=True)
    assert found.slices == []
    # Once, however many examples there are; and of one that is named by its name.
    assert found.warnings == (
        "no example has other slices that could be learnt from without labels",
    )
    assert not (tmp_path / "unlabelled").exists()
    other = other_head(tmp_path)
    both = loaded((load_examples([source]), source), [other, source.volume], tmp_path, True)
    assert both.names == (other.name,)
    assert both.warnings[-1] == f"{source.volume.name} is left out: it has no other slice"


def test_of_many_slices_a_bounded_number_is_kept(
    example: tuple[TrainingSet, Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlabelled_volumes, "_MOST_SLICES", 6)
    volumes = [other_head(tmp_path, seed) for seed in (1, 2)]
    found = loaded(example, volumes, tmp_path)
    assert [each.number for each in found.slices] == [0, 4, 8] * 2
    assert [each.volume for each in found.slices] == [0] * 3 + [1] * 3


def test_other_kinds_of_image_and_unreadable_files_are_left_out(
    example: tuple[TrainingSet, Example], tmp_path: Path
) -> None:
    ct = tmp_path / "ct.nrrd"
    random = np.random.default_rng(0)
    array = np.full((6, 40, 40), -1000.0, np.float32)
    array[:, 10:30, 10:30] = 40
    array += random.normal(0, 20, array.shape)
    write_volume(ct, array.astype(np.int16), geometry_of(array.shape))
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no volume")
    good = other_head(tmp_path)
    found = loaded(example, [ct, damaged, good], tmp_path)
    assert found.names == (good.name,)
    assert [each.split(" is left out")[0] for each in found.warnings] == [ct.name, damaged.name]
    assert "another kind of image" in found.warnings[0]


def test_volumes_of_several_images_take_part_where_the_examples_have_as_many(
    tmp_path: Path,
) -> None:
    volume, labelmap = head()
    image, labels = write_pair(tmp_path, volume, keep_slices(labelmap, [4, 6]), "t1")
    flair, other_flair = (tmp_path / name for name in ("flair.nii.gz", "other-flair.nii.gz"))
    write_volume(flair, volume.array[:, ::-1], volume.geometry)
    write_volume(other_flair, volume.array[:, :, ::-1], volume.geometry)
    source = example_of(image, labels, empty="none", channels=[flair])
    other, single = other_head(tmp_path), other_head(tmp_path, 2)
    found = load_unlabelled(
        [other, single],
        load_examples([source]),
        [source],
        tmp_path / "unlabelled",
        with_examples=True,
        channels=[[other_flair], []],
    )
    assert found.names == (other.name, image.name)
    assert {each.image.shape[2:] for each in found.slices} == {(2,)}
    assert len(found.slices) == 12 + 10
    (warning,) = found.warnings
    assert warning.startswith(f"{single.name} is left out: {single.name} comes with 1 image")


def test_slices_along_another_axis_are_told(
    example: tuple[TrainingSet, Example], tmp_path: Path
) -> None:
    path = tmp_path / "sagittal.nii.gz"
    array = np.random.default_rng(0).normal(100, 20, (24, 24, 8)).astype(np.float32)
    write_volume(path, array, geometry_of(array.shape, spacing=(6.0, 1.0, 1.0)))
    found = loaded(example, [path], tmp_path)
    assert len(found.slices) == 24
    assert found.warnings == (
        f"{path.name} has sagittal slices, and is cut into axial ones as the examples are",
    )


def test_none_that_can_be_used_is_an_error(
    example: tuple[TrainingSet, Example], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no volume")
    with pytest.raises(InputError, match=r"none of the volumes .* damaged\.nii\.gz"):
        loaded(example, [damaged], tmp_path)
    assert not (tmp_path / "unlabelled").exists()
    assert not (tmp_path / "unlabelled.part").exists()
