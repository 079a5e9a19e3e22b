"""The section of the labelled volumes to learn from, and of the slice in view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.case_images import MOST_FURTHER_IMAGES, problemWithExamples
from SAMFineTunePanel.examples.example_frames import atItsFrame, holdsFrameInView, sharedLabels
from SAMFineTunePanel.examples.example_slices import ExampleSlices
from SAMFineTunePanel.scene.scene_pairs import imagesOfScene, nextPair
from SAMFineTunePanel.scene.sequences import browsersOfScene, frameShown, sequenceOf
from SAMFineTunePanel.scene.voxel_grid import ORIENTATIONS
from SAMFineTunePanel.sections.panel_section import PanelSection, allow, showProblem, showText
from SAMFineTunePanel.sections.slice_marks import NO_MARKS, SliceMarks
from SAMFineTunePanel.widgets.image_choices import ImageChoices
from SAMFineTunePanel.widgets.table_rows import layOutColumns, selectedRow, setRow
from SAMFineTunePanel.widgets.ticked_list import Entry, TickedList

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTunePanel.parameter_node import Example, SAMFineTuneParameterNode

# Painting tells of every dab: look at the segmentation once the hand rests.
_PAINTING_RESTS_MS = 400
_LISTED_SLICES = 24

_SEGMENTATION_EVENTS = (
    slicer.vtkSegmentation.SourceRepresentationModified,
    slicer.vtkSegmentation.SegmentAdded,
    slicer.vtkSegmentation.SegmentRemoved,
    slicer.vtkSegmentation.SegmentModified,
    slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
)


class ExamplesSection(PanelSection):
    """A table of examples; what is beneath it is of the row that is selected."""

    uiFile = "SAMFineTuneExamplesSection.ui"
    richLabels = ("labelledLabel",)

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self._slices: list[ExampleSlices] = []
        self._updating = False
        layOutColumns(self.ui.examplesTable, (0, 1, 2))
        self._segmentList = TickedList(self.ui.segmentsTable, self.onSegmentsChosen, keepsOne=True)
        self._images = ImageChoices(
            (
                (self.ui.secondImageLabel, self.ui.secondImageComboBox),
                (self.ui.thirdImageLabel, self.ui.thirdImageComboBox),
            ),
            self.onImagesChosen,
        )
        # That an image went away is said until others are chosen.
        self._dropped = ""
        self._marks = SliceMarks(self.ui, logic, self._onMarked)
        self._observed: set = set()
        self._browsers: set = set()
        self._paintTimer = qt.QTimer()
        self._paintTimer.setSingleShot(True)
        self._paintTimer.setInterval(_PAINTING_RESTS_MS)
        self._paintTimer.connect("timeout()", self._onPainted)
        self._fillOrientations()
        self.ui.examplesTable.connect("itemSelectionChanged()", self._onRowSelected)
        self.ui.addButton.connect("clicked(bool)", self.onAdd)
        self.ui.removeButton.connect("clicked(bool)", self.onRemove)
        # Only what the user picks counts: the selectors change by themselves when nodes come and go.
        self.ui.currentFrameButton.connect("clicked(bool)", self.onCurrentFrame)
        self.ui.volumeSelector.connect("nodeActivated(vtkMRMLNode*)", self.onVolumeChosen)
        self.ui.segmentationSelector.connect("nodeActivated(vtkMRMLNode*)", self.onSegmentationChosen)
        self.ui.orientationComboBox.connect("currentIndexChanged(int)", self.onOrientationChosen)
        self.ui.labelledLabel.connect("linkActivated(QString)", self.onSliceLink)

    @property
    def row(self) -> int:
        """The selected example; -1 when there is none."""
        row = selectedRow(self.ui.examplesTable)
        return row if row < len(self._examples()) else -1

    def enter(self) -> None:
        """The panel came into view: follow the slice views."""
        self._marks.follow(True)

    def exit(self) -> None:
        """The panel went out of view."""
        self._marks.follow(False)

    def setParameterNode(self, node: SAMFineTuneParameterNode | None) -> None:
        if node is None:
            # Nothing of the scene is kept, so that its nodes are freed when it is closed.
            self._paintTimer.stop()
            self._observeSegmentations([])
            self._observeBrowsers(set())
            self._marks.setExample(None, -1, None)
            self._slices = []
            self._dropped = ""
        super().setParameterNode(node)

    def cleanup(self) -> None:
        self._paintTimer.stop()
        self._marks.follow(False)
        super().cleanup()

    def update(self) -> None:
        self._dropRemovedImages()
        examples = self._examples()
        self._slices = [self.logic.exampleSlices(each) for each in examples]
        self._observeSegmentations(examples)
        self._observeBrowsers(set(browsersOfScene()))
        with self._showing():
            self._showTable(examples)
        self._showSelected()
        self._allowButtons(examples)

    def onAdd(self, checked: bool = False) -> None:
        """Add the pair of volume and segmentation that the scene suggests."""
        pair = nextPair(self._pairs())
        if pair is None:
            return
        volume, segmentation = pair
        self.logic.addExample(volume, segmentation)
        if not any(each is not None for each in self.parameterNode.applyVolumes):
            self.parameterNode.applyVolumes = [volume]
        self.update()
        self.ui.examplesTable.selectRow(len(self._examples()) - 1)
        self.changed()

    def onRemove(self, checked: bool = False) -> None:
        """Take the selected example out of the table."""
        row = self.row
        if row >= 0:
            self.logic.removeExample(row)
            self.update()
            self.changed()

    def onVolumeChosen(self, node: slicer.vtkMRMLScalarVolumeNode | None) -> None:
        """Another volume for the selected example: what was said of slices was said of the old one's."""
        if node is not None and self.row >= 0 and node is not self._example().volume:
            # An image is not its own companion.
            channels = [each for each in self._example().channels if each is not node]
            self._change(volume=node, channels=channels, frame=frameShown(node), **NO_MARKS)
        else:
            # "None" is no choice: the node that counts is shown again.
            self._showSelected()

    def onCurrentFrame(self, checked: bool = False) -> None:
        """The labels belong to the frame that is in view."""
        if self.row >= 0:
            self._change(frame=frameShown(self._example().volume))

    def onSegmentationChosen(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Another segmentation for the selected example."""
        if node is not None and self.row >= 0 and node is not self._example().segmentation:
            self._change(segmentation=node, segmentIDs=[], **NO_MARKS)
        else:
            self._showSelected()

    def onImagesChosen(self, nodeIDs: list[str]) -> None:
        """Other further images for the selected example."""
        if self._updating or self.row < 0:
            return
        self._dropped = ""
        chosen = [slicer.mrmlScene.GetNodeByID(each) for each in dict.fromkeys(nodeIDs) if each]
        self._change(channels=chosen)

    def onSegmentsChosen(self, segmentIDs: list[str]) -> None:
        """Other segments for the selected example."""
        if self.row >= 0:
            # All are those that will be added, too.
            everySegment = len(segmentIDs) == self._segmentList.count
            self._change(segmentIDs=[] if everySegment else segmentIDs)

    def onOrientationChosen(self, index: int) -> None:
        """Another orientation: slice numbers mean something else now."""
        orientation = self.ui.orientationComboBox.itemData(index)
        if not self._updating and self.row >= 0 and orientation != self._example().orientation:
            self._change(orientation=orientation, **NO_MARKS)

    def onSliceLink(self, link: str) -> None:
        """Show a labelled slice."""
        if self.row >= 0:
            self._marks.show(int(link))

    def _dropRemovedImages(self) -> None:
        """An image that left the scene is no part of its case any more, which is said."""
        for example in self._examples():
            left = [each for each in example.channels if each is not None]
            if len(left) < len(example.channels):
                example.channels = left
                name = example.volume.GetName() if example.volume is not None else _("removed")
                words = _("A further image of {volume} was removed from the scene, and so from the example.")
                self._dropped = words.format(volume=name)

    def _change(self, **changes: object) -> None:
        example = self._example()
        for name, value in changes.items():
            setattr(example, name, value)
        self.update()
        self.changed()

    def _examples(self) -> list[Example]:
        return list(self.parameterNode.examples) if self.hasParameters else []

    def _example(self) -> Example:
        return self.parameterNode.examples[self.row]

    def _pairs(self) -> set[tuple[str, str]]:
        """The examples whose labels are in view: another frame of both nodes makes another example."""
        return {
            (each.volume.GetID(), each.segmentation.GetID())
            for each in self._examples()
            if each.volume is not None and each.segmentation is not None and holdsFrameInView(each)
        }

    @contextmanager
    def _showing(self) -> Iterator[None]:
        """While open, what the widgets tell is not the user's doing."""
        before, self._updating = self._updating, True
        try:
            yield
        finally:
            self._updating = before

    def _fillOrientations(self) -> None:
        with self._showing():
            self.ui.orientationComboBox.addItem(_("automatic"), "auto")
            for orientation, text in zip(ORIENTATIONS, _orientationTexts(), strict=True):
                self.ui.orientationComboBox.addItem(text, orientation)

    def _showTable(self, examples: list[Example]) -> None:
        table = self.ui.examplesTable
        row = selectedRow(table)
        table.setRowCount(len(examples))
        for number, (example, slices) in enumerate(zip(examples, self._slices, strict=True)):
            setRow(table, number, _cells(example, slices))
        if examples and not 0 <= row < len(examples):
            table.selectRow(len(examples) - 1)

    def _onRowSelected(self) -> None:
        if not self._updating:
            self._showSelected()
            self._allowButtons(self._examples())

    def _showSelected(self) -> None:
        row = self.row
        chosen = row >= 0 and row < len(self._slices)
        self.ui.exampleWidget.visible = chosen
        self.ui.sliceWidget.visible = chosen
        showText(
            self.ui.hintLabel,
            ""
            if chosen
            else _(
                "Draw the structure on a few slices in the Segment Editor, about five, evenly spaced from its first "
                "slice to its last. Then press Add."
            ),
        )
        self._marks.setExample(self._example() if chosen else None, row, self._slices[row] if chosen else None)
        if chosen:
            with self._showing():
                self._showExample(self._example(), self._slices[row])

    def _showExample(self, example: Example, slices: ExampleSlices) -> None:
        for selector, node in (
            (self.ui.volumeSelector, example.volume),
            (self.ui.segmentationSelector, example.segmentation),
        ):
            if selector.currentNode() is not node:
                selector.setCurrentNode(node)
        self._showFrame(example)
        self._showImages(example)
        segments = _segmentEntries(example)
        self._segmentList.show(segments, list(example.segmentIDs) or [each.key for each in segments])
        self.ui.segmentsTable.visible = self.ui.segmentsLabel.visible = self._segmentList.count > 0
        combo = self.ui.orientationComboBox
        settled = dict(zip(ORIENTATIONS, _orientationTexts(), strict=True))[slices.orientation]
        combo.setItemText(0, _("automatic") if slices.problem else _("automatic: {slices}").format(slices=settled))
        combo.currentIndex = max(0, combo.findData(example.orientation))
        examples = self._examples()
        doubt = self._dropped or problemWithExamples(examples) or sharedLabels(examples) or slices.warning
        showProblem(self.ui.problemLabel, slices.problem or doubt)
        showText(self.ui.labelledLabel, _labelledText(slices))

    def _showFrame(self, example: Example) -> None:
        """Shows which frame of a sequence was labelled; a button takes the one in view."""
        sequence = sequenceOf(example.volume)
        for widget in (self.ui.frameLabel, self.ui.frameTextLabel, self.ui.currentFrameButton):
            widget.visible = sequence is not None or bool(example.frame)
        if sequence is None:
            self.ui.frameTextLabel.text = ""
            allow(self.ui.currentFrameButton, "", _("The volume shows no sequence any more: take it as it is"))
            return
        text = sequence.textOf(example.frame or sequence.shown)
        if example.frame and example.frame != sequence.shown:
            text = _("{frame}; in view: {shown}").format(frame=text, shown=sequence.numberOf(sequence.shown) + 1)
        self.ui.frameTextLabel.text = text
        allow(
            self.ui.currentFrameButton,
            _("That frame is in view") if sequence.shown == example.frame else "",
            _("The labels were drawn on the frame in view, {frame}").format(frame=sequence.textOf(sequence.shown)),
        )

    def _showImages(self, example: Example) -> None:
        """As many rows as there are images chosen, and one more, as far as a case may have them."""
        images = [Entry(each.GetID(), each.GetName()) for each in imagesOfScene() if each is not example.volume]
        chosen = [each.GetID() for each in example.channels if each is not None]
        rows = min(len(chosen) + 1, len(images), MOST_FURTHER_IMAGES)
        self._images.show([_("Second image:"), _("Third image:")][:rows], images, chosen)

    def _allowButtons(self, examples: list[Example]) -> None:
        pair = nextPair(self._pairs())
        volume, segmentation = [each.GetName() for each in pair] if pair is not None else ("", "")
        allow(
            self.ui.addButton,
            self._problemWithAdding(pair),
            _("Add {volume} with {segmentation} to the table").format(volume=volume, segmentation=segmentation),
        )
        allow(
            self.ui.removeButton,
            "" if self.row >= 0 else _("Select a row of the table first"),
            _("Take the selected example out of the table; the volume and the segmentation stay in the scene"),
        )

    def _problemWithAdding(self, pair: tuple | None) -> str:
        if not self.hasParameters:
            return _("The scene is closing")
        if not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            return _("Load a volume first")
        if not slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            return _("Draw the structure on a few slices in the Segment Editor first")
        if pair is None:
            if next(browsersOfScene(), None) is not None:
                return _(
                    "All volumes and segmentations of the scene are in the table already; the labels of another frame "
                    "need a segmentation of their own"
                )
            return _("All volumes and segmentations of the scene are in the table already")
        return ""

    def _observeSegmentations(self, examples: list[Example]) -> None:
        wanted = {each.segmentation for each in examples if each.segmentation is not None}
        for node in self._observed ^ wanted:
            for event in _SEGMENTATION_EVENTS:
                observe = self.addObserver if node in wanted else self.removeObserver
                observe(node, event, self._onSegmentationEvent)
        self._observed = wanted

    def _observeBrowsers(self, wanted: set) -> None:
        """Which frame is in view says what can be added."""
        for node in self._browsers ^ wanted:
            observe = self.addObserver if node in wanted else self.removeObserver
            observe(node, vtk.vtkCommand.ModifiedEvent, self._onBrowserModified)
        self._browsers = wanted

    def _onBrowserModified(self, caller: slicer.vtkMRMLSequenceBrowserNode, event: object = None) -> None:
        # While it plays there is too much to follow; it tells when it stops.
        if not caller.GetPlaybackActive():
            self.changed()

    def _onSegmentationEvent(self, caller: object = None, event: object = None) -> None:
        self._paintTimer.start()

    def _onMarked(self) -> None:
        self.update()
        self.changed()

    def _onPainted(self) -> None:
        self.update()
        self.changed()


def _segmentEntries(example: Example) -> list[Entry]:
    if example.segmentation is None:
        return []
    try:
        segmentation = atItsFrame(example).segmentation
    except ValueError:
        segmentation = example.segmentation
    every = segmentation.GetSegmentation()
    segments = ((segmentID, every.GetSegment(segmentID)) for segmentID in every.GetSegmentIDs())
    return [Entry(segmentID, each.GetName(), tuple(each.GetColor())) for segmentID, each in segments]


def _orientationTexts() -> tuple[str, str, str]:
    """As `ORIENTATIONS`."""
    return _("axial slices"), _("coronal slices"), _("sagittal slices")


def _cells(example: Example, slices: ExampleSlices) -> list[str]:
    volume, segmentation = (
        node.GetName() if node is not None else _("removed") for node in (example.volume, example.segmentation)
    )
    if example.frame:
        sequence = sequenceOf(example.volume)
        number = sequence.textOf(example.frame) if sequence is not None else _("removed")
        volume = _("{volume}, frame {frame}").format(volume=volume, frame=number)
    further = [each.GetName() for each in example.channels if each is not None]
    found = f"⚠ {len(slices.labelled)}" if slices.problem else str(len(slices.labelled))
    return [" + ".join([volume, *further]), segmentation, ", ".join(slices.bySegment), found]


def _labelledText(slices: ExampleSlices) -> str:
    numbers = slices.labelled
    if not numbers:
        return ""
    links = ", ".join(f'<a href="{number}">{number}</a>' for number in numbers[:_LISTED_SLICES])
    if len(numbers) > _LISTED_SLICES:
        links = _("{numbers} and {count} more").format(numbers=links, count=len(numbers) - _LISTED_SLICES)
    return _("Labelled: {numbers}").format(numbers=links)
