"""A tuned model on whole volumes: labels, geometry, memory, uncertainty, components."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import WIDEST
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import ApplyJob, make_job, write_job
from SAMFineTuneLib.models.model_file import (
    LabelCard,
    ModelCard,
    Strategy,
    read_card,
    save_model,
)
from SAMFineTuneLib.models.structure_shape import StructureShape
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prediction import volume_prediction
from SAMFineTuneLib.prediction.known_structure import Drawing, KnownStructure
from SAMFineTuneLib.prediction.slice_prediction import embed
from SAMFineTuneLib.prediction.stray_regions import drop_stray_regions
from SAMFineTuneLib.prediction.uncertainty import at_temperature, slice_uncertainty
from SAMFineTuneLib.prediction.volume_prediction import (
    keep_largest_components,
    predict_volume,
    slice_axis,
)
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.training.fine_tuning import FineTuning
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.validation_split import ValidationSplit
from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    Volume,
    labelmap_onto,
    read_labelmap,
    read_volume,
    write_volume,
)
from Testing.support.in_process import run_here, shell_of
from Testing.support.job_records import choices_of, example_of
from Testing.support.synthetic_volumes import dsc, geometry_of, head, keep_slices, write_pair

Model = tuple[AutomaticSegmenter, ModelCard]


pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small_inputs: None) -> Model:
    """A network that has learnt labels 5 and 52 of the synthetic head in some seconds."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    volume, labelmap = head()
    pair = write_pair(folder, volume, keep_slices(labelmap, [2, 4, 6, 8]), "a")
    examples = load_examples([example_of(*pair)])
    plan = settle(choices_of(steps=24, batch=2), examples, False)
    torch.manual_seed(0)
    segmenter = AutomaticSegmenter(build("starter", plan.input_size), 2)
    adapt(segmenter.network, plan.method, plan.scope, plan.rank)
    everything = ValidationSplit(list(range(len(examples.slices))), [], "none")
    FineTuning(segmenter, examples, everything, plan, folder / "job", "", Watch()).run()
    card = ModelCard(
        backbone="starter",
        checkpoint_sha256=None,
        strategy=Strategy(method=plan.method, scope=plan.scope, rank=plan.rank),
        labels=[
            LabelCard(value=5, name="bright", colour=(1.0, 0.0, 0.0), terminology="a~SCT^5^Bright"),
            LabelCard(value=52, name="dark"),
        ],
        axis="axial",
        normalisation=examples.normalisation,
        input_size=plan.input_size,
    )
    return segmenter.eval(), card


def found(model: Model, volume: Volume, batch: int = 4) -> Labelmap:
    return predict_volume(*model, volume, batch).labelmap


def test_labels_have_the_numbers_they_were_trained_with(model: Model) -> None:
    volume, labelmap = head(seed=3)
    prediction = found(model, volume)
    assert prediction.labels == [5, 52]
    assert prediction.array.dtype == np.uint8 and prediction.geometry == volume.geometry
    assert prediction.names == {5: "bright", 52: "dark"}
    assert prediction.colours == {5: (1.0, 0.0, 0.0)}
    assert prediction.terminologies == {5: "a~SCT^5^Bright"}
    for value in (5, 52):
        assert dsc(prediction.array == value, labelmap.array == value) > 0.8


@pytest.mark.parametrize(
    ("largest", "kind"), [(255, np.uint8), (256, np.uint16), (70000, np.int32)]
)
def test_large_label_numbers_fit(largest: int, kind: type, model: Model) -> None:
    segmenter, card = model
    labels = [LabelCard(value=5), LabelCard(value=largest)]
    prediction = found((segmenter, card.model_copy(update={"labels": labels})), head()[0])
    assert prediction.labels == [5, largest] and prediction.array.dtype == kind


def stored_otherwise(
    volume: Volume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> Volume:
    """The same image in the same place, its index axes (i, j, k) in another order and sense."""
    geometry = volume.geometry
    direction = np.asarray(geometry.direction).reshape(3, 3)[:, order].copy()
    spacing = np.asarray(geometry.spacing)[list(order)]
    size = np.asarray(geometry.size)[list(order)]
    array = volume.array.transpose(2, 1, 0).transpose(order)
    origin = np.asarray(geometry.origin, float)
    for axis in np.flatnonzero(flips):
        origin = origin + direction[:, axis] * spacing[axis] * (size[axis] - 1)
        direction[:, axis] *= -1
        array = np.flip(array, axis)
    turned = Geometry(
        tuple(int(each) for each in size),
        tuple(float(each) for each in spacing),
        tuple(float(each) for each in origin),
        tuple(float(each) for each in direction.ravel()),
    )
    return Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), turned)


