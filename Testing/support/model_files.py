"""Tuned models for tests of lists: files with a card and without tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_model(
    path: Path,
    labels=("liver",),
    dsc: float | None = 0.912,
    created: str = "2026-03-04T10:00:00+00:00",
    training: dict[str, Any] | None = None,
    volumes: int = 2,
    held_out: int = 2,
    channels=(),
    further: dict[str, Any] | None = None,
) -> Path:
    from SAMFineTuneLib.models.model_file import LabelCard, ModelCard, Strategy
    from SAMFineTuneLib.slices.intensity import IntensityNormalisation

    card = ModelCard(
        created=created,
        backbone="starter",
        checkpoint_sha256=None,
        strategy=Strategy(method="vanilla", scope="encoder_decoder", rank=4),
        labels=[LabelCard(value=n, name=name) for n, name in enumerate(labels, start=1)],
        axis="axial",
        normalisation=IntensityNormalisation(
            kind="percentiles",
            further=tuple(IntensityNormalisation(kind="percentiles") for _each in channels[1:]),
        ),
        channels=list(channels),
        input_size=256,
        training=training or {},
        data={"volumes": volumes, "labelled_slices": 9},
        metrics={"validation_dsc": dsc, "held_out_slices": held_out, **(further or {})},
        versions={},
    )
    header = json.dumps({"__metadata__": {"samfinetune": card.model_dump_json()}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path
