"""Remedies: the library's are true for everybody, the shell's say what to type."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator

import pytest

from SAMFineTuneLib.cli import build_parser
from SAMFineTuneLib.cli.remedies import REMEDIES, remedy_from, with_remedy_to_type
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.worker.events import ErrorEvent, parse_line
from SAMFineTuneLib.worker.failure import error_event
from SAMFineTuneLib.worker.json_text import to_json
from Testing.support.refusals import facts_in, library_files, refusals, texts

OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
SENTENCES = [(code, each) for code, listed in REMEDIES.items() for each in listed]


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The long options of all commands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


def test_every_refusal_has_a_code_and_a_remedy() -> None:
    found = refusals()
    assert len(found) > 150
    for each in found:
        assert each.has_code, each.place
        assert each.remedy is not None, each.place
        assert not (isinstance(each.remedy, ast.Constant) and not each.remedy.value), each.place


def test_no_text_of_the_library_names_an_option_of_a_command() -> None:
    for path in library_files():
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            # Alone it is an argument for a process that the library starts.
            told = OPTION.search(text) if not OPTION.fullmatch(text) else None
            assert told is None, f"{path}: {text!r}"
            assert "python -m SAMFineTuneLib" not in text, f"{path}: {text!r}"


@pytest.mark.parametrize(("code", "sentence"), SENTENCES)
def test_a_remedy_of_the_shell_is_of_a_code_with_its_facts(code: str, sentence: str) -> None:
    of_the_code = [each for each in refusals() if each.code == code]
    wanted = {"field" if name == "option" else name for name in facts_in(sentence)}
    assert any(wanted <= each.facts for each in of_the_code), code


def test_options_in_the_shells_remedies_are_there() -> None:
    known = set(options_of(build_parser()))
    for _, sentence in SENTENCES:
        assert set(OPTION.findall(sentence)) <= known, sentence
        assert OPTION.search(sentence) or "{option}" in sentence, sentence


def test_each_sentence_can_be_reached() -> None:
    for code, listed in REMEDIES.items():
        for sentence in listed:
            facts = dict.fromkeys(facts_in(sentence), "x")
            assert remedy_from(listed, facts) == sentence.format_map(facts), code


def typed(error: InputError) -> str:
    """The remedy that the shell shows, of an error that came as a line from the worker."""
    event = parse_line(to_json(error_event(error)))
    assert isinstance(event, ErrorEvent) and event.facts == error.facts
    assert event.remedy == error.remedy
    return with_remedy_to_type(event).remedy


def test_facts_fill_what_is_to_be_typed() -> None:
    contrary = InputError("a and b", "give one", code="contrary_options", field="initial_model")
    assert typed(contrary) == "Give --weights random or --initial-model"
    overlapping = InputError(
        "they overlap", "say", code="overlapping_segments", segment="left lung", label=3
    )
    assert '--on-top "left lung" ("on_top"' in typed(overlapping)
    assert "--labels 3" in typed(overlapping)
    contradiction = InputError("two", "x", code="label_contradiction", label=1, name="bright")
    assert "--label-names 1=bright " in typed(contradiction)


def test_what_the_shell_knows_nothing_more_of_stays_as_it_is() -> None:
    assert typed(InputError("it broke", "mend it", code="unheard_of", label=3)) == "mend it"
    assert typed(InputError("a and b", "give one", code="contrary_options")) == "give one"


def test_events_of_other_versions_are_understood() -> None:
    """An older worker sends no facts; an older client leaves out what it does not know."""
    event = parse_line('{"type": "error", "code": "x", "message": "m", "remedy": "r", "new": 1}')
    assert isinstance(event, ErrorEvent) and (event.facts, event.remedy) == ({}, "r")
