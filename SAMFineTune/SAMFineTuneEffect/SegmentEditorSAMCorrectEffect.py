"""The Segment Editor's effect "SAM correct": clicks and boxes correct the selected segment, slice by slice.

Slicer makes one object of the class for each Segment Editor. It cannot be made without Slicer's C++ effects, so
it only hands on: what it does is in SAMFineTunePanel/effect.
"""

from __future__ import annotations

import qt
import slicer
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

_MODEL = "Model"


class SegmentEditorSAMCorrectEffect(AbstractScriptedSegmentEditorEffect):
    """Connects the Segment Editor with the correction."""

    def __init__(self, scriptedEffect) -> None:
        # Not translated: modules find effects by name.
        scriptedEffect.name = "SAM correct"
        scriptedEffect.title = _("SAM correct")
        scriptedEffect.perSegment = True
        scriptedEffect.requireSegments = True
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self._editorCorrection = None
        self._clicks = None
        self._options = None
        self._outlines = {}

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        effect = effects.qSlicerSegmentEditorScriptedEffect(None)
        effect.setPythonSource(__file__.replace("\\", "/"))
        return effect

    def icon(self):
        from SAMFineTunePanel.folders import resourcePath

        return qt.QIcon(resourcePath("Icons/SAMFineTune.png"))

    def helpText(self) -> str:
        return "<html>" + _(
            "Correct the selected segment with a Segment Anything network.<br>"
            '<p><ul style="margin: 0">'
            "<li><b>Left-click:</b> the structure is here (or is not, as chosen below)."
            "<li><b>Ctrl + left-click:</b> the other of the two."
            "<li><b>Box, then left-drag:</b> the structure is in here."
            "<li><b>Accept:</b> the mask becomes part of the segment, within the limits under Masking."
            "</ul><p>"
        )

    def setupOptionsFrame(self) -> None:
        from SAMFineTunePanel.effect.clicks import EffectClicks
        from SAMFineTunePanel.effect.editor_correction import EditorCorrection
        from SAMFineTunePanel.effect.options import EffectOptions
        from SAMFineTunePanel.module_state import theModuleState

        correction = theModuleState().correction
        self._editorCorrection = EditorCorrection(correction, self._onChanged, self.scriptedEffect.saveStateForUndo)
        self._clicks = EffectClicks(
            lambda ras, positive: self._editorCorrection.attempt(lambda: correction.addPoint(ras, positive)),
            lambda first, second: self._editorCorrection.attempt(lambda: correction.addBox(first, second)),
            self._editorCorrection.isOnPrompt,
        )
        self._options = EffectOptions(self._editorCorrection, self._clicks)
        self.scriptedEffect.addOptionsWidget(self._options.widget)

    def createCursor(self, widget):
        # A plain arrow: the click is where its tip is.
        return slicer.util.mainWindow().cursor

    def updateGUIFromMRML(self) -> None:
        self._options.chooseModel(self._model())
        self._options.update()

    def updateMRMLFromGUI(self) -> None:
        # Each change of a parameter calls updateGUIFromMRML().
        if self._options.chosenModel() != self._model():
            self.scriptedEffect.setParameter(_MODEL, self._options.chosenModel())

    def _model(self) -> str:
        """The model in the parameters; "" for the starter network, for which Slicer keeps no parameter."""
        return self.scriptedEffect.parameter(_MODEL) if self.scriptedEffect.parameterDefined(_MODEL) else ""

    def activate(self) -> None:
        if not self._editorCorrection.lookAtPackages():
            self._options.update()
            return
        from SAMFineTuneLib.models.library import list_models

        # The disk is read here only; updateGUIFromMRML() is called all the time.
        self._options.setModels([model.name for model in list_models() if model.card is not None])
        self.updateGUIFromMRML()
        self._editorCorrection.chooseModel(self._options.chosenModel())
        self._editorCorrection.begin(self.scriptedEffect.parameterSetNode())

    def deactivate(self) -> None:
        self._clicks.cancelBox()
        for viewWidget, outline in self._outlines.items():
            self.scriptedEffect.removeActor2D(viewWidget, outline.actor)
        self._outlines.clear()
        self._editorCorrection.end()

    def cleanup(self) -> None:
        if self._editorCorrection is not None:
            self._editorCorrection.cleanup()

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget) -> bool:
        if not self._editorCorrection.isActive or viewWidget.className() != "qMRMLSliceWidget":
            return False
        isHandled = self._clicks.handle(eventId, callerInteractor, self.scriptedEffect.viewNode(viewWidget))
        if isHandled:
            self._outlineIn(viewWidget).show(self._clicks.corners)
            self.scriptedEffect.scheduleRender(viewWidget)
        return isHandled

    def _outlineIn(self, viewWidget):
        from SAMFineTunePanel.effect.box_outline import BoxOutline

        if viewWidget not in self._outlines:
            self._outlines[viewWidget] = BoxOutline()
            self.scriptedEffect.addActor2D(viewWidget, self._outlines[viewWidget].actor)
        return self._outlines[viewWidget]

    def _onChanged(self) -> None:
        if self._options is not None:
            self._options.update()
            self.updateMRMLFromGUI()
