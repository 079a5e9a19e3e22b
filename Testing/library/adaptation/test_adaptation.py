"""Methods and scopes: what an adapted network computes, what trains, how much there is of it."""

from __future__ import annotations

import copy
import re
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from SAMFineTuneLib.adaptation.adapter import Adapter, insert_adapters
from SAMFineTuneLib.adaptation.lora import LoraFusedAttention, LowRank, insert_lora
from SAMFineTuneLib.adaptation.parameter_count import count
from SAMFineTuneLib.adaptation.strategy import METHODS, SCOPES, Method, Scope, adapt
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

COMBINATIONS = [(method, scope) for method in METHODS for scope in SCOPES]


@pytest.fixture(scope="module")
def originals(small_inputs: None) -> dict[str, SamNetwork]:
    torch.manual_seed(0)
    networks = {name: build(name, 64).eval() for name in ("vit_t", "vit_b")}
    # Blocks of both kinds of attention at both ends; those between repeat them and cost time.
    del networks["vit_b"].image_encoder.get_submodule("blocks")[3:10]  # type: ignore[operator]
    with torch.no_grad():
        for network in networks.values():
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return networks


@cache
def _template(name: str, size: int) -> SamNetwork:
    with torch.device("meta"):
        return build(name, size)


def without_memory(name: str, size: int) -> SamNetwork:
    """A network to change at will; a copy is made in a fifth of the time of the first."""
    return copy.deepcopy(_template(name, size))


IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def outputs(network: SamNetwork, images: Tensor = IMAGES) -> tuple[Tensor, Tensor]:
    """Mask logits and predicted quality, without any prompt."""
    prompts = network.prompt_encoder(points=None, boxes=None, masks=None)
    masks, quality = network.mask_decoder.predict_masks(  # type: ignore[operator]
        image_embeddings=network.image_encoder(images).x,
        image_pe=network.prompt_encoder.get_dense_pe(),  # type: ignore[operator]
        sparse_prompt_embeddings=prompts[0],
        dense_prompt_embeddings=prompts[1],
    )
    return masks, quality


def expected_to_train(name: str, method: Method, scope: Scope) -> bool:
    """Whether a parameter should train, told by its name alone."""
    part, _, rest = name.partition(".")
    if part == "prompt_encoder":
        return False
    inserted = any(word in name.split(".") for word in ("adapter", "update", "query", "value"))
    if part == "image_encoder" and scope == "decoder":
        assert not inserted
        return False
    if rest.startswith(("head.", "norm_head.")):
        assert not inserted
        return False
    if method == "vanilla":
        return True
    if part == "mask_decoder" and not rest.startswith("transformer."):
        return True
    if method == "bias":
        return rest.endswith(".bias")
    return bool(NORM.search(rest)) if method == "norm" else inserted


# Batch normalisation is called bn in TinyViT; its convolutions with one are Conv2d_BN. Of the two
# necks the second and the fourth layer normalise.
NORM = re.compile(r"(^|\.)(norm\w*|bn|neck\.[13])\.(weight|bias)$")


@pytest.mark.parametrize(("method", "scope"), COMBINATIONS)
@pytest.mark.parametrize("name", ["vit_t", "vit_b"])
def test_starts_at_the_original_and_trains_what_it_should(
    name: str, method: Method, scope: Scope, originals: dict[str, SamNetwork]
) -> None:
    network = copy.deepcopy(originals[name])
    with torch.no_grad():
        before = outputs(network)
    adapt(network, method, scope)
    after = outputs(network)
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(old, new, atol=1e-5)
    # Away from zero, gradients reach the layer in front of the zero-initialised one as well.
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Adapter | LowRank):
                for parameter in module.up.parameters():
                    assert not parameter.any()
                    parameter.normal_(0, 0.02)
    masks, quality = outputs(network)
    if method in ("adapter", "lora"):
        assert not torch.allclose(masks, before[0], atol=1e-4), "the new modules have no effect"
    (masks.square().mean() + quality.square().mean()).backward()
    for key, parameter in network.named_parameters():
        trains = expected_to_train(key, method, scope)
        assert parameter.requires_grad == trains, key
        assert (parameter.grad is not None) == trains, key
        if trains and not is_blind(key):
            assert parameter.grad is not None and parameter.grad.any(), key


def is_blind(key: str) -> bool:
    """Parameters whose gradient is zero in theory: softmax does not see a shift of all keys."""
    return key.endswith("k_proj.bias")


