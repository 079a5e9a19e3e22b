"""The temperature of held-out slices: found where it is known, and what becomes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.tasks.finetune_card import card_of
from SAMFineTuneLib.training import temperature
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.temperature import (
    LARGEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    TemperatureSample,
)
from SAMFineTuneLib.training.validation import ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit
from Testing.support.job_records import choices_of
from Testing.support.training_slices import WINDOW, a_slice, training_set

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64


def slice_of(target: np.ndarray, known: tuple[bool, ...] = (True, True, True)) -> LabelledSlice:
    image = np.zeros(target.shape, np.float16)
    return LabelledSlice(image, target, np.array(known), WINDOW, (1.0, 1.0), 0, 0)


def drawn_slices(count: int, seed: int = 0) -> list[tuple[LabelledSlice, Tensor]]:
    """Slices whose classes are drawn by the softmax of their logits."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        logits = random.normal(0, 2, (3, SIDE, SIDE))
        shares = np.exp(logits) / np.exp(logits).sum(0)
        target = (random.random((SIDE, SIDE)) > shares.cumsum(0)[:2]).sum(0)
        found.append((slice_of(target.astype(np.uint8)), torch.from_numpy(logits).float()))
    return found


def best_at(factor: float, slices: list[tuple[LabelledSlice, Tensor]]) -> float:
    sample = TemperatureSample(len(slices))
    for each, logits in slices:
        sample.add(each, (logits * factor).softmax(0))
    return sample.best_temperature()


@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0, 3.5])
def test_logits_that_are_too_large_are_divided_by_how_much_they_are(factor: float) -> None:
    assert best_at(factor, drawn_slices(4)) == pytest.approx(factor, rel=0.03)


def test_the_temperature_stays_within_its_limits() -> None:
    target = np.zeros((SIDE, SIDE), np.uint8)
    target[:20] = 1
    right = torch.nn.functional.one_hot(torch.from_numpy(target).long(), 3).movedim(-1, 0) * 3.0
    assert best_at(1, [(slice_of(target), right)]) == pytest.approx(LEAST_TEMPERATURE, abs=0.01)
    wrong = right.roll(1, 0)
    assert best_at(1, [(slice_of(target), wrong)]) == pytest.approx(LARGEST_TEMPERATURE, abs=0.01)
    assert TemperatureSample(0).best_temperature() == 1.0


def test_of_large_slices_some_pixels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = drawn_slices(6)
    monkeypatch.setattr(temperature, "_MOST_VALUES", 6 * 3 * 1500)
    sample = TemperatureSample(6)
    for each, logits in slices:
        sample.add(each, (logits * 2).softmax(0))
    kept = [logits.shape[1] for logits, _, _ in sample._pixels]
    assert kept == [1500] * 6
    assert sample.best_temperature() == pytest.approx(2.0, rel=0.06)


def test_the_likelihood_is_that_of_the_true_classes() -> None:
    target = np.array([[0, 1], [2, 1]], np.uint8)
    probabilities = torch.tensor([[[0.5, 0.2], [0.1, 0.3]], [[0.3, 0.7], [0.1, 0.3]]])
    probabilities = torch.cat([probabilities, 1 - probabilities.sum(0, keepdim=True)])
    sample = TemperatureSample(1)
    sample.add(slice_of(target), probabilities)
    expected = -sum(math.log(each) for each in (0.5, 0.7, 0.8, 0.3)) / 4
    assert sample.negative_log_likelihood(1.0) == pytest.approx(expected, rel=1e-5)
    hotter = (probabilities.log() / 2).softmax(0)
    expected = -float(hotter.gather(0, torch.tensor(target)[None].long()).log().mean())
    assert sample.negative_log_likelihood(2.0) == pytest.approx(expected, rel=1e-5)


def test_what_an_unknown_class_takes_from_background_is_not_wrong() -> None:
    """Its pixels are background in the labels, whatever they are in truth."""
    target = np.zeros((1, 2), np.uint8)
    probabilities = torch.tensor([[[0.1, 0.2]], [[0.1, 0.3]], [[0.8, 0.5]]])
    sample = TemperatureSample(1)
    sample.add(slice_of(target, (True, True, False)), probabilities)
    expected = -(math.log(0.9) + math.log(0.7)) / 2
    assert sample.negative_log_likelihood(1.0) == pytest.approx(expected, rel=1e-5)


# What becomes of it


def a_card(held_out: int, by: Any = "volume", initial: float | None = None, **changes: Any) -> Any:
    slices = [a_slice({1, 2}, volume, number) for volume in (0, 1) for number in range(12)]
    examples = training_set(slices)
    learnt = list(range(held_out, len(slices)))
    split = ValidationSplit(learnt, list(range(held_out)), by)
    fields: dict[str, Any] = {
        "steps": 3,
        "seconds": 1.0,
        "loss": 0.5,
        "validation": ValidationDsc({1: 0.5, 2: 0.5}),
        "distances": None,
        "best_step": 2,
        "held_out_joined": True,
        "ending": "complete",
        "history": [],
        "cached_variants": 0,
        "temperature": 1.75,
    }
    plan = settle(choices_of(steps=3), examples, False)
    start = None
    if initial is not None:
        start = a_card(held_out, by).model_copy(update={"temperature": initial})
    outcome = FinetuneOutcome(**{**fields, **changes})
    return card_of(plan, examples, split, outcome, None, initial=start)


def test_it_becomes_the_models_where_eight_slices_are_held_out() -> None:
    assert a_card(8).temperature == 1.75
    few = a_card(7)
    assert few.temperature == 1.0 and few.metrics["held_out_temperature"] == 1.75
    assert a_card(8, "validation list").temperature == 1.75


def test_without_a_measurement_it_is_one() -> None:
    nothing = a_card(0, "none", validation=None, temperature=None)
    assert nothing.temperature == 1.0
    assert a_card(8, temperature=None).temperature == 1.0


def test_slices_that_an_initial_model_may_have_learnt_from_do_not_tell() -> None:
    assert a_card(8, initial=1.0).temperature == 1.0
    assert a_card(8, initial=2.5).temperature == 2.5
