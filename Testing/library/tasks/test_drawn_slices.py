"""An apply to a volume of which some slices are drawn already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.cli import main
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.shape_interpolation import interpolate
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.models.model_file import load_model
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prediction import volume_prediction
from SAMFineTuneLib.prediction.between_slices import BetweenSlices, keep_known
from SAMFineTuneLib.prediction.feature_regression import (
    FeatureRegression,
    FeatureSums,
    feature_maps,
)
from SAMFineTuneLib.prediction.known_structure import Drawing, KnownStructure
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.drawn_slices import known_structures, require_drawn
from SAMFineTuneLib.volumes import Volume, read_labelmap, write_volume
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import dsc, geometry_of, head, keep_slices, write_pair
from Testing.support.tuned_starter import write_model

SIZE = 64
NAMES = {5: "bright", 52: ""}


def discs(radii: list[float], shift: float = 0.0) -> np.ndarray:
    """(slices, 64, 64) bool: one disc a slice; none where the radius is 0."""
    y, x = np.mgrid[:SIZE, :SIZE]
    away = np.hypot(y - 30, x - 32 - shift)
    return np.stack([away < radius for radius in radii])


def structure_of(masks: np.ndarray, known: list[int], label: int = 3) -> KnownStructure:
    """A structure known on some of its slices."""
    array = (masks * label).astype(np.uint8)
    flags = np.isin(np.arange(len(masks)), known)
    stack = SliceStack(array, geometry_of(array.shape), 0)
    return KnownStructure(label, (Drawing(stack, flags),))


def as_features(image: np.ndarray) -> FeatureState:
    """An encoder that shows the image itself, at a quarter of the square."""
    quarter = torch.nn.functional.avg_pool2d(torch.from_numpy(image).float()[None, None], 4)
    return FeatureState(torch.cat([quarter, 2 * quarter], dim=1))


def undecided(classes: int = 2) -> Tensor:
    """What a model gives that has learnt nothing."""
    return torch.full((classes, SIZE, SIZE), 1 / classes)


def between(
    structures: list[KnownStructure],
    images: np.ndarray,
    predicted: dict[int, Tensor] | None = None,
    seen: np.ndarray | None = None,
) -> dict[int, np.ndarray]:
    """The class numbers of all slices on which something is not known, with images as features.

    Args:
        structures: of class 1, 2 and so on.
        images: grey levels.
        predicted: probabilities of the model on a slice; where there are none, it is undecided.
        seen: what the encoder shows; None for the images.
    """
    stack = SliceStack(images, geometry_of(images.shape), 0)
    fit = SquareFit(SIZE, SIZE, stack.pixel_spacing, SIZE)
    shown = images if seen is None else seen
    classes = list(range(1, len(structures) + 1))
    segmenting = BetweenSlices(
        structures,
        classes,
        stack,
        fit,
        lambda number: as_features(shown[number]),
        lambda number: images[number],
    )
    found: dict[int, np.ndarray] = {}
    for number in range(len(images)):
        if all(each.known[number] for each in structures):
            continue
        probabilities = (predicted or {}).get(number, undecided(len(structures) + 1))
        found.update(segmenting.add(number, probabilities, as_features(shown[number])))
    return found


def test_drawn_slices_and_what_lies_between_them() -> None:
    structure = structure_of(discs([0, 9, 10, 12, 10, 0, 0, 8]), [0, 1, 4, 6, 7])
    assert structure.drawn == [1, 4, 7]
    assert [structure.between(number) for number in range(8)] == [
        *(None, None, (1, 4), (1, 4), None),
        # It is known to be gone on slice 6, so nothing leads from slice 4 to slice 7.
        *(None, None, None),
    ]
    assert structure.has_between
    assert not structure_of(discs([9, 9, 9]), [0, 1]).has_between
    assert not structure_of(discs([0, 0, 0]), [0, 2]).has_between


def test_shape_alone_where_the_image_says_nothing() -> None:
    masks = discs([8, 10, 12, 14, 16])
    images = np.zeros(masks.shape)
    structure = structure_of(masks, [0, 4])
    found = between([structure], images)
    expected = interpolate(masks.astype(np.uint8), 0, {1: [0, 4]})
    for number in (1, 2, 3):
        assert dsc(found[number] == 1, expected[number] == 1) > 0.97


def test_the_image_corrects_the_shape() -> None:
    """The structure bulges between the drawn slices, and looks there as it does on them."""
    masks = discs([10, 13, 14, 13, 10])
    images = masks * 2.0 - 1.0
    found = between([structure_of(masks, [0, 4])], images)[2]
    shape = interpolate(masks.astype(np.uint8), 0, {1: [0, 4]})
    assert dsc(shape[2] > 0, masks[2]) < 0.7 and dsc(found == 1, masks[2]) > 0.85


def test_an_edge_of_the_image_is_found_that_no_network_sees() -> None:
    masks = discs([10, 11, 12, 11, 10])
    noise = np.random.default_rng(0).normal(0, 0.1, masks.shape)
    blind = np.zeros(masks.shape)
    structure = structure_of(masks, [0, 4])
    edged = between([structure], masks + noise, seen=blind)
    plain = between([structure], blind)
    for number in (1, 2, 3):
        with_edge, without = (dsc(each[number] == 1, masks[number]) for each in (edged, plain))
        assert with_edge > 0.97 and with_edge > without


def test_slices_come_back_when_all_their_gaps_are_done() -> None:
    structures = [
        structure_of(discs([8] * 7), [0, 3], 3),
        structure_of(discs([4] * 7, shift=20), [0, 6], 4),
    ]
    zeros = np.zeros((7, SIZE, SIZE))
    stack = SliceStack(zeros, geometry_of(zeros.shape), 0)
    fit = SquareFit(SIZE, SIZE, stack.pixel_spacing, SIZE)
    blind = as_features(zeros[0])
    segmenting = BetweenSlices(
        structures, [1, 2], stack, fit, lambda number: blind, lambda number: zeros[0]
    )
    back = {number: segmenting.add(number, undecided(3), blind) for number in range(1, 6)}
    assert [number for number, each in back.items() if each] == [5]
    assert [number for number, _ in back[5]] == [1, 2, 3, 4, 5]


def test_the_model_corrects_the_shape() -> None:
    masks = discs([10, 13, 14, 13, 10])
    sure = torch.from_numpy(np.where(masks[2], 0.99, 0.01)).float()
    predicted = {2: torch.stack([1 - sure, sure])}
    found = between([structure_of(masks, [0, 4])], np.zeros(masks.shape), predicted)[2]
    shape = interpolate(masks.astype(np.uint8), 0, {1: [0, 4]})
    assert dsc(found == 1, masks[2]) > dsc(shape[2] > 0, masks[2])


def test_what_contradicts_the_shape_moves_it_no_farther_than_the_distance_allows() -> None:
    masks = discs([12, 12, 12, 12, 12])
    elsewhere = discs([12], shift=20)[0]
    sure = torch.from_numpy(np.where(elsewhere, 0.999, 0.001)).float()
    images = np.zeros(masks.shape)
    seen = images.copy()
    seen[[0, 4]] = masks[0] * 100.0
    seen[1] = elsewhere * 100.0
    predicted = {1: torch.stack([1 - sure, sure])}
    found = between([structure_of(masks, [0, 4])], images, predicted, seen)[1] == 1
    # 3 mm from a drawn slice the model may move the outline by 3.6 mm, and the features by 2.7 mm.
    least, most = discs([12 - 6.3 - 1])[0], discs([12 + 6.3 + 1])[0]
    assert found[least].all() and not found[~most].any()


def test_edges_that_contradict_the_outline_altogether_are_not_trusted() -> None:
    masks = discs([12, 12, 12, 12, 12])
    elsewhere = discs([12], shift=22)[0]
    images = np.stack([masks[0], elsewhere, elsewhere, elsewhere, masks[4]]) * 1.0
    found = between([structure_of(masks, [0, 4])], images, seen=np.zeros(masks.shape))
    assert all(dsc(found[number] == 1, masks[number]) > 0.95 for number in (1, 2, 3))


def test_where_no_shape_leads_from_one_to_the_other_the_model_decides() -> None:
    """A vessel that runs aslant: its cross-sections do not overlap."""
    masks = np.stack([discs([5], shift=10.0 * number - 20)[0] for number in range(5)])
    sure = torch.from_numpy(np.where(masks[2], 0.9, 0.1)).float()
    predicted = {2: torch.stack([1 - sure, sure])}
    found = between([structure_of(masks, [0, 4])], masks * 2.0 - 1.0, predicted)[2]
    assert (found == masks[2]).all()


def test_what_is_known_on_a_slice_leaves_its_voxels_to_others() -> None:
    """Label 3 is known to be absent on slice 2: what looked like it is the next likeliest."""
    absent = structure_of(discs([8, 8, 0]), [0, 2])
    nowhere = structure_of(discs([0, 0, 0]), [], 4)
    probabilities = torch.zeros(3, SIZE, SIZE)
    probabilities[0], probabilities[1], probabilities[2] = 0.1, 0.6, 0.3
    found = between([absent, nowhere], np.zeros((3, SIZE, SIZE)), {2: probabilities})
    assert (found[2] == 2).all()


def test_of_two_structures_the_one_that_a_voxel_lies_deeper_in_gets_it() -> None:
    masks = discs([10, 0, 10]), discs([10, 0, 10], shift=10)
    structures = [
        structure_of(mask, [0, 2], label) for label, mask in zip((3, 4), masks, strict=True)
    ]
    found = between(structures, np.zeros((3, SIZE, SIZE)))[1]
    assert (found[30, 24:36] == 1).all() and (found[30, 39:50] == 2).all()


def test_other_structures_stay_what_the_model_found() -> None:
    masks = discs([8, 8, 8])
    other = discs([6], shift=24)[0]
    second = torch.from_numpy(np.where(other, 0.9, 0.05)).float()
    first = torch.full_like(second, 0.05)
    probabilities = torch.stack([1 - first - second, first, second])
    found = between([structure_of(masks, [0, 2])], np.zeros(masks.shape), {1: probabilities})[1]
    assert dsc(found == 2, other) == 1.0 and dsc(found == 1, masks[1]) > 0.8


def test_what_is_known_goes_into_the_result_as_it_is() -> None:
    masks = discs([9, 9, 0, 9])
    array = np.full(masks.shape, 3, np.uint8)
    array[:, :5] = 7
    labels = SliceStack(array, geometry_of(array.shape), 0)
    keep_known(labels, [structure_of(masks, [0, 2])])
    assert (labels[0] == 3).tolist() == masks[0].tolist()
    assert not (labels[2] == 3).any() and (labels[2][:5] == 7).all()
    assert (labels[1][5:] == 3).all() and (labels[3][5:] == 3).all()


def test_the_smallest_structure_has_an_inside_too() -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[30:33, 31:33] = True
    fit = SquareFit(SIZE, SIZE, (1.0, 1.0), SIZE)
    maps = feature_maps(as_features(mask * 1.0), SIZE)
    logits = FeatureRegression.fitted_to(FeatureSums.of(maps, mask, fit)).logits(maps, fit)
    assert logits[31, 31] > 0 > logits[40, 40]


def test_the_regression_tells_inside_from_outside() -> None:
    mask = discs([12])[0]
    fit = SquareFit(SIZE, SIZE, (1.0, 1.0), SIZE)
    maps = feature_maps(as_features(mask * 100.0), SIZE)
    sums = FeatureSums.of(maps, mask, fit)
    logits = FeatureRegression.fitted_to(sums).logits(maps, fit)
    assert logits.shape == mask.shape and dsc(logits > 0, mask) > 0.9
    twice = FeatureRegression.fitted_to(FeatureSums.total([sums, sums])).logits(maps, fit)
    assert np.allclose(twice, logits, atol=1e-2)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The synthetic head, and its labels on slices 2, 5 and 8."""
    volume, labelmap = head()
    return write_pair(tmp_path, volume, keep_slices(labelmap, [2, 5, 8]), "a")


