"""Masked autoencoders: what they see, what trains, and what is left of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from SAMFineTuneLib.examples.prepared_slices import (
    PreparedCase,
    PreparedSlice,
    PreparedSlices,
    PreparedWriter,
)
from SAMFineTuneLib.networks.definitions import segment_anything_modeling
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import (
    SamVitEncoder,
    build_mask_decoder,
    build_prompt_encoder,
)
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.starter.network import build_starter
from SAMFineTuneLib.networks.tiny_vit import build_tiny_vit
from SAMFineTuneLib.pretraining.masked.autoencoder import MaskedAutoencoder, square_side
from SAMFineTuneLib.pretraining.masked.batches import (
    BatchesAhead,
    UnlabelledBatches,
    crop_positions,
)
from SAMFineTuneLib.pretraining.masked.in_place import InPlaceAutoencoder
from SAMFineTuneLib.pretraining.masked.patches import (
    draw_masks,
    images_of,
    normalised,
    patches_of,
    reconstruction_loss,
    with_statistics_of,
)
from SAMFineTuneLib.pretraining.masked.plan import MaskedChoices, settle
from SAMFineTuneLib.pretraining.masked.reconstruction_picture import reconstructions
from SAMFineTuneLib.pretraining.masked.training import MaskedPretraining
from SAMFineTuneLib.pretraining.masked.visible_patches import VisiblePatchAutoencoder
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.schedule import warm_up_cosine
from SAMFineTuneLib.pretraining.starting_weights import StartingWeights
from SAMFineTuneLib.slices.intensity import ChannelWindows, IntensityWindow
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.training.weight_decay import decayed_groups

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
PATCHES = (SIZE // 16) ** 2


def small_vit() -> SamNetwork:
    """Segment Anything's network with a narrow encoder of two blocks, the first in windows."""
    encoder = segment_anything_modeling().ImageEncoderViT(
        img_size=128,
        embed_dim=32,
        depth=2,
        num_heads=2,
        out_chans=256,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    # As those of a checkpoint are not.
    nn.init.normal_(encoder.pos_embed, std=0.02)
    return SamNetwork(
        BACKBONES["vit_b"],
        SIZE,
        SamVitEncoder(encoder),
        build_prompt_encoder(BACKBONES["vit_b"], SIZE),
        build_mask_decoder(),
    )


def built(kind: str) -> MaskedAutoencoder:
    torch.manual_seed(0)
    if kind == "vit":
        return VisiblePatchAutoencoder(small_vit(), depth=1, width=32, heads=2)
    network = build_starter(SIZE) if kind == "starter" else build_tiny_vit(SIZE)
    return InPlaceAutoencoder(network, 16, width=16)


def images_and_masks(count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(count, PATCHES, generator=generator)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator), draw_masks(0.75, noise)


def test_patches_are_put_together_again() -> None:
    images, masked = images_and_masks()
    patches = patches_of(images, 16)
    assert patches.shape == (2, 16, 768)
    assert torch.equal(
        patches[0, 5].reshape(16, 16, 3), images[0, :, 16:32, 16:32].permute(1, 2, 0)
    )
    assert torch.equal(images_of(patches, 16), images)
    torch.testing.assert_close(with_statistics_of(normalised(patches), patches), patches)
    assert masked.sum(1).tolist() == [12, 12]


def test_the_loss_is_of_normalised_pixels_of_masked_patches_alone() -> None:
    images, masked = images_and_masks()
    patches = patches_of(3 * images + 5, 16)
    right = normalised(patches)
    assert reconstruction_loss(right, patches, masked) == 0
    wrong = torch.where(masked[..., None], right, torch.full_like(right, 9.0))
    assert reconstruction_loss(wrong, patches, masked) == 0
    nothing = reconstruction_loss(torch.zeros_like(right), patches, masked)
    assert float(nothing) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", ["vit", "starter", "vit_t"])
def test_masked_pixels_are_not_seen_and_only_the_encoder_trains(kind: str) -> None:
    autoencoder = built(kind)
    before = copy.deepcopy(autoencoder.network.state_dict())
    images, masked = images_and_masks()
    predicted = autoencoder.eval()(images, masked)
    assert predicted.shape == (2, PATCHES, 768)
    hidden = images_of(masked[..., None].expand(-1, -1, 768).float(), 16)
    other = images + 7 * hidden
    with torch.no_grad():
        torch.testing.assert_close(autoencoder(other, masked), predicted)
        assert not torch.allclose(autoencoder(images + 1 - hidden, masked), predicted, atol=1e-3)
    reconstruction_loss(predicted, patches_of(images, 16), masked).backward()
    network = autoencoder.network
    learning = {name for name, each in network.named_parameters() if each.grad is not None}
    frozen = {name for name, _ in network.named_parameters()} - learning
    assert learning and all(name.startswith("image_encoder.") for name in learning)
    assert {name.split(".")[1] for name in frozen if name.startswith("image_encoder.")} == {
        # The neck comes after the original's encoder; tables are not used without windows.
        "vit": {"neck", "blocks"},
        "starter": set(),
        "vit_t": {"head", "norm_head"},
    }[kind]
    if kind == "vit":
        unused = {name for name in frozen if ".blocks." in name}
        assert unused and all("rel_pos" in name for name in unused)
    assert all(not network.get_parameter(name).requires_grad for name in frozen)
    assert before.keys() == network.state_dict().keys()


def test_an_image_is_learnt_by_heart() -> None:
    autoencoder = built("vit").train()
    columns = torch.arange(SIZE) / 6
    images = (columns.sin()[None] * columns.cos()[:, None]).expand(1, 3, -1, -1).clone()
    masked = images_and_masks(1)[1]
    optimiser = torch.optim.AdamW(decayed_groups(autoencoder.parameters(), 0.05), lr=6e-3)
    losses = []
    for _ in range(15):
        loss = reconstruction_loss(autoencoder(images, masked), patches_of(images, 16), masked)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 < losses[0], losses


def test_patches_return_to_their_places() -> None:
    """The decoder gets each visible patch where it was, and the mask token elsewhere."""
    autoencoder = built("vit")
    assert isinstance(autoencoder, VisiblePatchAutoencoder)
    seen = {}
    autoencoder.blocks[0].register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    images, masked = images_and_masks()
    autoencoder(images, masked)
    tokens = seen["x"] - autoencoder.positions
    hidden = autoencoder.mask_token[0, 0]
    is_hidden = (tokens - hidden).abs().amax(-1) < 1e-6
    assert torch.equal(is_hidden, masked)


def test_pictures_show_visible_patches_as_they_are() -> None:
    autoencoder = built("starter").eval()
    images, _ = images_and_masks()
    rows = reconstructions(autoencoder, images)
    assert rows.shape == (2, 3, 3, SIZE, SIZE)
    assert torch.equal(rows[:, 0], images)
    visible = rows[:, 1] != images.amin((1, 2, 3))[:, None, None, None]
    assert torch.equal(rows[:, 2][visible], images[visible])
    assert float((patches_of(rows[:, 1], 16) == patches_of(images, 16)).all(-1).sum()) == 8


def test_squares_grow_with_the_image() -> None:
    assert [square_side(size) for size in (256, 512, 1008, 1024)] == [16, 16, 16, 32]


def test_the_rate_is_that_of_the_original() -> None:
    rates = [warm_up_cosine(each, 2.0, 0.05) for each in (0, 0.025, 0.05, 0.525, 1.0)]
    assert rates == pytest.approx([0, 1, 2, 1, 0])
    network = build_starter(SIZE)
    network.prompt_encoder.requires_grad_(False)
    matrices, others = decayed_groups(network.parameters(), 0.05)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.05, 0)
    assert all(each.ndim == 1 for each in others["params"])
    count = sum(each.requires_grad for each in network.parameters())
    assert len(matrices["params"]) + len(others["params"]) == count


