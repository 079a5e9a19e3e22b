"""What the image itself says of a slice, given a guess of the mask there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.correction.mask_rounds import SquareBox, mask_logits, prompt_set
from SAMFineTuneLib.correction.session import CorrectionSession, Mask

# Of width and height: how much larger than the guess the box around it is.
_MARGIN = 0.1
# Beyond this a logit says no more than that the network is sure.
_LARGEST = 6.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of one slice.

    Attributes:
        logits: (rows, columns) float32, above 0 where the image shows the structure.
        confidence: the overlap that the network expects of its mask, from 0 to 1.
    """

    logits: NDArray[np.float32]
    confidence: float


def evidence_of(
    session: CorrectionSession, number: int, guess: Mask, label: int | None
) -> Evidence:
    """What the prompted network makes of a guess, together with what the tuned model sees.

    The guess is given as the previous mask and as the box around it. Where the tuned model finds
    the structure by itself, both count half: the prompted network knows this patient's structure
    from the guess, the tuned model what the structure looks like in general.

    Args:
        session: the open volume.
        number: of the slice.
        guess: (rows, columns), not empty.
        label: the structure's number in the tuned model; None when it does not find it.
    """
    fit = session.fit
    box = _box_around(guess, fit.rows_on_square / fit.rows, fit.columns_on_square / fit.columns)
    logits, overlaps = session.decode(number, prompt_set([box], mask_logits(guess, fit)))
    confidence = float(overlaps.reshape(-1)[0].clamp(0, 1))
    seen = _on_slice(session, logits)
    if session.finds(label):
        assert label is not None
        seen = np.float32(0.5) * (seen + _on_slice(session, session.model_logits(number, label)))
    return Evidence(seen, confidence)


def _on_slice(session: CorrectionSession, logits: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (
        session.fit.logits_to_slice(logits)[0, 0].clamp(-_LARGEST, _LARGEST).numpy()
    )
    return found


def _box_around(mask: Mask, row_scale: float, column_scale: float) -> SquareBox:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = rows[0] * row_scale, (rows[-1] + 1) * row_scale
    left, right = columns[0] * column_scale, (columns[-1] + 1) * column_scale
    high, wide = (bottom - top) * _MARGIN / 2, (right - left) * _MARGIN / 2
    return SquareBox(left - wide, top - high, right + wide, bottom + high)
