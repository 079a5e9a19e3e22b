"""Fine-tuning: which slices are read and drawn, and their features in the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import WIDEST
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.training.feature_cache import CachedSample, FeatureCache, worthwhile_variants
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.validation_split import split
from Testing.support.job_records import choices_of, example_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair
from Testing.support.training_slices import a_slice, starter

pytestmark = pytest.mark.usefixtures("one_thread")


# What is read


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    volume, labelmap = head()
    return write_pair(tmp_path, volume, keep_slices(labelmap, [2, 4, 6, 8]), "a")


def test_examples_are_the_labelled_and_the_empty_slices(files: tuple[Path, Path]) -> None:
    examples = load_examples([example_of(*files)])
    assert [label.value for label in examples.labels] == [5, 52]
    assert [label.name for label in examples.labels] == ["bright", "dark"]
    assert examples.labels[0].colour == (1.0, 0.0, 0.0)
    labelled = [each.number for each in examples.slices if each.is_labelled]
    assert labelled == [2, 4, 6, 8] and examples.axis == "axial"
    assert {0, 11} <= {each.number for each in examples.slices if not each.is_labelled}
    assert examples.slices[1].classes == {1, 2}
    assert all(each.image.max() <= 1 and each.image.min() >= 0 for each in examples.slices)
    only = load_examples([example_of(*files, labels=[52])], {52: "mine"})
    assert [(each.value, each.name) for each in only.labels] == [(52, "mine")]
    assert all(each.classes <= {1} for each in only.slices)


def test_segmentations_of_one_volume_are_one_volume(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    second = write_pair(tmp_path, *head(seed=1), "b")
    examples = load_examples([example_of(*each) for each in (files, second, files)])
    volumes = [each.volume for each in examples.slices]
    assert examples.volumes == 2 and volumes == sorted(volumes)
    held_out = split(examples.slices, seed=0)
    training, validation = (
        {volumes[position] for position in part}
        for part in (held_out.training, held_out.validation)
    )
    assert held_out.by == "volume" and not training & validation


def test_volumes_of_one_group_are_held_out_together(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    frame = write_pair(tmp_path, *head(seed=2), "frame")
    other = write_pair(tmp_path, *head(seed=1), "b")
    grouped = [example_of(*each, group="patient") for each in (files, frame)]
    examples = load_examples([grouped[0], example_of(*other), grouped[1]])
    assert examples.volumes == 2
    # Both frames have the same slice numbers.
    numbers = [each.number for each in examples.slices if each.volume == 0]
    assert len(numbers) > len(set(numbers))
    held_out = split(examples.slices, seed=0)
    training, validation = (
        {examples.slices[position].volume for position in part}
        for part in (held_out.training, held_out.validation)
    )
    assert held_out.by == "volume" and not training & validation


def test_a_label_of_another_volume_is_unknown(files: tuple[Path, Path], tmp_path: Path) -> None:
    volume, labelmap = head(values=(5, 7), seed=1)
    labelmap = replace(labelmap, names={5: "bright", 7: "another"})
    second = write_pair(tmp_path, volume, labelmap, "b")
    examples = load_examples([example_of(*files), example_of(*second, labels=[7])])
    assert [label.value for label in examples.labels] == [5, 7, 52]
    of_second = [each for each in examples.slices if each.volume == 1]
    for each in of_second:
        assert each.known.tolist() == [True, False, True, False]
        assert each.classes <= {2}
    of_first = [each for each in examples.slices if each.volume == 0]
    assert of_first and not any(each.known[2] for each in of_first)


def test_volumes_cut_along_different_axes(files: tuple[Path, Path], tmp_path: Path) -> None:
    volume, labelmap = head(seed=1)
    second = write_pair(tmp_path, volume, keep_slices(labelmap, [20, 24, 30], axis=1), "b")
    mixed = [example_of(*files), example_of(*second, axis="coronal")]
    assert load_examples(mixed).axis == WIDEST
    assert load_examples(mixed[1:]).axis == "coronal"


def test_what_may_surprise_is_told(files: tuple[Path, Path]) -> None:
    warnings = load_examples([example_of(*files, empty="none")]).warnings
    assert len(warnings) == 1 and "empty" in warnings[0]
    warnings = load_examples([example_of(*files, labelled=[0, 6])]).warnings
    assert warnings == []


def test_listed_slices_without_a_label_are_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="none of the slices"):
        load_examples([example_of(*files, labelled=[0, 1])])


def test_reading_stops_when_it_is_cancelled(files: tuple[Path, Path]) -> None:
    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        load_examples([example_of(*files)], check=cancel)


# What is drawn


def test_every_class_is_drawn_about_equally_often() -> None:
    slices = [a_slice({1}, number=number) for number in range(9)] + [a_slice({2}, number=9)]
    slices += [a_slice(set(), number=number) for number in range(10, 14)]
    pool = SlicePool(slices, list(range(14)))
    drawn = [each for step in range(600) for each in pool.draw(2, np.random.default_rng(step))]
    labelled = [each for each in drawn if each < 10]
    share = sum(each == 9 for each in labelled) / len(labelled)
    assert 0.35 < share < 0.65
    assert 0.05 < 1 - len(labelled) / len(drawn) < 0.3
    assert set(drawn) == set(range(14))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_batch_has_its_size_and_a_labelled_slice(size: int) -> None:
    slices = [a_slice({1, 2}), a_slice(set(), number=1), a_slice(set(), number=2)]
    pool = SlicePool(slices, [0, 1, 2])
    for step in range(50):
        drawn = pool.draw(size, np.random.default_rng(step))
        assert len(drawn) == size and 0 in drawn


def test_cached_features_are_those_computed(files: tuple[Path, Path], tmp_path: Path) -> None:
    examples = load_examples([example_of(*files)])
    plan = settle(choices_of(steps=2, method="adapter", scope="decoder"), examples, True)
    segmenter = starter(plan)
    encoder = segmenter.network.image_encoder
    stages = len(encoder.stages())
    samples = 8 * len(examples.slices)
    cached = SliceSampler(
        segmenter, examples.slices, 0, samples, tmp_path / "features", examples.normalisation
    )
    assert cached.cached_variants == 4 and cached.start_stage == stages == encoder.frozen_prefix()
    pool = SlicePool(examples.slices, range(len(examples.slices)))
    computed = []
    original = encoder.run

    def counting(state: FeatureState, start: int, stop: int) -> FeatureState:
        computed.append(len(state.x))
        return original(state, start, stop)

    encoder.run = counting  # type: ignore[method-assign]
    first = cached.batch(pool, 3, 0)
    assert 0 < sum(computed) <= 3
    computed.clear()
    again = cached.batch(pool, 3, 0)
    assert not computed, "what is in the cache is not computed again"
    assert torch.equal(first.state.x, again.state.x) and torch.equal(first.target, again.target)
    # The same augmented slice, computed without a cache.
    encoder.run = original  # type: ignore[method-assign]
    plain = SliceSampler(segmenter, examples.slices, 0, samples, None, examples.normalisation)
    assert plain.cached_variants == 0 and plain.start_stage == 0
    chosen = pool.draw(3, np.random.default_rng([0, 2, 0]))
    for place, position in enumerate(chosen):
        variants = [
            plain._compute(position, plain._draw_seed(position, variant))
            for variant in range(cached.cached_variants)
        ]
        same = [each for each in variants if torch.equal(each.target, first.target[place])]
        with torch.no_grad():
            states = [encoder.run(each.state, 0, stages) for each in same]
        nearest = min((state.x - first.state.x[place : place + 1]).abs().max() for state in states)
        # Kept in half precision.
        assert nearest < 4e-3 * first.state.x[place].abs().max()


def test_the_cache_keeps_samples_apart(tmp_path: Path) -> None:
    def sample(value: float) -> CachedSample:
        state = FeatureState(torch.full((1, 4, 3, 3), value), (torch.full((1, 2, 6, 6), -value),))
        return CachedSample(state, torch.full((6, 6), int(value), dtype=torch.int32))

    cache = FeatureCache(tmp_path / "cache", sample(0), slices=3, variants=2)
    assert (1, 1) not in cache
    for key, value in (((1, 1), 7.0), ((2, 0), 9.0)):
        cache.put(key, sample(value))
    found = cache.get((1, 1))
    assert (1, 1) in cache and (0, 0) not in cache
    assert (found.state.x == 7).all() and found.state.x.shape == (1, 4, 3, 3)
    assert (found.state.skips[0] == -7).all() and (found.target == 7).all()
    assert worthwhile_variants(sample(0), slices=10, samples=10**6, free_bytes=2**40) == 32
    assert worthwhile_variants(sample(0), slices=10, samples=40, free_bytes=2**40) == 0
    assert worthwhile_variants(sample(0), slices=10, samples=10**6, free_bytes=10_000) == 0
    # Two fifths of the time are twenty variants of each slice, and then two, which are too few.
    plenty = {"slices": 10, "samples": 10**6, "free_bytes": 2**40}
    assert worthwhile_variants(sample(0), **plenty, in_the_time=500) == 20
    assert worthwhile_variants(sample(0), **plenty, in_the_time=50) == 8
