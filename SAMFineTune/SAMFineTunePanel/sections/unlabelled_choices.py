"""What a fine-tune learns from without labels: volumes of the scene, and the other slices of the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.unlabelled_cases import problemWithUnlabelled
from SAMFineTunePanel.parameter_node import unlabelledVolumesOf
from SAMFineTunePanel.scene.scene_pairs import imagesOfScene
from SAMFineTunePanel.sections.panel_section import allow, showProblem
from SAMFineTunePanel.widgets.ticked_list import Entry, TickedList

if TYPE_CHECKING:
    from SAMFineTunePanel.widgets.parameter_choices import ShowsParameters

_YES, _NO, _BY_PRESET = "yes", "no", ""


class UnlabelledChoices:
    """A list of volumes to tick, a box that has it follow Apply, and a box for the examples' other slices.

    Args:
        ui: of the section Fine-tune.
        section: whose parameter node is meant.
    """

    def __init__(self, ui: Any, section: ShowsParameters) -> None:
        self._ui = ui
        self._section = section
        # Whether the preset that counts learns from the examples' other slices.
        self._byPreset = False
        self._preset = ""
        self._volumes = TickedList(ui.unlabelledTable, self.onVolumesChosen)
        ui.unlabelledOfApplyCheckBox.connect("clicked(bool)", self.onFollowApply)
        ui.otherSlicesCheckBox.connect("clicked(bool)", self.onOtherSlices)
        # A group that opens shows all that is in it, also what was hidden while it was folded.
        ui.unlabelledGroupBox.connect("toggled(bool)", self.onUnfolded)

    def update(self, preset: str) -> None:
        """Show what the parameter node says.

        Args:
            preset: the one that counts, which the user or the hardware has chosen.
        """
        ui, node = self._ui, self._section.parameterNode
        self._preset = preset
        volumes = imagesOfScene()
        chosen = unlabelledVolumesOf(node)
        self._volumes.show([Entry(each.GetID(), each.GetName()) for each in volumes], [each.GetID() for each in chosen])
        ui.unlabelledTable.visible = bool(volumes)
        ui.noUnlabelledLabel.visible = not volumes
        ui.unlabelledOfApplyCheckBox.checked = node.unlabelledOfApply
        following = _("They are the volumes chosen under Apply; untick the box below to choose others")
        allow(
            ui.unlabelledTable,
            following if node.unlabelledOfApply else "",
            _("Volumes without labels to learn from as well: tick as many as you like"),
        )
        self._byPreset = _learnsFromOtherSlices(preset)
        ui.otherSlicesCheckBox.checked = self._byPreset if node.otherSlices == _BY_PRESET else node.otherSlices == _YES
        showProblem(ui.unlabelledProblemLabel, problemWithUnlabelled(chosen, list(node.examples)))

    def onUnfolded(self, unfolded: bool) -> None:
        """Hide again what is not to be seen."""
        if unfolded and self._section.hasParameters:
            self.update(self._preset)

    def onVolumesChosen(self, nodeIDs: list[str]) -> None:
        """Other volumes to learn from."""
        if self._section.hasParameters:
            self._section.parameterNode.unlabelledVolumes = [slicer.mrmlScene.GetNodeByID(each) for each in nodeIDs]

    def onFollowApply(self, checked: bool) -> None:
        """The volumes under Apply, whichever they are; or the list as it is now, which can be changed then."""
        if self._section.hasParameters:
            node = self._section.parameterNode
            node.unlabelledVolumes = unlabelledVolumesOf(node)
            node.unlabelledOfApply = checked

    def onOtherSlices(self, checked: bool) -> None:
        """The examples' other slices, or not; what the preset says anyhow is left to it."""
        if self._section.hasParameters:
            chosen = _YES if checked else _NO
            self._section.parameterNode.otherSlices = _BY_PRESET if checked == self._byPreset else chosen


def _learnsFromOtherSlices(preset: str) -> bool:
    """Whether a preset does so by itself; one of another version of the program does not."""
    from SAMFineTuneLib.training.presets import PRESETS

    recipes = {str(name): recipe for name, recipe in PRESETS.items()}
    return preset in recipes and recipes[preset].unlabelled_examples
