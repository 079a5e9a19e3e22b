"""Sizes, times and dates in words."""

from __future__ import annotations

from datetime import datetime

from slicer.i18n import tr as _


def sizeText(size: int) -> str:
    """A number of bytes, as large as a person wants to know it."""
    if not size:
        return _("0 MB")
    if size < 1_000_000:
        return _("{size} kB").format(size=max(1, round(size / 1000)))
    if size < 1_000_000_000:
        return _("{size} MB").format(size=round(size / 1_000_000))
    return _("{size} GB").format(size=f"{size / 1_000_000_000:.1f}")


def timeLeftText(seconds: float | None) -> str:
    """How long something still takes; "" when nobody knows."""
    if seconds is None:
        return ""
    if seconds < 8:
        return _("a few seconds left")
    if seconds < 55:
        return _("about {seconds} s left").format(seconds=5 * round(seconds / 5))
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("about {minutes} min left").format(minutes=max(1, minutes))
    return _("about {hours} h {minutes:02d} min left").format(hours=minutes // 60, minutes=minutes % 60)


def dateText(moment: datetime | float | str) -> str:
    """Day and time here; of a moment, of seconds since 1970, or of ISO 8601 text."""
    if isinstance(moment, str):
        try:
            when = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            return moment
    else:
        when = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment)
    return when.astimezone().strftime("%Y-%m-%d %H:%M")
