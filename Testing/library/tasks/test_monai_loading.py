"""A worker loads MONAI without packages that it does not need, and they are there afterwards."""

from __future__ import annotations

from Testing.support.own_process import run_script

PROGRAM = """
import sys
from SAMFineTuneLib.tasks.monai_loading import load_monai
load_monai()
print(sorted({"pandas", "sklearn", "matplotlib", "scipy.signal"} & set(sys.modules)))
import SAMFineTuneLib.tasks.finetune
from monai.losses import DiceLoss
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
import scipy.signal, matplotlib.figure
print(scipy.signal.hilbert([1.0, 2.0]).shape, matplotlib.figure.Figure.__name__)
import torch
masks = torch.zeros(1, 1, 9, 9)
masks[..., 2:6, 3:7] = 1
print(float(compute_surface_dice(masks, masks, [1.0], include_background=True)))
print(float(compute_hausdorff_distance(masks, masks, include_background=True)))
"""


def test_monai_is_loaded_without_them_and_they_can_be_imported_later() -> None:
    loaded, later, near, distance = run_script(PROGRAM).strip().splitlines()[-4:]
    assert loaded == "[]"
    assert later == "(2,) Figure"
    assert float(near) == 1.0 and float(distance) == 0.0
