"""Places of an adaptation from the job through plan and card to the loaded network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from SAMFineTuneLib.adaptation.places import USUAL_PLACES, Places
from SAMFineTuneLib.adaptation.strategy import Method, adapt, adapt_for_prompts
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.models.card_check import fault_of
from SAMFineTuneLib.models.model_file import (
    LabelCard,
    ModelCard,
    PromptCard,
    Strategy,
    load_model,
    load_prompted,
    read_card,
    save_model,
)
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.tasks.strategy_card import strategy_of, with_strategy
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.prompt_plan import plan_for_prompts
from Testing.support.job_records import choices_of
from Testing.support.training_slices import a_slice, training_set

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


def plan_of(**chosen: Any) -> FinetunePlan:
    examples = training_set([a_slice({1, 2}, 0, number) for number in range(3)])
    return settle(choices_of(**chosen), examples, pretrained=False)


def card_of(strategy: Strategy, prompts: PromptCard | None = None) -> ModelCard:
    return ModelCard(
        backbone="starter",
        checkpoint_sha256=None,
        strategy=strategy,
        labels=[LabelCard(value=1)],
        axis="axial",
        normalisation=IntensityNormalisation(kind="percentiles"),
        input_size=64,
        prompts=prompts,
    )


def usual(method: str = "adapter") -> Strategy:
    return Strategy(method=method, scope="encoder_decoder", rank=4)


def test_a_plan_keeps_the_places_and_a_card_tells_them() -> None:
    plan = plan_of(method="lora", lora_parts=["mlp", "q"], lora_blocks=[6, 0], lora_scale=2.0)
    assert plan.places == Places(lora_parts=("q", "mlp"), lora_blocks=(0, 6), lora_scale=2.0)
    strategy = strategy_of(plan)
    assert strategy.lora_blocks == [0, 6] and strategy.places == plan.places
    other = replace(plan, method="vanilla", places=USUAL_PLACES, rank=9)
    assert with_strategy(other, strategy) == plan
    with pytest.raises(InputError, match="lora parts are chosen, and the method is vanilla"):
        plan_of(lora_parts=["o"])


def test_a_model_comes_back_with_its_places(tmp_path: Path) -> None:
    plan = plan_of(method="lora", lora_parts=["k", "o", "mlp"], lora_blocks=[1], lora_scale=3.0)
    for_prompts = plan_of(method="adapter", adapter_blocks=[2], decoder_adapters="none")
    torch.manual_seed(0)
    segmenter = AutomaticSegmenter(build("starter", 64), 1)
    adapt(segmenter.network, plan.method, plan.scope, plan.rank, plan.places)
    prompted = PromptedSegmenter(build("starter", 64))
    adapt_for_prompts(
        prompted.network, for_prompts.method, for_prompts.scope, 4, for_prompts.places
    )
    with torch.no_grad():
        for each in segmenter.parameters():
            each.add_(0.05 * torch.randn_like(each))
    card = card_of(strategy_of(plan), PromptCard(strategy=strategy_of(for_prompts)))
    path = tmp_path / "model.safetensors"
    save_model(path, segmenter.eval(), card, prompted)
    loaded, read = load_model(path, lambda card: path)
    assert read.strategy.places == plan.places and read.format_version == 4
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images)[0], segmenter(images)[0])
    again = load_prompted(path, lambda card: path)[0]
    expected = prompted.state_dict()
    assert all(torch.equal(each, expected[name]) for name, each in again.state_dict().items())


@pytest.mark.parametrize("method", ["norm", "bias"])
def test_methods_that_insert_nothing_come_back(method: Method, tmp_path: Path) -> None:
    segmenter = AutomaticSegmenter(build("starter", 64), 1)
    before = {name: each.clone() for name, each in segmenter.state_dict().items()}
    adapt(segmenter.network, method, "encoder_decoder")
    segmenter(torch.randn(1, 3, 64, 64))[0].square().mean().backward()
    with torch.no_grad():
        for each in segmenter.parameters():
            if each.grad is not None:
                each.sub_(each.grad.sign() * 0.01)
    path = tmp_path / "model.safetensors"
    save_model(path, segmenter, card_of(usual(method)))
    assert read_card(path).format_version == 4
    loaded = load_model(path, lambda card: path)[0].state_dict()
    changed = {name for name, each in loaded.items() if not torch.equal(each, before[name])}
    encoder = {name for name in changed if "image_encoder" in name}
    # All biases of the starter's encoder are those of its normalisation layers.
    kinds = ("weight", "bias") if method == "norm" else ("bias",)
    assert len(encoder) == len(kinds) * 19
    assert all(name.endswith(kinds) for name in encoder)


def test_cards_of_older_programs_name_no_places() -> None:
    old = Strategy.model_validate({"method": "adapter", "scope": "decoder", "rank": 4})
    assert old.places == USUAL_PLACES and old.is_known_to_version_3
    assert not usual("bias").is_known_to_version_3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adapter_blocks", "none"),
        ("adapter_blocks", [-1]),
        ("lora_blocks", []),
        ("decoder_adapters", "first2last2"),
        ("lora_parts", ["q", "x"]),
        ("lora_parts", []),
        ("lora_scale", float("nan")),
    ],
)
def test_a_card_with_impossible_places_is_refused(field: str, value: Any) -> None:
    assert fault_of(card_of(usual())) is None
    fault = fault_of(card_of(usual().model_copy(update={field: value})))
    assert fault is not None and fault.startswith(f"strategy.{field} is")


def test_a_fine_tune_of_a_tuned_model_keeps_its_places() -> None:
    card = card_of(usual().model_copy(update={"adapter_blocks": [3, 5]}))
    initial = InitialModel(Path("model.safetensors"), card, None)
    for chosen in ({}, {"adapter_blocks": [5, 3]}):
        job = initial.with_its_strategy(choices_of(**chosen))
        assert job.method == "adapter" and job.adapter_blocks == [3, 5]
    of_an_older_program = replace(initial, card=card_of(usual()))
    job = of_an_older_program.with_its_strategy(choices_of(adapter_blocks="all"))
    assert job.adapter_blocks == "auto"
    with pytest.raises(InputError, match="tuned with other adapter blocks") as refused:
        initial.with_its_strategy(choices_of(adapter_blocks="all"))
    assert refused.value.code == "other_strategy"


def test_the_starter_is_tuned_for_prompts_by_the_method_that_was_chosen() -> None:
    plan = plan_of(method="adapter", adapter_blocks=[0])
    chosen = plan_for_prompts(plan, True, None, "adapter")
    assert (chosen.method, chosen.places) == ("adapter", plan.places)
    left_open = plan_for_prompts(plan, True, None)
    assert (left_open.method, left_open.places) == ("vanilla", USUAL_PLACES)
