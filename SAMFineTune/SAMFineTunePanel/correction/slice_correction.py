"""The correction of one slice: its prompts, and the mask that was found for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from slicer.i18n import tr as _

from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Box, Point, Start


# The prompts of a slice, in the order in which they were given.
Prompts = tuple["Point | Box", ...]


@dataclass(frozen=True, eq=False)
class SliceCorrection:
    """One slice. A mask is a function of the rest, so going back is taking an earlier one of these.

    Attributes:
        prompts: Point and Box of SAMFineTuneLib.interactive.protocol, in the order in which they were given.
        start: "nothing", "model" or "given": the mask that they correct; "" before the first prompt.
        given: bool (rows, columns), that mask, where `start` is "given".
        base: what the segment held when the slice was begun, `packed`; None before the first prompt.
        mask: bool (rows, columns), the last that was found; None before.
        confidence: of the mask, from 0 to 1.
        isFound: whether `mask` belongs to these prompts.
    """

    prompts: Prompts = ()
    start: Start | Literal[""] = ""
    given: np.ndarray | None = None
    base: np.ndarray | None = None
    mask: np.ndarray | None = None
    confidence: float | None = None
    isFound: bool = False

    @property
    def proposed(self) -> ProposedMask | None:
        """The mask, and what it would change; None while there is none."""
        return None if self.mask is None or self.base is None else ProposedMask(self.mask, self.base)

    def withPrompts(self, prompts: Prompts) -> SliceCorrection:
        """Other prompts; the mask is to be found."""
        return replace(self, prompts=prompts, isFound=False)

    def withMask(self, mask: np.ndarray, confidence: float | None) -> SliceCorrection:
        """The mask was found."""
        return replace(self, mask=mask, confidence=confidence, isFound=True)


def promptText(prompt: Point | Box) -> str:
    """What a prompt is called."""
    if prompt.kind == "box":
        return _("box")
    return _("positive point") if prompt.positive else _("negative point")


def withPrompt(prompts: Prompts, prompt: Point | Box) -> Prompts:
    """Prompts with one more; of boxes there is one, and the new one takes the place of the old."""
    if prompt.kind == "box":
        prompts = tuple(each for each in prompts if each.kind != "box")
    return (*prompts, prompt)
