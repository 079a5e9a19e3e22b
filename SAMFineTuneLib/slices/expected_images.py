"""A volume as a tuned model expects it: grey, in colour, or several images of one case."""

from __future__ import annotations

from dataclasses import replace

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.volumes import Volume
from SAMFineTuneLib.volumes.colour import brightness


def as_expected(
    volume: Volume,
    normalisation: IntensityNormalisation,
    name: str,
    channels: tuple[str, ...] = (),
) -> Volume:
    """The volume with as many images as a model was tuned on.

    A model for grey images sees how bright the colours of a colour image are. A model for colour
    images takes a grey image as it is.

    Args:
        volume: the volume.
        normalisation: that of the model.
        name: of the volume's file, for messages.
        channels: the names of the images that the model expects, if it expects several.

    Raises:
        InputError: the case has another number of images.
    """
    if volume.images != normalisation.images:
        order = f": {', '.join(channels)}, in this order" if channels else ""
        raise InputError(
            f"{name} comes with {counted(volume.images, 'image')}, and the model was tuned on "
            f"cases of {counted(normalisation.images, 'image')}{order}",
            "Give as many images of the case, or another model",
            code="other_channels",
            images=normalisation.images,
        )
    if not volume.is_colour or normalisation.kind == "colour":
        return volume
    remark = f"{name} is in colour, and the model was tuned on grey images: it sees the brightness"
    return replace(
        volume,
        array=brightness(volume.array),
        is_colour=False,
        remarks=(*volume.remarks, remark),
    )
