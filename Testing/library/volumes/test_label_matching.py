"""Labels of different files are one structure by name, then by term, then by number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.tasks.drawn_slices import known_structures
from SAMFineTuneLib.volumes import read_labelmap, read_volume, write_labelmap
from SAMFineTuneLib.volumes.coded_term import coded_term
from SAMFineTuneLib.volumes.label_matching import (
    Matching,
    NamedLabel,
    match_labels,
    named_labels,
    renumbered,
)
from Testing.support.in_process import Shell, shell_of
from Testing.support.job_records import example_of
from Testing.support.synthetic_volumes import dsc, head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

LIVER = "Category~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Codes~^^~^^"
OLD_LIVER = "Category~SRT^T-D000A^Anatomical Structure~SRT^T-62000^Liver~^^~Codes~^^~^^"
SPLEEN = "Category~SCT^123037004^Anatomical Structure~SCT^78961009^Spleen~^^~Codes~^^~^^"
TISSUE = "Category~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Codes~^^~^^"
KIDNEY = "Category~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~{}~Codes~^^~^^"
LEFT, RIGHT = KIDNEY.format("SCT^7771000^Left"), KIDNEY.format("SCT^24028007^Right")
FEW = [2, 4, 6, 8]


def matched(known: list[tuple[Any, ...]], found: list[tuple[Any, ...]], **more: Any) -> Matching:
    labels = [[NamedLabel(*each) for each in one] for one in (known, found)]
    return match_labels(*labels, "b.nrrd", "a.nrrd", **more)


@pytest.mark.parametrize(
    ("known", "found", "numbers"),
    [
        ([(1, "blob"), (2, "decoy")], [(1, "decoy"), (2, "blob")], {1: 2, 2: 1}),
        ([(1, "Left  lung"), (2, "x")], [(7, " left Lung ")], {7: 1}),
        # Names that a program made up, and none at all: the number counts.
        ([(1, "blob"), (2, "decoy")], [(1, ""), (2, "Segment_5")], {1: 1, 2: 2}),
        ([(1, "Segment_2"), (2, "label 1")], [(1, "blob"), (2, "decoy")], {1: 1, 2: 2}),
        ([(1, "Segment_2"), (2, "Segment_1")], [(1, "Segment_1"), (2, "Segment_2")], {1: 1, 2: 2}),
        # Two languages, one code, of the new and of the old scheme.
        ([(1, "liver", LIVER)], [(3, "Leber", LIVER)], {3: 1}),
        ([(1, "liver", LIVER)], [(3, "Leber", OLD_LIVER)], {3: 1}),
        ([(1, "", LIVER), (2, "", SPLEEN)], [(1, "", SPLEEN), (2, "", LIVER)], {1: 2, 2: 1}),
        # One name for both sides.
        ([(1, "kidney", LEFT), (2, "kidney", RIGHT)], [(1, "kidney", RIGHT)], {1: 2}),
        # Two lesions that have one name: those of one number.
        ([(1, "lesion"), (2, "lesion")], [(2, "lesion")], {2: 2}),
        # What Slicer calls every segment contradicts nothing.
        ([(1, "liver", LIVER)], [(1, "liver", TISSUE)], {1: 1}),
        ([(1, "liver", "not an entry")], [(1, "liver", "another")], {1: 1}),
        # One number with several names, as examples have called it.
        ([(1, "liver"), (1, "hepar")], [(4, "Hepar")], {4: 1}),
    ],
)
def test_which_known_label_it_is(
    known: list[tuple[Any, ...]], found: list[tuple[Any, ...]], numbers: dict[int, int]
) -> None:
    matching = matched(known, found)
    assert matching.numbers == numbers and not matching.new and not matching.contradictions


def test_other_structures_are_new_whatever_their_number() -> None:
    matching = matched([(1, "liver")], [(1, "spleen"), (2, "liver"), (3, "kidney")])
    assert matching.numbers == {2: 1} and matching.new == {1, 3}
    # A segment of no voxel that is listed in the file says so, too.
    listed = matched([(1, "liver")], [(1, "spleen"), (2, "liver")], chosen=[1])
    assert listed.numbers[2] == 1 and listed.new == {1}


@pytest.mark.parametrize(
    ("known", "found", "words"),
    [
        ([(1, "liver")], [(1, "Leber")], "label 1 is Leber in b.nrrd and liver in a.nrrd"),
        ([(1, "liver", LIVER)], [(1, "", SPLEEN)], "label 1 is Spleen in b.nrrd and liver"),
        ([(1, "kidney", LEFT)], [(1, "kidney", RIGHT)], "coded as Kidney, Right in b.nrrd and as"),
        ([(1, "kidney", LEFT)], [(2, "kidney", RIGHT)], "coded as Kidney, Right in b.nrrd and as"),
        ([(1, "lesion"), (2, "lesion")], [(3, "lesion")], "so are several labels of a.nrrd"),
        ([(1, "lesion")], [(1, "lesion"), (2, "lesion")], "labels 1 and 2 of b.nrrd are both"),
        ([(1, "blob")], [(1, ""), (2, "blob")], "label 1 of b.nrrd cannot be identified by"),
    ],
)
def test_contradictions_are_refused_in_words(
    known: list[tuple[Any, ...]], found: list[tuple[Any, ...]], words: str
) -> None:
    matching = matched(known, found)
    with pytest.raises(InputError) as refused:
        matching.require([each[0] for each in found])
    assert words in refused.value.message and refused.value.remedy
    assert refused.value.code == "label_contradiction"


def test_the_user_says_that_the_number_counts() -> None:
    assert matched([(1, "liver")], [(1, "Leber")], stated=[1]).numbers == {1: 1}
    assert matched([(1, "kidney", LEFT)], [(1, "kidney", RIGHT)], stated=[1]).numbers == {1: 1}
    # Where names tell which is which, they count all the same.
    swapped = matched([(1, "a1x"), (2, "b1x")], [(1, "b1x"), (2, "a1x")], stated=[1, 2])
    assert swapped.numbers == {1: 2, 2: 1}


def test_what_is_not_asked_for_is_not_refused() -> None:
    matching = matched([(1, "liver"), (2, "fat")], [(1, "liver"), (2, "Fett")], chosen=[1])
    matching.require([1])
    assert matching.numbers == {1: 1}


def test_terms_are_read_from_what_slicer_writes() -> None:
    term = coded_term(RIGHT)
    assert term is not None and term.text == "Kidney, Right"
    assert coded_term(TISSUE) is None and coded_term("") is None and coded_term("a~b") is None
    old, new = coded_term(OLD_LIVER), coded_term(LIVER)
    assert old is not None and new is not None and old.is_same(new) and not old.contradicts(new)


def test_renumbered_voxels_names_colours_and_terms_go_together() -> None:
    _, labelmap = head()
    turned = renumbered(replace(labelmap, terminologies={52: SPLEEN}), {5: 52, 52: 300})
    assert ((turned.array == 52) == (labelmap.array == 5)).all()
    assert ((turned.array == 300) == (labelmap.array == 52)).all()
    assert turned.names == {52: "bright", 300: "dark"} and turned.terminologies == {300: SPLEEN}
    assert turned.colours == {52: (1.0, 0.0, 0.0), 300: (0.0, 0.0, 1.0)}
    far = replace(labelmap, array=np.where(labelmap.array == 5, 2**31 - 1, 0).astype(np.int32))
    assert renumbered(far, {2**31 - 1: 7}).labels == [7]


def example(
    folder: Path,
    name: str,
    numbers: tuple[int, int],
    names: Mapping[int, str] | None = None,
    suffix: str = ".seg.nrrd",
    slices: list[int] = FEW,
) -> tuple[Path, Path]:
    """A head whose bright and dark structure have these numbers; `names` in place of their own."""
    volume, labelmap = head(values=numbers, seed=len(name))
    few = keep_slices(labelmap, slices)
    few = few if names is None else replace(few, names=dict(names))
    path, _ = write_pair(folder, volume, few, name)
    write_labelmap(folder / f"{name}_drawn{suffix}", few)
    return path, folder / f"{name}_drawn{suffix}"


def shown(examples: TrainingSet, volume: int, label: int) -> dict[int, np.ndarray]:
    """Slice number -> where the targets have a structure, by its number in the results."""
    number = [each.value for each in examples.labels].index(label) + 1
    return {each.number: each.target == number for each in examples.slices if each.volume == volume}


def as_in_file(path: Path, label: int) -> dict[int, np.ndarray]:
    return {k: each == label for k, each in enumerate(read_labelmap(path).array)}


def same(found: dict[int, np.ndarray], file: dict[int, np.ndarray]) -> bool:
    """Whether the targets are the file's, in one of the ways in which a slice can be turned."""
    pairs = [(found[number], file[number]) for number in FEW]
    return all((one == other).all() for one, other in pairs)


