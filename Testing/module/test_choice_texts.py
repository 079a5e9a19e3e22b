"""The panel's translatable words for what is chosen: of the same names as the library's."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("module")


def test_presets_are_the_librarys_in_its_words():
    from SAMFineTunePanel.texts.preset_text import presetTexts, presetTitles

    from SAMFineTuneLib.training.presets import PRESETS

    assert list(presetTitles()) == list(PRESETS)
    texts = presetTexts()
    assert list(texts) == list(PRESETS)
    for name, recipe in PRESETS.items():
        of_the_library = f"Costs {recipe.costs}. Needs {recipe.needs}."
        # The panel writes the names of presets with a capital.
        assert texts[name].casefold() == of_the_library.casefold()


def test_every_backbone_has_a_title():
    from SAMFineTunePanel.texts.backbone_text import backboneTitles

    from SAMFineTuneLib.networks.spec import BACKBONES

    assert list(backboneTitles()) == list(BACKBONES)


def test_every_kind_of_weights_can_be_chosen(panel):
    from SAMFineTuneLib.weights.weights_kind import WEIGHTS_KINDS

    box = panel.panel.model.ui.weightsKindComboBox
    offered = [box.itemData(number) for number in range(box.count)]
    assert offered == ["", *WEIGHTS_KINDS]


def test_methods_scopes_heads_and_places_are_the_librarys(panel):
    from SAMFineTunePanel.texts import strategy_text

    from SAMFineTuneLib.adaptation.method import METHODS, SCOPES
    from SAMFineTuneLib.adaptation.places import ENCODER_BLOCKS, PARTS
    from SAMFineTuneLib.heads.names import HEAD_DEPTHS, HEAD_NAMES
    from SAMFineTuneLib.prompts.mode import PROMPT_MODES

    assert set(strategy_text.methodTitles()) == {"auto", *METHODS}
    assert set(strategy_text.scopeTitles()) == {"auto", *SCOPES}
    assert list(strategy_text.headTitles()) == ["auto", *HEAD_NAMES]
    assert list(strategy_text.promptModeTitles()) == list(PROMPT_MODES)
    assert list(strategy_text.headDepthTitles()) == [0, *HEAD_DEPTHS]
    assert set(strategy_text.adapterBlockTitles()) == {"auto", *ENCODER_BLOCKS}
    assert set(strategy_text.loraBlockTitles()) == set(ENCODER_BLOCKS)
    parts = {each for text in strategy_text.loraPartTitles() for each in text.split(",")}
    assert parts == set(PARTS)
