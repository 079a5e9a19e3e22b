"""Synthetic images: what an episode promises, and that episodes differ from each other."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.pretraining.synthetic import appearance
from SAMFineTuneLib.pretraining.synthetic import episode as episodes_module
from SAMFineTuneLib.pretraining.synthetic.anatomy import Anatomy, AnatomyDrawing
from SAMFineTuneLib.pretraining.synthetic.appearance import draw_images
from SAMFineTuneLib.pretraining.synthetic.episode import Episode, draw_episode
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.slices.square import square_positions

EPISODES = 60
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Drawn:
    """An episode, and what it was asked to be."""

    episode: Episode
    count: int
    size: int
    one_volume: bool


@pytest.fixture(scope="module")
def drawn() -> Iterator[list[Drawn]]:
    """Many small episodes of 3 to 6 images."""
    of_one_volume: list[bool] = []

    def noting(anatomy: Anatomy, random: RandomSource, one_volume: bool) -> tuple[Tensor, Tensor]:
        of_one_volume.append(one_volume)
        return draw_images(anatomy, random, one_volume)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes_module, "draw_images", noting)
        found = []
        for seed in range(EPISODES):
            count, size = 3 + seed % 4, (64, 64, 80, 128)[seed // 4 % 4]
            episode = draw_episode(RandomSource((seed,)), count, size)
            found.append(Drawn(episode, count, size, of_one_volume[-1]))
        yield found


def an_anatomy(seed: int, depths: list[float], size: int = 48) -> Anatomy:
    """Slices of one anatomy at the same places."""
    places = square_positions(size).expand(len(depths), -1, -1, -1)
    return AnatomyDrawing(RandomSource((seed,)), places, torch.tensor(depths)).draw()


def is_equal(one: Episode, other: Episode) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.labels, other.labels)
        and torch.equal(one.classes, other.classes)
        and (one.class_count, one.labelled, one.pairs)
        == (other.class_count, other.labelled, other.pairs)
    )


# Random numbers and smooth maps


def test_one_seed_gives_one_row_of_numbers() -> None:
    def row(*seed: int) -> list[Any]:
        random = RandomSource(seed)
        scalars = [random.between(0, 1), random.scale_between(1, 9), random.whole(0, 10**6)]
        tensors = [random.normal(3), random.each_between(0, 1, 3), random.each_whole(10**6, 3)]
        return [*scalars, random.permutation(20), *(each.tolist() for each in tensors)]

    assert row(3, 1, 2) == row(3, 1, 2)
    for other in ((4, 1, 2), (3, 2, 2), (3, 1, 3), (3, 1)):
        assert all(here != there for here, there in zip(row(3, 1, 2), row(*other), strict=True))


def test_numbers_are_within_their_bounds_and_reach_them() -> None:
    random = RandomSource((0,))
    assert {random.whole(2, 4) for _ in range(100)} == {2, 3, 4}
    assert 200 < sum(random.happens(0.3) for _ in range(1000)) < 400
    even = [random.between(-1, 3) for _ in range(500)]
    assert -1 <= min(even) < -0.9 and 2.9 < max(even) <= 3
    assert statistics.median(even) == pytest.approx(1, abs=0.3)
    scales = [random.scale_between(1, 100) for _ in range(500)]
    assert min(scales) >= 1 and max(scales) <= 100
    assert 7 < statistics.median(scales) < 14, "of a scale, the middle is the geometric one"
    assert sorted(random.permutation(9)) == list(range(9))
    assert set(random.each_whole(3, 200).tolist()) == {0, 1, 2}
    tensor = random.each_between(2, 5, 1000)
    assert 2 <= tensor.min() < 2.1 and 4.9 < tensor.max() <= 5


def step_over_deviation(maps: Tensor) -> float:
    """How far neighbouring pixels are apart; about 1.4 for noise without any grain."""
    return float((maps[..., 1:] - maps[..., :-1]).std() / maps.std())


def test_smooth_maps_are_as_smooth_as_they_have_few_points() -> None:
    random = RandomSource((0,))
    maps = {points: random.smooth(6, points, 64) for points in (3, 6, 20)}
    assert all(each.shape == (6, 64, 64) for each in maps.values())
    steps = [step_over_deviation(each) for each in maps.values()]
    assert steps == sorted(steps) and steps[0] < 0.08 and steps[2] < 0.6
    assert 0.5 < maps[20].std() < 1.5
    assert not torch.allclose(maps[3][0], maps[3][1], atol=0.1), "each map is another one"


def test_grains_are_as_large_as_they_are_said_to_be() -> None:
    random = RandomSource((0,))
    maps = [random.grainy(4, grain, 96) for grain in (1, 2, 5, 12)]
    assert all(each.shape == (4, 96, 96) for each in maps)
    steps = [step_over_deviation(each) for each in maps]
    assert steps[0] == pytest.approx(2**0.5, rel=0.05)
    assert steps == sorted(steps, reverse=True) and steps[3] < 0.25


# Anatomies


def test_an_anatomy_is_a_function_of_place_and_depth() -> None:
    changed = 0
    for seed in range(10):
        anatomy = an_anatomy(seed, [0.1, 0.1, 0.8])
        assert torch.equal(anatomy.labels[0], anatomy.labels[1])
        changed += not torch.equal(anatomy.labels[0], anatomy.labels[2])
    assert changed >= 9


def test_slices_are_the_more_alike_the_closer_they_lie() -> None:
    near, far = [], []
    for seed in range(10):
        labels = an_anatomy(seed, [0.0, 0.05, 0.9]).labels
        near.append(float((labels[0] == labels[1]).float().mean()))
        far.append(float((labels[0] == labels[2]).float().mean()))
    assert min(near) > 0.85
    assert statistics.mean(far) < statistics.mean(near) - 0.1


def test_labels_organs_and_pairs_fit_together() -> None:
    for seed in range(20):
        anatomy = an_anatomy(seed, [0.0, 0.5])
        assert anatomy.labels.dtype == torch.long
        assert anatomy.labels.min() >= 0 and anatomy.labels.max() < anatomy.count
        organs = anatomy.organs
        assert len(set(organs)) == len(organs) >= 2 and max(organs) < anatomy.count
        for outer, inner in anatomy.pairs:
            assert outer in organs and inner in organs and outer != inner


def test_an_anatomy_does_not_depend_on_how_finely_it_is_looked_at() -> None:
    """A function of place: each coarse pixel shows what lies at its centre in a finer picture."""
    alike = []
    for seed in range(6):
        coarse, fine = (an_anatomy(seed, [0.2], size).labels[0] for size in (32, 96))
        alike.append(float((coarse == fine[1::3, 1::3]).float().mean()))
    # The same places up to rounding.
    assert min(alike) > 0.99


def test_organs_get_smaller_towards_their_ends() -> None:
    depths = [number / 20 - 1 for number in range(41)]
    ends = []
    for seed in range(24):
        anatomy = an_anatomy(seed, depths)
        for organ in anatomy.organs:
            areas = (anatomy.labels == organ).sum((1, 2)).tolist()
            seen = [number for number, area in enumerate(areas) if area]
            if seen and max(areas) > 50:
                inside = [each for each in (seen[0], seen[-1]) if 0 < each < len(depths) - 1]
                ends += [areas[each] / max(areas) for each in inside]
    assert len(ends) > 20, "some end within the volume"
    assert statistics.median(ends) < 0.3


# Images


def test_images_show_labels_as_grey_levels_that_differ_by_chance() -> None:
    """Neither bright nor dark: a structure's contrast has either sign, so no modality is learnt."""
    signs = []
    for seed in range(24):
        anatomy = Anatomy(torch.zeros(1, 48, 48, dtype=torch.long), 2)
        anatomy.labels[:, 12:36, 12:36] = 1
        image = draw_images(anatomy, RandomSource((seed,)), one_volume=True)[0][0]
        signs.append(bool(image[16:32, 16:32].mean() > image[:8].mean()))
    assert 4 <= sum(signs) <= 20