def test_swapped_numbers_do_not_mix_structures(tmp_path: Path) -> None:
    first, second = example(tmp_path, "a", (1, 2)), example(tmp_path, "bb", (2, 1))
    examples = load_examples([example_of(*first), example_of(*second)])
    assert [(each.value, each.name) for each in examples.labels] == [(1, "bright"), (2, "dark")]
    for label, other in ((1, 2), (2, 1)):
        assert same(shown(examples, 0, label), as_in_file(first[1], label))
        assert same(shown(examples, 1, label), as_in_file(second[1], other))
    assert any("has other label numbers" in each for each in examples.warnings)
    # Bright is bright, whatever its number: 700 against 80 in the image.
    for each in examples.slices:
        if each.is_labelled:
            assert each.image[each.target == 1].mean() > each.image[each.target == 2].mean() + 0.2


def test_chosen_numbers_are_those_of_the_example_itself(tmp_path: Path) -> None:
    first, second = example(tmp_path, "a", (1, 2)), example(tmp_path, "bb", (2, 1))
    examples = load_examples([example_of(*first, labels=[1]), example_of(*second, labels=[2])])
    assert [(each.value, each.name) for each in examples.labels] == [(1, "bright")]
    assert same(shown(examples, 1, 1), as_in_file(second[1], 2))


