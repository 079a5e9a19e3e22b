"""Several images of one case, such as T1 and FLAIR of a head: which ones belong to a volume, and what they lack."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from SAMFineTunePanel.parameter_node import parameterNodeOfScene
from SAMFineTunePanel.scene.scene_pairs import imagesOfScene
from SAMFineTunePanel.scene.voxel_grid import gridOf

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example

# The networks have three input channels, and the volume is the first of them.
MOST_FURTHER_IMAGES = 2

_WORD = re.compile(r"[^\W_]+")


def problemWithImages(volume: vtkMRMLScalarVolumeNode, images: Sequence[vtkMRMLScalarVolumeNode | None]) -> str:
    """Why these further images cannot go with a volume, in words; "" when they can."""
    name = volume.GetName()
    if any(each is None or not slicer.mrmlScene.IsNodePresent(each) for each in images):
        return _("A further image of {volume} was removed from the scene.").format(volume=name)
    if len(images) > MOST_FURTHER_IMAGES:
        return _("{volume} has {count} further images; a case has two at most.").format(volume=name, count=len(images))
    if len({each.GetID() for each in (volume, *images)}) <= len(images):
        return _("An image is chosen twice for {volume}.").format(volume=name)
    for each in (volume, *images) if images else ():
        try:
            gridOf(each)
        except ValueError as error:
            return str(error)
        if each.GetImageData().GetNumberOfScalarComponents() != 1:
            return _("{image} is a colour image, which cannot be one of several images of a case.").format(
                image=each.GetName()
            )
    return ""


def problemWithExamples(examples: Sequence[Example]) -> str:
    """Why the further images of examples cannot be learnt from together, in words; "" when they can."""
    known = [each for each in examples if each.volume is not None]
    for each in known:
        problem = problemWithImages(each.volume, list(each.channels))
        if problem:
            return problem
    for each in known[1:]:
        if len(each.channels) != len(known[0].channels):
            return _(
                "{volume} has {count} images and {other} has {otherCount}. Choose equally many images for all "
                "examples, in the same order."
            ).format(
                volume=known[0].volume.GetName(),
                count=1 + len(known[0].channels),
                other=each.volume.GetName(),
                otherCount=1 + len(each.channels),
            )
    return ""


def problemForModel(
    model: str, names: Sequence[str], volume: vtkMRMLScalarVolumeNode, images: Sequence[vtkMRMLScalarVolumeNode | None]
) -> str:
    """Why a tuned model cannot take these images of a case, in words; "" when it can.

    Args:
        model: its name.
        names: of the images that it takes, as its card has them; none where it takes one image.
        volume: the first image.
        images: the further ones; None for one that is not chosen.
    """
    expected = max(len(names), 1)
    if expected == 1 and images:
        return _("{model} takes one image of a case; choose no further ones.").format(model=model)
    chosen = [*images, *[None] * (expected - 1 - len(images))]
    lacking = [name for name, image in zip(names[1:], chosen, strict=False) if image is None]
    if lacking:
        return _("{model} takes {count} images of a case: {names}. Choose for {volume}: {lacking}.").format(
            model=model, count=expected, names=", ".join(names), volume=volume.GetName(), lacking=", ".join(lacking)
        )
    if len(chosen) != expected - 1:
        return _("{model} takes {count} images of a case: {names}.").format(
            model=model, count=expected, names=", ".join(names)
        )
    return problemWithImages(volume, chosen)


def imagesOffered(
    names: Sequence[str], volume: vtkMRMLScalarVolumeNode, alsoOfApply: bool = False
) -> list[vtkMRMLScalarVolumeNode | None]:
    """The further images that a model of several is likely to take with a volume; None where none suggests itself.

    They are those of an example of the volume. Without one, names say: an image whose name has all words of the
    name that the model knows; among several, the one that has most words in common with the volume's name.

    Args:
        names: of the images that the model takes, the volume's first; none where it takes one.
        volume: the first image.
        alsoOfApply: whether images that are chosen for an apply to the volume count as those of an example do.
    """
    for known, further in _casesOfScene(alsoOfApply):
        if known is volume and len(further) == len(names) - 1 and None not in further:
            return further
    free = [each for each in imagesOfScene() if each is not volume]
    found: list[vtkMRMLScalarVolumeNode | None] = []
    for name in names[1:]:
        fitting = [each for each in free if each not in found and _words(name) <= _words(each.GetName())]
        found.append(_nearestByName(volume, fitting))
    return found


def crossedNames(names: Sequence[str], images: Sequence[vtkMRMLScalarVolumeNode]) -> str:
    """That two images seem to be in each other's place, in words; "" where their names do not say so."""
    from SAMFineTuneLib.examples.channel_names import swapped

    crossed = swapped(names, [Path(each.GetName()) for each in images]) if len(names) == len(images) else None
    if crossed is None:
        return ""
    first, second = (images[each].GetName() for each in crossed)
    return _("{first} and {second} seem to be in each other's place.").format(first=first, second=second)


def _casesOfScene(
    alsoOfApply: bool,
) -> Iterator[tuple[vtkMRMLScalarVolumeNode | None, list[vtkMRMLScalarVolumeNode | None]]]:
    """The volumes of which somebody has chosen further images, with these."""
    node = parameterNodeOfScene()
    if node is None:
        return
    for example in node.examples:
        yield example.volume, list(example.channels)
    volumes = [each for each in node.applyVolumes if each is not None]
    if alsoOfApply and len(volumes) == 1:
        yield volumes[0], list(node.applyChannels)


def _nearestByName(
    volume: vtkMRMLScalarVolumeNode, images: list[vtkMRMLScalarVolumeNode]
) -> vtkMRMLScalarVolumeNode | None:
    own = _words(volume.GetName())
    shared = [len(own & _words(each.GetName())) for each in images]
    best = [each for each, count in zip(images, shared, strict=True) if count == max(shared)]
    return best[0] if len(best) == 1 else None


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}