def spread_of_levels(seed: int, one_volume: bool) -> float:
    """How much a label's mean differs from slice to slice, as a share of the images' deviation."""
    anatomy = Anatomy(torch.zeros(6, 48, 48, dtype=torch.long), 3)
    anatomy.labels[:, 8:24, 8:40] = 1
    anatomy.labels[:, 28:40, 8:40] = 2
    images, _ = draw_images(anatomy, RandomSource((seed,)), one_volume)
    means = torch.stack([images[:, 10:22, 12:36].mean((1, 2)), images[:, 30:38].mean((1, 2))])
    return float((means[0] - means[1]).std() / images.std())


def test_slices_of_one_volume_look_more_alike_than_those_of_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each slice has a bias field and a texture of its own in either case.
    for imperfection in ("_biased", "_speckled", "_textured"):
        monkeypatch.setattr(appearance, imperfection, lambda images, *_: images)
    one = [spread_of_levels(seed, one_volume=True) for seed in range(40)]
    many = [spread_of_levels(seed, one_volume=False) for seed in range(40)]
    assert statistics.mean(one) < 0.85 * statistics.mean(many)
    assert min(one) > 0, "not even they are the same"


def test_images_have_about_zero_mean_and_unit_deviation(drawn: list[Drawn]) -> None:
    for each in drawn:
        images = each.episode.images
        assert images.isfinite().all()
        assert abs(float(images.mean())) < 0.4
        assert 0.7 < float(images.std()) < 1.4
        assert float(images.abs().max()) < 60


