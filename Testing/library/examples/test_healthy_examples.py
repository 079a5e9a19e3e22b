"""Volumes in which nothing, or not every structure, is to be found, as examples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.slices.known_labels import known_labels
from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.drawn_slices import known_structures
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.validation_split import split
from SAMFineTuneLib.volumes import Labelmap, Volume, read_volume, write_labelmap
from Testing.support.in_process import Shell, shell_of
from Testing.support.job_records import choices_of, example_of
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

FEW = [2, 4, 6, 8]


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    volume, labelmap = head(values=(1, 2))
    return write_pair(tmp_path, volume, keep_slices(labelmap, FEW), "a")


def healthy(
    folder: Path, name: str = "healthy", shape: tuple[int, int, int] = (12, 48, 48)
) -> tuple[Path, Path]:
    """A grey cylinder without a structure, and a segmentation of zeros."""
    volume, labelmap = head(shape, seed=9)
    image = np.where(labelmap.array > 0, 300, volume.array).astype(np.float32)
    nothing = Labelmap(np.zeros(shape, np.uint8), volume.geometry)
    return write_pair(folder, replace(volume, array=image), nothing, name)


def of_volume(examples: TrainingSet, volume: int) -> dict[int, list[bool]]:
    """Slice number -> which classes are known, all of them absent."""
    slices = [each for each in examples.slices if each.volume == volume]
    assert not any(each.is_labelled for each in slices)
    return {each.number: each.known.tolist() for each in slices}


@pytest.mark.parametrize(
    "said",
    [
        {"empty": list(range(12))},
        {"empty": "outside"},
        {"known_empty": list(range(12))},
        {"complete": list(range(12))},
        {"labelled": list(range(12))},
    ],
)
def test_nothing_is_to_be_found_in_a_healthy_volume(
    labelled: tuple[Path, Path], tmp_path: Path, said: dict[str, object]
) -> None:
    sources = [example_of(*labelled), example_of(*healthy(tmp_path), **said)]  # type: ignore[arg-type]
    for order in (sources, sources[::-1]):
        examples = load_examples(order)
        known = of_volume(examples, order.index(sources[1]))
        # Twice as many as there are labelled ones, of both structures each.
        assert len(known) == 8 and {0, 11} <= set(known)
        assert all(each == [True, True, True] for each in known.values())
        assert [each.name for each in examples.labels] == ["bright", "dark"]
        assert any("nothing is labelled in healthy_labels" in each for each in examples.warnings)


def test_only_what_is_said_to_be_empty_is(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    pair = healthy(tmp_path)
    some = example_of(*pair, known_empty=[3, 5])
    assert list(of_volume(load_examples([example_of(*labelled), some]), 1)) == [3, 5]
    beyond = example_of(*pair, extent=(2, 9))
    found = of_volume(load_examples([example_of(*labelled), beyond]), 1)
    assert list(found) == [0, 1, 10, 11]
    apart = example_of(*pair, empty="outside", unfinished=[0, 11])
    found = of_volume(load_examples([example_of(*labelled), apart]), 1)
    assert not {0, 11} & set(found) and len(found) == 8
    one = example_of(*pair, labels=[2], known_empty=[3])
    found = of_volume(load_examples([example_of(*labelled), one]), 1)
    assert found == {3: [True, False, True]}


def test_an_empty_segmentation_of_which_nothing_is_said_is_refused(
    labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    pair = healthy(tmp_path)
    for sources in (
        [example_of(*labelled), example_of(*pair)],
        [example_of(*labelled), example_of(*pair, empty="none")],
        [example_of(*pair, empty="outside")],
        [example_of(*pair, known_empty=[1]), example_of(*pair, empty="outside")],
    ):
        with pytest.raises(InputError, match=r"healthy_labels\.nrrd' is empty") as refused:
            load_examples(sources)
        assert refused.value.code == "empty_segmentation"
    beyond = example_of(*pair, known_empty=[40])
    with pytest.raises(InputError, match="no slice 40"):
        load_examples([example_of(*labelled), beyond])


def test_a_healthy_volume_is_cut_as_the_others_are(tmp_path: Path) -> None:
    """Where spacings tell nothing, its slices count along the axis of the labelled examples."""
    volume, labelmap = head((30, 32, 34), values=(1, 2))
    even = geometry_of((30, 32, 34), (1.0, 1.0, 1.0))
    few = replace(keep_slices(labelmap, [10, 16, 20], axis=1), geometry=even)
    first = write_pair(tmp_path, replace(volume, geometry=even), few, "a")
    nothing = Labelmap(np.zeros((30, 32, 34), np.uint8), even)
    second = write_pair(tmp_path, Volume(volume.array + 1, even), nothing, "b")
    sources = [example_of(*second, known_empty=[31]), example_of(*first)]
    examples = load_examples(sources)
    assert examples.axis == "coronal" and list(of_volume(examples, 0)) == [31]


def test_healthy_volumes_are_no_measure(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    ill = [labelled]
    for seed in range(2):
        volume, labelmap = head(values=(1, 2), seed=seed + 1)
        ill.append(write_pair(tmp_path, volume, keep_slices(labelmap, FEW), f"ill{seed}"))
    well = [healthy(tmp_path, f"h{number}") for number in range(4)]
    sources = [*(example_of(*each) for each in ill)]
    sources += [example_of(*each, empty="outside") for each in well]
    examples = load_examples(sources)
    for seed in range(10):
        parts = split(examples.slices, seed)
        held_out = {examples.slices[each].volume for each in parts.validation}
        assert parts.by == "volume" and len(held_out) == 1 and held_out <= {0, 1, 2}
    one = load_examples([example_of(*labelled), *sources[3:]])
    parts = split(one.slices, 0)
    assert parts.by == "slice" and one.slices[parts.validation[0]].is_labelled
    # Few slices of several volumes are learnt in fewer steps; here one volume teaches the shape.
    assert (one.volumes, one.labelled_volumes) == (5, 1)
    alone = load_examples([example_of(*labelled)])
    assert settle(choices_of(), one, True).steps == settle(choices_of(), alone, True).steps


@pytest.fixture
def without_dark(tmp_path: Path) -> tuple[Path, Path]:
    """A second head of which only the bright structure is labelled, without names."""
    volume, labelmap = head(values=(1, 2), seed=3)
    only = replace(keep_slices(labelmap, FEW), names={}, colours={})
    only = replace(only, array=np.where(only.array == 1, 1, 0).astype(np.uint8))
    path, _ = write_pair(tmp_path, volume, only, "b")
    write_labelmap(tmp_path / "b.nii.gz.labels.nii.gz", only)
    return path, tmp_path / "b.nii.gz.labels.nii.gz"


def test_a_listed_structure_is_absent_where_the_slices_are_complete(
    labelled: tuple[Path, Path], without_dark: tuple[Path, Path]
) -> None:
    said = example_of(*without_dark, labels=[1, 2], complete=[2, 4], known_empty=[0])
    examples = load_examples([example_of(*labelled), said])
    known = {each.number: each.known.tolist() for each in examples.slices if each.volume == 1}
    assert known[2] == known[4] == known[0] == [True, True, True]
    assert known[6] == [True, True, False]
    for each in examples.slices:
        if each.volume == 1:
            assert 2 not in each.classes
    # By their numbers alone: the first example says that 2 is dark.
    assert [each.name for each in examples.labels] == ["bright", "dark"]


def test_a_listed_structure_that_is_nowhere_or_of_which_nothing_is_said_is_refused(
    labelled: tuple[Path, Path], without_dark: tuple[Path, Path]
) -> None:
    first = example_of(*labelled)
    for sources, words, remedy in (
        ([first, example_of(*without_dark, labels=[1, 2])], "label 2 does not", "complete"),
        ([example_of(*without_dark, labels=[1, 2], complete=[2])], "label 2 does not", "among"),
        ([first, example_of(*without_dark, labels=[1, 7], complete=[2])], "label 7", "among"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            load_examples(sources)
        assert refused.value.code == "label_absent" and remedy in refused.value.remedy


def test_what_all_labels_leaves_open_is_told(
    labelled: tuple[Path, Path], without_dark: tuple[Path, Path]
) -> None:
    said = example_of(*without_dark, complete=[2, 4])
    examples = load_examples([example_of(*labelled), said])
    assert any("does not hold for 2 dark, of which" in each for each in examples.warnings)
    assert not any(each.known[2] for each in examples.slices if each.volume == 1)


def test_outside_of_nothing_are_all_slices() -> None:
    array = np.zeros((5, 4, 4), np.uint8)
    stack = SliceStack(array, geometry_of(array.shape), 0)
    assert known_labels(stack, [1, 2], SliceKnowledge(empty="outside")).all()
    assert not known_labels(stack, [1, 2], SliceKnowledge()).any()
    array[2, 1, 1] = 3
    assert not known_labels(stack, [1, 2], SliceKnowledge(empty="outside")).any()


def test_a_drawing_of_nothing_says_so_of_all_structures(tmp_path: Path) -> None:
    pair = healthy(tmp_path)
    volume, model = read_volume(pair[0]), {1: "bright", 2: "dark"}

    def known(**said: object) -> dict[int, list[int]]:
        drawn = [Example(volume=pair[0], segmentation=pair[1], **said)]  # type: ignore[arg-type]
        found = known_structures(drawn, pair[0], volume, model, "axial")
        return {each.label: np.flatnonzero(each.known).tolist() for each in found}

    assert known(empty="outside") == {1: list(range(12)), 2: list(range(12))}
    assert known(known_empty=[3]) == {1: [3], 2: [3]}
    assert known() == {}


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_the_command_learns_from_a_healthy_volume(
    labelled: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    pair = healthy(tmp_path)
    listed = tmp_path / "examples.json"
    entries = [
        {"volume": "a.nii.gz", "segmentation": "a_labels.nrrd"},
        {"volume": "healthy.nii.gz", "segmentation": "healthy_labels.nrrd", "empty": [0, 5, 11]},
    ]
    listed.write_text(json.dumps(entries))
    model = tmp_path / "m.safetensors"
    quick = ("--steps", 2, "--batch", 1, "--device", "cpu")
    ended = shell("finetune", "--examples", listed, "--output", model, *quick)
    assert ended.code == 0, ended.err
    assert "nothing is labelled in healthy_labels.nrrd: 3 slices of healthy.nii.gz" in ended.err
    assert read_card(model).data["volumes"] == 2
    found = tmp_path / "found.nii.gz"
    told = ("apply", "--model", model, "--volume", pair[0], "--output", found)
    ended = shell(*told, "--drawn", pair[1], "--empty", "outside")
    assert ended.code == 0 and ended.result["volumes"][0]["labels"] == []
    alone = ("finetune", "--volume", pair[0], "--segmentation", pair[1], "--empty", "outside")
    ended = shell(*alone, "--output", model, *quick)
    assert ended.code == 2 and "is empty" in ended.err
