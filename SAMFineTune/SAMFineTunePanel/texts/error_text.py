"""What a job could not do, in words for someone before a panel.

The library's remedies are for the shell, too: where one names an option of a command, the panel says what to
do here instead.
"""

from __future__ import annotations

from slicer.i18n import tr as _


def errorWords(message: str, remedy: str, code: str) -> str:
    """One line for the panel.

    Args:
        message: what was wrong.
        remedy: what to do about it, as the library says it; may be "".
        code: the library's short name for what was wrong.
    """
    if "--" in remedy or "python -m" in remedy:
        remedy = _panelRemedy(code)
    sentences = [asSentence(each) for each in (message, remedy)]
    return " ".join(" ".join(sentences).split())


def wordsOf(error: Exception) -> str:
    """The same of an error: of the library's InputError as above, of any other what it says."""
    from SAMFineTuneLib.errors import InputError

    if isinstance(error, InputError):
        return errorWords(error.message, error.remedy, error.code)
    return str(error)


def asSentence(text: str) -> str:
    """What the library says, such as "the disk is full", with a capital and a full stop; "" for nothing."""
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _panelRemedy(code: str) -> str:
    return {
        "no_memory": _("Take a smaller input size or backbone under Model, or close other programs"),
        "weights_missing": _("Get the weights under Model, or name a weights file under Advanced"),
        "bundle_unusable": _("Install the extension anew, or tick Random weights under Model, Advanced"),
        "no_such_file": _("Check the weights file under Model, Advanced"),
        "unreachable": _(
            "Check the network and try again, or get the file on another computer and name it under Advanced"
        ),
        "checkpoint_hash": _("Try again; if it stays so, get the file elsewhere and name it under Advanced"),
        "other_checkpoint": _("Name the weights that it was tuned from under Model, Advanced"),
        "other_strategy": _("Leave method, scope and input size under Advanced to the program"),
        "other_labels": _("Choose examples of the same structures, or start from the backbone"),
        "device_absent": _("Choose another device under Model"),
        "diverged": _("Take another method or seed under Advanced"),
        "no_labelled_slice": _("Label at least one slice"),
        "not_writable": _("Free some space, or ask for the right to write there"),
        "cannot_write": _("Free some space"),
    }.get(code, "")