def test_images_of_many_volumes_are_normalised_each_by_itself(drawn: list[Drawn]) -> None:
    def most_uneven(one_volume: bool) -> float:
        chosen = [each.episode.images for each in drawn if each.one_volume == one_volume]
        return statistics.mean(float(each.mean((1, 2)).std()) for each in chosen)

    assert most_uneven(False) < 0.2, "only the jitter of a tenth is left"
    assert most_uneven(True) > 1.3 * most_uneven(False)


# Episodes


def test_the_same_seed_gives_the_same_episode_and_another_seed_another() -> None:
    first = draw_episode(RandomSource((5, 1)), 3, 64)
    assert is_equal(first, draw_episode(RandomSource((5, 1)), 3, 64))
    for other in ((6, 1), (5, 2)):
        assert not torch.equal(first.images, draw_episode(RandomSource(other), 3, 64).images)


def test_episodes_of_one_chance_differ() -> None:
    random = RandomSource((5, 1))
    first, second = (draw_episode(random, 3, 64) for _ in range(2))
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.labels, second.labels)


def test_an_episode_has_the_shapes_and_kinds_that_it_promises(drawn: list[Drawn]) -> None:
    for each in drawn:
        episode, shape = each.episode, (each.count, each.size, each.size)
        assert episode.images.shape == episode.labels.shape == episode.classes.shape == shape
        assert episode.images.dtype == torch.float32
        assert episode.labels.dtype == episode.classes.dtype == torch.long
        assert 1 <= episode.labelled <= min(5, each.count - 1)


def test_every_class_is_shown_on_a_labelled_image(drawn: list[Drawn]) -> None:
    for each in drawn:
        episode = each.episode
        assert set(episode.classes.unique().tolist()) <= set(range(episode.class_count))
        shown = episode.classes[: episode.labelled]
        for number in range(1, episode.class_count):
            share = float((shown == number).float().mean())
            assert share > 0.0008, "fewer pixels are not learnt from"


def test_a_class_is_a_structure_or_a_structure_with_its_part(drawn: list[Drawn]) -> None:
    joined = 0
    for each in drawn:
        episode = each.episode
        for number in range(1, episode.class_count):
            labels = set(episode.labels[episode.classes == number].unique().tolist())
            for label in labels:
                where = episode.labels == label
                assert (episode.classes[where] == number).all(), "of one class in every image"
            if len(labels) == 2:
                joined += 1
                assert tuple(labels) in episode.pairs or tuple(labels)[::-1] in episode.pairs
            assert 1 <= len(labels) <= 2
    assert joined >= 3


