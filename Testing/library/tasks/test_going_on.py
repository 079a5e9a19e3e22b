"""Going on from a tuned model, from the shell to the file: what is learnt, measured and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from SAMFineTuneLib.examples.held_out_origin import held_out_origin
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.schema import read_job
from SAMFineTuneLib.models.model_file import LabelCard, ModelCard, Strategy, read_card
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.tasks.going_on import GoingOn
from SAMFineTuneLib.tasks.initial_model import InitialModel
from SAMFineTuneLib.training import validation
from SAMFineTuneLib.training.fine_tuning import FineTuning
from SAMFineTuneLib.training.validation_split import ValidationSplit, split
from SAMFineTuneLib.worker.events import Log, Progress, parse_line
from Testing.support.in_process import Ended, Shell, shell_of
from Testing.support.job_records import choices_of
from Testing.support.listed_pictures import data_set, write_list
from Testing.support.synthetic_volumes import head, keep_slices, write_pair
from Testing.support.training_slices import a_slice, training_set
from Testing.support.tuned_starter import write_model

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


class Desk:
    """A person with one labelled volume and one model."""

    def __init__(self, folder: Path, shell: Shell) -> None:
        self.folder, self.shell = folder, shell
        self.model = folder / "m.safetensors"
        self.labels = [1, 2, 3, 4]

    def finetune(self, *more: object, output: Path | None = None) -> Ended:
        volume, labelmap = head((6, 40, 40))
        pair = write_pair(self.folder, volume, keep_slices(labelmap, self.labels), "head")
        files = ("--volume", pair[0], "--segmentation", pair[1])
        return self.shell("finetune", *files, "--output", output or self.model, "--batch", 1, *more)

    def go_on(self, *more: object, output: Path | None = None) -> Ended:
        return self.finetune("--initial-model", self.model, "--go-on", *more, output=output)

    @property
    def card(self) -> ModelCard:
        return read_card(self.model)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: Any, capfd: Any) -> Desk:
    return Desk(tmp_path, shell_of(monkeypatch, capfd, tmp_path / "cache"))


def finish_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Lets every fine-tune be finished early, by the user, at a step."""
    run, after_step = FineTuning.run, FineTuning.after_step
    made = [0]

    def begin(tuning: FineTuning) -> Any:
        made[0] = 0
        return run(tuning)

    def note(tuning: FineTuning) -> None:
        made[0] += 1
        after_step(tuning)

    monkeypatch.setattr(FineTuning, "run", begin)
    monkeypatch.setattr(FineTuning, "after_step", note)
    monkeypatch.setattr(Control, "finish_requested", lambda control: made[0] == step)


