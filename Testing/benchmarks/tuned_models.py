"""The tuned models that corrections are measured with, made once by the real command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from SAMFineTuneLib.volumes import write_labelmap
from Testing.benchmarks import abdomen, hippocampus
from Testing.benchmarks.process_cost import command, run_command

_SLICES = 5


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
        self._folder = folder
        self._seed = seed
        self._options = options
        self.abdomen_task = abdomen.Task.read(data, _SLICES)
        self.learnt, self.unseen = hippocampus.choose_volumes(data / "hippocampus_mr", 0)

    def abdomen(self) -> Path:
        """Ten structures of a CT from five labelled slices each."""
        few = self._folder / "few.nii.gz"
        self._folder.mkdir(parents=True, exist_ok=True)
        write_labelmap(few, self.abdomen_task.few())
        volume = self.abdomen_task.volume_path
        examples = ("--volume", volume, "--segmentation", few, "--axis", abdomen.AXIS)
        return self._tuned("abdomen", examples)

    def hippocampus(self) -> Path:
        """Two structures in MR from one labelled slice in each of five volumes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        data = self.data / "hippocampus_mr"
        hippocampus.write_examples(self.learnt, data, "axial", self._folder)
        return self._tuned("hippocampus", ("--examples", self._folder / "examples.json"))

    def _tuned(self, name: str, examples: Sequence[str | Path]) -> Path:
        model = self._folder / f"{name}.safetensors"
        if not model.is_file():
            words = ("finetune", *examples, "--output", model, "--job", self._folder / name)
            named = ("--prompts", "--preset", "laptop", "--seed", str(self._seed))
            cost = run_command(command(*words, *named, *self._options), self._folder)
            print(f"{name}: tuned in {cost.seconds:.0f} s", file=sys.stderr, flush=True)
        return model
