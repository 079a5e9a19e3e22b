"""What a file of weights was trained as, which decides how pixels reach the network.

Segment Anything takes colours from 0 to 255, of which it subtracts the mean of each channel. MedSAM
(Ma et al. 2024, "Segment anything in medical images") was trained on images from 0 to 1. The
weights of the study (Gu et al., MELBA 2025:006) that were pre-trained further with labels (SupSAM)
and without (SSLSAM) take pixels as Segment Anything does.
"""

from __future__ import annotations

from typing import Literal, get_args

from SAMFineTuneLib.networks.spec import PixelNormalisation

WeightsKind = Literal["sam", "medsam", "sslsam", "supsam", "own"]
WEIGHTS_KINDS: tuple[str, ...] = get_args(WeightsKind)


def pixels_of(kind: WeightsKind | None) -> PixelNormalisation | None:
    """How pixels are normalised for such weights; None as usual for the backbone."""
    if kind in (None, "own"):
        return None
    return "zero_to_one" if kind == "medsam" else "sam"
