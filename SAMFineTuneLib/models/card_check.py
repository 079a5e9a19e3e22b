"""Checks the values in the card of a tuned model before anything relies on them.

The card's file may have been changed by anybody, or damaged. A label of -5 would be written as 251,
and an intensity window of width 0 would make every slice black.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from SAMFineTuneLib.adaptation.method import METHODS, SCOPES
from SAMFineTuneLib.adaptation.places import DECODER_BLOCKS, ENCODER_BLOCKS, PARTS
from SAMFineTuneLib.heads.names import HEAD_DEPTHS, HEAD_NAMES
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.prompts.mode import PROMPT_MODES

if TYPE_CHECKING:
    from SAMFineTuneLib.models.model_file import LabelCard, ModelCard, Strategy
    from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow

# Labelmaps are written as signed 32-bit numbers.
_LARGEST_LABEL = 2**31 - 1
_MOST_LABELS = 10_000
_AXES = ("axial", "coronal", "sagittal", "widest")
_LARGEST_RANK, _LARGEST_SCALE = 1024, 1e6
# Every class would be about as likely as any other.
_LARGEST_TEMPERATURE = 100
# More than any network has.
_MOST_BLOCKS = 1000
_LONGEST_CURVE = 65_536
# The values of an intensity curve are stored rounded.
_ROUNDING = 1e-3
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_IMAGES = 3
_COUNTS = ("volumes", "labelled_slices", "empty_slices")


def fault_of(card: ModelCard) -> str | None:
    """A text about the first impossible value and what it should be; None if all are possible."""
    return next(_faults(card), None)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object hook for `json.loads` that refuses a key that occurs twice.

    For such a key some readers take the first value and others the last.

    Raises:
        ValueError: a key occurs twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is named twice")
    return found


def _faults(card: ModelCard) -> Iterator[str]:
    if card.backbone not in BACKBONES:
        known = ", ".join(BACKBONES)
        yield f"backbone is {_short(card.backbone)}, and this program knows {known}"
        return
    sizes = BACKBONES[card.backbone].input_sizes
    if card.input_size not in sizes:
        rule = f"a multiple of {sizes.step} from {sizes[0]} to {sizes[-1]}"
        yield f"input_size is {_short(card.input_size)}, and should be {rule}"
    sha256 = card.checkpoint_sha256
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        yield f"checkpoint_sha256 is {_short(sha256)}, and should be 64 hexadecimal digits"
    if card.axis not in _AXES:
        yield f"axis is {_short(card.axis)}, and should be one of {', '.join(_AXES)}"
    if not _is_moment(card.created):
        yield f"created is {_short(card.created)}, and should be a date and a time"
    yield from _strategy_faults(card.strategy, "strategy")
    if card.prompts is not None:
        yield from _strategy_faults(card.prompts.strategy, "prompts.strategy")
        if card.prompts.mode not in PROMPT_MODES:
            rule = f"and should be one of {', '.join(PROMPT_MODES)}"
            yield f"prompts.mode is {_short(card.prompts.mode)}, {rule}"
    yield from _label_faults(card.labels)
    yield from _channel_faults(card)
    yield from _normalisation_faults(card.normalisation)
    yield from _number_faults(card)
    yield from _head_faults(card)
    if not 0 < card.temperature <= _LARGEST_TEMPERATURE:
        rule = f"and should be above 0 and up to {_LARGEST_TEMPERATURE}"
        yield f"temperature is {_short(card.temperature)}, {rule}"


def _strategy_faults(strategy: Strategy, where: str) -> Iterator[str]:
    for name, value, known in (
        ("method", strategy.method, METHODS),
        ("scope", strategy.scope, SCOPES),
    ):
        if value not in known:
            yield f"{where}.{name} is {_short(value)}, and should be one of {', '.join(known)}"
    if not 1 <= strategy.rank <= _LARGEST_RANK:
        yield f"{where}.rank is {_short(strategy.rank)}, and should be from 1 to {_LARGEST_RANK}"
    yield from _place_faults(strategy, where)


def _place_faults(strategy: Strategy, where: str) -> Iterator[str]:
    for name, words in (
        ("adapter_blocks", ("auto", *ENCODER_BLOCKS)),
        ("lora_blocks", ENCODER_BLOCKS),
        ("decoder_adapters", DECODER_BLOCKS),
    ):
        blocks = getattr(strategy, name)
        if not (blocks in words if isinstance(blocks, str) else _are_blocks(blocks)):
            rule = f"and should be {', '.join(words)} or numbers of blocks"
            yield f"{where}.{name} is {_short(blocks)}, {rule}"
    parts = strategy.lora_parts
    if not parts or len(set(parts)) != len(parts) or not set(parts) <= set(PARTS):
        yield f"{where}.lora_parts is {_short(parts)}, and should be some of {', '.join(PARTS)}"
    if not 0 < strategy.lora_scale <= _LARGEST_SCALE:
        yield f"{where}.lora_scale is {_short(strategy.lora_scale)}, and should be above 0"


def _are_blocks(numbers: list[int]) -> bool:
    known = all(0 <= number < _MOST_BLOCKS for number in numbers)
    return bool(numbers) and known and len(set(numbers)) == len(numbers)


def _head_faults(card: ModelCard) -> Iterator[str]:
    if card.head not in HEAD_NAMES:
        yield f"head is {_short(card.head)}, and should be one of {', '.join(HEAD_NAMES)}"
    depths = HEAD_DEPTHS if card.head == "convnet" else (None,)
    if card.head_depth not in depths:
        allowed = " or ".join("null" if each is None else str(each) for each in depths)
        yield f"head_depth is {_short(card.head_depth)}, and should be {allowed}"


def _label_faults(labels: list[LabelCard]) -> Iterator[str]:
    if not 1 <= len(labels) <= _MOST_LABELS:
        yield f"labels are {len(labels)}, and should be from 1 to {_MOST_LABELS}"
        return
    seen: set[int] = set()
    for number, label in enumerate(labels):
        where = f"labels[{number}]"
        if not 1 <= label.value <= _LARGEST_LABEL:
            rule = f"and should be from 1 to {_LARGEST_LABEL}"
            yield f"{where}.value is {_short(label.value)}, {rule}"
        if label.value in seen:
            yield f"{where}.value is {label.value}, as that of another label"
        seen.add(label.value)
        colour = label.colour
        if colour is not None and not all(0 <= part <= 1 for part in colour):
            yield f"{where}.colour is {_short(colour)}, and should be three numbers from 0 to 1"


def _channel_faults(card: ModelCard) -> Iterator[str]:
    images, names = card.normalisation.images, len(card.channels)
    if images > _MOST_IMAGES:
        yield f"normalisation.further has {images - 1} items, and should have at most two"
    if names != (images if images > 1 else 0):
        yield f"channels has {names} names, where a case has {images} images"


def _normalisation_faults(
    normalisation: IntensityNormalisation, where: str = "normalisation"
) -> Iterator[str]:
    window = normalisation.window
    if (normalisation.kind == "calibrated") != (window is not None):
        what = "lacks" if window is None else "should not be there"
        yield f"{where}.window {what}, where the kind is {normalisation.kind}"
    if window is not None:
        yield from _window_faults(window, f"{where}.window")
    for number, each in enumerate(normalisation.further):
        own = f"{where}.further[{number}]"
        if each.further or "colour" in (each.kind, normalisation.kind):
            yield f"{own} should be that of one grey image beside others"
        yield from _normalisation_faults(each, own)


def _window_faults(window: IntensityWindow, where: str) -> Iterator[str]:
    # The difference may overflow even if both are finite.
    if not math.isfinite(window.high - window.low) or not window.low < window.high:
        yield f"{where}.low is {window.low} and high {window.high}, and low should be the smaller"
    if not 2 <= len(window.curve) <= _LONGEST_CURVE:
        yield f"{where}.curve has {len(window.curve)} values, and should have two or more"
        return
    before = 0.0
    for level in window.curve:
        if not before - _ROUNDING <= level <= 1 + _ROUNDING:
            yield f"{where}.curve holds {level}, and should rise from 0 to 1"
            break
        before = level
    if not math.isfinite(window.mean):
        yield f"{where}.mean is {window.mean}, and should be a number"
    if not (math.isfinite(window.standard_deviation) and window.standard_deviation > 0):
        found = window.standard_deviation
        yield f"{where}.standard_deviation is {found}, and should be a number above 0"


def _number_faults(card: ModelCard) -> Iterator[str]:
    """Faults of the figures that are shown: they may be missing, but must be numbers if present."""
    yield from _metric_faults(card.metrics, "metrics")
    before = card.metrics.get("before_going_on")
    if isinstance(before, dict):
        yield from _metric_faults(before, "metrics.before_going_on")
    elif before is not None:
        yield f"metrics.before_going_on is {_short(before)}, and should be an object"
    yield from _count_faults({f"data.{name}": card.data.get(name) for name in _COUNTS})


def _metric_faults(metrics: dict[str, Any], where: str) -> Iterator[str]:
    for name in ("validation_dsc", "validation_iou", "validation_nsd"):
        share = metrics.get(name)
        if share is not None and not _is_number(share, lambda value: 0 <= value <= 1):
            yield f"{where}.{name} is {_short(share)}, and should be a number from 0 to 1"
    for name in ("validation_hd95_mm", "nsd_tolerance_mm"):
        distance = metrics.get(name)
        if distance is not None and not _is_number(distance, lambda value: 0 <= value < math.inf):
            yield f"{where}.{name} is {_short(distance)}, and should be millimetres from 0"
    yield from _count_faults({f"{where}.held_out_slices": metrics.get("held_out_slices")})


def _count_faults(counts: dict[str, Any]) -> Iterator[str]:
    for name, value in counts.items():
        whole = type(value) is int and _is_number(value, lambda value: 0 <= value <= _LARGEST_LABEL)
        if value is not None and not whole:
            yield f"{name} is {_short(value)}, and should be a count"


def _is_number(value: object, fits: Callable[[float], bool]) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and fits(value)


def _is_moment(text: str) -> bool:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return False
    # Outside these years a moment cannot be converted to local time on every system.
    return 1970 < moment.year < 3000


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