def test_crops_lie_within_the_slice() -> None:
    fit = SquareFit(30, 60, (1.0, 1.0), SIZE)
    mirrored = 0
    for seed in range(20):
        positions = crop_positions(fit, np.random.default_rng(seed))
        x, y = positions.unbind(-1)
        mirrored += bool(x[0, 0] > x[0, -1])
        assert x.min() >= -1 and x.max() <= 1
        side = float(y.max() - y.min()) * SIZE / (SIZE - 1)
        assert 0.2**0.5 * 2 - 1e-3 <= side <= 2 + 1e-3
        if side <= 1:
            assert y.max() <= 0 + 1e-3, "the slice covers the upper half of the square"
    assert 4 < mirrored < 16


class NoisyBatches(BatchesAhead):
    """Random images, which depend on their place in the training alone."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def draw(self, first: int, count: int) -> Tensor:
        self.drawn += range(first, first + count)
        generator = torch.Generator().manual_seed(first)
        return torch.randn(count, 3, SIZE, SIZE, generator=generator)


def training(steps: int) -> tuple[MaskedPretraining, NoisyBatches]:
    weights = StartingWeights("starter", "random")
    choices = MaskedChoices(Path("images"), weights, epochs=1, batch=1, accumulate=2)
    plan = settle(choices, SIZE, 16, 2 * steps, 1)
    batches = NoisyBatches()
    plan = replace(plan, learning_rate=1e-3)
    processes = ProcessGroup(torch.device("cpu"))
    return MaskedPretraining(plan, built("starter"), batches, processes, {}), batches


def test_training_goes_on_from_a_state_as_if_it_had_not_stopped() -> None:
    whole, batches = training(3)
    whole.run(lambda report: False)
    assert batches.drawn == list(range(6)), "each slice once, two batches a step"
    first, _ = training(3)
    first.run(lambda report: report.step == 2)
    resumed, batches = training(3)
    resumed.restore(copy.deepcopy(first.state()))
    reports = []
    resumed.run(lambda report: bool(reports.append(report)))
    assert [(each.step, each.images, each.epoch) for each in reports] == [(3, 6, 1.0)]
    assert reports[0].loss == whole.report().loss
    expected = whole.autoencoder.state_dict()
    for name, each in resumed.autoencoder.state_dict().items():
        assert torch.equal(each, expected[name]), name


def test_time_ends_the_training_and_brings_the_rate_down() -> None:
    timed, _ = training(1000)
    timed.plan = replace(timed.plan, minutes=1.0)
    timed._seconds = 31.5
    assert timed.progress == pytest.approx(0.525)
    timed.run(lambda report: True)
    assert timed.report().learning_rate == pytest.approx(5e-4)
    timed._seconds = 60.0
    timed.run(lambda report: False)
    assert timed.step == 1


def test_batches_are_the_same_when_they_are_drawn_ahead(tmp_path: Path) -> None:
    window = IntensityWindow(low=0, high=255, mean=0.5, standard_deviation=0.2)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)
    nothing = np.zeros((0, 0), np.uint8)
    slices = [PreparedSlice(number, each, nothing, []) for number, each in enumerate(pixels)]
    with PreparedWriter(tmp_path / "slices") as writer:
        writer.add(PreparedCase(slices, ChannelWindows((window,) * 3), (1.0, 1.0)))
        writer.finish({})
    store = PreparedSlices(tmp_path / "slices")
    batches = UnlabelledBatches(store, SIZE, "unit", 0)
    plain, ahead = (BatchesAhead(batches, 4, each) for each in (False, True))
    drawn = [plain.draw(first, 2) for first in (0, 4, 8)]
    assert drawn[0].shape == (2, 3, SIZE, SIZE) and not torch.equal(drawn[0], drawn[1])
    for first, expected in zip((0, 4, 8), drawn, strict=True):
        assert torch.equal(ahead.draw(first, 2), expected)
    colours = batches.whole([3])[0, :, : int(SIZE * 20 / 30)]
    assert not torch.equal(colours[0], colours[2]), "colours stay"
    seen = [int(batches._order_in(0)[number]) for number in range(5)]
    assert sorted(seen) == [0, 1, 2, 3, 4]
