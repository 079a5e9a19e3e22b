"""Names of tuned models: file names without characters that some system does not allow."""

from __future__ import annotations

import re
import unicodedata

SUFFIX = ".safetensors"

_REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
# Windows takes these names for devices, whatever follows a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
# File systems allow 255 bytes; a number, the suffix and the mark of an unfinished file are added.
_LONGEST_BYTES = 160


def model_name(wished: str) -> str:
    """The nearest name that a file may have on every system; "" if no character is left.

    Characters that some system does not allow become "_"; blanks and dots at either end, and the
    suffix of tuned models, are removed.
    """
    text = unicodedata.normalize("NFC", wished).encode("utf-8", "replace").decode("utf-8")
    text = " ".join(_REFUSED.sub("_", text.replace("\n", " ").replace("\t", " ")).split())
    if text.lower().endswith(SUFFIX):
        text = text[: -len(SUFFIX)]
    text = text.encode("utf-8")[:_LONGEST_BYTES].decode("utf-8", "ignore").strip(" .")
    return f"_{text}" if _DEVICES.fullmatch(text) else text


def numbered(name: str, number: int) -> str:
    """The name of the model number `number` for which the user wants this name."""
    return name if number == 1 else f"{name} {number}"
