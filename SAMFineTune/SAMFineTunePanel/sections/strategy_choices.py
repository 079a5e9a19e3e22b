"""The choices under Advanced that say what learns: head, method, scope, and where adapters and updates go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from SAMFineTunePanel.sections.panel_section import allow
from SAMFineTunePanel.texts.strategy_text import (
    adapterBlockTitles,
    headDepthTitles,
    headTitles,
    loraBlockTitles,
    loraPartTitles,
    methodTitles,
    promptModeTitles,
    scopeTitles,
)
from SAMFineTunePanel.widgets.parameter_choices import ComboBoxChoice, ShowsParameters, SpinBoxChoice

if TYPE_CHECKING:
    import qt

    from SAMFineTunePanel.parameter_node import SAMFineTuneParameterNode


class StrategyChoices:
    """These choices, each with a sentence; those without an effect are greyed and say why.

    Args:
        ui: of the section Model.
        section: whose parameter node is meant.
    """

    def __init__(self, ui: Any, section: ShowsParameters) -> None:
        self._ui = ui
        self._section = section
        self._lists = [
            self._list(ui.methodComboBox, "method", methodTitles()),
            self._list(ui.scopeComboBox, "scope", scopeTitles()),
            self._list(ui.headComboBox, "head", headTitles()),
            self._list(ui.headDepthComboBox, "headDepth", headDepthTitles()),
            self._list(ui.adapterBlocksComboBox, "adapterBlocks", adapterBlockTitles()),
            self._list(ui.loraBlocksComboBox, "loraBlocks", loraBlockTitles()),
            self._list(ui.loraPartsComboBox, "loraParts", loraPartTitles()),
            self._list(ui.promptModeComboBox, "promptMode", promptModeTitles()),
        ]
        self._rank = SpinBoxChoice(ui.rankSpinBox, section, "rank")

    def update(self) -> None:
        """Show what the parameter node says, and what of it counts."""
        for choice in self._lists:
            choice.update()
        self._rank.update()
        self._allow(self._section.parameterNode)

    def _list(self, comboBox: qt.QComboBox, name: str, titles: Mapping[Any, str]) -> ComboBoxChoice:
        choice = ComboBoxChoice(comboBox, self._section, name)
        choice.setItems(list(titles.items()))
        return choice

    def _allow(self, node: SAMFineTuneParameterNode) -> None:
        ui = self._ui
        ofModel = _("The tuned model to start from says which") if node.startFrom else ""
        untuned = "" if node.tuneForPrompts else _("No weights for points and boxes are tuned")
        notLora = "" if node.method == "lora" else _("Choose the method LoRA first")
        notAdapter = "" if node.method == "adapter" else _("Choose the method Adapter first")
        noEncoder = _("Only the decoder learns") if node.scope == "decoder" else ""
        withoutRank = "" if node.method == "lora" else _("Only LoRA has a rank")
        withoutDepth = "" if node.head == "convnet" else _("Only the head of convolutions has a depth")
        allow(ui.rankSpinBox, withoutRank, _("Size of LoRA's updates; the study used 4"))
        allow(ui.promptModeComboBox, untuned, _("The simulated points and boxes that these weights learn from"))
        allow(ui.headComboBox, ofModel, _("What is put on the image encoder and finds the structures"))
        allow(ui.headDepthComboBox, ofModel or withoutDepth, _("Number of blocks of convolutions; LoRaMedNet has 4"))
        allow(
            ui.adapterBlocksComboBox,
            ofModel or notAdapter or noEncoder,
            _("Blocks of the image encoder that get adapters; the study compared the first and last two with all"),
        )
        allow(
            ui.loraBlocksComboBox,
            ofModel or notLora or noEncoder,
            _("Blocks of the image encoder that get low-rank updates"),
        )
        allow(
            ui.loraPartsComboBox,
            ofModel or notLora,
            _("Layers of each block that get low-rank updates; the study used query and value"),
        )
