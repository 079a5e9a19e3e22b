"""Errors in words for a panel: no options of commands, one line, whole sentences."""

from __future__ import annotations

import pytest

from Testing.support.refusals import facts_in, refusals

pytestmark = pytest.mark.usefixtures("module")


def test_remedies_are_kept_or_said_for_the_panel():
    from SAMFineTunePanel.texts.error_text import errorText

    for arguments, words in (
        (("label 3 is absent", "draw it first", "x"), "Label 3 is absent. Draw it first."),
        (("it broke", "", "x"), "It broke."),
        (
            ("no weights", "fetch them", "weights_missing", {"backbone": "vit_t"}),
            "No weights. Get the weights under Model, or name a weights file under Advanced.",
        ),
        (
            ("the weights are gone", "start from random weights", "bundle_unusable"),
            "The weights are gone. "
            "Install the extension anew, or tick Random weights under Model, Advanced.",
        ),
        (
            ("it is of vit_b", "choose vit_b", "other_backbone", {"backbone": "vit_b"}),
            "It is of vit_b. Choose the backbone vit_b under Model, or another model.",
        ),
        # A worker of another version may send no facts.
        (("it is of vit_b", "choose vit_b", "other_backbone"), "It is of vit_b. Choose vit_b."),
    ):
        assert errorText(*arguments) == words


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_bundled_weights_that_cannot_be_used(bundle, harm):
    from SAMFineTunePanel.texts.error_text import errorText

    from SAMFineTuneLib.errors import InputError
    from SAMFineTuneLib.weights.choice import find_weights

    if harm == "missing":
        bundle.unlink()
    with pytest.raises(InputError) as caught:
        find_weights("starter", None)
    error = caught.value
    words = errorText(error.message, error.remedy, error.code, error.facts)
    assert harm in words and str(bundle) in words and "--" not in words
    assert words.endswith("or tick Random weights under Model, Advanced.")


def test_every_code_that_the_panel_knows_is_one_of_the_library_with_its_facts():
    from SAMFineTunePanel.texts.error_text import panelRemedies

    remedies = panelRemedies()
    assert len(remedies) > 10
    for code, sentence in remedies.items():
        of_the_code = [each for each in refusals() if each.code == code]
        assert any(facts_in(sentence) <= each.facts for each in of_the_code), code