def test_files_without_names_keep_their_numbers(tmp_path: Path) -> None:
    first = example(tmp_path, "a", (1, 2))
    second = example(tmp_path, "bb", (1, 2), {}, ".nii.gz")
    examples = load_examples([example_of(*second), example_of(*first)])
    assert [(each.value, each.name) for each in examples.labels] == [(1, "bright"), (2, "dark")]
    assert not [each for each in examples.warnings if "label" in each]
    assert same(shown(examples, 0, 1), as_in_file(second[1], 1))
    # Named by the user, they are matched, too.
    third = example(tmp_path, "ccc", (2, 1), {}, ".nii.gz")
    named = example_of(*third, label_names={1: "Dark", 2: "BRIGHT"})
    examples = load_examples([example_of(*first), named])
    assert same(shown(examples, 1, 1), as_in_file(third[1], 2))


def test_a_number_with_two_names_is_refused_until_the_user_says_what_it_is(tmp_path: Path) -> None:
    first = example(tmp_path, "a", (1, 2))
    second = example(tmp_path, "bb", (1, 2), {1: "hell", 2: "dark"})
    sources = [example_of(*first), example_of(*second)]
    with pytest.raises(InputError, match=r"label 1 is hell in bb.* and bright in the examples"):
        load_examples(sources)
    examples = load_examples(sources, {1: "bright"})
    assert [each.name for each in examples.labels] == ["bright", "dark"]
    said = [sources[0], sources[1].model_copy(update={"label_names": {1: "bright"}})]
    examples = load_examples(said)
    assert same(shown(examples, 1, 1), as_in_file(second[1], 1))
    only_dark = [sources[0], sources[1].model_copy(update={"labels": [2]})]
    assert [each.value for each in load_examples(only_dark).labels] == [1, 2]


