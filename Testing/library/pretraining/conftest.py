"""Fixtures for tests of the pre-training."""

from __future__ import annotations

import pytest
import torch

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.starter.network import build_starter
from Testing.support.pretraining_runs import SIDE


@pytest.fixture(scope="module")
def network() -> SamNetwork:
    torch.manual_seed(0)
    return build_starter(16 * SIDE)
