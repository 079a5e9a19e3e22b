"""What a correction worker is started with: a tuned model or the backbone, and the settings of its session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