@pytest.fixture(scope="module")
def flat_head(model: Model) -> tuple[Volume, Labelmap]:
    """A volume of few slices, and what the model finds in it."""
    torch.set_num_threads(1)
    volume, _ = head((5, 24, 48), seed=3)
    return volume, found(model, volume, 5)


@pytest.mark.parametrize("flips", [*itertools.product((False, True), repeat=3)])
@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_how_a_file_stores_its_axes_does_not_matter(
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
    model: Model,
    flat_head: tuple[Volume, Labelmap],
) -> None:
    """Whatever the order and sense of the index axes: the same labels in the same places."""
    volume, reference = flat_head
    assert reference.labels == [5, 52]
    prediction = found(model, stored_otherwise(volume, order, flips), 5)
    back = labelmap_onto(prediction, volume.geometry)
    assert (back.array == reference.array).mean() > 0.999


def test_an_oblique_volume_is_cut_along_its_own_axes(model: Model) -> None:
    volume, _ = head(seed=3)
    angle = np.radians(25)
    turn = (1.0, 0.0, 0.0, 0.0, np.cos(angle), -np.sin(angle), 0.0, np.sin(angle), np.cos(angle))
    geometry = geometry_of(volume.array.shape, origin=(-40.0, 31.0, 7.5), direction=turn)
    prediction = predict_volume(*model, Volume(volume.array, geometry), 4)
    assert prediction.axis == "axial" and prediction.labelmap.geometry == geometry
    assert np.array_equal(prediction.labelmap.array, found(model, volume).array)


def test_pixels_need_not_be_square(model: Model) -> None:
    """Every second column is left out; the physical slice is the same."""
    volume, labelmap = head((12, 48, 96), seed=3)
    full = Volume(volume.array, geometry_of((12, 48, 96), spacing=(0.5, 1.0, 3.0)))
    half = Volume(
        np.ascontiguousarray(volume.array[:, :, ::2]),
        geometry_of((12, 48, 48), spacing=(1.0, 1.0, 3.0)),
    )
    fine, coarse = found(model, full).array, found(model, half).array
    assert fine.shape == (12, 48, 96)
    for value in (5, 52):
        assert dsc(fine[:, :, ::2] == value, coarse == value) > 0.9
        assert dsc(fine == value, labelmap.array == value) > 0.75


def test_the_widest_spacing_decides_where_the_model_saw_several_axes(model: Model) -> None:
    card = model[1].model_copy(update={"axis": WIDEST})
    volume, _ = head()
    assert slice_axis(card, volume) == "axial"
    wide = Volume(volume.array, geometry_of(volume.array.shape, spacing=(1.0, 4.0, 3.0)))
    assert slice_axis(card, wide) == "coronal"
    cube = Volume(volume.array, geometry_of(volume.array.shape, spacing=(1.0, 1.0, 1.0)))
    assert slice_axis(card, cube) == "axial"


@pytest.mark.parametrize("axis", ["axial", "sagittal", WIDEST])
@pytest.mark.parametrize(
    ("shape", "own"),
    [((1, 40, 48), "axial"), ((40, 1, 48), "coronal"), ((40, 48, 1), "sagittal")],
)
def test_a_picture_is_not_cut_into_lines(
    shape: tuple[int, int, int], own: str, axis: str, model: Model
) -> None:
    # Its rows are farther apart than its columns, and than the slice that it has none of.
    picture = Volume(np.zeros(shape, np.float32), geometry_of(shape, (1.5, 2.0, 1.0)))
    assert slice_axis(model[1].model_copy(update={"axis": axis}), picture) == own


def test_the_batch_does_not_change_the_result(model: Model) -> None:
    volume, _ = head(seed=3)
    one, four, all_at_once = (predict_volume(*model, volume, n, True) for n in (1, 5, 100))
    for other in (four, all_at_once):
        assert np.array_equal(one.labelmap.array, other.labelmap.array)
        assert one.uncertainty is not None and other.uncertainty is not None
        assert np.allclose(one.uncertainty, other.uncertainty, atol=1e-4)


