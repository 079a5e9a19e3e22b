"""Options that come from the fields of jobs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from SAMFineTuneLib.adaptation.method import METHODS, SCOPES
from SAMFineTuneLib.cli import build_parser
from SAMFineTuneLib.cli.arguments import numbers_or, option_name
from SAMFineTuneLib.cli.field_option import add_field, chosen_fields
from SAMFineTuneLib.jobs.schema import ApplyJob, CheckpointJob, EvaluateJob, Example, FinetuneJob
from SAMFineTuneLib.networks.spec import BACKBONES, BackboneName
from SAMFineTuneLib.training.presets import PRESETS, Preset

RECORDS = (Example, FinetuneJob, ApplyJob, EvaluateJob, CheckpointJob)
# Of every job: what it is, and the examples, which the command line puts together itself.
NOT_CHOSEN = {"kind", "schema_version", "examples", "drawn"}
# Commands write compressed files; a program that reads the results at once asks for plain ones.
# The images of a case are named together, with + between them, and the kind of weights with their
# file.
NOT_OF_THE_SHELL = {"compress", "channels", "unlabelled_channels", "weights_kind"}


def options(command: str) -> dict[str, argparse.Action]:
    """The options of a command, by name."""
    (commands,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {
        option: action
        for action in commands.choices[command]._actions
        for option in action.option_strings
    }


def parser_of(model: Any, *fields: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    for field in fields:
        add_field(parser, model, field)
    return parser


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_is_described(record: Any) -> None:
    for name, info in record.model_fields.items():
        if name not in ("kind", "schema_version"):
            assert info.description and not info.description.endswith("."), name


@pytest.mark.parametrize(
    ("command", "record"),
    [("finetune", FinetuneJob), ("apply", ApplyJob), ("evaluate", EvaluateJob)],
)
def test_every_field_has_its_option_with_its_default(command: str, record: Any) -> None:
    there = options(command)
    for name, info in record.model_fields.items():
        if name in NOT_CHOSEN | NOT_OF_THE_SHELL:
            continue
        option = there[option_name(name)]
        assert option.dest == name
        assert option.required == info.is_required()
        if not info.is_required():
            assert option.default == info.get_default(call_default_factory=True)


def test_choices_are_those_of_the_library() -> None:
    there = options("finetune")
    assert list(there["--backbone"].choices or ()) == list(BACKBONES) == [*get_args(BackboneName)]
    assert list(there["--preset"].choices or ()) == list(PRESETS) == [*get_args(Preset)]
    assert list(there["--method"].choices or ()) == ["auto", *METHODS]
    assert list(there["--scope"].choices or ()) == ["auto", *SCOPES]
    assert list(there["--axis"].choices or ()) == ["auto", "axial", "coronal", "sagittal"]
    for name, spec in BACKBONES.items():
        assert f"{name}, {spec.description}" in str(there["--backbone"].help)


def test_the_file_of_examples_is_described_with_all_its_fields() -> None:
    told = str(options("finetune")["--examples"].help)
    for name in Example.model_fields:
        assert name in told, name


def test_values_are_read_as_their_fields_are_typed() -> None:
    fields = ("labels", "empty", "extent", "label_names", "on_top", "series", "axis")
    parser = parser_of(Example, *fields)
    words = ["--labels", "1,5", "--empty", "outside", "--extent", "3", "9", "--axis", "coronal"]
    words += ["--label-names", "1=liver", "--on-top", "a", "--on-top", "b", "--series", "2"]
    assert chosen_fields(parser.parse_args(words), Example) == {
        "labels": [1, 5],
        "empty": "outside",
        "extent": [3, 9],
        "label_names": {1: "liver"},
        "on_top": ["a", "b"],
        "series": "2",
        "axis": "coronal",
    }
    parser = parser_of(FinetuneJob, "output", "prompts", "input_size", "learning_rate", "rank")
    chosen = parser.parse_args(["--output", "m.safetensors", "--prompts", "--lr", "0.5"])
    assert chosen_fields(chosen, FinetuneJob) == {
        "output": Path("m.safetensors"),
        "prompts": True,
        "input_size": "auto",
        "learning_rate": 0.5,
        "rank": 4,
    }
    for wrong in (["--input-size", "wide"], ["--rank", "x"]):
        with pytest.raises(argparse.ArgumentError):
            parser.parse_args(["--output", "m.safetensors", *wrong])


def test_help_names_other_fields_as_options_and_tells_the_default() -> None:
    (steps, seed, prompts) = parser_of(FinetuneJob, "steps", "seed", "prompts")._actions[1:]
    assert "one of --steps and --minutes" in str(steps.help) and "default" not in str(steps.help)
    assert str(seed.help).endswith("(default: 0)")
    assert "--initial-model" in str(prompts.help) and "default" not in str(prompts.help)


def test_help_needs_no_tensor_library() -> None:
    program = (
        "import sys\nfrom SAMFineTuneLib.cli import main\n"
        "try:\n    main(['finetune', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'SimpleITK', 'monai', 'scipy'} & set(sys.modules), 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "numbers"), [("3,9,14", [3, 9, 14]), ("0,3,5-9", [0, 3, 5, 6, 7, 8, 9]), ("4-4", [4])]
)
def test_numbers_and_ranges_of_numbers(text: str, numbers: list[int]) -> None:
    assert numbers_or()(text) == numbers


@pytest.mark.parametrize("text", ["9-5", "1-", "a", "1,,2", "0-9999999", "5-all"])
def test_what_is_neither_a_number_nor_a_range(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="numbers such as"):
        numbers_or("all")(text)