def test_another_structure_with_a_number_that_is_taken_gets_a_free_one(tmp_path: Path) -> None:
    first = example(tmp_path, "a", (1, 3), {1: "bright"})
    second = example(tmp_path, "bb", (2, 1), {2: "bright", 1: "dark"})
    third = example(tmp_path, "ccc", (1, 2), {1: "bright", 2: "dark"})
    sources = [example_of(*first, labels=[1]), example_of(*second), example_of(*third)]
    examples = load_examples(sources)
    assert [(each.value, each.name) for each in examples.labels] == [(1, "bright"), (4, "dark")]
    assert same(shown(examples, 1, 4), as_in_file(second[1], 1))
    assert same(shown(examples, 2, 4), as_in_file(third[1], 2))
    assert any("it gets number 4" in each for each in examples.warnings)


def test_a_segment_without_a_voxel_keeps_its_number(tmp_path: Path) -> None:
    volume, labelmap = head(values=(1, 2))
    only = replace(labelmap, array=np.where(labelmap.array == 1, 1, 0).astype(np.uint8))
    first = write_pair(tmp_path, volume, keep_slices(only, FEW), "a")
    second = example(tmp_path, "bb", (2, 1))
    examples = load_examples([example_of(*first), example_of(*second)])
    assert [(each.value, each.name) for each in examples.labels] == [(1, "bright"), (2, "dark")]
    assert same(shown(examples, 1, 2), as_in_file(second[1], 1))


def test_two_segments_of_one_name_in_the_only_file_stay_two(tmp_path: Path) -> None:
    first = example(tmp_path, "a", (1, 2), {1: "lesion", 2: "lesion"})
    assert [each.value for each in load_examples([example_of(*first)]).labels] == [1, 2]


def test_a_model_that_is_gone_on_from_gives_the_numbers(tmp_path: Path) -> None:
    second = example(tmp_path, "bb", (2, 1))
    tuned = [Label(1, "bright", (0.5, 0.5, 0.5), LIVER), Label(2, "Dark")]
    examples = load_examples([example_of(*second)], tuned=tuned, model="m.safetensors")
    assert examples.labels[0] == tuned[0] and examples.labels[1].name == "Dark"
    assert same(shown(examples, 0, 1), as_in_file(second[1], 2))
    other = [Label(1, "spleen"), Label(2, "dark")]
    third = example(tmp_path, "ccc", (1, 2))
    with pytest.raises(InputError, match=r"bright in ccc.* and spleen in m\.safetensors"):
        load_examples([example_of(*third)], tuned=other, model="m.safetensors")


def test_drawn_slices_are_in_the_numbers_of_the_model(tmp_path: Path) -> None:
    path, labels = example(tmp_path, "bb", (2, 1))
    volume, words = read_volume(path), []
    drawn = [Example(volume=path, segmentation=labels)]
    model = {1: "bright", 2: "dark"}
    found = known_structures(drawn, path, volume, model, "axial", words.append)
    assert {each.label: each.drawn for each in found} == {1: FEW, 2: FEW}
    for each in found:
        for number in FEW:
            expected = read_labelmap(labels).array[number] == {1: 2, 2: 1}[each.label]
            assert (each.mask(number) == expected).all()
    drawn = [Example(volume=path, segmentation=labels, label_names={1: "bright", 2: "dark"})]
    found = known_structures(drawn, path, volume, model, "axial", words.append)
    assert (found[0].mask(4) == (read_labelmap(labels).array[4] == 1)).all()
    drawn = [Example(volume=path, segmentation=labels)]
    with pytest.raises(InputError, match=r"label 1 is dark in bb.* and liver in the model"):
        known_structures(drawn, path, volume, {1: "liver", 2: "fat"}, "axial")


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_evaluate_measures_structures_of_one_name(tmp_path: Path, shell: Shell) -> None:
    _, labelmap = head(values=(1, 2))
    _, swapped = head(values=(2, 1))
    paths = [tmp_path / f"{name}.seg.nrrd" for name in "abc"]
    write_labelmap(paths[0], labelmap)
    write_labelmap(paths[1], swapped)
    write_labelmap(paths[2], replace(labelmap, names={1: "hell", 2: "dark"}))

    def measured(*options: Any) -> Any:
        return shell("evaluate", "--prediction", *options[:1], "--reference", *options[1:])

    ended = measured(paths[1], paths[0])
    assert ended.code == 0 and "2 (bright) is 1" in ended.err
    assert [(each["label"], each["name"], each["dsc"]) for each in ended.result["labels"]] == [
        (1, "bright", 1.0),
        (2, "dark", 1.0),
    ]
    ended = measured(paths[2], paths[0])
    assert ended.code == 2 and "label 1 is hell in c.seg.nrrd" in ended.err
    assert "--label-names 1=bright" in ended.err
    assert measured(paths[2], paths[0], "--labels", "2").result["mean_dsc"] == 1.0
    ended = measured(paths[2], paths[0], "--label-names", "1=Helles")
    assert [each["dsc"] for each in ended.result["labels"]] == [1.0, 1.0]
    assert ended.result["labels"][0]["name"] == "Helles"
    assert measured(paths[2], paths[0], "--label-names", "bright").code == 2