def measured_slices(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of the slices of each validation that is set up from now on."""
    seen: list[list[int]] = []
    real = validation.Validation.__init__

    def init(self: Any, segmenter: Any, slices: Any, *more: Any) -> None:
        seen.append([each.number for each in slices])
        real(self, segmenter, slices, *more)

    monkeypatch.setattr(validation.Validation, "__init__", init)
    return seen


def test_it_goes_on_into_the_same_file_and_adds_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.finetune("--steps", 4).code == 0
    first, weights = desk.card, load_file(desk.model)
    assert first.metrics["held_out_joined_after_measurement"] and first.metrics["validation_dsc"]
    assert "earlier_steps" not in first.training
    seen = measured_slices(monkeypatch)
    ended = desk.go_on("--steps", 2)
    assert ended.code == 0, ended.err
    second = desk.card
    assert second.training == ended.result["training"]
    assert (second.training["steps"], second.training["earlier_steps"]) == (2, 4)
    assert second.training["learning_rate"] == pytest.approx(5e-4 / 3)
    assert second.training["seed"] != first.training["seed"]
    assert [each["steps"] for each in second.training["earlier_runs"]] == [4]
    assert (second.strategy, second.labels, second.axis) == (
        first.strategy,
        first.labels,
        first.axis,
    )
    later = load_file(desk.model)
    assert later.keys() == weights.keys()
    assert any(not torch.equal(later[name], weights[name]) for name in weights)

    # What was held out was learnt from in the end: nothing is measured, and the figure is kept.
    assert seen == [] and second.metrics["validation_dsc"] is None
    assert second.metrics == {
        "validation_dsc": None,
        "held_out": "none",
        "before_going_on": first.metrics,
    }
    assert "learnt from in the end, so that nothing is measured on them now" in ended.err
    assert "going on from m.safetensors after 4 steps: 2 steps" in ended.err

    # A model that went on goes on once more, from what it was measured before both.
    assert desk.go_on("--steps", 1).code == 0
    third = desk.card
    assert (third.training["steps"], third.training["earlier_steps"]) == (1, 6)
    assert [each["steps"] for each in third.training["earlier_runs"]] == [4, 2]
    assert third.metrics["before_going_on"] == first.metrics
    seeds = {each.training["seed"] for each in (first, second, third)}
    assert len(seeds) == 3
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(desk.folder))
    dsc = first.metrics["validation_dsc"]
    assert f"before it went on learning: DSC {dsc:.3f}" in desk.shell("models", "list").err


def test_the_same_slices_are_measured_on_where_none_was_learnt_from(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = measured_slices(monkeypatch)
    with monkeypatch.context() as patch:
        # Before the final pass, in which the held-out slices join.
        finish_at(patch, 1)
        assert desk.finetune("--steps", 20, "--seed", 3).code == 0
    first = desk.card
    assert first.metrics["held_out_joined_after_measurement"] is False
    assert desk.go_on("--steps", 4).code == 0
    second = desk.card
    assert seen[1] == seen[0] and len(seen[0]) == 1
    assert second.metrics["validation_dsc"] is not None and second.metrics["held_out"] == "slice"
    assert second.metrics["before_going_on"] == first.metrics
    assert second.metrics["held_out_joined_after_measurement"] is True
    # Now they have been learnt from. The latest figure is that of the second run.
    assert desk.go_on("--steps", 1).code == 0 and len(seen) == 2
    own = {name: each for name, each in second.metrics.items() if name != "before_going_on"}
    assert desk.card.metrics["before_going_on"] == own


SLICES = training_set([a_slice({1, 2}, 0, number) for number in range(12)])
MEASURED = {
    "validation_dsc": 0.8,
    "held_out": "slice",
    "held_out_slices": 2,
    "held_out_joined_after_measurement": False,
}


def going_on_from(metrics: dict[str, Any], **training: Any) -> GoingOn:
    """From a model whose fine-tune held slices out by seed 3."""
    told = {"steps": 9, "seed": 3, "held_out_origin": held_out_origin(SLICES), **training}
    card = ModelCard(
        backbone="starter",
        checkpoint_sha256=None,
        strategy=Strategy(method="vanilla", scope="encoder_decoder", rank=4),
        labels=[LabelCard(value=1), LabelCard(value=2)],
        axis="axial",
        normalisation=IntensityNormalisation(kind="percentiles"),
        input_size=256,
        training=told,
        metrics=metrics,
    )
    going_on = GoingOn.of_job(
        choices_of(initial_model=Path("m.safetensors"), go_on=True),
        InitialModel(Path("m.safetensors"), card, None),
    )
    assert going_on is not None
    return going_on


def test_the_seed_of_the_first_run_chooses_the_held_out_slices() -> None:
    going_on = going_on_from(MEASURED)
    assert going_on.held_out(choices_of(seed=5), SLICES) == (split(SLICES.slices, 3), "")
    # Also after several runs, each with a seed of its own for its draws.
    further = going_on_from(MEASURED, seed=991, split_seed=3)
    assert further.held_out(choices_of(), SLICES) == (split(SLICES.slices, 3), "")
    assert split(SLICES.slices, 991) != split(SLICES.slices, 3) != split(SLICES.slices, 0)


@pytest.mark.parametrize(
    ("metrics", "training", "words"),
    [
        ({"held_out_joined_after_measurement": True}, {}, "learnt from in the end"),
        ({"held_out_joined_after_measurement": None}, {}, "learnt from in the end"),
        ({"held_out": "none"}, {}, "nothing was held out before"),
        ({"held_out": None}, {}, "nothing was held out before"),
        ({}, {"began_tuned": True}, "began as another tuned model"),
        ({}, {"held_out_origin": "0123456789abcdef"}, "not the examples"),
        ({}, {"held_out_origin": None}, "not the examples"),
        ({}, {"seed": "three"}, "not found again"),
        ({"held_out_slices": 3}, {}, "not found again"),
        ({"held_out": "volume"}, {}, "not found again"),
    ],
)
def test_nothing_is_measured_where_a_slice_may_have_been_learnt_from(
    metrics: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    going_on = going_on_from(MEASURED | metrics, **training)
    held_out, why = going_on.held_out(choices_of(), SLICES)
    assert held_out == ValidationSplit(list(range(12)), [], "none") and words in why
    # Nor where the user wants nothing to be held out.
    assert going_on_from(MEASURED).held_out(choices_of(validation="none"), SLICES)[0] == held_out


def test_other_labels_on_the_same_slices_are_other_examples() -> None:
    changed = training_set([*SLICES.slices[:-1], a_slice({1}, 0, 11)])
    fewer = training_set(SLICES.slices[:-1])
    more = training_set([*SLICES.slices, a_slice({1, 2}, 0, 12)])
    for other in (changed, fewer, more):
        assert held_out_origin(other) != held_out_origin(SLICES)
        assert going_on_from(MEASURED).held_out(choices_of(), other)[0].validation == []
    # The window of an image may be rounded in a card; the labels tell.
    brighter = replace(SLICES.slices[0], image=SLICES.slices[0].image + 0.001)
    assert held_out_origin(training_set([brighter, *SLICES.slices[1:]])) == held_out_origin(SLICES)


def test_a_card_of_an_older_version_measures_nothing() -> None:
    old = going_on_from({"validation_dsc": 0.8, "held_out": "slice", "held_out_slices": 2})
    assert old.held_out(choices_of(), SLICES)[0].validation == []
    assert old.figures_before()["validation_dsc"] == 0.8
    assert going_on_from({"validation_dsc": None, "held_out": "none"}).figures_before() == {}


def test_a_fine_tune_from_a_tuned_model_says_that_it_may_know_the_slices(desk: Desk) -> None:
    write_model(desk.model, for_prompts=False, input_size=64)
    ended = desk.finetune("--initial-model", desk.model, "--steps", 1)
    assert ended.code == 0 and desk.card.training["began_tuned"] is True
    assert "earlier_steps" not in desk.card.training


def test_a_list_of_its_own_is_measured_on_every_time(desk: Desk) -> None:
    data_set(desk.folder, 8)
    training, apart, other = (
        write_list(desk.folder / f"{name}.csv", [f"p{number}" for number in numbers])
        for name, numbers in (("some", range(4)), ("apart", (4, 5)), ("other", (6, 7)))
    )
    words = ("finetune", "--list", training, "--output", desk.model, "--steps", 1, "--batch", 2)
    assert desk.shell(*words, "--validation-list", apart).code == 0
    further = (*words, "--initial-model", desk.model, "--go-on")
    assert desk.shell(*further, "--validation-list", apart).code == 0
    metrics = desk.card.metrics
    assert metrics["held_out"] == "validation list" and metrics["validation_dsc"] is not None
    assert metrics["before_going_on"]["held_out_slices"] == 2
    # Another list may have been learnt from; it is not measured on, and not learnt from now.
    ended = desk.shell(*further, "--validation-list", other)
    assert "not the examples" in ended.err and desk.card.metrics["held_out"] == "none"
    assert ended.result["data"]["labelled_slices"] == 6


def test_weights_for_prompts_go_on_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.finetune("--steps", 3, "--prompts").code == 0
    first, weights = desk.card, load_file(desk.model)
    ended = desk.go_on("--steps", 4)
    assert ended.code == 0, ended.err
    second = desk.card
    assert second.prompts is not None and second.prompts.training["steps"] == 2
    assert second.prompts.training["learning_rate"] == pytest.approx(
        first.prompts.training["learning_rate"] / 3  # type: ignore[union-attr]
    )
    assert second.metrics["prompted"] is None
    assert second.metrics["before_going_on"]["prompted"] == first.metrics["prompted"]
    of_prompts = [name for name in weights if name.startswith("prompts.")]
    later = load_file(desk.model)
    assert any(not torch.equal(later[name], weights[name]) for name in of_prompts)

    # Where it is finished early, they stay as they were, and the model does not lose them.
    finish_at(monkeypatch, 1)
    ended = desk.go_on("--steps", 4)
    assert ended.code == 0 and "they stay as they were" in ended.err
    last = load_file(desk.model)
    assert all(torch.equal(last[name], later[name]) for name in of_prompts)
    assert desk.card.prompts == second.prompts and desk.card.format_version == 2


def test_what_cannot_go_on_is_refused_in_one_line(desk: Desk) -> None:
    alone = desk.finetune("--go-on")
    assert alone.code == 2 and len(alone.error_lines) == 1
    assert "--go-on" in alone.err and "--initial-model" in alone.err
    write_model(desk.model, for_prompts=False, input_size=64)
    before = desk.model.read_bytes()
    for more, words in (
        (("--labels", 5), ("52",)),
        (("--backbone", "lite_medsam"), ("starter", "lite_medsam")),
        (("--axis", "coronal"), ("axial", "coronal")),
    ):
        ended = desk.go_on("--steps", 1, *more)
        assert ended.code == 2 and len(ended.error_lines) == 1, ended.err
        assert all(word in ended.err for word in words), ended.err
    assert desk.model.read_bytes() == before


def test_a_cancelled_one_keeps_the_model_and_is_resumed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(desk.model, for_prompts=False, input_size=64)
    before, job = desk.model.read_bytes(), desk.folder / "job"
    real = FineTuning.loss_of_step

    def cancels(tuning: FineTuning, step: int) -> Any:
        if step == 2:
            (job / "cancel").touch()
        return real(tuning, step)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuning, "loss_of_step", cancels)
        assert desk.go_on("--steps", 4, "--job", job).code == 3
    assert desk.model.read_bytes() == before
    (job / "cancel").unlink()
    (job / "events.jsonl").unlink()
    assert desk.shell("run", job).code == 0
    told = [parse_line(line) for line in (job / "events.jsonl").read_text().splitlines()]
    assert min(each.step for each in told if isinstance(each, Progress)) > 2
    assert any(isinstance(each, Log) and "going on at step" in each.message for each in told)
    assert (desk.card.training["steps"], desk.card.training["earlier_steps"]) == (4, 0)


def test_old_jobs_do_not_go_on(desk: Desk) -> None:
    job = desk.folder / "job"
    job.mkdir()
    (job / "job.json").write_text(
        '{"kind": "finetune", "schema_version": 1, "output": "m.safetensors", '
        '"initial_model": "a.safetensors", "examples": [{"volume": "v", "segmentation": "s"}]}'
    )
    assert read_job(job).go_on is False  # type: ignore[union-attr]
