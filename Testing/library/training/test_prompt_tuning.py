"""Tuned for prompts: Segment Anything's own masks from prompts, and weights that give better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.adaptation.strategy import adapt_for_prompts
from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.definitions import segment_anything_modeling
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prompts.corrupted_masks import corrupted_masks
from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, PADDING, POSITIVE, PromptSet
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow
from SAMFineTuneLib.training import prompt_tuning, validation_split
from SAMFineTuneLib.training.loop import ProgressReport, Watch
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.prompt_plan import plan_for_prompts
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds
from SAMFineTuneLib.training.prompt_targets import (
    choose_structures,
    prompts_on_corrupted_masks,
    prompts_on_nothing,
)
from SAMFineTuneLib.training.prompt_tuning import PromptTuning
from SAMFineTuneLib.training.prompted_validation import measure_prompted
from SAMFineTuneLib.training.training_state import PROMPT_STATE_FILE, load_state
from SAMFineTuneLib.training.validation_split import ValidationSplit
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from Testing.support.job_records import choices_of

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


# Segment Anything's networks


class _Embedded(nn.Module):
    """In an image encoder's place: gives embeddings that are known."""

    img_size = 1024

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, images: Tensor) -> Tensor:
        return self.embeddings


@pytest.fixture(scope="module")
def vit_t() -> PromptedSegmenter:
    torch.manual_seed(0)
    return PromptedSegmenter(build("vit_t", 1024).eval())


def as_sam_takes_them(prompts: PromptSet) -> dict[str, Tensor]:
    """One image's prompts in the official terms: indices of pixels, and nothing for none."""
    record = {}
    given = prompts.labels[0] != PADDING
    if given.any():
        record["point_coords"] = prompts.points[:, given] - 0.5
        record["point_labels"] = prompts.labels[:, given]
    if prompts.boxed:
        record["boxes"] = prompts.boxes - 0.5
    if prompts.mask is not None:
        record["mask_inputs"] = prompts.mask
    return record


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_masks_are_those_of_the_official_model(vit_t: PromptedSegmenter, masked: bool) -> None:
    """A batch of a point, points and a box, a box, and no prompt, against `Sam.forward`."""
    network: Any = vit_t.network
    embeddings = torch.randn(4, 256, 64, 64)
    nothing = [torch.nan] * 4
    prompts = PromptSet(
        points=torch.tensor([[[300.5, 200.5], [40.5, 900.5]]]).repeat(4, 1, 1),
        labels=torch.tensor(
            [[POSITIVE, PADDING], [NEGATIVE, POSITIVE], [PADDING, PADDING], [PADDING, PADDING]]
        ),
        boxes=torch.tensor(
            [nothing, [100.0, 150.0, 600.0, 420.0], [9.0, 8.0, 70.0, 60.0], nothing]
        ),
        mask=4 * torch.randn(4, 1, 256, 256) if masked else None,
    )
    sam = segment_anything_modeling().Sam(
        _Embedded(embeddings), network.prompt_encoder, network.mask_decoder
    )
    images = [
        {"image": torch.zeros(3, 1024, 1024), "original_size": (1024, 1024)}
        | as_sam_takes_them(prompts.of_image(number))
        for number in range(4)
    ]
    expected = sam(images, multimask_output=False)
    logits, iou_predictions = vit_t.decode(FeatureState(embeddings), prompts)
    assert logits.shape == (4, 1, 256, 256) and iou_predictions.shape == (4, 1)
    for number, official in enumerate(expected):
        assert torch.equal(logits[number], official["low_res_logits"][0])
        assert torch.equal(iou_predictions[number], official["iou_predictions"][0])


@torch.no_grad()
def test_segment_anything_answers_at_other_sizes() -> None:
    segmenter = PromptedSegmenter(build("vit_t", 256).eval())
    features = segmenter.encode(torch.randn(2, 3, 256, 256))
    prompts = PromptSet.none(2).with_points(
        torch.tensor([[30.5, 40.5], [200.5, 90.5]]), torch.tensor([POSITIVE, POSITIVE])
    )
    first, _ = segmenter.decode(features, prompts)
    second, iou_predictions = segmenter.decode(features, prompts.with_mask(first))
    assert first.shape == second.shape == (2, 1, 64, 64) and iou_predictions.shape == (2, 1)
    assert first.isfinite().all() and second.isfinite().all()
    assert not torch.allclose(first, second, atol=1e-3), "the previous mask is heard"


