"""The preset loramednet, and the choice of a head in a job."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.names import HEADS
from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job
from SAMFineTuneLib.slices.augmentation import augmentation_by_four
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.tasks.starting_point import StartingPoint
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from Testing.support.job_records import choices_of
from Testing.support.training_slices import a_slice, training_set

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

EXAMPLES = training_set([a_slice({1}, number, number) for number in range(10)])


def test_the_preset_says_what_the_paper_says() -> None:
    job = choices_of(preset="loramednet", backbone="vit_b")
    pixels = StartingPoint(Path("sam_vit_b.pth"), None).pixels(job)
    plan = settle(job, EXAMPLES, pretrained=True, pixels=pixels)
    assert (plan.method, plan.scope, plan.rank) == ("lora", "encoder_decoder", 4)
    assert (plan.head, plan.head_depth, plan.pixels) == ("convnet", 4, "unit")
    assert (plan.learning_rate, plan.betas, plan.weight_decay) == (5e-4, (0.5, 0.999), 0.0)
    assert (plan.batch, plan.steps, plan.minutes) == (4, 120 * math.ceil(10 / 4), None)
    assert (plan.augmentation, plan.patience, HEADS[plan.head].loss) == ("four", None, "exclusive")
    assert {Schedule(plan, step=step).learning_rate() for step in (0, 100, 359)} == {5e-4}


def test_the_user_may_change_parts_of_it() -> None:
    job = choices_of(preset="loramednet", head="linear", method="adapter", steps=7, batch=2)
    plan = settle(job, EXAMPLES, pretrained=False)
    assert (plan.head, plan.head_depth, plan.method, plan.steps) == ("linear", None, "adapter", 7)
    assert plan.learning_rate == 5e-4
    starter = choices_of(preset="loramednet")
    assert StartingPoint(None, None).pixels(starter) is None, "as usual for it"


def test_with_no_decay_and_its_betas_the_optimiser_is_adam() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    weight = float(layer.weight.detach())
    ours = TrainedWeights(layer, 0.0, (0.5, 0.999))
    mean = square = 0.0
    for step in range(1, 4):
        x = 0.1 * step
        ours.descend(layer(torch.full((1, 1), x)).square().mean(), 5e-4, step)
        # Kingma and Ba 2015, algorithm 1.
        gradient = 2 * weight * x * x
        mean = 0.5 * mean + 0.5 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.5**step), square / (1 - 0.999**step)
        weight -= 5e-4 * unbiased[0] / (math.sqrt(unbiased[1]) + 1e-8)
    assert float(layer.weight.detach()) == pytest.approx(weight, abs=1e-7)


def test_its_augmentation_turns_and_bends_but_keeps_size_and_contrast() -> None:
    four = augmentation_by_four(32, IntensityNormalisation(kind="percentiles"))
    flat = torch.full((32, 32), 0.5)
    flat[:16] = 0.2
    changed = [four.intensity(flat, seed) for seed in range(20)]
    # Noise and brightness leave the difference of two halves as it is.
    assert all(abs(float(each[16:].mean() - each[:16].mean()) - 0.3) < 0.02 for each in changed)
    assert len({round(float(each.mean()), 2) for each in changed}) > 3
    positions = [four.positions(seed) for seed in range(8)]
    edge = [float((each[31, 16] - each[0, 16]).norm()) for each in positions]
    assert all(abs(each - 2 * 31 / 32) < 0.25 for each in edge), "no change of scale"


def test_a_depth_goes_with_the_head_that_has_one() -> None:
    nothing = {
        "examples": [{"volume": "a.nrrd", "segmentation": "b.nrrd"}],
        "output": "m.safetensors",
    }
    for fields, words in (
        ({"head_depth": 3}, "not with mask_decoder"),
        ({"head": "vit", "head_depth": 3}, "not with vit"),
        ({"head": "convnet", "head_depth": 5}, "head_depth"),
        ({"head": "unet"}, "head"),
    ):
        with pytest.raises(InputError, match=words):
            make_job(FinetuneJob, {**nothing, **fields})
    assert (
        make_job(FinetuneJob, {**nothing, "preset": "loramednet", "head_depth": 3}).head_depth == 3
    )
    assert settle(choices_of(head="convnet"), EXAMPLES, False).head_depth == 2


def test_the_prompt_network_leaves_the_encoder_as_it_is_unless_asked() -> None:
    assert settle(choices_of(head="prompt_network"), EXAMPLES, False).scope == "decoder"
    asked = choices_of(head="prompt_network", scope="encoder_decoder")
    assert settle(asked, EXAMPLES, False).scope == "encoder_decoder"
