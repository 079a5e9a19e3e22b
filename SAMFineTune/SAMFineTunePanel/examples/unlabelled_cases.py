"""Volumes without labels that a fine-tune learns from: at their frames, with the further images of their cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.case_images import imagesOffered, problemWithImages
from SAMFineTunePanel.scene.frames import VolumeFrame, besideFrame, frameOf
from SAMFineTunePanel.scene.voxel_grid import gridOf

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example


def problemWithUnlabelled(volumes: Sequence[vtkMRMLScalarVolumeNode], examples: Sequence[Example]) -> str:
    """Why these volumes cannot be learnt from beside the examples, in words; "" when they can."""
    names = _imageNames(examples)
    for volume in volumes:
        if volume is None or not slicer.mrmlScene.IsNodePresent(volume):
            return _("A volume without labels was removed from the scene.")
        images = imagesOffered(names, volume, alsoOfApply=True)
        lacking = [name for name, image in zip(names[1:], images, strict=True) if image is None]
        if lacking:
            return _(
                "The examples have {count} images of a case: {names}. For {volume}, which has no labels, no image "
                "suggests itself as {lacking}. Choose it under Apply, or do not learn from this volume."
            ).format(count=len(names), names=", ".join(names), volume=volume.GetName(), lacking=", ".join(lacking))
        try:
            # What lies under a transform that warps is no more readable than an example would be.
            gridOf(frameOf(volume))
        except ValueError as error:
            return str(error)
        problem = problemWithImages(volume, images)
        if problem:
            return problem
    return ""


def unlabelledCases(
    volumes: Sequence[vtkMRMLScalarVolumeNode], examples: Sequence[Example]
) -> list[tuple[Any, list[Any]]]:
    """Each volume, at the frame that is shown where it shows a sequence, with its further images at the same frame.

    Where the examples have several images of a case, the further ones are those of an example of the volume, those
    chosen under Apply, or those whose names say so.

    Raises:
        ValueError: a frame is not there any more, in words.
    """
    names = _imageNames(examples)
    cases = []
    for volume in dict.fromkeys(volumes):
        frame = frameOf(volume)
        images = imagesOffered(names, volume, alsoOfApply=True)
        cases.append((frame, [besideFrame(each, frame, VolumeFrame) for each in images]))
    return cases


def _imageNames(examples: Sequence[Example]) -> tuple[str, ...]:
    """What a model of the examples will call the images of a case; none where a case is one image.

    Examples that cannot be learnt from together, which is said elsewhere, have no names in common either.
    """
    from SAMFineTuneLib.examples.channel_names import channel_names

    cases = [[each.volume, *each.channels] for each in examples]
    if not cases or len(cases[0]) < 2 or any(len(case) != len(cases[0]) or None in case for case in cases):
        return ()
    return channel_names([[Path(image.GetName()) for image in case] for case in cases])