def test_outside_the_frame_nothing_is_labelled_or_seen(drawn: list[Drawn]) -> None:
    framed = 0
    for each in drawn:
        episode = each.episode
        hidden = episode.labels == -1
        assert episode.labels.min() >= -1
        assert torch.equal(hidden, hidden[:1].expand_as(hidden)), "one frame for all images"
        assert not episode.classes[hidden].any()
        if hidden.any():
            framed += 1
            for image, outside in zip(episode.images, hidden, strict=True):
                assert (image[outside] == image.min()).all()
    assert 0.15 * EPISODES < framed < 0.85 * EPISODES


def test_what_is_hidden_is_background_whatever_its_label_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_of_one_class(anatomy: Anatomy, *_: object) -> Tensor:
        return torch.ones(anatomy.count, dtype=torch.long)

    monkeypatch.setattr(episodes_module, "_class_of_label", all_of_one_class)
    found = [draw_episode(RandomSource((seed,)), 2, 64) for seed in range(8)]
    for episode in found:
        assert torch.equal(episode.classes == 1, episode.labels >= 0)
    assert any((episode.labels == -1).any() for episode in found)


def test_episodes_vary_in_volumes_classes_and_labelled_images(drawn: list[Drawn]) -> None:
    of_one = sum(each.one_volume for each in drawn)
    assert 0.25 * EPISODES < of_one < 0.75 * EPISODES
    assert {each.episode.class_count for each in drawn} == {2, 3, 4, 5}
    assert {each.episode.labelled for each in drawn} == {1, 2, 3, 4, 5}
    assert any(each.episode.labelled == each.count - 1 for each in drawn)


def test_some_images_lack_a_class_and_some_are_empty(drawn: list[Drawn]) -> None:
    lacking = empty = whole = 0
    for each in drawn:
        episode = each.episode
        for classes in episode.classes[episode.labelled :]:
            absent = set(range(1, episode.class_count)) - set(classes.unique().tolist())
            lacking += bool(absent) and len(absent) < episode.class_count - 1
            empty += len(absent) == episode.class_count - 1
            whole += not absent
    assert lacking >= 5 and empty >= 5
    assert whole > lacking + empty, "but most images show all"


def share_around(inner: Tensor, outer: Tensor) -> float:
    """Share of the pixels next to one mask that belong to another, (S, S) bool."""
    grown = functional.max_pool2d(inner[None].float(), 3, stride=1, padding=1)[0] > 0
    ring = grown & ~inner
    return float((outer & ring).sum() / ring.sum().clamp(min=1))


def test_organs_lie_within_organs(drawn: list[Drawn]) -> None:
    within = 0
    for each in drawn:
        labels = each.episode.labels
        within += any(
            (labels[number] == inner).sum() > 10
            and share_around(labels[number] == inner, labels[number] == outer) > 0.95
            for outer, inner in each.episode.pairs
            for number in range(each.count)
        )
    assert within > 0.2 * EPISODES


@pytest.mark.parametrize("size", [96, 128, 256])
def test_every_size_works(size: int) -> None:
    episode = draw_episode(RandomSource((1,)), 3, size)
    assert episode.images.shape == (3, size, size)
    assert episode.images.isfinite().all()
    shown = set(episode.classes[: episode.labelled].unique().tolist())
    assert shown >= set(range(1, episode.class_count)) and episode.class_count > 1


@pytest.mark.parametrize("name", DEVICES)
def test_everything_is_made_on_the_device_that_is_named(name: str) -> None:
    device = torch.device(name)
    first, second = (draw_episode(RandomSource((2,), device), 3, 64) for _ in range(2))
    for each in (first.images, first.labels, first.classes):
        assert each.device.type == device.type
    assert is_equal(first, second)


def test_where_nothing_can_be_learnt_from_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def nothing(*_: object) -> None:
        tries.append(1)

    monkeypatch.setattr(episodes_module, "_class_of_label", nothing)
    with pytest.raises(RuntimeError, match="no synthetic anatomy"):
        draw_episode(RandomSource((0,)), 2, 64)
    assert len(tries) == 20