@pytest.mark.parametrize(("method", "scope"), COMBINATIONS[:6])
@pytest.mark.parametrize("name", ["vit_l", "vit_h"])
def test_large_networks_adapt_on_the_meta_device(name: str, method: Method, scope: Scope) -> None:
    network = without_memory(name, 256)
    with torch.device("meta"):
        # A block of either kind of attention; those between repeat them and cost time.
        del network.image_encoder.get_submodule("blocks")[1:-1]  # type: ignore[operator]
        adapt(network, method, scope)
        masks, _ = outputs(network, torch.empty(1, 3, 256, 256))
    assert masks.shape == (1, 4, 64, 64)
    assert all(parameter.is_meta for parameter in network.parameters())
    for key, parameter in network.named_parameters():
        assert parameter.requires_grad == expected_to_train(key, method, scope), key


@pytest.mark.parametrize(
    ("name", "method", "scope", "prefix"),
    [
        ("vit_t", "adapter", "encoder_decoder", ["patch_embed", "layers.0"]),
        ("vit_t", "lora", "encoder_decoder", ["patch_embed", "layers.0"]),
        ("vit_t", "vanilla", "encoder_decoder", []),
        ("vit_t", "norm", "encoder_decoder", []),
        ("vit_b", "norm", "encoder_decoder", ["embedding"]),
        ("vit_b", "bias", "encoder_decoder", []),
        ("vit_b", "adapter", "encoder_decoder", ["embedding"]),
        ("vit_b", "lora", "encoder_decoder", ["embedding"]),
        ("vit_b", "vanilla", "encoder_decoder", []),
    ],
)
def test_frozen_prefix(name: str, method: Method, scope: Scope, prefix: list[str]) -> None:
    network = without_memory(name, 256)
    with torch.device("meta"):
        adapt(network, method, scope)
    encoder = network.image_encoder
    names = [stage.name for stage in encoder.stages()]
    assert names[: encoder.frozen_prefix()] == prefix


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["vit_t", "vit_b"])
def test_decoder_scope_freezes_the_whole_encoder(name: str, method: Method) -> None:
    network = without_memory(name, 256)
    with torch.device("meta"):
        adapt(network, method, "decoder")
    assert network.image_encoder.frozen_prefix() == len(network.image_encoder.stages())


STUDY = {  # millions, total and trainable, MELBA 2025:006, Table 3
    ("vit_h", "decoder", "vanilla"): (640.95, 3.92),
    ("vit_h", "decoder", "lora"): (640.97, 0.65),
    ("vit_h", "encoder_decoder", "lora"): (641.63, 1.31),
    ("vit_b", "decoder", "vanilla"): (93.60, 3.92),
    ("vit_b", "decoder", "lora"): (93.62, 0.65),
    ("vit_b", "encoder_decoder", "lora"): (93.77, 0.80),
    ("vit_t", "decoder", "vanilla"): (9.99, 3.92),
    ("vit_t", "decoder", "lora"): (10.01, 0.65),
}
HERE = {  # where they differ, for the reasons in parameter_count
    ("vit_b", "decoder", "adapter"): (93.73, 0.76),
    ("vit_b", "encoder_decoder", "adapter"): (96.09, 3.13),
    ("vit_h", "encoder_decoder", "adapter"): (647.65, 7.33),
    ("vit_t", "encoder_decoder", "adapter"): (10.36, 1.00),
    ("vit_t", "encoder_decoder", "lora"): (10.04, 0.68),
    ("vit_t", "encoder_decoder", "vanilla"): (9.99, 9.66),
    ("vit_b", "encoder_decoder", "vanilla"): (93.60, 93.59),
}


def with_three_tokens(network: SamNetwork) -> SamNetwork:
    """The mask decoder for two classes and background, which is what the study counted."""
    decoder = network.mask_decoder
    decoder.mask_tokens = nn.Embedding(3, 256)
    decoder.output_hypernetworks_mlps = decoder.get_submodule("output_hypernetworks_mlps")[:3]  # type: ignore[index]
    decoder.get_submodule("iou_prediction_head.layers")[-1] = nn.Linear(256, 3)  # type: ignore[operator]
    return network


@pytest.mark.parametrize(("combination", "millions"), [*STUDY.items(), *HERE.items()])
def test_parameter_counts(
    combination: tuple[str, Scope, Method], millions: tuple[float, float]
) -> None:
    name, scope, method = combination
    network = without_memory(name, 1024)
    with torch.device("meta"):
        with_three_tokens(network)
        adapt(network, method, scope)
    *parts, total = count(network)
    assert [row.part for row in parts] == ["image encoder", "prompt encoder", "mask decoder"]
    assert total.total == sum(p.numel() for p in network.parameters())
    assert (round(total.total / 1e6, 2), round(total.trainable / 1e6, 2)) == millions