class CountingSlices:
    """Stands in for the network: notes how many slices it was given at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        monkeypatch.setattr(volume_prediction, "embed", self._embed)
        monkeypatch.setattr(volume_prediction, "probabilities_from", self._probabilities)

    def _embed(self, network: Any, images: list[np.ndarray], *_: Any) -> FeatureState:
        self.sizes.append(len(images))
        return FeatureState(torch.zeros(len(images), 1))

    def _probabilities(
        self, segmenter: Any, state: FeatureState, shape: tuple[int, ...], spacing: Any
    ) -> torch.Tensor:
        return torch.zeros(len(state.x), 3, *shape)


def test_memory_is_bounded_by_the_batch(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    sizes: list[int] = []

    def beside_volumes(slices: int, batch: int) -> int:
        """Bytes at the peak that are neither the sample of voxels nor the labels."""
        array = np.random.default_rng(0).integers(0, 900, (slices, 64, 64)).astype(np.int16)
        volume = Volume(array, geometry_of(array.shape))
        sample = volume_prediction.sample_voxels(volume)
        stub = CountingSlices(monkeypatch)
        monkeypatch.setattr(volume_prediction, "sample_voxels", lambda volume: sample)
        monkeypatch.setattr(
            type(model[1].normalisation),
            "window_for",
            lambda self, sample: IntensityWindow(low=0, high=900, mean=0.5, standard_deviation=1),
        )
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        result = predict_volume(*model, volume, batch)
        peak = tracemalloc.get_traced_memory()[1] - before - result.labelmap.array.nbytes
        tracemalloc.stop()
        monkeypatch.undo()
        sizes.extend(stub.sizes)
        return peak

    few, many = beside_volumes(40, 4), beside_volumes(1200, 4)
    assert many < few + 200_000
    assert set(sizes) == {4}
    assert beside_volumes(40, 16) > few
    assert max(sizes) == 16


def test_progress_is_told_and_may_stop_it(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    volume, _ = head((5, 48, 48))
    predict_volume(*model, volume, 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_volume(*model, volume, 2, progress=stop)


def drawn_head(model: Model, *labels: int) -> tuple[Volume, list[KnownStructure]]:
    """Some labels drawn on two slices and absent from the first three on; the volume."""
    volume, labelmap = head()
    known = np.zeros(len(volume.array), bool)
    known[[0, 1, 2, 4, 7]] = True
    few = labelmap.array * np.isin(np.arange(len(known)), [4, 7])[:, None, None]
    drawing = Drawing(SliceStack(few, volume.geometry, 0), known)
    return volume, [KnownStructure(label, (drawing,)) for label in labels]


def test_slices_on_which_everything_is_known_are_not_computed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, known = drawn_head(model, 5, 52)
    images: list[int] = []

    def embedded(network: Any, pictures: list[Any], *more: Any) -> Any:
        images.append(len(pictures))
        return embed(network, pictures, *more)

    monkeypatch.setattr(volume_prediction, "embed", embedded)
    told: list[tuple[int, int]] = []
    prediction = predict_volume(
        *model, volume, 4, progress=lambda *numbers: told.append(numbers), known=known
    )
    slices = len(volume.array)
    # The features of the two drawn slices are needed between them.
    assert sum(images) == slices - 5 + 2
    assert told[0] == (0, slices) and told[-1] == (slices, slices) and told == sorted(told)
    figures = np.array(prediction.slice_uncertainty)
    assert len(figures) == slices and not figures[[0, 1, 2, 4, 7]].any() and figures[5] > 0
    images.clear()
    everywhere = predict_volume(*model, volume, 4, with_uncertainty=True, known=known)
    assert sum(images) == slices + 2 and everywhere.slice_uncertainty[4] > 0
    assert np.array_equal(prediction.labelmap.array, everywhere.labelmap.array)
    images.clear()
    predict_volume(*model, volume, 4, known=known[:1])
    assert sum(images) == slices + 2, "the other structure may be on any slice"


def test_a_volume_that_is_drawn_whole_comes_back(model: Model) -> None:
    volume, labelmap = head()
    drawing = Drawing(
        SliceStack(labelmap.array, volume.geometry, 0), np.ones(len(volume.array), bool)
    )
    known = [KnownStructure(label, (drawing,)) for label in (5, 52)]
    told: list[tuple[int, int]] = []
    prediction = predict_volume(
        *model, volume, 4, progress=lambda *numbers: told.append(numbers), known=known
    )
    assert np.array_equal(prediction.labelmap.array, labelmap.array)
    assert told == [(len(volume.array), len(volume.array))]


def test_uncertainty_is_highest_at_outlines(model: Model) -> None:
    volume, _ = head(seed=3)
    prediction = predict_volume(*model, volume, 4, with_uncertainty=True)
    uncertainty = prediction.uncertainty
    assert uncertainty is not None and uncertainty.dtype == np.float32
    assert uncertainty.shape == volume.array.shape
    assert uncertainty.min() >= 0 and uncertainty.max() <= 1
    labels = prediction.labelmap.array
    edge = np.zeros(labels.shape, bool)
    edge[:, :, 1:] = labels[:, :, 1:] != labels[:, :, :-1]
    assert uncertainty[edge].mean() > 2 * uncertainty[~edge].mean()
    assert found(model, volume).array.tolist() == labels.tolist()
    assert predict_volume(*model, volume, 4).uncertainty is None


def test_evenly_spread_probabilities_are_the_greatest_uncertainty(
    monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    for value, expected in ((1 / 3, 1.0), (0.0, 0.0)):
        probabilities = torch.full((1, 3, 4, 4), value)
        probabilities[:, 0] = 1 - 2 * value
        monkeypatch.setattr(
            volume_prediction, "probabilities_from", lambda *given, p=probabilities: p
        )
        volume = Volume(np.arange(32).reshape(2, 4, 4), geometry_of((2, 4, 4)))
        uncertainty = predict_volume(*model, volume, 1, with_uncertainty=True).uncertainty
        assert np.allclose(uncertainty, expected, atol=1e-5)


def test_a_temperature_divides_the_logits() -> None:
    logits = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 8
    probabilities = logits.softmax(1)
    for temperature in (0.5, 1.7, 5.0):
        found = at_temperature(probabilities, temperature)
        assert torch.allclose(found, (logits / temperature).softmax(1), atol=1e-5)
        assert torch.equal(found.argmax(1), logits.argmax(1))
    assert at_temperature(probabilities, 1.0) is probabilities
    certain = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert torch.equal(at_temperature(certain, 3.0), certain)


def test_the_temperature_of_a_card_changes_the_uncertainty_alone(model: Model) -> None:
    segmenter, card = model
    volume, _ = head(seed=3)
    hotter = card.model_copy(update={"temperature": 3.0})
    plain = predict_volume(segmenter, card, volume, 4, with_uncertainty=True, smooth=True)
    found = predict_volume(segmenter, hotter, volume, 4, with_uncertainty=True, smooth=True)
    assert np.array_equal(found.labelmap.array, plain.labelmap.array)
    assert plain.uncertainty is not None and found.uncertainty is not None
    shown = plain.labelmap.array > 0
    assert (found.uncertainty[shown] > plain.uncertainty[shown]).all()
    assert found.slice_uncertainty != plain.slice_uncertainty


def probabilities_of(claims: np.ndarray) -> torch.Tensor:
    """Two classes, of which the second has the probabilities given: (slices, rows, columns)."""
    second = torch.from_numpy(claims.astype(np.float32))
    return torch.stack([1 - second, second], dim=1)


def test_a_slice_is_uncertain_by_what_is_claimed() -> None:
    claims = np.zeros((6, 100, 100))
    claims[1, 20:60, 20:60] = 1.0  # a large structure, sure
    claims[2, 20:60, 20:60] = 1.0  # the same with a doubtful edge
    claims[2, 18:20, 20:60] = 0.5
    claims[3, 20:60, 20:60] = 0.3  # a faint one
    claims[4, 50, 50:53] = 0.5  # three voxels
    claims[5] = 0.01  # plainly background, not quite sure of it
    empty, sure, edge, faint, specks, background = slice_uncertainty(probabilities_of(claims))
    assert empty == sure == background == 0.0
    assert 0 < edge < 0.1
    assert faint == pytest.approx(0.8813, abs=1e-3)  # the entropy of 0.3 in bits
    assert edge < specks < faint
    assert specks == pytest.approx(3 / 10, abs=1e-3)


def test_the_voxels_that_count_do_not_depend_on_the_temperature() -> None:
    """A halo at 0.03 is background; at temperature 3 it has more than 0.05, and is uncertain."""
    claims = np.zeros((1, 100, 100))
    claims[0, 20:60, 20:60] = 0.9
    claims[0, :20] = 0.03
    shares = probabilities_of(claims)
    hotter = at_temperature(shares, 3.0)
    assert hotter[0, 1, 0, 0] > 0.05
    alone = probabilities_of(np.where(claims == 0.9, claims, 0))
    expected = slice_uncertainty(at_temperature(alone, 3.0), alone)
    assert slice_uncertainty(hotter, shares) == expected
    assert slice_uncertainty(hotter) != expected
    assert slice_uncertainty(shares, shares) == slice_uncertainty(shares)


def test_the_worst_possible_slice_has_uncertainty_1() -> None:
    for classes in (2, 3, 11):
        even = torch.full((1, classes, 40, 40), 1 / classes)
        assert slice_uncertainty(even) == [1.0]


def test_a_large_slice_is_judged_by_a_sample_of_its_voxels() -> None:
    small = np.zeros((2, 64, 96))
    small[0, 10:40, 20:50] = 0.6
    small[1, 10:40, 20:80] = 0.9
    large = small.repeat(8, axis=1).repeat(8, axis=2)
    few, many = (slice_uncertainty(probabilities_of(each)) for each in (small, large))
    assert many == pytest.approx(few, rel=0.05)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_uncertain_slices_of_a_volume(batch: int, model: Model) -> None:
    """One figure a slice, in index order, whatever the batch; 0 beyond the structures."""
    volume, _ = head(seed=3)
    prediction = predict_volume(*model, volume, batch, with_uncertainty=True)
    figures = prediction.slice_uncertainty
    assert len(figures) == 12 and all(0 <= each <= 1 for each in figures)
    assert figures == pytest.approx(predict_volume(*model, volume, 4).slice_uncertainty, abs=1e-3)
    backwards = Volume(volume.array[::-1].copy(), volume.geometry)
    assert predict_volume(*model, backwards, batch).slice_uncertainty == pytest.approx(
        figures[::-1], abs=1e-3
    )
    shown = prediction.labelmap.array.any(axis=(1, 2))
    assert min(np.array(figures)[shown]) > 0


@pytest.mark.parametrize("thickness", [1.0, 5.0])
def test_smoothing_depends_on_no_batch_and_leaves_thick_slices_alone(
    model: Model, thickness: float
) -> None:
    volume, _ = head(seed=3)
    geometry = geometry_of(volume.array.shape, (1.0, 1.0, thickness))
    volume = Volume(volume.array, geometry)
    plain = predict_volume(*model, volume, 4)
    smoothed = [
        predict_volume(*model, volume, batch, unsure, smooth=True)
        for batch, unsure in ((1, False), (5, True))
    ]
    assert np.array_equal(smoothed[0].labelmap.array, smoothed[1].labelmap.array)
    changed = (smoothed[0].labelmap.array != plain.labelmap.array).sum()
    assert (changed == 0) == (thickness == 5.0)
    assert changed < 0.2 * np.count_nonzero(plain.labelmap.array)
    assert smoothed[0].slice_uncertainty == pytest.approx(plain.slice_uncertainty, abs=1e-3)


def test_the_largest_component_of_each_label_is_kept() -> None:
    array = np.zeros((6, 12, 12), np.uint16)
    array[1:4, 1:5, 1:5] = 300
    array[4, 5, 5] = 300  # touches a corner of the large part
    array[1, 9, 9] = 300
    array[2, 8:11, 1:4] = 7
    array[5, 0, 0:2] = 7
    labelmap = Labelmap(
        array, geometry_of(array.shape), {7: "b"}, {7: (0.0, 1.0, 0.0)}, terminologies={7: "t"}
    )
    kept = keep_largest_components(labelmap)
    expected = array.copy()
    expected[1, 9, 9] = 0
    expected[5, 0, 0:2] = 0
    assert np.array_equal(kept.array, expected)
    assert kept.names == labelmap.names and kept.colours == labelmap.colours
    assert kept.terminologies == {7: "t"}
    empty = Labelmap(np.zeros_like(array), labelmap.geometry)
    assert not keep_largest_components(empty).array.any()


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Any:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def model_path(model: Model, tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    save_model(path, *model)
    return path


def test_several_volumes_go_to_a_folder(shell: Any, model_path: Path, tmp_path: Path) -> None:
    names = ["a/ct.nii.gz", "b/ct.nrrd", "b/ct_2.mha"]
    volumes = [tmp_path / name for name in names]
    for seed, path in enumerate(volumes):
        path.parent.mkdir(exist_ok=True)
        volume, _ = head((4 + seed, 40, 48), seed=seed)
        write_volume(path, volume.array, volume.geometry)
    options = [word for path in volumes for word in ("--volume", path)]
    out, unsure = tmp_path / "out", tmp_path / "unsure"
    words = ("--model", model_path, "--output", out, "--uncertainty", unsure)
    ended = shell("apply", *options, *words)
    assert ended.code == 0, ended.err
    written = [Path(each["segmentation"]) for each in ended.result["volumes"]]
    assert len(set(written)) == 3 and sorted(out.iterdir()) == sorted(written)
    assert len(list(unsure.iterdir())) == 3
    for source, target, each in zip(volumes, written, ended.result["volumes"], strict=True):
        volume, labelmap = read_volume(source), read_labelmap(target)
        assert labelmap.geometry.same_as(volume.geometry)
        assert each["labels"] == labelmap.labels == [5, 52] and each["axis"] == "axial"
        uncertainty = read_volume(Path(each["uncertainty"]))
        assert uncertainty.geometry.same_as(volume.geometry)
        assert 0 <= uncertainty.array.min() < uncertainty.array.max() <= 1


def test_names_and_colours_reach_the_file(shell: Any, model_path: Path, tmp_path: Path) -> None:
    volume, labelmap = head()
    source = write_pair(tmp_path, volume, labelmap, "a")[0]
    out = tmp_path / "out.seg.nrrd"
    ended = shell(
        *("apply", "--model", model_path, "--volume", source, "--output", out),
        *("--largest-component", "--batch", 3),
    )
    assert ended.code == 0, ended.err
    written = read_labelmap(out)
    assert written.names == {5: "bright", 52: "dark"} and written.colours[5] == (1.0, 0.0, 0.0)
    assert written.terminologies == {5: "a~SCT^5^Bright"}
    figures = ended.result["volumes"][0]["slice_uncertainty"]
    assert len(figures) == len(volume.array) and max(figures) > 0


@pytest.mark.parametrize("tidy", [True, False])
def test_an_apply_is_tidied_up_unless_it_may_not_be(
    shell: Any, model: Model, tmp_path: Path, tidy: bool
) -> None:
    segmenter, card = model
    shape = StructureShape(label=5, slices=3, parts=1, smallest_part=50, usual_area=100)
    card = card.model_copy(update={"shapes": [shape]})
    path = tmp_path / "m.safetensors"
    save_model(path, segmenter, card)
    assert read_card(path).shapes == [shape]
    volume, labelmap = head((9, 48, 48), seed=5)
    source = write_pair(tmp_path, volume, labelmap, "a")[0]
    words = ("apply", "--model", path, "--volume", source, "--output", tmp_path / "out.nrrd")
    ended = shell(*words, *([] if tidy else ["--no-tidy"]))
    assert ended.code == 0, ended.err
    expected = predict_volume(segmenter, card, volume, 4, smooth=tidy).labelmap.array
    if tidy:
        drop_stray_regions(SliceStack(expected, volume.geometry, 0), [shape])
    assert np.array_equal(read_labelmap(tmp_path / "out.nrrd").array, expected)


def test_plain_voxels_where_the_job_asks_for_them(
    shell: Any, model_path: Path, tmp_path: Path
) -> None:
    volume, labelmap = head()
    source = write_pair(tmp_path, volume, labelmap, "a")[0]
    sizes, found_labels = {}, {}
    for compress in (True, False):
        fields = {
            "model": model_path,
            "volumes": [source],
            "output": tmp_path / f"{compress}.seg.nrrd",
            "uncertainty": tmp_path / f"u{compress}.nrrd",
            "compress": compress,
        }
        folder = tmp_path / str(compress)
        write_job(folder, make_job(ApplyJob, fields))
        assert run_here(JobFolder(folder)).exit_code == 0
        sizes[compress] = tuple(fields[name].stat().st_size for name in ("output", "uncertainty"))
        found_labels[compress] = read_labelmap(fields["output"]).array
    count = labelmap.array.size
    assert count <= sizes[False][0] < count + 4000 and sizes[True][0] < count
    assert 4 * count <= sizes[False][1] < 4 * count + 4000 and sizes[True][1] < 4 * count
    assert np.array_equal(found_labels[True], found_labels[False])


@pytest.mark.parametrize("clash", ["volume", "output"])
def test_nothing_is_written_over(clash: str, shell: Any, model_path: Path, tmp_path: Path) -> None:
    source = write_pair(tmp_path, *head(), "a")[0]
    before = source.read_bytes()
    output = source if clash == "volume" else tmp_path / "out.nii.gz"
    words = ("--volume", source, "--output", output, "--uncertainty", tmp_path / "out.nii.gz")
    ended = shell("apply", "--model", model_path, *words)
    assert ended.code == 2 and len(ended.error_lines) == 1
    assert output.name in ended.error_lines[0] and source.read_bytes() == before
    assert not (tmp_path / "out.nii.gz").exists()
