"""On which slices the tuned models are corrected: none of them was learnt from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from Testing.benchmarks import abdomen
from Testing.benchmarks.single_slices import Source
from Testing.benchmarks.tuned_models import TunedModels


@dataclass(frozen=True)
class TunedImages:
    """A tuned model and images to correct with it.

    Attributes:
        title: of a table's row.
        sources: the volumes.
        structures: names and numbers of what the model finds.
        model: the tuned model.
        shown: number of a structure -> slices that the model has learnt it from.
    """

    title: str
    sources: Sequence[Source]
    structures: Mapping[str, int]
    model: Path
    shown: Mapping[int, Collection[int]] = field(default_factory=dict)


def tuned_images(models: TunedModels) -> Iterator[TunedImages]:
    """One set of images after the other; its model is tuned when it is asked for."""
    data = models.data
    folder = data / "hippocampus_mr"
    hippocampi = [
        Source("hippocampus", folder / "images" / name, folder / "labels" / name)
        for name in models.unseen
    ]
    parts = {"anterior": 1, "posterior": 2}
    yield TunedImages("hippocampus, unseen volumes", hippocampi, parts, models.hippocampus())
    yield TunedImages(
        "hippocampus, ten learnt whole", hippocampi, parts, models.hippocampus_whole()
    )
    task = models.abdomen_task
    yield TunedImages(
        "CT organs, slices not shown",
        [Source("abdomen", task.volume_path, data / "ct_abdomen_3mm" / "organs.nii.gz")],
        {name: number for number, name in abdomen.STRUCTURES.items()},
        models.abdomen(),
        task.shown,
    )
    folder = data / "sarcoma_mr"
    sarcomas = [
        Source("sarcoma", folder / f"{name}.nii.gz", folder / f"{name}_tumour.nii.gz")
        for name in models.unseen_sarcomas
    ]
    yield TunedImages("sarcoma, unseen patients", sarcomas, {"tumour": 1}, models.sarcoma())
    yield TunedImages("sarcoma, five learnt whole", sarcomas, {"tumour": 1}, models.sarcoma_whole())
    fetal = data / "fetal_brain_mr_oblique"
    yield TunedImages(
        "fetal brain, unseen stack",
        [Source("fetal brain", fetal / "run2.nii.gz", fetal / "run2_brain.nii.gz")],
        {"brain": 1},
        models.fetal_brain(),
    )