def test_decoder_adapters_are_the_studys() -> None:
    network = without_memory("vit_b", 256)
    with torch.device("meta"):
        plain = count(network)[-1].total
        adapt(network, "adapter", "decoder")
    assert count(network)[-1].total - plain == 132352


@pytest.mark.parametrize("heads", [1, 4])
def test_fused_update_reaches_query_and_value_of_each_head_only(heads: int) -> None:
    width, dim = 6, 10
    layer = nn.Linear(dim, 3 * heads * width)
    updated = LoraFusedAttention(copy.deepcopy(layer), heads, rank=2)
    assert updated.query is not None and updated.value is not None
    nn.init.normal_(updated.query.up.weight)
    nn.init.normal_(updated.value.up.weight)
    x = torch.randn(2, 5, dim)
    with torch.no_grad():
        change = (updated(x) - layer(x)).view(2, 5, heads, 3, width)
        query, value = updated.query(x), updated.value(x)
    assert torch.allclose(change[..., 0, :].flatten(-2), query, atol=1e-5)
    assert torch.equal(change[..., 1, :], torch.zeros_like(change[..., 1, :]))
    assert torch.allclose(change[..., 2, :].flatten(-2), value, atol=1e-5)
    assert query.any() and value.any()
    assert updated.key is None


def test_tiny_vit_update_changes_the_queries_that_its_attention_reads() -> None:
    network = build("vit_t", 256).eval()
    attention = network.image_encoder.get_submodule("layers.1.blocks.0.attn")
    adapt(network, "lora", "encoder_decoder")
    updated = attention.get_submodule("qkv")
    assert isinstance(updated, LoraFusedAttention) and updated.heads == 4
    assert updated.query is not None
    nn.init.normal_(updated.query.up.weight)
    x = torch.randn(1, 49, 128)
    read: list[Tensor] = []
    with torch.no_grad():
        for linear in (updated, updated.wrapped):
            q, k, v = linear(x).view(1, 49, 4, -1).split([32, 32, 32], dim=3)
            read += [q, k, v]
    assert not torch.allclose(read[0], read[3], atol=1e-4)
    assert torch.equal(read[1], read[4]) and torch.equal(read[2], read[5])


def test_rank_is_the_rank() -> None:
    for rank in (1, 7):
        network = build("vit_t", 256)
        adapt(network, "lora", "encoder_decoder", rank=rank)
        updates = [module for module in network.modules() if isinstance(module, LowRank)]
        assert len(updates) == 2 * 10 + 2 * 7
        assert all(update.down.weight.shape[0] == rank for update in updates)


def test_shared_adapter_is_one_in_state_and_copies() -> None:
    network = build("vit_t", 256).eval()
    adapt(network, "adapter", "decoder")
    names = [n for n in network.mask_decoder.state_dict() if n.endswith("adapter.down.weight")]
    assert len(names) == 4
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for key, parameter in twin.named_parameters():
            if "norm2.adapter" in key:
                parameter.normal_()
    block = twin.mask_decoder.get_submodule("transformer.layers.0")
    x = torch.randn(1, 3, 256)
    norm = block.get_submodule("norm4.wrapped")
    assert not torch.allclose(block.norm4(x), norm(x), atol=1e-3)  # type: ignore[operator]
    original = network.mask_decoder.get_submodule("transformer.layers.0")
    assert torch.equal(
        original.norm4(x),  # type: ignore[operator]
        original.get_submodule("norm4.wrapped")(x),
    )


def test_convolutions_can_be_adapted() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    x = torch.randn(2, 8, 10, 10)
    for kind in ("adapter", "lora"):
        block = Block().double()
        before = block.conv(x.double())
        if kind == "adapter":
            insert_adapters([AdapterSite(block, "conv", "conv", 12)])
        else:
            insert_lora([LoraSite(block, "conv")], rank=3)
        assert torch.equal(block.conv(x.double()), before)
        assert all(parameter.dtype == torch.float64 for parameter in block.parameters())
        for parameter in block.parameters():
            nn.init.normal_(parameter)
        assert block.conv(x.double()).shape == before.shape


def test_misuse_is_refused() -> None:
    network = build("vit_t", 256)
    with pytest.raises(
        InputError, match=r"unknown method 'full'.*vanilla, adapter, lora, norm, bias"
    ):
        adapt(network, "full", "decoder")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown scope"):
        adapt(network, "lora", "encoder")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rank 0"):
        adapt(network, "lora", "decoder", rank=0)
    adapt(network, "lora", "decoder")
    with pytest.raises(ValueError, match="adapted already"):
        adapt(network, "adapter", "decoder")
