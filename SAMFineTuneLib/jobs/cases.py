"""Cases with several images in a job: a list in place of a volume becomes `volume`, `channels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from SAMFineTuneLib.errors import InputError

# The networks have three input channels.
MOST_IMAGES = 3


def case_apart(fields: Mapping[str, Any], where: str = "an example") -> dict[str, Any]:
    """The fields of an example, in which `volume` may be the list of all images of the case.

    Args:
        fields: as they were written.
        where: the example in messages.

    Raises:
        InputError: further images are named in two ways, or the list is empty or too long.
    """
    volume = fields.get("volume")
    if not isinstance(volume, list | tuple):
        return dict(fields)
    if not volume or fields.get("channels"):
        raise _twice(where, "volume")
    if len(volume) > MOST_IMAGES:
        raise _too_many(where, len(volume))
    return {**fields, "volume": volume[0], "channels": list(volume[1:])}


def cases_apart(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a job, in which every volume may be the list of all images of a case.

    Raises:
        InputError: as `case_apart`.
    """
    found = dict(fields)
    for name in ("examples", "drawn"):
        if isinstance(found.get(name), list | tuple):
            found[name] = [
                case_apart(each, f'field "{name}[{number}]"') if isinstance(each, dict) else each
                for number, each in enumerate(found[name])
            ]
    for name, further in (("volumes", "channels"), ("unlabelled", "unlabelled_channels")):
        volumes = found.get(name)
        if isinstance(volumes, list | tuple) and any(isinstance(e, list | tuple) for e in volumes):
            cases = [list(each) if isinstance(each, list | tuple) else [each] for each in volumes]
            if found.get(further) or not all(cases):
                raise _twice("the job", name, further)
            most = max(map(len, cases))
            if most > MOST_IMAGES:
                raise _too_many("the job", most)
            found[name] = [case[0] for case in cases]
            found[further] = [case[1:] for case in cases]
    return found


def _too_many(where: str, count: int) -> InputError:
    return InputError(
        f"{where} names {count} images of one case",
        f"Name {MOST_IMAGES} at most",
        code="too_many_images",
    )


def _twice(where: str, field: str, further: str = "channels") -> InputError:
    return InputError(
        f'{where} names no image of a case, or names them both in "{field}" and in "{further}"',
        f'Name all images of a case in "{field}", or the further ones in "{further}"',
        code="bad_job",
    )
