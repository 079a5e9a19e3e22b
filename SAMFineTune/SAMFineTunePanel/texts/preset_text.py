"""What each preset is for, and what it costs and needs, in words that can be translated.

The library says the same of its presets, in English; a test holds the two together.
"""

from __future__ import annotations

from slicer.i18n import tr as _


def presetTitles() -> dict[str, str]:
    """What the list calls each preset, in its order."""
    return {
        "laptop": _("Laptop: a few slices, without a GPU"),
        "thorough": _("Thorough: a few slices, without a GPU, with more time"),
        "study": _("Study: a few slices, as in the published study"),
        "full": _("Full: a whole data set"),
        "loramednet": _("LoRaMedNet: a few labelled volumes, with a GPU"),
    }


def presetTexts() -> dict[str, str]:
    """What each preset costs and needs."""
    return {
        "laptop": _("Costs about 3 minutes and 1 GB of memory with the starter network. Needs two processor cores."),
        "thorough": _(
            "Costs up to 20 minutes and 1.1 GB of memory with the starter network. Needs two processor cores."
        ),
        "study": _(
            "Costs 2500 steps at full resolution. Needs a GPU with 8 GB of memory; on two processor cores it takes "
            "about 2.5 hours with MobileSAM, and far more with larger networks."
        ),
        "full": _(
            "Costs up to 20000 steps, which is hours, and ends when held-out volumes no longer improve. Needs a GPU "
            "with more memory than Study, since a step takes four times as many slices."
        ),
        "loramednet": _(
            "Costs 120 epochs at full resolution. Needs a GPU with 24 GB of memory for the networks of Segment "
            "Anything."
        ),
    }
