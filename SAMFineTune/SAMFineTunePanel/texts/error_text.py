"""What a job could not do, in words for someone before a panel.

The library's remedies are true for everybody. Where the panel can say more, namely what to choose or press here,
it does so by the code of the error.
"""

from __future__ import annotations

from collections.abc import Mapping

from slicer.i18n import tr as _


def errorText(message: str, remedy: str, code: str, facts: Mapping[str, object] | None = None) -> str:
    """One line for the panel.

    Args:
        message: what was wrong.
        remedy: what to do about it, as the library says it; may be "".
        code: the library's short name for what was wrong.
        facts: what the panel's own remedy is filled with.
    """
    sentences = [asSentence(each) for each in (message, _panelRemedy(code, facts or {}) or remedy)]
    return " ".join(" ".join(sentences).split())


def textOf(error: Exception) -> str:
    """The same of an error: of the library's InputError as above, of any other what it says."""
    from SAMFineTuneLib.errors import InputError

    if isinstance(error, InputError):
        return errorText(error.message, error.remedy, error.code, error.facts)
    return str(error)


def asSentence(text: str) -> str:
    """What the library says, such as "the disk is full", with a capital and a full stop; "" for nothing."""
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _panelRemedy(code: str, facts: Mapping[str, object]) -> str:
    """What to do here; "" where the panel knows nothing more, or the error lacks a fact that is told."""
    try:
        return panelRemedies().get(code, "").format_map(facts)
    except KeyError:
        return ""


def panelRemedies() -> dict[str, str]:
    """What to do here, by the code of an error; {names} are facts of the error."""
    return {
        "bundle_unusable": _("Install the extension anew, or tick Random weights under Model, Advanced"),
        "cannot_write_checkpoint": _("Free some space"),
        "checkpoint_hash": _("Try again; if it stays so, get the file elsewhere and name it under Advanced"),
        "device_absent": _("Choose another device under Model"),
        "diverged": _("Take another method or seed under Advanced"),
        "job_folder_not_writable": _("Free some space, or ask for the right to write there"),
        "missing_package": _('Type in Slicer\'s Python console: slicer.util.pip_install("{packages}")'),
        "no_labelled_slice": _("Label at least one slice"),
        "no_memory": _(
            "Close other programs, or take a smaller input size, a smaller backbone or another device under Model"
        ),
        "no_unlabelled_volume": _("Tick other volumes under Fine-tune, Volumes without labels, or none"),
        "no_such_checkpoint": _("Check the weights file under Model, Advanced"),
        "other_backbone": _("Choose the backbone {backbone} under Model, or another model"),
        "other_checkpoint": _("Name the weights that it was tuned from under Model, Advanced"),
        "other_labels": _("Choose examples of the same structures, or start from the backbone"),
        "other_strategy": _("Leave method, scope, head, prompts and input size under Advanced to the program"),
        "package_missing": _('Type in Slicer\'s Python console: slicer.util.pip_install("{packages}")'),
        "unreachable": _(
            "Check the network and try again, or get the file on another computer and name it under Advanced"
        ),
        "weights_missing": _("Get the weights under Model, or name a weights file under Advanced"),
    }
