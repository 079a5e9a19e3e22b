"""The scores of several frames together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from SAMFineTuneLib.evaluation.known_mean import mean_of_known
from SAMFineTuneLib.evaluation.report import LabelScore, Report


def frames_to_json(reports: Mapping[int, Report], without_label: Sequence[int]) -> dict[str, Any]:
    """The mean of the scores over frames, and the scores of each frame, as plain JSON values.

    The mean of a score is taken over the frames in which it is known: the distance for example is
    not where one of both does not show the label.

    Args:
        reports: number of a frame -> what was measured on it; at least one.
        without_label: frames that were left out, because the reference shows no label on them.
    """
    listed = list(reports.values())
    labels = sorted({row.label for each in listed for row in each.labels})
    rows = [
        _together([row for each in listed for row in each.labels if row.label == label])
        for label in labels
    ]
    together = replace(
        listed[0],
        labels=tuple(rows),
        mean_dsc=mean_of_known([each.mean_dsc for each in listed]),
        mean_iou=mean_of_known([each.mean_iou for each in listed]),
        mean_nsd=mean_of_known([each.mean_nsd for each in listed]),
        mean_hd95_mm=mean_of_known([each.mean_hd95_mm for each in listed]),
        empty_labels=sum(row.dsc is None for row in rows),
        resampled=any(each.resampled for each in listed),
    )
    return {
        **together.to_json(),
        "frames": [{"frame": number, **each.to_json()} for number, each in reports.items()],
        "frames_without_label": list(without_label),
    }


def _together(rows: Sequence[LabelScore]) -> LabelScore:
    return LabelScore(
        rows[0].label,
        next((row.name for row in rows if row.name), ""),
        mean_of_known([row.dsc for row in rows]),
        mean_of_known([row.iou for row in rows]),
        mean_of_known([row.nsd for row in rows]),
        mean_of_known([row.hd95_mm for row in rows]),
        float(np.mean([row.prediction_ml for row in rows])),
        float(np.mean([row.reference_ml for row in rows])),
    )
