"""A tuned model's card in words."""

from __future__ import annotations

from slicer.i18n import tr as _

from SAMFineTunePanel.sizes_and_times import dateText, sizeText


def cells(model) -> list[str]:
    """A row of the table: name, when, from what, labels, DSC."""
    card = model.card
    if card is None:
        return [model.name, "", "", f"⚠ {model.fault}", ""]
    return [model.name, dateText(card.created)[:10], card.backbone, ", ".join(_labelNames(card)), _dsc(card)]


def details(model) -> str:
    """What else there is to know."""
    card = model.card
    if card is None:
        return f"⚠ {model.fault}"
    sentences = [
        _("{labels}; made {when}, {size}.").format(
            labels=", ".join(_labelNames(card)), when=dateText(card.created), size=sizeText(model.bytes)
        ),
        _learntFrom(card),
        _measured(card),
        _("Tuned for corrections as well.") if card.prompts is not None else "",
    ]
    return " ".join(each for each in sentences if each)


def _labelNames(card) -> list[str]:
    return [label.name or str(label.value) for label in card.labels]


def _learntFrom(card) -> str:
    strategy = card.strategy
    return _("{backbone} ({method}), {orientation} slices: {slices} labelled, of {volumes} volume(s).").format(
        backbone=card.backbone,
        method=strategy.method,
        orientation=card.axis,
        slices=card.data.get("labelled_slices", "?"),
        volumes=card.data.get("volumes", "?"),
    )


def _measured(card) -> str:
    if card.metrics.get("validation_dsc") is None:
        return _("No DSC: nothing could be held out to measure it on.")
    return _("DSC {dsc} on {count} held-out slice(s).").format(
        dsc=_dsc(card), count=card.metrics.get("held_out_slices", "?")
    )


def _dsc(card) -> str:
    value = card.metrics.get("validation_dsc")
    return "-" if value is None else f"{value:.3f}"
