"""Errors in words for a panel: no options of commands, one line, whole sentences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("module")

LIBRARY = Path(__file__).resolve().parents[2] / "SAMFineTuneLib"


def test_remedies_are_kept_or_said_for_the_panel():
    from SAMFineTunePanel.texts.error_text import errorWords

    for arguments, words in (
        (("label 3 is absent", "draw it first", "x"), "Label 3 is absent. Draw it first."),
        (("it broke", "", "x"), "It broke."),
        (("it broke", "use --this", "unheard_of"), "It broke."),
        (
            ("no weights", "give them with --checkpoint", "weights_missing"),
            "No weights. Get the weights under Model, or name a weights file under Advanced.",
        ),
        (
            ("the weights are gone", "start with --weights random", "bundle_unusable"),
            "The weights are gone. "
            "Install the extension anew, or tick Random weights under Model, Advanced.",
        ),
    ):
        assert errorWords(*arguments) == words


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_bundled_weights_that_cannot_be_used(bundle, harm):
    from SAMFineTunePanel.texts.error_text import errorWords

    from SAMFineTuneLib.errors import InputError
    from SAMFineTuneLib.weights.choice import find_weights

    if harm == "missing":
        bundle.unlink()
    with pytest.raises(InputError) as caught:
        find_weights("starter", None)
    error = caught.value
    words = errorWords(error.message, error.remedy, error.code)
    assert harm in words and str(bundle) in words and "--" not in words
    assert words.endswith("or tick Random weights under Model, Advanced.")


def test_every_code_that_the_panel_knows_is_one_of_the_library():
    from SAMFineTunePanel.texts import error_text as error_words

    source = Path(error_words.__file__).read_text(encoding="utf-8")
    codes = re.findall(r'"(\w+)": _\(', source)
    text = "".join(path.read_text(encoding="utf-8") for path in LIBRARY.rglob("*.py"))
    assert len(codes) > 10
    for code in codes:
        assert f'"{code}"' in text, code
