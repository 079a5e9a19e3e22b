"""A tuned model's card in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from slicer.i18n import tr as _

from SAMFineTunePanel.texts.counted_text import counted
from SAMFineTunePanel.texts.more_time_text import moreTimeText
from SAMFineTunePanel.texts.sizes_and_times import dateText, sizeText

if TYPE_CHECKING:
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTuneLib.models.model_file import ModelCard

# A validation DSC below this tells of no structure at all.
_NOTHING_LEARNT = 0.05
# Planned steps for each that was made, from which on it is said.
_FEW = 2


def cells(model: TunedModel) -> list[str]:
    """A row of the table: name, when, from what, labels, DSC."""
    card = model.card
    if card is None:
        return [model.name, "", "", f"⚠ {model.fault}", ""]
    return [model.name, dateText(card.created)[:10], card.backbone, ", ".join(_labelNames(card)), _dsc(card)]


def details(model: TunedModel) -> str:
    """What else there is to know."""
    card = model.card
    if card is None:
        return f"⚠ {model.fault}"
    sentences = [
        _("{labels}; made {when}, {size}.").format(
            labels=", ".join(_labelNames(card)), when=dateText(card.created), size=sizeText(model.bytes)
        ),
        _learntFrom(card),
        moreTimeText(card) or " ".join(each for each in (_ended(card), _stepsMissed(card)) if each),
        _wentOn(card),
        _measured(card),
        _further(card),
        _("Tuned for corrections as well.") if card.prompts is not None else "",
    ]
    return " ".join(each for each in sentences if each)


def _labelNames(card: ModelCard) -> list[str]:
    return [label.name or str(label.value) for label in card.labels]


def _learntFrom(card: ModelCard) -> str:
    strategy = card.strategy
    return counted(
        card.data.get("volumes", "?"),
        _("{backbone} ({method}), {orientation} slices: {slices} labelled, of 1 volume."),
        _("{backbone} ({method}), {orientation} slices: {slices} labelled, of {count} volumes."),
        backbone=card.backbone,
        method=strategy.method,
        orientation=card.axis,
        slices=card.data.get("labelled_slices", "?"),
    )


def _ended(card: ModelCard) -> str:
    """How the fine-tune ended, where that was not as planned."""
    ending = card.training.get("ending", "complete")
    words = {
        "complete": "",
        "early stop": _("It ended when it got no better."),
        "finished on request": _("It was ended early, as asked."),
        "time limit": _("Its time ended before it was done."),
    }
    return words.get(ending, _("How it ended: {ending}.").format(ending=ending))


def _stepsMissed(card: ModelCard) -> str:
    """That most of the planned steps were not made, unless it needed no more."""
    ending, steps, planned = (card.training.get(each) for each in ("ending", "steps", "planned_steps"))
    if ending == "early stop" or not (_isNumber(steps) and _isNumber(planned)) or planned <= _FEW * steps:
        return ""
    if ending == "finished on request":
        one, more = (
            _("Only 1 of {planned} planned steps was made."),
            _("Only {count} of {planned} planned steps were made."),
        )
    else:
        one, more = (
            _("Only 1 of {planned} planned steps was made in the time."),
            _("Only {count} of {planned} planned steps were made in the time."),
        )
    return counted(steps, one, more, planned=planned)


def _wentOn(card: ModelCard) -> str:
    """That it is the result of several runs."""
    steps, earlier = card.training.get("steps"), card.training.get("earlier_steps")
    if not (_isNumber(steps) and _isNumber(earlier)) or not earlier:
        return ""
    return _("It went on learning for {steps} steps, after {earlier} before.").format(steps=steps, earlier=earlier)


def _measured(card: ModelCard) -> str:
    dsc = card.metrics.get("validation_dsc")
    before = card.metrics.get("before_going_on")
    if dsc is None and isinstance(before, dict) and _isNumber(before.get("validation_dsc")):
        words = _("Not measured since, as all slices were learnt from. Before that: {words}")
        return words.format(words=_scored(before))
    if dsc is None:
        return _("No DSC: nothing could be held out to measure it on.")
    words = _scored(card.metrics)
    return f"{words} {_('It has learnt nothing that can be measured.')}" if dsc < _NOTHING_LEARNT else words


def _scored(metrics: dict[str, Any]) -> str:
    return counted(
        metrics.get("held_out_slices", "?"),
        _("DSC {dsc} on 1 held-out slice."),
        _("DSC {dsc} on {count} held-out slices."),
        dsc=_dscOf(metrics),
    )


def _further(card: ModelCard) -> str:
    """What was measured beside the DSC. Cards of older versions lack it."""
    names = ("validation_iou", "validation_nsd", "nsd_tolerance_mm", "validation_hd95_mm")
    iou, nsd, tolerance, distance = (card.metrics.get(each) for each in names)
    if not (_isNumber(iou) and _isNumber(nsd) and _isNumber(tolerance)):
        return ""
    if not _isNumber(distance):
        words = _("IoU {iou}; in the plane of the slices NSD {nsd} at {tolerance} mm.")
        return words.format(iou=f"{iou:.3f}", nsd=f"{nsd:.3f}", tolerance=f"{tolerance:g}")
    words = _("IoU {iou}; in the plane of the slices NSD {nsd} at {tolerance} mm and HD95 {distance} mm.")
    return words.format(iou=f"{iou:.3f}", nsd=f"{nsd:.3f}", tolerance=f"{tolerance:g}", distance=f"{distance:.2f}")


def _isNumber(value: object) -> TypeGuard[float]:
    # A file from elsewhere may hold anything.
    return isinstance(value, (int, float))


def _dsc(card: ModelCard) -> str:
    return _dscOf(card.metrics)


def _dscOf(metrics: dict[str, Any]) -> str:
    value = metrics.get("validation_dsc")
    return "-" if value is None else f"{value:.3f}"
