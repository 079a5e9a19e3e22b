"""Files of MedSAM and of the study's SSLSAM as starts: their layout, with random numbers.

MedSAM's file is a plain state dict of Segment Anything's ViT-B. Where the encoder is narrow here,
names and their number are those of the full one with fewer blocks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks import sam_vit
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.pretraining.starting_weights import StartingWeights
from SAMFineTuneLib.weights.official import load_checkpoint
from Testing.benchmarks import named_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> SamNetwork:
    """vit_b with a narrow encoder of two blocks, and random numbers in all of its tensors."""
    monkeypatch.setitem(sam_vit._SHAPES, "vit_b", sam_vit._Shape(32, 2, 2, (1,)))
    return randomised(build("vit_b", 256))


def randomised(network: SamNetwork) -> SamNetwork:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for each in network.state_dict().values():
            each.copy_(torch.randn(each.shape, generator=generator))
    return network


def is_loaded(network: SamNetwork, tensors: dict[str, Tensor]) -> bool:
    ours = network.state_dict()
    return ours.keys() == tensors.keys() and all(torch.equal(ours[k], tensors[k]) for k in ours)


@pytest.mark.parametrize("kind", ["medsam", "sslsam"])
def test_files_in_their_layout_are_loaded_whole(
    kind: str, narrow: SamNetwork, tmp_path: Path
) -> None:
    tensors = narrow.state_dict()
    torch.save(tensors, tmp_path / "weights.pth")
    weights = StartingWeights("vit_b", kind, tmp_path / "weights.pth")
    network, told = weights.network(256)
    assert is_loaded(network, tensors)
    assert network.spec.normalisation == {"medsam": "zero_to_one", "sslsam": "sam"}[kind]
    assert (told["kind"], told["file"]) == (kind, "weights.pth")


def with_another_class_count(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the study's networks for one class, with two mask tokens in place of four."""
    kept = {
        name: each
        for name, each in tensors.items()
        if not re.search(r"output_hypernetworks_mlps\.[23]\.", name)
    }
    name = "mask_decoder.mask_tokens.weight"
    return {**kept, name: tensors[name][:2]}


def encoder_alone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each for name, each in tensors.items() if name.startswith("image_encoder.")}


def with_a_reconstruction(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the decoder of a masked autoencoder left in it."""
    return {**tensors, "mask_token": torch.zeros(1, 1, 512)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_another_class_count, "are missing .*1 of its tensors is of another shape"),
        (encoder_alone, r"137 of its tensors are missing \(such as prompt_encoder\."),
        (with_a_reconstruction, r"1 of its tensors is unknown \(such as mask_token\)"),
    ],
)
def test_files_of_another_layout_are_refused_and_leave_the_network(
    change: Any, said: str, narrow: SamNetwork, tmp_path: Path
) -> None:
    torch.save(change(narrow.state_dict()), tmp_path / "sslsam.pth")
    network = build("vit_b", 256)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    with pytest.raises(InputError, match=said):
        load_checkpoint(network, tmp_path / "sslsam.pth")
    assert is_loaded(network, before)


def test_the_script_for_real_files_says_what_it_finds(
    narrow: SamNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "medsam_vit_b.pth"
    torch.save(narrow.state_dict(), path)
    monkeypatch.setattr(sys, "argv", ["named_weights", f"medsam:{path}"])
    assert named_weights.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "accepted as backbone vit_b; pixels: zero_to_one"
    torch.save(encoder_alone(narrow.state_dict()), path)
    assert named_weights.main() == 2
    assert "does not fit backbone vit_b" in capsys.readouterr().out


@pytest.mark.slow
def test_a_full_file_of_medsam_is_loaded_and_has_the_numbers_beside_the_script(
    tmp_path: Path,
) -> None:
    tensors = randomised(build("vit_b", 1024)).state_dict()
    count, values = named_weights.parts_of(tensors)
    for part in ("image_encoder", "mask_decoder", "prompt_encoder"):
        row = rf"\| {part} +\| +{count[part]} \| +{count[part]} \| +{values[part]} \|"
        assert re.search(row, named_weights.__doc__ or ""), (part, count[part], values[part])
    torch.save(tensors, tmp_path / "medsam_vit_b.pth")
    network, _ = StartingWeights("vit_b", "medsam", tmp_path / "medsam_vit_b.pth").network(1024)
    assert is_loaded(network, tensors)