def structures(example: Example, volume: Volume, words: list[str] | None = None) -> dict[int, list]:
    """Label -> its known slices."""
    warn = (words if words is not None else []).append
    found = known_structures([example], example.volume, volume, NAMES, "axial", warn)
    return {each.label: np.flatnonzero(each.known).tolist() for each in found}


def test_labels_are_known_where_they_were_drawn(files: tuple[Path, Path]) -> None:
    volume, _ = head()
    assert structures(Example(volume=files[0], segmentation=files[1]), volume) == {
        5: [2, 5, 8],
        52: [2, 5, 8],
    }
    some = Example(volume=files[0], segmentation=files[1], labels=[52], unfinished=[5])
    assert structures(some, volume) == {52: [2, 8]}
    said = Example(volume=files[0], segmentation=files[1], labels=[5], extent=(2, 8))
    assert structures(said, volume) == {5: [0, 1, 2, 5, 8, 9, 10, 11]}


def test_a_listed_label_without_a_voxel_is_absent_where_it_is_said(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    volume, labelmap = head()
    few = keep_slices(labelmap, [2, 5])
    only = replace(few, array=np.where(few.array == 5, few.array, 0))
    _, path = write_pair(tmp_path, volume, only, "only5")
    words: list[str] = []
    said = {"complete": [5], "known_empty": [0, 11]}
    both = Example(volume=files[0], segmentation=path, labels=[5, 52], **said)
    assert structures(both, volume, words) == {5: [0, 2, 5, 11], 52: [0, 5, 11]}
    assert not words
    unlisted = Example(volume=files[0], segmentation=path, **said)
    assert structures(unlisted, volume, words) == {5: [0, 2, 5, 11]}
    assert len(words) == 1 and "does not hold for 52, of" in words[0]
    plain = Example(volume=files[0], segmentation=path)
    assert structures(plain, volume, words) == {5: [2, 5]} and len(words) == 1


def test_an_empty_labelmap_says_where_nothing_is(files: tuple[Path, Path], tmp_path: Path) -> None:
    volume, labelmap = head()
    path = tmp_path / "nothing_labels.nrrd"
    write_volume(path, np.zeros_like(labelmap.array), labelmap.geometry)
    example = Example(volume=files[0], segmentation=path, labels=[5], known_empty=[0, 1])
    assert structures(example, volume) == {5: [0, 1]}
    beyond = example.model_copy(update={"known_empty": [200]})
    with pytest.raises(InputError, match="no slice 200"):
        structures(beyond, volume)


def test_examples_of_other_volumes_count_for_nothing(files: tuple[Path, Path]) -> None:
    volume, _ = head()
    example = Example(volume=files[0], segmentation=files[1])
    other = files[0].with_name("other.nii.gz")
    assert not known_structures([example], other, volume, NAMES, "axial")
    words: list[str] = []
    require_drawn([example], [other], words.append)
    assert len(words) == 1 and "none of the examples" in words[0]
    require_drawn([example], [other, files[0]], words.append)
    assert len(words) == 1
    missing = example.model_copy(update={"segmentation": other})
    with pytest.raises(InputError, match=r"no segmentation .*other"):
        require_drawn([missing], [files[0]], words.append)


def test_slices_of_another_orientation_are_kept_and_no_more(tmp_path: Path) -> None:
    volume, labelmap = head((12, 48, 40))
    files = write_pair(tmp_path, volume, keep_slices(labelmap, [20, 24], axis=1), "c")
    words: list[str] = []
    example = Example(volume=files[0], segmentation=files[1])
    assert structures(example, volume, words) == {5: [20, 24], 52: [20, 24]}
    assert len(words) == 1 and "coronal" in words[0] and "axial" in words[0]
    known = known_structures([example], files[0], volume, NAMES, "axial")
    empty = SliceStack(np.zeros(volume.array.shape, np.uint8), volume.geometry, 0)
    keep_known(empty, known)
    assert (empty.array[:, [20, 24]] == labelmap.array[:, [20, 24]]).all()
    assert not empty.array[:, 21:24].any()


def test_what_the_model_does_not_know_is_left_out_in_words(files: tuple[Path, Path]) -> None:
    volume, _ = head()
    example = Example(volume=files[0], segmentation=files[1])
    words: list[str] = []
    found = known_structures([example], files[0], volume, {5: "bright"}, "axial", words.append)
    assert [each.label for each in found] == [5]
    assert "does not know label 52" in words[0] and len(words) == 1
    with pytest.raises(InputError, match=r"label 5 is bright in .* and spleen in the model"):
        known_structures([example], files[0], volume, {5: "spleen"}, "axial", words.append)
    assert not known_structures([example], files[0], volume, {9: ""}, "axial", words.append)
    nothing_of_it = example.model_copy(update={"labels": [99]})
    assert not known_structures([nothing_of_it], files[0], volume, NAMES, "axial", words.append)
    assert "none of the model's structures" in words[-1]


def test_two_examples_of_one_volume_are_one(files: tuple[Path, Path], tmp_path: Path) -> None:
    volume, labelmap = head()
    _, more = write_pair(tmp_path, volume, keep_slices(labelmap, [4]), "b")
    drawn = [Example(volume=files[0], segmentation=each) for each in (files[1], more)]
    bright, dark = known_structures(drawn, files[0], volume, NAMES, "axial")
    assert bright.drawn == dark.drawn == [2, 4, 5, 8]
    for number in bright.drawn:
        assert (bright.mask(number) == (labelmap.array[number] == 5)).all()


def test_an_empty_slice_that_is_not_is_refused(files: tuple[Path, Path]) -> None:
    volume, _ = head()
    example = Example(volume=files[0], segmentation=files[1], known_empty=[5])
    with pytest.raises(InputError, match="called empty"):
        structures(example, volume)


def test_a_whole_volume_with_drawn_slices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model that finds nothing: drawn slices come back, and between them their shape."""
    tuned = load_model(write_model(tmp_path / "model.safetensors", for_prompts=False), no_file)
    volume, labelmap = head()
    few = keep_slices(labelmap, [2, 5, 8])
    stack = SliceStack.of(few, "axial")
    drawing = Drawing(stack, np.isin(np.arange(12), [2, 5, 8]))
    known = [KnownStructure(label, (drawing,)) for label in (5, 52, 300)]
    monkeypatch.setattr(volume_prediction, "embed", lambda network, images, *_: shown(images))
    monkeypatch.setattr(volume_prediction, "probabilities_from", nothing)
    prediction = volume_prediction.predict_volume(*tuned, volume, 4, True, known=known)
    assert prediction.uncertainty is not None and prediction.uncertainty.min() > 0.9
    found = prediction.labelmap
    assert found.labels == [5, 52]
    for number in (2, 5, 8):
        assert (found.array[number] == few.array[number]).all()
    assert not found.array[[0, 1, 9, 10, 11]].any()
    for label in (5, 52):
        between = [3, 4, 6, 7]
        assert dsc(found.array[between] == label, labelmap.array[between] == label) > 0.8


def no_file(card: object) -> Path:
    """A starter model holds all its weights."""
    raise AssertionError("weights of the backbone were asked for")


def shown(images: list[np.ndarray]) -> FeatureState:
    """Features that are the pixels."""
    pixels = torch.stack([torch.from_numpy(each).float() for each in images])[:, None]
    return FeatureState(torch.nn.functional.interpolate(pixels, (64, 64)))


def nothing(
    segmenter: object, state: FeatureState, shape: tuple[int, ...], spacing: object
) -> Tensor:
    """Probabilities of background, nearly."""
    found = torch.full((len(state.x), 3, *shape), 0.3)
    found[:, 0] = 0.4
    return found


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_the_command_keeps_what_is_drawn(tmp_path: Path, shell: Shell) -> None:
    """Of two volumes, one in another order of its axes, with a label that the model lacks."""
    tuned = write_model(tmp_path / "model.safetensors", for_prompts=False)
    volume, labelmap = head()
    few = keep_slices(labelmap, [2, 5, 8])
    few.array[few.array == 52] = 300 % 256
    first = write_pair(tmp_path, volume, few, "a")
    turned = replace(volume.geometry, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    second = write_pair(
        tmp_path,
        Volume(volume.array, turned),
        replace(keep_slices(labelmap, [3, 7]), geometry=turned),
        "b",
    )
    ended = shell(
        *("apply", "--model", tuned, "--volume", first[0], "--volume", second[0]),
        *("--drawn", first[1], "--drawn", second[1], "--empty", "0,11"),
        *("--output", tmp_path / "out", "--largest-component"),
    )
    assert ended.code == 0, ended.err
    assert "does not know label 44 of a_labels.nrrd" in ended.err
    assert [each["drawn_slices"] for each in ended.result["volumes"]] == [3, 2]
    cases = ((first[1], [2, 5, 8], [5]), (second[1], [3, 7], [5, 52]))
    for each, (given, numbers, labels) in zip(ended.result["volumes"], cases, strict=True):
        found, drawn = read_labelmap(each["segmentation"]), read_labelmap(given)
        assert set(found.labels) <= {5, 52}
        for label in labels:
            same = (found.array == label) == (drawn.array == label)
            assert same[numbers].all()
            assert not (found.array[[0, 11]] == label).any()


def test_what_is_drawn_is_not_overwritten(
    files: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    tuned = write_model(tmp_path / "model.safetensors", for_prompts=False)
    before = files[1].read_bytes()
    told = ("apply", "--model", tuned, "--volume", files[0], "--drawn", files[1])
    ended = shell(*told, "--output", files[1])
    assert ended.code == 2 and "would be written over what is drawn" in ended.err
    assert files[1].read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--drawn", "b.nii.gz", "--drawn", "c.nii.gz"], "1 volume but 2 times --drawn"),
        (["--drawn", "b.nii.gz", "--examples", "e.json"], "exclude each other"),
        (["--examples", "absent.json"], "absent.json"),
        (["--empty", "outside"], "give them with --drawn"),
        (["--drawn", "o.nii.gz", "--empty", "auto"], "--empty"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["apply", "--model", "m.safetensors", "--volume", "a.nii.gz", "--output", "o.nii.gz"]
    assert main([*told, *options]) != 0
    assert words in capsys.readouterr().err
