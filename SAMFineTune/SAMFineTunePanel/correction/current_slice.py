"""The slice that is corrected: the one that a slice view shows, or without views the one that was named last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.no_session import NoSessionError
from SAMFineTunePanel.scene.slice_view import showSlice, sliceInView
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment


class CurrentSlice:
    """Knows the slice on which prompts are given, and on which slice a point may lie.

    Args:
        followsViews: whether the slice in view is the current one; without, it is that of the last prompt or `show`.
        onChanged: called with the number of the slice after it has become another one.

    Attributes:
        number: of the slice; None while no view shows one.
    """

    def __init__(self, followsViews: bool, onChanged: Callable[[int | None], None]) -> None:
        self.number: int | None = None
        self._followsViews = followsViews
        self._onChanged = onChanged
        self._openSegment: CorrectedSegment | None = None

    @property
    def _segment(self) -> CorrectedSegment:
        if self._openSegment is None:
            raise NoSessionError
        return self._openSegment

    @property
    def hasViews(self) -> bool:
        """Whether slice views are to be followed and at least one is in the layout."""
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode") if self._followsViews else []
        return any(node.IsMappedInLayout() for node in nodes)

    def begin(self, segment: CorrectedSegment) -> int | None:
        """Work on the slices of this segment; returns the slice that was current before, which no longer is."""
        self._openSegment = segment
        number, self.number = self.number, None
        return number

    def forget(self) -> None:
        """The session is over."""
        self.number = self._openSegment = None

    def show(self, number: int) -> None:
        """Make a slice the current one, and show it where there is a slice view.

        Raises:
            ValueError: there is no such slice.
        """
        segment = self._segment
        if not 0 <= number < segment.count:
            raise ValueError(
                _("Volume {volume} has no {orientation} slice {number}.").format(
                    volume=segment.volume.GetName(), orientation=segment.orientation, number=number
                )
            )
        if self.hasViews:
            showSlice(segment.volume, segment.orientation, number)
        self.take(number)

    def take(self, number: int | None) -> None:
        """Make a slice the current one, without showing it."""
        if number != self.number:
            self.number = number
            self._onChanged(number)

    def followView(self) -> None:
        """Make the slice in view the current one, where there are views."""
        if self.hasViews:
            self.take(sliceInView(self._segment.volume, self._segment.orientation).number)

    def sliceOf(self, place: np.ndarray, number: int | None) -> int:
        """The slice on which a prompt at a place is given.

        Args:
            place: voxel indices (i, j, k), not rounded.
            number: the slice on which it must lie; None for the one in view.

        Raises:
            ValueError: it lies on another slice, or no view shows a slice.
        """
        ofPlace = self._segment.numberOf(place)
        if number is not None:
            self._requireOn(number, ofPlace)
        elif self.hasViews:
            self._requireInView(ofPlace)
        return ofPlace

    def problem(self) -> str:
        """Why no slice is the current one."""
        if self.hasViews:
            return sliceInView(self._segment.volume, self._segment.orientation).problem
        return _("Say which slice is meant first.")

    def _requireOn(self, number: int, ofPlace: int) -> None:
        if not 0 <= number < self._segment.count:
            raise ValueError(_("There is no slice {number}.").format(number=number))
        if ofPlace != number:
            raise ValueError(
                _("The point lies on {orientation} slice {other}, not on slice {number}.").format(
                    orientation=self._segment.orientation, other=ofPlace, number=number
                )
            )

    def _requireInView(self, ofPlace: int) -> None:
        view = sliceInView(self._segment.volume, self._segment.orientation)
        if view.number is None:
            raise ValueError(view.problem)
        if view.number != ofPlace:
            raise ValueError(
                _(
                    "{orientation} slices are corrected, and view {view} shows slice {number} of them. Click there, "
                    "on the slice that is in view."
                ).format(orientation=self._segment.orientation.capitalize(), view=view.viewName, number=view.number)
            )
