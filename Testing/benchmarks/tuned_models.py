"""The tuned models that corrections are measured with, made once by the real command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from SAMFineTuneLib.volumes import read_labelmap, write_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import abdomen, hippocampus
from Testing.benchmarks.few_slices import evenly_spaced, keep_slices, slices_with
from Testing.benchmarks.process_cost import command, run_command

_SLICES = 5
_SARCOMAS = [f"STS_{number:03}" for number in range(1, 9)]


class TunedModels:
    """Fine-tunes with weights for prompts, preset laptop, backbone starter.

    Args:
        data: folder of the shared images.
        folder: where the models are kept; those that lie there are used.
        seed: of the fine-tune.
        options: more options of `finetune`.
    """

    def __init__(self, data: Path, folder: Path, seed: int, options: Sequence[str]) -> None:
        self.data = data
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._seed = seed
        self._options = options
        self.abdomen_task = abdomen.Task.read(data, _SLICES)
        self.unseen_sarcomas = _SARCOMAS[_SLICES:]
        self.learnt, self.unseen = hippocampus.choose_volumes(data / "hippocampus_mr", 0)

    def abdomen(self) -> Path:
        """Ten structures of a CT from five labelled slices each."""
        few = self._folder / "few.nii.gz"
        write_labelmap(few, self.abdomen_task.few())
        volume = self.abdomen_task.volume_path
        examples = ("--volume", volume, "--segmentation", few, "--axis", abdomen.AXIS)
        return self._tuned("abdomen", examples)

    def hippocampus(self) -> Path:
        """Two structures in MR from one labelled slice in each of five volumes."""
        data = self.data / "hippocampus_mr"
        hippocampus.write_examples(self.learnt, data, "axial", self._folder)
        return self._tuned("hippocampus", ("--examples", self._folder / "examples.json"))

    def hippocampus_whole(self) -> Path:
        """Two structures in MR from every slice of ten volumes, the five of before among them."""
        data = self.data / "hippocampus_mr"
        names = sorted(path.name for path in (data / "images").iterdir())
        pairs = [
            (data / "images" / name, data / "labels" / name)
            for name in names
            if name not in self.unseen
        ]
        return self._tuned_on_whole("hippocampus_whole", pairs)

    def sarcoma(self) -> Path:
        """A tumour in MR from one labelled slice, the middle one, of each of five patients."""
        examples = []
        for name in _SARCOMAS[:_SLICES]:
            image = self.data / "sarcoma_mr" / f"{name}.nii.gz"
            truth = read_labelmap(image.with_name(f"{name}_tumour.nii.gz"))
            shown = slices_with(truth, "axial", [1])
            few = self._folder / f"few_{image.name}"
            write_labelmap(few, keep_slices(truth, "axial", {1: [shown[len(shown) // 2]]}))
            examples.append({"volume": str(image), "segmentation": str(few), "axis": "axial"})
        write_json(self._folder / "sarcomas.json", examples)
        return self._tuned("sarcoma", ("--examples", self._folder / "sarcomas.json"))

    def sarcoma_whole(self) -> Path:
        """A tumour in MR from every slice of the five patients of before."""
        images = [self.data / "sarcoma_mr" / f"{name}.nii.gz" for name in _SARCOMAS[:_SLICES]]
        pairs = [
            (image, image.with_name(image.name.replace(".", "_tumour.", 1))) for image in images
        ]
        return self._tuned_on_whole("sarcoma_whole", pairs)

    def fetal_brain(self) -> Path:
        """A fetal brain in one oblique stack of T2 MR, from five labelled slices."""
        folder = self.data / "fetal_brain_mr_oblique"
        truth = read_labelmap(folder / "run1_brain.nii.gz")
        few = self._folder / "few_run1.nii.gz"
        shown = {1: evenly_spaced(truth, "axial", 1, _SLICES)}
        write_labelmap(few, keep_slices(truth, "axial", shown))
        volume = folder / "run1.nii.gz"
        examples = ("--volume", volume, "--segmentation", few, "--axis", "axial")
        return self._tuned("fetal_brain", examples)

    def _tuned_on_whole(self, name: str, pairs: Sequence[tuple[Path, Path]]) -> Path:
        examples = [
            {"volume": str(image), "segmentation": str(labels), "axis": "axial"}
            for image, labels in pairs
        ]
        write_json(self._folder / f"{name}.json", examples)
        return self._tuned(name, ("--examples", self._folder / f"{name}.json"))

    def _tuned(self, name: str, examples: Sequence[str | Path]) -> Path:
        model = self._folder / f"{name}.safetensors"
        if not model.is_file():
            words = ("finetune", *examples, "--output", model, "--job", self._folder / name)
            named = ("--prompts", "--preset", "laptop", "--seed", str(self._seed))
            cost = run_command(command(*words, *named, *self._options), self._folder)
            print(f"{name}: tuned in {cost.seconds:.0f} s", file=sys.stderr, flush=True)
        return model
