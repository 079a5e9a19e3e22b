"""Makes the effect "SAM correct" known to the Segment Editor."""

from __future__ import annotations

import logging
from pathlib import Path

# The Segment Editor takes the folder's name as the name of a module, so the effect is alone in its own.
EFFECT_FILE = Path(__file__).resolve().parents[2] / "SAMFineTuneEffect" / "SegmentEditorSAMCorrectEffect.py"


def registerEffect() -> None:
    """Register the effect; to be called once Slicer has started. Where it cannot be, the module works without."""
    try:
        import qSlicerSegmentationsEditorEffectsPythonQt as effects
    except ImportError:
        logging.info("This Slicer has no Segment Editor effects; SAM FineTune corrects in its own panel only.")
        return
    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    # A path with back slashes is not understood there, on Windows either.
    if not effect.setPythonSource(EFFECT_FILE.as_posix()):
        logging.error("The Segment Editor effect SAM correct could not be loaded from %s", EFFECT_FILE)
        return
    effect.self().register()
