"""A digest of what held-out slices are chosen from, by which a later run sees that it is the same.

It is made of the drawn labels, which no reader of a card can see in it, and of no pixel of an image
and no name. Where the user keeps images apart in a list of their own, it is made of these files.
"""

from __future__ import annotations

import hashlib

from SAMFineTuneLib.examples.training_set import TrainingSet

_DIGITS = 16


def held_out_origin(examples: TrainingSet) -> str:
    """The digest, in hexadecimal digits.

    Args:
        examples: what a fine-tune learns from.
    """
    content = hashlib.sha256()
    if examples.listed is not None:
        # The masks of a list are too many to read them once more.
        content.update(examples.listed.measured_files.encode())
    else:
        for each in examples.slices:
            content.update(repr((each.volume, each.number, each.shape, each.spacing)).encode())
            content.update(each.target.tobytes())
            content.update(each.known.tobytes())
    return content.hexdigest()[:_DIGITS]