# What the simulated user wants, and where it starts


def disc(x: float, y: float, radius: float, size: int = 128) -> Tensor:
    """(S, S) bool."""
    axis = torch.arange(size) + 0.5
    return (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2 < radius**2


def test_wrong_masks_are_wrong_but_not_elsewhere() -> None:
    masks = torch.stack([disc(50, 60, 24), disc(90, 40, 9)]).repeat(100, 1, 1)
    logits = corrupted_masks(masks, RandomSource((0,)))
    assert logits.shape == (200, 1, 32, 32) and logits.isfinite().all()
    true = functional.avg_pool2d(masks[:, None].float(), 4)[:, 0] > 0.5
    found = logits[:, 0] > 0
    assert found.flatten(1).any(1).all(), "something is always there"
    strength = logits.abs().amax((1, 2, 3))
    assert strength.min() >= 2 and strength.max() <= 8
    both = (found & true).sum((1, 2))
    overlap = 2 * both / (found.sum((1, 2)) + true.sum((1, 2)))
    assert 0.7 < overlap.mean() < 0.92 and overlap.std() > 0.05
    assert (overlap > 0.3).float().mean() > 0.95
    # Too large here, too small there.
    assert 0.2 < (found.sum((1, 2)) > true.sum((1, 2))).float().mean() < 0.8
    assert torch.equal(logits, corrupted_masks(masks, RandomSource((0,))))
    assert not torch.equal(logits, corrupted_masks(masks, RandomSource((1,))))


def test_a_structure_is_chosen_among_those_known_and_there() -> None:
    target = torch.zeros(3, 128, 128, dtype=torch.int32)
    target[0][disc(30, 30, 12)] = 1
    target[0][disc(90, 90, 12)] = 1
    target[0][disc(90, 30, 12)] = 2
    target[1][disc(30, 30, 12)] = 3
    known = torch.tensor([[True, True, True, True], [True, True, True, False], [True] * 4])
    parts = {"left": disc(30, 30, 12), "right": disc(90, 90, 12), "other": disc(90, 30, 12)}
    parts["both"] = parts["left"] | parts["right"]
    seen = []
    for seed in range(60):
        masks = choose_structures(target, known, RandomSource((seed,)))
        assert not masks[1].any() and not masks[2].any(), "unknown, and nothing there"
        seen += [name for name, part in parts.items() if torch.equal(part, masks[0])]
    assert len(seen) == 60 and set(seen) == set(parts)
    assert seen.count("both") < seen.count("left") + seen.count("right")


def test_a_wrong_mask_is_corrected_by_a_click_a_box_or_nothing() -> None:
    masks = torch.stack([disc(50, 60, 24), disc(90, 40, 14)]).repeat(60, 1, 1)
    prompts = prompts_on_corrupted_masks(masks, RandomSource((0,)))
    assert prompts.mask is not None
    clicked, boxed = prompts.labels[:, 0] != PADDING, prompts.boxed
    assert not (clicked & boxed).any()
    assert 0.35 < clicked.float().mean() < 0.65 and 0.05 < boxed.float().mean() < 0.35
    found = functional.interpolate(prompts.mask, (128, 128), mode="bilinear")[:, 0] > 0
    for number in clicked.nonzero()[:, 0].tolist():
        x, y = prompts.points[number, 0].long().tolist()
        assert found[number, y, x] != masks[number, y, x], "a click lies in the error"
        assert bool(prompts.labels[number, 0] == POSITIVE) == bool(masks[number, y, x])
    on_nothing = prompts_on_nothing(masks, RandomSource((0,)))
    assert on_nothing.mask is None
    assert ((on_nothing.labels[:, 0] != PADDING) ^ on_nothing.boxed).all()


class Recording(PromptedSegmenter):
    """Notes with what it was asked, and whether to learn from it."""

    def __init__(self) -> None:
        super().__init__(build("starter", 64))
        self.asked: list[tuple[int, bool, bool]] = []

    def decode(self, features: FeatureState, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        logits, iou_predictions = super().decode(features, prompts)
        self.asked.append((prompts.points.shape[1], prompts.mask is not None, logits.requires_grad))
        return logits, iou_predictions


def test_rounds_that_are_passed_over_lead_to_later_ones() -> None:
    segmenter = Recording()
    masks = torch.stack([disc(25, 30, 12, 64), disc(45, 20, 8, 64)])
    features = segmenter.encode(torch.randn(2, 3, 64, 64))
    prompts = prompts_on_nothing(masks, RandomSource((0,)))
    loss, scores = loss_of_rounds(segmenter, features, masks, prompts, 2, RandomSource((0,)), 3)
    assert loss.requires_grad and [each.shape for each in scores] == [(2,), (2,)]
    rounds = [(1, False), (2, True), (3, True), (4, True), (5, True)]
    learnt = [True, False, False, False, True]
    assert segmenter.asked == [(*each, last) for each, last in zip(rounds, learnt, strict=True)]


# The loop


WINDOW = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=0.2)


def hidden_structure(number: int) -> LabelledSlice:
    """The lower part of a bright disc: no edge tells where it begins, only examples do."""
    random = np.random.default_rng(number)
    x, y, radius = 32 + 6 * random.standard_normal(), 32 + 6 * random.standard_normal(), 16
    whole = disc(x, y, radius, 64).numpy()
    lower = whole & (np.arange(64)[:, None] > y)
    image = 0.2 + 0.5 * whole + 0.05 * random.standard_normal((64, 64))
    return LabelledSlice(
        image=image.astype(np.float16),
        target=lower.astype(np.uint8),
        known=np.ones(2, bool),
        window=WINDOW,
        spacing=(1.0, 1.0),
        volume=0,
        number=number,
    )


@pytest.fixture(scope="module")
def examples() -> TrainingSet:
    slices = [hidden_structure(number) for number in range(8)]
    normalisation = IntensityNormalisation(kind="percentiles")
    return TrainingSet(slices, [Label(1)], "axial", normalisation, 1)


HELD_OUT = ValidationSplit([0, 1, 2, 3, 4], [5, 6, 7], "slice")


class Run:
    """A tuning for prompts from the starter weights, with everything that it told."""

    def __init__(
        self,
        examples: TrainingSet,
        folder: Path,
        steps: int = 3,
        kind: type[PromptTuning] = PromptTuning,
        input_size: int = 64,
        **watched: Any,
    ) -> None:
        torch.manual_seed(0)
        choices = choices_of(batch=2)
        plan = plan_for_prompts(settle(choices, examples, False), True, None)
        plan = replace(plan, steps=steps, minutes=None, warm_up=1, input_size=input_size)
        network = build("starter", plan.input_size)
        load_checkpoint(network, find_weights("starter", None))
        adapt_for_prompts(network, plan.method, plan.scope, plan.rank)
        self.segmenter = PromptedSegmenter(network)
        self.reports: list[ProgressReport] = []
        watch = Watch(report=self.reports.append, **watched)
        self.tuning = kind(self.segmenter, examples, HELD_OUT, plan, folder, f"{plan.seed}", watch)

    def weights(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.segmenter.parameters()]


@pytest.mark.slow
def test_tuning_teaches_what_is_wanted(examples: TrainingSet, tmp_path: Path) -> None:
    """A click on a part that no edge ends gives the whole before, and the part after."""
    # With smaller images the starter finds nothing at a click before it is tuned.
    run = Run(examples, tmp_path, steps=24, input_size=128)
    held_out = [examples.slices[each] for each in HELD_OUT.validation]
    before = measure_prompted(run.segmenter, held_out)
    outcome = run.tuning.run()
    after = measure_prompted(run.segmenter, held_out)
    assert set(before) == set(after) == {"box", "1 click", "3 clicks"}
    assert 0.5 < before["1 click"] < 0.75 and after["1 click"] > 0.8
    assert after["3 clicks"] > before["3 clicks"]
    assert outcome.steps == 24 and outcome.ending == "complete" and outcome.loss > 0
    assert [each.step for each in run.reports] == list(range(1, 25))
    last = run.reports[-1]
    assert last.phase == "prompts" and last.steps == 24 and last.eta_s == 0
    assert not list(tmp_path.glob("prompt_features/*"))


def test_the_plan_follows_that_of_the_automatic_weights(examples: TrainingSet) -> None:
    laptop = settle(choices_of(), examples, False)
    plan = plan_for_prompts(laptop, True, None)
    assert plan.steps == 240 and plan.minutes == pytest.approx(2.56) and plan.warm_up <= 24
    assert plan.method == "vanilla" and plan.learning_rate < laptop.learning_rate
    assert plan_for_prompts(laptop, True, 7e-5).learning_rate == 7e-5, "as the user wished"
    assert plan_for_prompts(laptop, False, None).learning_rate == laptop.learning_rate
    study = settle(
        choices_of(preset="study", backbone="vit_t", method="lora", scope="decoder"), examples, True
    )
    plan = plan_for_prompts(study, True, None)
    assert (plan.method, plan.scope, plan.steps) == ("lora", "decoder", 938)
    assert plan.minutes is None and plan.learning_rate == study.learning_rate
    limited = settle(choices_of(minutes=4), examples, False)
    assert plan_for_prompts(limited, True, None).steps is None
    assert plan_for_prompts(limited, True, None).minutes == 2


class CancelAt:
    """Raises at the given call."""

    def __init__(self, call: int) -> None:
        self.left = call

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cancelled


@pytest.fixture(scope="module")
def uninterrupted(examples: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    """The weights that a tuning ends with."""
    torch.set_num_threads(1)
    whole = Run(examples, tmp_path_factory.mktemp("whole"))
    whole.tuning.run()
    return whole.weights()


@pytest.mark.parametrize(("call", "steps"), [(4, 1), (6, 2)])
def test_an_interrupted_tuning_ends_as_an_uninterrupted_one(
    call: int, steps: int, examples: TrainingSet, tmp_path: Path, uninterrupted: list[Tensor]
) -> None:
    """While it measures before the held-out slices join, and later."""
    first = Run(examples, tmp_path / "parts", check=CancelAt(call))
    with pytest.raises(Cancelled):
        first.tuning.run()
    second = Run(examples, tmp_path / "parts")
    assert second.tuning.resumed_at == steps
    outcome = second.tuning.run()
    assert outcome.steps == 3
    assert [each.step for each in second.reports] == list(range(steps + 1, 4))
    assert outcome.held_out_joined and set(outcome.measured) == {"box", "1 click", "3 clicks"}
    for expected, found in zip(uninterrupted, second.weights(), strict=True):
        assert torch.equal(expected, found)
    second.tuning.save()
    second.tuning.forget()
    assert Run(examples, tmp_path / "parts").tuning.resumed_at == 0


@pytest.mark.parametrize(("volumes", "share"), [(1, 0.75), (2, 0.5)])
def test_the_result_lies_between_the_beginning_and_what_was_learnt(
    examples: TrainingSet, tmp_path: Path, volumes: int, share: float
) -> None:
    slices = [replace(each, volume=each.number % volumes) for each in examples.slices]
    examples = replace(examples, slices=slices, volumes=volumes)
    run = Run(examples, tmp_path)
    begun = dict(run.segmenter.named_parameters())
    begun = {name: each.detach().clone() for name, each in begun.items() if each.requires_grad}
    run.tuning.run()
    run.tuning.save()
    state = load_state(tmp_path, "0", PROMPT_STATE_FILE)
    assert state is not None and set(state.weights) == set(begun)
    moved = 0
    for name, each in run.segmenter.named_parameters():
        if name in begun:
            learnt = state.weights[name]
            expected = begun[name] + share * (learnt - begun[name])
            assert torch.allclose(each, expected, atol=1e-6), name
            moved += not torch.equal(begun[name], learnt)
    assert moved > 100
    # Run again, it is the same and not a part of that part.
    again = Run(examples, tmp_path)
    again.tuning.run()
    for expected, found in zip(run.weights(), again.weights(), strict=True):
        assert torch.equal(expected, found)


class Asked(PromptTuning):
    """Notes which slices it could learn from at each step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.learnt_from: list[list[int]] = []

    def loss_of_step(self, step: int) -> Tensor | None:
        self.learnt_from.append(self._pool._labelled.tolist())
        return super().loss_of_step(step)


@pytest.mark.parametrize(("enough", "joined_after"), [(1, None), (99, 2)])
def test_held_out_slices_join_where_they_are_too_few_to_choose_by(
    enough: int,
    joined_after: int | None,
    examples: TrainingSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", enough)
    run = Run(examples, tmp_path, steps=5, kind=Asked)
    measured: list[float] = []

    def measure(segmenter: PromptedSegmenter, slices: list[LabelledSlice], *more: Any) -> Any:
        assert [each.number for each in slices] == HELD_OUT.validation
        measured.append(len(run.reports))
        return {"box": 0.5, "1 click": 0.6, "3 clicks": 0.7}

    monkeypatch.setattr(prompt_tuning, "measure_with_prompts", measure)
    outcome = run.tuning.run()
    assert outcome.measured["3 clicks"] == 0.7
    steps = run.tuning.learnt_from  # type: ignore[attr-defined]
    own, every = HELD_OUT.training, list(range(8))
    if joined_after is None:
        assert not outcome.held_out_joined and steps == 5 * [own]
        assert min(measured) == 5, "nothing is chosen before the end"
    else:
        assert outcome.held_out_joined and measured == [joined_after]
        assert steps == joined_after * [own] + (5 - joined_after) * [every]


def test_where_enough_is_held_out_it_says_how_much_to_keep(
    examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", 3)
    run = Run(replace(examples, volumes=2), tmp_path)
    begun = run.weights()
    worth = {0.5: 0.4, 0.75: 0.9, 1.0: 0.8}
    shares = iter([*worth, "chosen"])

    def measure(*arguments: Any) -> dict[str, float]:
        score = worth.get(next(shares), 0.3)
        return {"box": 1 - score, "1 click": score, "3 clicks": score}

    monkeypatch.setattr(prompt_tuning, "measure_with_prompts", measure)
    outcome = run.tuning.run()
    assert outcome.share == 0.75 and outcome.measured["1 click"] == 0.3
    run.tuning.save()
    state = load_state(tmp_path, "0", PROMPT_STATE_FILE)
    assert state is not None
    names = [name for name, _ in run.segmenter.named_parameters()]
    for name, before, now in zip(names, begun, run.weights(), strict=True):
        if name in state.weights:
            assert torch.allclose(now, torch.lerp(before, state.weights[name], 0.75), atol=1e-6)


def test_where_nothing_held_out_can_be_pointed_at_it_goes_half_way(
    examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", 3)
    monkeypatch.setattr(prompt_tuning, "measure_with_prompts", lambda *arguments: {})
    outcome = Run(examples, tmp_path).tuning.run()
    assert outcome.share == 0.5 and outcome.measured == {} and not outcome.held_out_joined


def test_finishing_early_keeps_what_there_is(examples: TrainingSet, tmp_path: Path) -> None:
    asked = iter([False, True])
    run = Run(examples, tmp_path, steps=500, finish=lambda: next(asked))
    before = run.weights()
    outcome = run.tuning.run()
    assert outcome.ending == "finished on request" and outcome.steps == 1
    assert not all(torch.equal(*pair) for pair in zip(before, run.weights(), strict=True))


def test_nothing_labelled_is_measured_as_nothing(examples: TrainingSet) -> None:
    segmenter = PromptedSegmenter(build("starter", 64))
    empty = replace(examples.slices[0], target=np.zeros((64, 64), np.uint8))
    assert measure_prompted(segmenter, []) == measure_prompted(segmenter, [empty]) == {}
