"""What each backbone is called, and where its weights are, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.texts.sizes_and_times import sizeText

if TYPE_CHECKING:
    from SAMFineTuneLib.weights.availability import AvailableBackbone


def backboneTitles() -> dict[str, str]:
    """What the list calls each backbone."""
    return {
        "starter": _("starter: small, for processors"),
        "lite_medsam": _("LiteMedSAM (ViT-T trained on medical images)"),
        "vit_t": _("MobileSAM (ViT-T)"),
        "vit_b": _("Segment Anything ViT-B"),
        "vit_l": _("Segment Anything ViT-L"),
        "vit_h": _("Segment Anything ViT-H"),
    }


def canBeFetched(backbone: AvailableBackbone) -> bool:
    """Whether its weights can be downloaded; otherwise they come with the extension."""
    return backbone.bytes > 0


def weightsText(backbone: AvailableBackbone | None, own: str, random: bool) -> str:
    """What a fine-tune begins with.

    Args:
        backbone: as the library lists it; None while that is not known.
        own: a weights file of the user's; "" for the backbone's own.
        random: whether none are wanted.
    """
    if random:
        return _("random: the network begins with nothing learnt")
    if own:
        return _("your file {name}").format(name=Path(own).name)
    if backbone is None:
        return ""
    words = {"size": sizeText(backbone.bytes), "here": sizeText(backbone.bytes_present), "licence": backbone.licence}
    if not canBeFetched(backbone):
        if backbone.present:
            return _("come with the extension, trained on synthetic images only (licence {licence})").format(**words)
        return _("missing: install the extension anew, or tick Random weights under Advanced")
    if backbone.present:
        return _("on this computer ({size}, licence {licence})").format(**words)
    if backbone.bytes_present:
        return _("{here} of {size} are here (licence {licence})").format(**words)
    return _("not on this computer ({size}, licence {licence})").format(**words)


def problemWithWeights(backbone: AvailableBackbone | None) -> str:
    """Why no fine-tune can begin with the backbone's own weights, and what to do; "" when one can."""
    if backbone is None or backbone.present:
        return ""
    if canBeFetched(backbone):
        return _("The weights of the backbone are not on this computer: get them in section Model, or choose starter")
    return _(
        "The {backbone} weights, which come with the extension, are missing: install the extension anew, or tick "
        "Random weights in section Model"
    ).format(backbone=backbone.name)
