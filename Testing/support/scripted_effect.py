"""Holds the Segment Editor's effect in place of Slicer's C++ effects, and shows it views."""

from __future__ import annotations

import importlib.util
import types
from typing import Any

from Testing.host.collected_errors import record


class ScriptedEffect:
    """What the effect calls of qSlicerSegmentEditorScriptedEffect; anything else is an error."""

    def __init__(self, editor) -> None:
        self.name = self.title = ""
        self.perSegment = self.requireSegments = None
        self._editor, self._parameters, self.widgets, self.actors = editor, {}, [], []
        self.saved = 0

    def addOptionsWidget(self, widget) -> None:
        self.widgets.append(widget)

    def parameterSetNode(self):
        return self._editor

    def parameterDefined(self, name: str) -> bool:
        return bool(self._parameters.get(name))

    def parameter(self, name: str) -> str:
        if name not in self._parameters:
            record(f"Parameter named {name} cannot be found for effect {self.name}")
        return self._parameters.get(name, "")

    def setParameter(self, name: str, value: str) -> None:
        # A node's attribute that is not there does not become an empty one.
        if value or name in self._parameters:
            self._parameters[name] = value

    def viewNode(self, view_widget):
        return view_widget.node

    def addActor2D(self, _view_widget, actor) -> None:
        self.actors.append(actor)

    def removeActor2D(self, _view_widget, actor) -> None:
        self.actors.remove(actor)

    def scheduleRender(self, _view_widget) -> None:
        pass

    def saveStateForUndo(self) -> None:
        self.saved += 1


class View:
    """A view's widget."""

    def __init__(self, node, class_name: str = "qMRMLSliceWidget") -> None:
        self.node, self._class_name = node, class_name

    def className(self) -> str:
        return self._class_name


def effect_base() -> types.ModuleType:
    """What the effect's file imports of Slicer as the module SegmentEditorEffects."""
    base = types.ModuleType("SegmentEditorEffects")

    class Abstract:
        def __init__(self, scripted) -> None:
            self.scriptedEffect = scripted

    base.AbstractScriptedSegmentEditorEffect = Abstract
    return base


def make_effect(editor) -> Any:
    """The effect of the file that is registered, with its options, as an editor makes it."""
    from SAMFineTunePanel.effect.registration import EFFECT_FILE

    spec = importlib.util.spec_from_file_location(EFFECT_FILE.parent.name, EFFECT_FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    # As Slicer looks for it: a class of the file's name.
    made = getattr(loaded, EFFECT_FILE.stem)(ScriptedEffect(editor))
    made.setupOptionsFrame()
    return made