def test_a_third_structure_is_not_measured_as_the_one_of_its_number(
    tmp_path: Path, shell: Shell
) -> None:
    """The prediction calls 1 what the reference calls 2, and its 2 is nothing of the reference."""
    _, labelmap = head(values=(1, 2))
    prediction = renumbered(labelmap, {1: 2, 2: 1})
    only_dark = np.where(labelmap.array == 2, labelmap.array, 0)
    reference = replace(labelmap, array=only_dark, names={1: "vessel", 2: "dark"})
    paths = tmp_path / "p.seg.nrrd", tmp_path / "r.seg.nrrd"
    write_labelmap(paths[0], prediction)
    write_labelmap(paths[1], reference)
    ended = shell("evaluate", "--prediction", paths[0], "--reference", paths[1])
    assert ended.code == 0, ended.err
    rows = [(each["label"], each["name"], each["dsc"]) for each in ended.result["labels"]]
    assert rows == [(2, "dark", 1.0), (3, "bright", 0.0)]


def test_from_swapped_files_to_what_the_model_finds(tmp_path: Path, shell: Shell) -> None:
    """The whole way: two structures that differ in brightness are told apart by name."""
    first = example(tmp_path, "a", (1, 2), slices=[2, 4, 6, 8])
    second = example(tmp_path, "bb", (2, 1), slices=list(range(1, 11)))
    model = tmp_path / "m.safetensors"
    listed = tmp_path / "examples.json"
    listed.write_text(
        json.dumps([{"volume": str(v), "segmentation": str(s)} for v, s in (first, second)])
    )
    quick = ("--batch", 2, "--device", "cpu")
    ended = shell("finetune", "--examples", listed, "--output", model, "--steps", 8, *quick)
    assert ended.code == 0, ended.err
    labels = read_card(model).labels
    assert [(each.value, each.name) for each in labels] == [(1, "bright"), (2, "dark")]
    assert labels[0].colour == (1.0, 0.0, 0.0)
    found = tmp_path / "found.seg.nrrd"
    ended = shell("apply", "--model", model, "--volume", second[0], "--output", found)
    assert ended.code == 0, ended.err
    _, truth = head(values=(1, 2))
    result = read_labelmap(found)
    assert result.names == {1: "bright", 2: "dark"}
    for label in (1, 2):
        assert dsc(result.array == label, truth.array == label) > 0.8
    ended = shell("evaluate", "--prediction", found, "--reference", second[1])
    assert ended.result["mean_dsc"] > 0.75
    # Going on from the model, with the numbers the other way round.
    going_on = ("finetune", "--initial-model", model, "--volume", second[0])
    ended = shell(
        *going_on,
        "--segmentation",
        second[1],
        "--output",
        tmp_path / "n.safetensors",
        "--steps",
        1,
        *quick,
    )
    assert ended.code == 0, ended.err
    labels = read_card(tmp_path / "n.safetensors").labels
    assert [(each.value, each.name) for each in labels] == [(1, "bright"), (2, "dark")]
    assert ended.result["metrics"]["validation_dsc"] > 0.75


def test_names_of_a_segmentation_with_those_that_the_user_says() -> None:
    _, labelmap = head()
    labels = named_labels(replace(labelmap, terminologies={5: LIVER}), {5: "mine", 9: "more"})
    assert labels == [(5, "mine", ""), (9, "more", ""), (52, "dark", "")]
