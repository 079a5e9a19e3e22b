"""How many slices have to be right until a whole volume is.

The slices are evenly spaced from the first to the last one of a structure, as the README advises a
user to label. Shape interpolation and carrying on get the same ones; both leave everything else
empty but what they find between (and carrying on, where it is asked to, beyond).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.shape_interpolation import interpolate
from SAMFineTuneLib.interactive.propagation import propagate
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.prediction.mask_agreement import agreement
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import labelmap_onto, read_labelmap
from Testing.benchmarks.click_curves import open_session
from Testing.benchmarks.single_slices import Source, sources
from Testing.benchmarks.table import markdown
from Testing.benchmarks.tuned_models import TunedModels

ENOUGH = 0.95
_SHOWN = (3, 5, 7)
# Thirds leave something to find beyond the outermost of three slices.
_INNER = (1 / 6, 1 / 2, 5 / 6)
_LEAST_SLICES = 8
_LEAST_PIXELS = 10
_HIPPOCAMPI = 6

Masks = NDArray[np.bool_]
Method = Callable[[dict[int, NDArray[np.bool_]]], Masks]


@dataclass
class Touched:
    """Figures of single structures, by method.

    Attributes:
        by_count: method -> DSC of each structure from 3, 5 and 7 evenly spaced slices.
        enough: method -> slices that each structure takes to `ENOUGH`; NaN for more than half.
        between: method -> DSC on the slices between three inner ones.
        whole: method -> DSC of the volume from three inner ones, also beyond these.
    """

    by_count: dict[str, list[list[float]]] = field(default_factory=dict)
    enough: dict[str, list[float]] = field(default_factory=dict)
    between: dict[str, list[float]] = field(default_factory=dict)
    whole: dict[str, list[float]] = field(default_factory=dict)

    def table(self) -> str:
        """One row a method."""
        rows: list[list[Any]] = []
        for method, scores in self.by_count.items():
            needed = np.array(self.enough[method])
            reached = needed[~np.isnan(needed)]
            rows.append(
                [
                    method,
                    len(scores),
                    *(float(each) for each in np.mean(scores, axis=0)),
                    float(np.median(np.where(np.isnan(needed), np.inf, needed))),
                    f"{len(reached)} of {len(needed)}",
                    float(np.mean(self.between[method])),
                    float(np.mean(self.whole[method])),
                ]
            )
        counts = (f"{count} slices" for count in _SHOWN)
        inner = ("3 inner: between", "3 inner: whole")
        headings = ["method", "structures", *counts, f"slices to {ENOUGH}", "reached", *inner]
        return markdown(headings, rows)

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "by_count": self.by_count,
            "enough": self.enough,
            "between": self.between,
            "whole": self.whole,
        }


def measure_touched(data: Path, models: TunedModels) -> Touched:
    """All shared volumes untuned, and the hippocampi with the model that has not seen them."""
    found = Touched()
    for source, structures in _chosen(data):
        _measure(found, "", open_session(source, None), source, structures, None)
    model = models.hippocampus()
    folder = data / "hippocampus_mr"
    for name in models.unseen[:_HIPPOCAMPI]:
        source = Source("hippocampus", folder / "images" / name, folder / "labels" / name)
        structures = {"anterior": (1,), "posterior": (2,)}
        labels = {"anterior": 1, "posterior": 2}
        session = open_session(source, model)
        _measure(found, "hippocampus, tuned: ", session, source, structures, labels)
    return found


def _chosen(data: Path) -> Iterator[tuple[Source, Mapping[str, Any] | None]]:
    seen = 0
    for source in sources(data):
        seen += source.data_set == "hippocampus_mr"
        if source.data_set != "hippocampus_mr" or seen <= _HIPPOCAMPI:
            yield source, source.structures


def _measure(
    found: Touched,
    prefix: str,
    session: SliceCorrector,
    source: Source,
    structures: Mapping[str, Any] | None,
    labels: Mapping[str, int] | None,
) -> None:
    labelmap = labelmap_onto(read_labelmap(source.labels), session.stack.geometry)
    stack = SliceStack(labelmap.array, session.stack.geometry, session.stack.axis)
    named = structures or {str(label): (label,) for label in labelmap.labels}
    for name, values in named.items():
        truth = np.stack([np.isin(stack[number], values) for number in range(len(stack))])
        shown = np.flatnonzero(truth.sum((1, 2)) >= _LEAST_PIXELS)
        if len(shown) < _LEAST_SLICES:
            continue
        label = labels[name] if labels else None
        for method, work in _methods(session, len(stack), label).items():
            _score(found, prefix + method, work, truth, shown)


def _methods(session: SliceCorrector, slices: int, label: int | None) -> dict[str, Any]:
    def interpolated(known: dict[int, NDArray[np.bool_]], beyond: bool) -> Masks:
        array = np.zeros((slices, session.fit.rows, session.fit.columns), np.uint8)
        for number, mask in known.items():
            array[number] = mask
        spacing = (1.0, *session.stack.pixel_spacing)
        filled: Masks = interpolate(array, 0, {1: list(known)}, spacing) > 0
        return filled

    def propagated(known: dict[int, NDArray[np.bool_]], beyond: bool) -> Masks:
        result = propagate(session, known, label, slices if beyond else 0, True)
        masks = np.zeros((slices, session.fit.rows, session.fit.columns), bool)
        for number, mask in {**result.masks, **known}.items():
            masks[number] = mask
        return masks

    return {"interpolation": interpolated, "propagated": propagated}


def _score(found: Touched, method: str, work: Any, truth: Masks, shown: NDArray[np.int64]) -> None:
    def known(shares: Any) -> dict[int, NDArray[np.bool_]]:
        places = np.unique((np.asarray(shares) * (len(shown) - 1)).round().astype(int))
        return {int(shown[place]): truth[shown[place]] for place in places}

    by_count: dict[int, float] = {}
    enough = float("nan")
    for count in range(3, max(len(shown) // 2, max(_SHOWN)) + 1):
        if enough == enough and count > max(_SHOWN):
            break
        score = agreement(work(known(np.linspace(0, 1, count)), False), truth)
        by_count[count] = score
        if score >= ENOUGH and enough != enough and count <= len(shown) // 2:
            enough = count
    found.by_count.setdefault(method, []).append([by_count[count] for count in _SHOWN])
    found.enough.setdefault(method, []).append(enough)
    inner = known(_INNER)
    masks = work(inner, True)
    between = [n for n in range(min(inner), max(inner)) if n not in inner]
    found.between.setdefault(method, []).append(agreement(masks[between], truth[between]))
    found.whole.setdefault(method, []).append(agreement(masks, truth))
