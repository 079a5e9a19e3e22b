"""Slicer's combo box of nodes, with what PythonQt shows of it: its meta object.

Names without an underscore are properties, signals, slots and invokable methods of Slicer's header.
"""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Signal

from .checked_property import STRINGS, checked_property, stored_property
from .collected_errors import record
from .mrml_widgets import Observations


def _refuse_size_adjust_policy(self: Any, policy: Any) -> None:
    """PythonQt cannot give a property an enum of another class; in Slicer this raises as well."""
    raise AttributeError(
        "Property 'sizeAdjustPolicy' of type 'QComboBox::SizeAdjustPolicy' does not accept an "
        "object of type SizeAdjustPolicy"
    )


class qMRMLNodeComboBox(QtWidgets.QWidget):
    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    currentNodeRenamed = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._nodes: list[Any] = []
        self._current: Any = None
        self._attributes: list[tuple[str, str, Any]] = []
        self._labels: dict[str, str] = {}
        self._actions: list[QtGui.QAction] = []
        self._requested = ""
        self._observations = Observations(self)
        self._end_observations = Observations(self)
        self._node_observations = Observations(self)
        self._combo = self._make_combo()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self.setFocusProxy(self._combo)

    def _make_combo(self) -> QtWidgets.QComboBox:
        combo = QtWidgets.QComboBox(self)
        combo.setMinimumContentsLength(8)
        combo.setSizeAdjustPolicy(
            QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        combo.activated.connect(self._activate)
        return combo

    def _refresh(self) -> None:
        self._rebuild()

    nodeTypes = stored_property("nodeTypes", STRINGS, [], _refresh)
    noneEnabled = stored_property("noneEnabled", bool, False, _refresh)
    addEnabled = stored_property("addEnabled", bool, True, _refresh)
    removeEnabled = stored_property("removeEnabled", bool, True, _refresh)
    editEnabled = stored_property("editEnabled", bool, False, _refresh)
    renameEnabled = stored_property("renameEnabled", bool, False, _refresh)
    showHidden = stored_property("showHidden", bool, False, _refresh)
    showChildNodeTypes = stored_property("showChildNodeTypes", bool, True, _refresh)
    hideChildNodeTypes = stored_property("hideChildNodeTypes", STRINGS, [], _refresh)
    selectNodeUponCreation = stored_property("selectNodeUponCreation", bool, True)
    interactionNodeSingletonTag = stored_property("interactionNodeSingletonTag", str, "")
    baseName = stored_property("baseName", str, "")
    noneDisplay = stored_property("noneDisplay", str, "None", _refresh)
    sizeAdjustPolicy = checked_property(
        QtWidgets.QComboBox.SizeAdjustPolicy,
        lambda self: self._combo.sizeAdjustPolicy,
        _refuse_size_adjust_policy,
    )
    currentNodeID = checked_property(
        str,
        lambda self: self._current.GetID() if self._current else "",
        lambda self, node_id: self.setCurrentNodeID(node_id),
    )

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._scene = scene
        s = slicer.vtkMRMLScene
        observed = [scene] if scene else []
        self._observations._replace(
            observed, (s.NodeAddedEvent, s.NodeRemovedEvent), self._on_coming_or_going
        )
        ends = (s.EndImportEvent, s.EndCloseEvent)
        self._end_observations._replace(observed, ends, self._on_end)
        self._rebuild()
        if self._requested:
            self.setCurrentNodeID(self._requested)
            self._requested = ""
        self.setEnabled(scene is not None)

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._attributes.append((node_type, name, value))
        self._rebuild()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._attributes = [one for one in self._attributes if one[:2] != (node_type, name)]
        self._rebuild()

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        self._labels[node_type] = label
        self._rebuild()

    def nodeTypeLabel(self, node_type: str) -> str:
        return self._labels.get(node_type, node_type.removeprefix("vtkMRML").removesuffix("Node"))

    def addMenuAction(self, action: QtGui.QAction) -> None:
        self._actions.append(action)
        self._rebuild()

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int) -> Any:
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def setCurrentNodeID(self, node_id: str) -> None:
        if self._scene is None:
            # Kept until there is a scene, as in Slicer.
            self._requested = node_id
            return
        node = self._scene.GetNodeByID(node_id) if node_id else None
        self._choose(node if node in self._nodes else None)

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, slicer.vtkMRMLNode):
            raise ValueError(f"setCurrentNode: {node!r} is no MRML node")
        self.setCurrentNodeID(node.GetID() or "" if node is not None else "")

    def addNode(self, node_type: str | None = None) -> Any:
        node_type = node_type or self.nodeTypes[0]
        if node_type not in self.nodeTypes:
            record(f"addNode: {node_type} is none of the types {self.nodeTypes}")
            return None
        node = self._scene.CreateNodeByClass(node_type)
        node.UnRegister(None)
        name = self.baseName or node.GetName() or node.GetDefaultNodeNamePrefix()
        node.SetName(self._scene.GenerateUniqueName(name))
        for kind, attribute, value in self._attributes:
            if kind == node_type:
                node.SetAttribute(attribute, "" if value is None else str(value))
        self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._current is not None:
            self._scene.RemoveNode(self._current)

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self._current)

    def _accepts(self, node: Any) -> bool:
        exact = node.GetClassName() in self.nodeTypes
        derived = self.showChildNodeTypes and any(node.IsA(one) for one in self.nodeTypes)
        hidden = any(node.IsA(one) for one in self.hideChildNodeTypes)
        if not (exact or (derived and not hidden)):
            return False
        return (self.showHidden or not node.GetHideFromEditors()) and all(
            self._has_attribute(node, name, value)
            for kind, name, value in self._attributes
            if node.IsA(kind)
        )

    @staticmethod
    def _has_attribute(node: Any, name: str, value: Any) -> bool:
        found = node.GetAttribute(name)
        return found is not None and (value is None or found == str(value))

    def _on_coming_or_going(self, scene: Any, event: str) -> None:
        """A node came or went; Slicer looks at neither while it imports or closes a scene."""
        if not scene.IsImporting() and not scene.IsClosing() and self._accepted() != self._nodes:
            self._rebuild()

    def _on_end(self, scene: Any, event: str) -> None:
        """Slicer takes all rows out and adds them anew, so that Qt loses the current one."""
        self._nodes = []
        self._choose(None)
        self._rebuild()

    def _rebuild(self) -> None:
        before, self._nodes = self._nodes, self._accepted()
        self._node_observations._replace(
            self._nodes, (vtk.vtkCommand.ModifiedEvent,), self._on_node
        )
        self._choose(self._choice_after(before))
        for node in self._nodes:
            if node not in before:
                self.nodeAdded.emit(node)

    def _accepted(self) -> list[Any]:
        if self._scene is None:
            return []
        # Few of the many nodes of a scene are of a class that is shown, or derived from it. The
        # properties are read for these alone, because that is slow.
        classes = self.nodeTypes
        if len(classes) == 1:
            found = self._scene.GetNodesByClass(classes[0])
            found.UnRegister(None)
            nodes = [found.GetItemAsObject(i) for i in range(found.GetNumberOfItems())]
        else:
            # In the scene's order, whatever their class.
            every = (self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes()))
            nodes = [node for node in every if any(map(node.IsA, classes))]
        return [node for node in nodes if self._accepts(node)]

    def _choice_after(self, before: list[Any]) -> Any:
        """Where Qt's combo box goes when nodes come and go."""
        if self._current in self._nodes:
            return self._current
        if self.noneEnabled or not self._nodes:
            return None
        if self._current in before:
            return self._nodes[min(before.index(self._current), len(self._nodes) - 1)]
        # The first one ever is taken; later ones are not, where a person or program chose none.
        return None if before else self._nodes[0]

    def _on_node(self, node: Any, event: str) -> None:
        row = self._nodes.index(node) + self._none_shown() if node in self._nodes else -1
        if row >= 0 and self._combo.itemText(row) != (node.GetName() or ""):
            self._combo.setItemText(row, node.GetName() or "")
            if node is self._current:
                self._tell()

    def _choose(self, node: Any) -> None:
        changed = node is not self._current
        self._current = node
        self._show()
        if changed:
            self._tell()

    def _tell(self) -> None:
        node = self._current
        self.currentNodeChanged.emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def _show(self) -> None:
        self._combo.blockSignals(True)
        self._combo.clear()
        if self._none_shown():
            self._combo.addItem(self.noneDisplay, None)
        for node in self._nodes:
            self._combo.addItem(node.GetName() or "", node.GetID())
        row = self._nodes.index(self._current) if self._current else -1
        self._combo.setCurrentIndex(row + self._none_shown())
        self._add_commands()
        self._combo.blockSignals(False)

    def _none_shown(self) -> bool:
        return self.noneEnabled

    def _add_commands(self) -> None:
        self._commands: list[Any] = []
        if self.addEnabled:
            for kind in self.nodeTypes:
                self._combo.addItem(f"Create new {self.nodeTypeLabel(kind)}")
                self._commands.append(lambda kind=kind: self._add_for_user(kind))
        if self.removeEnabled and self._current is not None:
            self._combo.addItem("Delete current node")
            self._commands.append(self.removeCurrentNode)
        for action in self._actions:
            self._combo.addItem(action.text)
            self._commands.append(action.trigger)

    def _add_for_user(self, kind: str) -> None:
        node = self.addNode(kind)
        self.setCurrentNode(node)
        self.nodeAddedByUserAction.emit(node)

    def _activate(self, index: int) -> None:
        position = index - self._none_shown()
        if position < len(self._nodes):
            self._choose(self._nodes[position] if position >= 0 else None)
            self.nodeActivated.emit(self._current)
        else:
            self._show()
            self._commands[position - len(self._nodes)]()
