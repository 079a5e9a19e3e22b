"""The list of backbones for the user's choice, and whether their weights are on this computer."""

from __future__ import annotations

from dataclasses import dataclass

from SAMFineTuneLib.networks.spec import BACKBONES, BackboneSpec
from SAMFineTuneLib.weights.choice import bundled_path
from SAMFineTuneLib.weights.official import list_checkpoints


@dataclass(frozen=True)
class AvailableBackbone:
    """An entry of the list of backbones.

    Attributes:
        name: its name in jobs.
        description: one line.
        licence: SPDX identifier of the weights' licence.
        bytes: size of its official weights; 0 if there are none to fetch.
        bytes_present: how much of them is on the disk, including an interrupted download.
        present: whether a fine-tune can start from it now without fetching anything.
    """

    name: str
    description: str
    licence: str
    bytes: int
    bytes_present: int
    present: bool


def list_backbones() -> list[AvailableBackbone]:
    """Every backbone, the smallest first. Loads no tensor library."""
    cached = {each.name: each for each in list_checkpoints()}
    found = []
    for spec in BACKBONES.values():
        weights = cached.get(spec.name)
        found.append(
            AvailableBackbone(
                name=spec.name,
                description=spec.description,
                licence=spec.licence,
                bytes=weights.source.size if weights else 0,
                bytes_present=weights.bytes_present if weights else 0,
                present=weights.present if weights else _is_bundled(spec),
            )
        )
    return found


def _is_bundled(spec: BackboneSpec) -> bool:
    return spec.bundled is not None and bundled_path(spec.bundled).is_file()
