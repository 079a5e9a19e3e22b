"""LiteMedSAM: its layout, strict loading, and the whole way from labelled slices to a mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.interactive.networks import CorrectionNetworks
from SAMFineTuneLib.interactive.protocol import Box, Point
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import read_labelmap, read_volume
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import file_sha256, load_checkpoint
from Testing.support.in_process import shell_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

SIZE = 64


def test_the_embedding_has_a_quarter_of_the_side_and_masks_all_of_it() -> None:
    network = build("lite_medsam", SIZE).eval()
    prompts = PromptSet(
        torch.tensor([[[20.0, 20.0]], [[40.0, 30.0]]]),
        torch.ones(2, 1, dtype=torch.long),
        torch.full((2, 4), torch.nan),
        torch.zeros(2, 1, SIZE, SIZE),
    )
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        state = network.image_encoder(images)
        prompted, iou = PromptedSegmenter(network).decode(state, prompts)
        automatic, _ = AutomaticSegmenter(network, 2).decode(state)
    assert state.x.shape == (2, 256, SIZE // 4, SIZE // 4) and network.embedding_size == SIZE // 4
    assert prompted.shape == (2, 1, SIZE, SIZE) and iou.shape == (2, 1)
    assert automatic.shape == (2, 3, SIZE, SIZE) and network.mask_size == SIZE


def test_a_file_in_its_layout_is_loaded_and_that_of_mobile_sam_is_refused(tmp_path: Path) -> None:
    layout = official_layout()
    official = {name: torch.randn(each.shape).to(each.dtype) for name, each in layout.items()}
    torch.save(official, tmp_path / "own.pth")
    network = build("lite_medsam", SIZE)
    assert load_checkpoint(network, tmp_path / "own.pth").sha256
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], each) for name, each in official.items())
    torch.save(build("vit_t", 256).state_dict(), tmp_path / "mobile.pth")
    with pytest.raises(InputError, match="of backbone vit_t, not of lite_medsam"):
        load_checkpoint(network, tmp_path / "mobile.pth")
    with pytest.raises(InputError, match="of backbone lite_medsam, not of vit_t"):
        load_checkpoint(build("vit_t", 256), tmp_path / "own.pth")


def official_layout() -> dict[str, torch.Tensor]:
    """Names and shapes of the official file: MobileSAM's, but for the stem and the classifier."""
    with torch.device("meta"):
        layout = dict(build("vit_t", 1024).state_dict())
    stem = "image_encoder.patch_embed.seq.{}.c.weight"
    layout[stem.format(0)] = torch.empty(32, 3, 1, 1)
    layout[stem.format(2)] = torch.empty(64, 32, 1, 1)
    classifier = ("image_encoder.norm_head.", "image_encoder.head.")
    return {name: each for name, each in layout.items() if not name.startswith(classifier)}


def test_a_box_and_a_click_correct_a_slice() -> None:
    volume, _ = head()
    prompted = PromptedSegmenter(build("lite_medsam", SIZE)).eval()
    networks = CorrectionNetworks(prompted, None, None, False, "random", torch.device("cpu"))
    corrector = SliceCorrector(volume, "axial", networks)
    prompts = [Box(corners=((4, 10, 6), (24, 38, 6))), Point(at=(14, 24, 6), positive=True)]
    found = corrector.find_mask(6, prompts)
    assert found.logits.shape == (1, 1, SIZE, SIZE)
    given = np.zeros(corrector.stack.slice_shape, bool)
    given[10:20, 10:20] = True
    kept = corrector.find_mask(6, prompts[1:], "given", given=given)
    assert kept.logits.shape == (1, 1, SIZE, SIZE) and kept.mask.any()
    # What is far from the click stays as the user gave it.
    assert (kept.mask == given).mean() > 0.5


def test_labelled_slices_become_a_model_that_segments(
    monkeypatch: Any, capfd: Any, tmp_path: Path
) -> None:
    shell = shell_of(monkeypatch, capfd, tmp_path / "cache")
    volume, labelmap = head((5, 48, 48))
    image, labels = write_pair(tmp_path, volume, keep_slices(labelmap, [1, 2, 3]), "head")
    model = tmp_path / "m.safetensors"
    torch.save(build("lite_medsam", SIZE).state_dict(), tmp_path / "own.pth")
    weights = ("--checkpoint", tmp_path / "own.pth")
    tuned = shell(
        *("finetune", "--volume", image, "--segmentation", labels, "--output", model),
        *("--backbone", "lite_medsam", *weights, "--scope", "decoder", "--steps", 1, "--batch", 1),
    )
    assert tuned.code == 0, tuned.err
    card = read_card(model)
    assert card.backbone == "lite_medsam" and card.input_size == SIZE and card.pixels is None
    assert card.checkpoint_sha256 == file_sha256(tmp_path / "own.pth")
    output = tmp_path / "out.nii.gz"
    applied = shell("apply", "--model", model, *weights, "--volume", image, "--output", output)
    assert applied.code == 0 and output.is_file(), applied.err


def test_a_size_of_another_backbone_is_refused_before_anything_is_read(
    monkeypatch: Any, capfd: Any, tmp_path: Path
) -> None:
    own = replace(BACKBONES["lite_medsam"], input_sizes=range(128, 513, 16))
    monkeypatch.setitem(BACKBONES, "lite_medsam", own)
    ended = shell_of(monkeypatch, capfd, tmp_path / "cache")(
        *(
            "finetune",
            "--volume",
            "v.nii.gz",
            "--segmentation",
            "s.nii.gz",
            "--output",
            "m.safetensors",
        ),
        *("--backbone", "lite_medsam", "--input-size", 1024),
    )
    assert ended.code == 2 and len(ended.error_lines) == 1
    assert "for backbone lite_medsam, a multiple of 16 from 128 to 512" in ended.error_lines[0]


def test_the_real_weights_find_an_organ_in_a_tight_box(shared_data: Path) -> None:
    """The liver and the left kidney of a CT: mean DSC 0.93 with these weights."""
    try:
        weights = find_weights("lite_medsam", None)
    except InputError as missing:
        pytest.skip(f"{missing.message}: python -m SAMFineTuneLib checkpoints get lite_medsam")
    network = build("lite_medsam", 256)
    load_checkpoint(network, weights)
    folder = shared_data / "ct_abdomen_3mm"
    volume, labels = read_volume(folder / "ct.nii.gz"), read_labelmap(folder / "organs.nii.gz")
    networks = CorrectionNetworks(
        PromptedSegmenter(network.eval()), None, None, False, "real", torch.device("cpu")
    )
    corrector = SliceCorrector(volume, "axial", networks)
    stack, found = SliceStack.of(labels, "axial"), []
    for label in (5, 3):
        areas = [int((stack[number] == label).sum()) for number in range(len(stack))]
        number = int(np.argmax(areas))
        truth = stack[number] == label
        rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
        corners = (
            stack.voxel(number, rows[0] - 0.5, columns[0] - 0.5),
            stack.voxel(number, rows[-1] + 0.5, columns[-1] + 0.5),
        )
        mask = corrector.find_mask(number, [Box(corners=corners)]).mask
        found.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(found) > 0.85
