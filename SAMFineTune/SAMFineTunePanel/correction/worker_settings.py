"""What a correction worker is started with: a tuned model or the backbone, and the settings of its session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.case_images import imagesOffered, problemForModel

if TYPE_CHECKING:
    from SAMFineTuneLib.models.library import TunedModel


def usableModel(model: TunedModel | str | None) -> TunedModel | None:
    """A tuned model that can be used; None for the backbone as it is.

    Args:
        model: a tuned model, or its name; None or "" for the backbone.

    Raises:
        ValueError: the file of the model cannot be used.
        InputError: there is no such model.
    """
    if not model:
        return None
    if isinstance(model, str):
        from SAMFineTuneLib.models.library import find_model

        model = find_model(model)
    if model.card is None:
        raise ValueError(model.fault)
    return model


def imagesOf(
    model: TunedModel | None,
    volume: slicer.vtkMRMLScalarVolumeNode,
    channels: Sequence[slicer.vtkMRMLScalarVolumeNode] | None,
) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """The further images of a case, beside its volume, that a model takes.

    Args:
        model: a tuned model; None for the backbone, which takes one image.
        volume: the first image.
        channels: the further ones; None for those that suggest themselves.

    Raises:
        ValueError: the model cannot take these, or does not find them, in words.
    """
    card = model.card if model is not None else None
    names = card.channels if card is not None else ()
    found = imagesOffered(names, volume, alsoOfApply=True) if channels is None else list(channels)
    problem = problemForModel(model.name if model is not None else _("The backbone"), names, volume, found)
    if problem and channels is None:
        problem = _("{problem} Section Apply lets you choose them.").format(problem=problem)
    if problem:
        raise ValueError(problem)
    return [each for each in found if each is not None]


def workerSettings(model: TunedModel | None, orientation: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Fields of SAMFineTuneLib.interactive.protocol.SessionSettings, without those left to the program.

    Args:
        model: a tuned model; None for the backbone as it is.
        orientation: of the slices; "auto" leaves it to the program.
        settings: device, backbone, checkpoint.
    """
    chosen = {name: value for name, value in settings.items() if value and value != "auto"}
    if model is not None:
        chosen["model"] = str(model.path)
    if orientation != "auto":
        chosen["axis"] = orientation
    return chosen
