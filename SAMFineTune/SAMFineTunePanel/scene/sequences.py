"""Sequences of Slicer's module Sequences: which one a node shows, item by item, and of which item it is at present.

A browser copies the selected item of a sequence into a node of the scene, its proxy. The items themselves are data
nodes in a scene of the sequence's own, where they lie under no transform: that is the proxy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _


@dataclass(frozen=True, eq=False)
class NodeSequence:
    """The sequence behind a proxy.

    Items are numbered from 0, as Slicer does. What stays the same when items come or go is an item's index value, a
    text such as "0.25", often a time.

    Attributes:
        proxy: the node in the scene.
        browser: selects which item the proxy shows.
        sequence: holds the items.
    """

    proxy: slicer.vtkMRMLNode
    browser: slicer.vtkMRMLSequenceBrowserNode
    sequence: slicer.vtkMRMLSequenceNode

    @property
    def count(self) -> int:
        """How many items there are."""
        return int(self.sequence.GetNumberOfDataNodes())

    @property
    def indexValues(self) -> list[str]:
        """The index values of all items, in their order."""
        return [self.sequence.GetNthIndexValue(number) for number in range(self.count)]

    @property
    def shown(self) -> str:
        """Index value of the item that the proxy shows; "" where it shows none."""
        master, selected = self.browser.GetMasterSequenceNode(), self.browser.GetSelectedItemNumber()
        if master is None or not 0 <= selected < master.GetNumberOfDataNodes():
            return ""
        number = self.numberNearest(master.GetNthIndexValue(selected))
        return self.sequence.GetNthIndexValue(number) if number >= 0 else ""

    @property
    def isPlayed(self) -> bool:
        """Whether the browser goes from item to item by itself."""
        return bool(self.browser.GetPlaybackActive())

    @property
    def keepsEdits(self) -> bool:
        """Whether an item becomes what its proxy is edited to; else that is lost with the next item."""
        return bool(self.browser.GetSaveChanges(self.sequence))

    def numberOf(self, indexValue: str) -> int:
        """The number of an item; -1 where it is not there any more."""
        return int(self.sequence.GetItemNumberFromIndexValue(indexValue, True))

    def numberNearest(self, indexValue: str) -> int:
        """The number of the item that a browser shows for an index value; -1 where there is none."""
        return int(self.sequence.GetItemNumberFromIndexValue(indexValue, False))

    def show(self, indexValue: str) -> None:
        """Have the browser select an item."""
        self.browser.SetSelectedItemByIndexValue(indexValue, False)

    def textOf(self, indexValue: str) -> str:
        """An item as the user counts it, from 1: "5 of 20"."""
        return _("{number} of {count}").format(number=self.numberOf(indexValue) + 1, count=self.count)


def sequenceOf(node: slicer.vtkMRMLNode | None) -> NodeSequence | None:
    """The sequence whose items a node shows; None for a node that is nobody's proxy, or without the module."""
    module = getattr(slicer.modules, "sequences", None)
    if module is None or node is None or not node.GetID():
        return None
    browser = module.logic().GetFirstBrowserNodeForProxyNode(node)
    sequence = browser.GetSequenceNode(node) if browser is not None else None
    # That its proxy follows can be turned off for a sequence; the node is then one like any other.
    if sequence is None or sequence.GetNumberOfDataNodes() == 0 or not browser.GetPlayback(sequence):
        return None
    return NodeSequence(node, browser, sequence)


def isShownBeside(node: slicer.vtkMRMLNode, sequence: NodeSequence) -> bool:
    """Whether a node shows a sequence that the same browser plays."""
    own = sequenceOf(node)
    return own is not None and own.browser is sequence.browser


def frameShown(node: slicer.vtkMRMLNode | None) -> str:
    """Index value of the item that a node shows; "" where it shows no sequence."""
    sequence = sequenceOf(node)
    return sequence.shown if sequence is not None else ""


def browsersOfScene() -> Iterator[slicer.vtkMRMLSequenceBrowserNode]:
    """The browsers of all sequences; none without the module."""
    if hasattr(slicer.modules, "sequences"):
        yield from slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")


def numbersToIndexValues(sequence: NodeSequence, numbers: Sequence[int]) -> list[str]:
    """Index values of items that are given by their numbers, from 0.

    Raises:
        ValueError: there is no such item, in words.
    """
    indexValues = sequence.indexValues
    for number in numbers:
        if not 0 <= number < len(indexValues):
            raise ValueError(
                _("{name} has no frame {number}; its {count} frames are numbered from 0.").format(
                    name=sequence.proxy.GetName(), number=number, count=len(indexValues)
                )
            )
    return [indexValues[number] for number in dict.fromkeys(numbers)]
