"""What each preset costs and needs, in words."""

from __future__ import annotations

from slicer.i18n import tr as _

PRESETS = ("laptop", "study", "full")


def presetTitle(preset: str) -> str:
    """What the list calls it."""
    return {
        "laptop": _("Laptop: a few slices, without a GPU"),
        "study": _("Study: a few slices, thoroughly"),
        "full": _("Full: a whole data set"),
    }[preset]


def presetText(preset: str) -> str:
    """What it costs and needs."""
    return {
        "laptop": _("Costs about 3 minutes and 1 GB of memory with the starter network. Needs two processor cores."),
        "study": _(
            "Costs 2500 steps at full resolution. Needs a GPU with 8 GB of memory; on two processor cores it takes "
            "about 2.5 hours with MobileSAM, and far more with larger networks."
        ),
        "full": _(
            "Costs up to 20000 steps, which is hours, and ends when held-out volumes no longer improve. Needs a GPU "
            "with more memory than Study."
        ),
    }[preset]
