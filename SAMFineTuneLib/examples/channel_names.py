"""Names for the images of a case, such as t1 and flair, from the names of their files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from SAMFineTuneLib.image_endings import volume_stem

_WORD = re.compile(r"[^\W_]+")


def channel_names(cases: Sequence[Sequence[Path]]) -> tuple[str, ...]:
    """The names of the images of all cases, in their order.

    The name of an image consists of the words that its file has in every case, and no other image
    of any case: the names of patients and their numbers differ between cases, or are common to the
    images of one. A word of digits alone is left out. An image without such a word is "image 2".

    Args:
        cases: for each case, its files; all have equally many.
    """
    words = [[_words(path) for path in case] for case in cases]
    count = len(words[0])
    names = []
    for place in range(count):
        own = [case[place] for case in words]
        others = {
            word for case in words for each in case[:place] + case[place + 1 :] for word in each
        }
        common = [
            word
            for word in own[0]
            if all(word in each for each in own) and word not in others and not word.isdigit()
        ]
        names.append(" ".join(common) or f"image {place + 1}")
    return tuple(names)


def swapped(names: Sequence[str], files: Sequence[Path]) -> tuple[int, int] | None:
    """Two images of a case whose files have each other's names; None where there are none.

    Args:
        names: of the images that a model expects, in their order.
        files: those of a case, in the order in which they were given.
    """
    words = [set(_words(path)) for path in files]
    parts = [set(name.split()) for name in names]
    for one in range(len(words)):
        for other in range(one + 1, len(words)):
            crossed = parts[one] <= words[other] and parts[other] <= words[one]
            straight = parts[one] <= words[one] and parts[other] <= words[other]
            if crossed and not straight:
                return one, other
    return None


def order_warning(names: Sequence[str], files: Sequence[Path]) -> str:
    """That two images of a case seem to be in each other's place; "" where names do not say so."""
    crossed = swapped(names, files)
    if crossed is None:
        return ""
    told = " and ".join(files[each].name for each in crossed)
    return (
        f"{told} seem to be given in the wrong order: the model was tuned on "
        f"{', '.join(names)}, in this order"
    )


def _words(path: Path) -> list[str]:
    return [word.lower() for word in _WORD.findall(volume_stem(path))]
