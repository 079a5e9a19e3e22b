"""Which blocks and layers get adapters and low-rank updates, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from SAMFineTuneLib.adaptation.adapter import Adapter
from SAMFineTuneLib.adaptation.lora import LoraConv2d, LoraLinear, LowRank
from SAMFineTuneLib.adaptation.parameter_count import count
from SAMFineTuneLib.adaptation.places import PARTS, USUAL_PLACES, Places, settled_places
from SAMFineTuneLib.adaptation.strategy import adapt, adapt_for_prompts
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


@pytest.fixture(scope="module")
def networks(small_inputs: None) -> dict[str, SamNetwork]:
    """Without memory: places and counts are all that is asked of them."""
    with torch.device("meta"):
        return {name: build(name, 64) for name in ("starter", "vit_t", "vit_b")}


def added(network: SamNetwork, method: Any, places: Places, **more: Any) -> tuple[int, int]:
    """Parameters that the adaptation inserts into image encoder and mask decoder."""
    adapted = copy.deepcopy(network)
    before = [row.total for row in count(network)]
    with torch.device("meta"):
        adapt(adapted, method, "encoder_decoder", places=places, **more)
    after = [row.total for row in count(adapted)]
    return after[0] - before[0], after[2] - before[2]


def adapters(width: int) -> int:
    """Parameters of the two adapters in a block."""
    hidden = width // 4
    return 2 * (2 * width * hidden + hidden + width)


def test_adapters_in_the_first_and_last_two_blocks_are_the_studys_a_and_in_all_its_a_star(
    networks: dict[str, SamNetwork],
) -> None:
    vit_b = networks["vit_b"]
    a, decoder = added(vit_b, "adapter", USUAL_PLACES)
    assert (a, decoder) == (4 * adapters(768), 132352)
    assert added(vit_b, "adapter", Places(adapter_blocks="first2last2"))[0] == a
    assert added(vit_b, "adapter", Places(adapter_blocks=(0, 1, 10, 11)))[0] == a
    assert added(vit_b, "adapter", Places(adapter_blocks="all"))[0] == 12 * adapters(768)


def test_tiny_vit_with_the_blocks_of_the_study_has_its_number_of_parameters(
    networks: dict[str, SamNetwork],
) -> None:
    # The study counts TinyViT's layers: 10.31 million in all, of which adapters are 0.32 (Table 3).
    encoder, decoder = added(networks["vit_t"], "adapter", Places(adapter_blocks=tuple(range(8))))
    assert round((encoder + decoder) / 1e6, 2) == 0.32
    # It has three mask tokens, one fewer than here: a token, three layers and an output.
    fourth = 256 + 2 * 256 * 257 + 257 * 32 + 257
    total = count(networks["vit_t"])[-1].total - fourth + encoder + decoder
    assert round(total / 1e6, 2) == 10.31


def test_every_residual_block_of_the_starter_has_an_adapter_unless_some_are_chosen(
    networks: dict[str, SamNetwork],
) -> None:
    starter = networks["starter"]
    every = added(starter, "adapter", USUAL_PLACES)
    assert every == added(starter, "adapter", Places(adapter_blocks="all"))
    ends = added(starter, "adapter", Places(adapter_blocks="first2last2"))
    # Of 7 blocks these are 24, 48, 160 and 160 wide.
    assert ends[0] == sum(adapters(width) // 2 for width in (24, 48, 160, 160)) < every[0]


@pytest.mark.parametrize("name", ["starter", "vit_t", "vit_b"])
def test_adapters_of_the_decoder_can_be_left_out(
    name: str, networks: dict[str, SamNetwork]
) -> None:
    both = added(networks[name], "adapter", USUAL_PLACES)[1]
    one = added(networks[name], "adapter", Places(decoder_adapters=(1,)))[1]
    assert 2 * one == both
    assert added(networks[name], "adapter", Places(decoder_adapters="none"))[1] == 0


WIDTHS = {"q": (768, 768), "k": (768, 768), "v": (768, 768), "o": (768, 768), "mlp": (768, 3072)}


@pytest.mark.parametrize("parts", [(each,) for each in PARTS] + [PARTS])
def test_each_part_of_a_block_gets_its_own_update(
    parts: tuple[str, ...], networks: dict[str, SamNetwork]
) -> None:
    places = Places(lora_blocks=(0, 11), lora_parts=parts)
    layers = {part: 2 if part == "mlp" else 1 for part in parts}
    expected = sum(2 * layers[part] * 3 * sum(WIDTHS[part]) for part in parts)
    encoder, decoder = added(networks["vit_b"], "lora", places, rank=3)
    assert encoder == expected
    # Seven attentions, of which three in each block and one behind them; self attention is wider.
    wide, narrow = 256 + 256, 256 + 128
    attentions = 3 * (2 * wide + 5 * narrow) * len(set(parts) - {"mlp"})
    assert decoder == attentions + (2 * 2 * 3 * (256 + 2048) if "mlp" in parts else 0)


@pytest.mark.parametrize(
    ("name", "places", "told"),
    [
        ("vit_b", Places(adapter_blocks=(3, 12)), "vit_b has 12 blocks, 0 to 11, and no block 12"),
        ("vit_t", Places(adapter_blocks=(10,)), "vit_t has 10 blocks, 0 to 9, and no block 10"),
        ("starter", Places(adapter_blocks=(7,)), "starter has 7 blocks, 0 to 6, and no block 7"),
        ("starter", Places(lora_blocks=(7,)), "starter has 7 blocks"),
        ("vit_b", Places(decoder_adapters=(2,)), "the mask decoder has 2 blocks, 0 to 1"),
    ],
)
def test_a_block_that_is_not_there_is_refused(
    name: str, places: Places, told: str, networks: dict[str, SamNetwork]
) -> None:
    method = "lora" if places.lora_blocks != "all" else "adapter"
    for adapting in (adapt, adapt_for_prompts):
        network = copy.deepcopy(networks[name])
        with pytest.raises(InputError, match=told) as refused, torch.device("meta"):
            adapting(network, method, "encoder_decoder", places=places)  # type: ignore[arg-type]
        assert refused.value.code == "no_such_block" and "\n" not in str(refused.value)


def test_prompts_are_adapted_at_the_same_places(networks: dict[str, SamNetwork]) -> None:
    network = copy.deepcopy(networks["vit_t"])
    with torch.device("meta"):
        places = Places(adapter_blocks=(9,), decoder_adapters="none")
        adapt_for_prompts(network, "adapter", "encoder_decoder", places=places)
    inserted = [name for name, each in network.named_modules() if isinstance(each, Adapter)]
    block = "image_encoder.layers.3.blocks.1"
    assert inserted == [f"{block}.attn.adapter", f"{block}.mlp.adapter"]


def test_the_scale_multiplies_every_update() -> None:
    layer = nn.Linear(5, 7)
    plain, scaled = LoraLinear(layer, 2), LoraLinear(layer, 2, scale=4.0)
    for each in plain.modules():
        if isinstance(each, LowRank):
            nn.init.normal_(each.up.weight)
    scaled.load_state_dict(plain.state_dict())
    x = torch.randn(3, 5)
    assert torch.allclose(scaled(x) - layer(x), 4 * (plain(x) - layer(x)), atol=1e-5)


def test_the_scale_reaches_fused_layers_and_convolutions(small_inputs: None) -> None:
    for name in ("vit_t", "starter"):
        network = build(name, 64)
        adapt(network, "lora", "encoder_decoder", places=Places(lora_scale=0.5))
        updates = [each for each in network.modules() if isinstance(each, LowRank | LoraConv2d)]
        assert len(updates) > 14 and {each.scale for each in updates} == {0.5}


@pytest.mark.parametrize(
    ("places", "method", "scope", "told"),
    [
        (Places(adapter_blocks="all"), "vanilla", "encoder_decoder", "adapter blocks.*vanilla"),
        (Places(lora_parts=("o",)), "adapter", "encoder_decoder", "lora parts.*adapter"),
        (Places(lora_scale=2.0), "bias", "decoder", "lora scale.*bias"),
        (Places(lora_blocks=(1,)), "lora", "decoder", "only the decoder is trained"),
        (Places(adapter_blocks=(1,)), "adapter", "decoder", "only the decoder is trained"),
    ],
)
def test_places_without_an_effect_are_refused(
    places: Places, method: str, scope: str, told: str
) -> None:
    with pytest.raises(InputError, match=told) as refused:
        settled_places(places, method, scope)
    assert refused.value.code == "without_effect"


def test_places_with_an_effect_are_kept() -> None:
    places = Places(decoder_adapters=(1,))
    assert settled_places(places, "adapter", "decoder") == places
    assert settled_places(USUAL_PLACES, "norm", "decoder") == USUAL_PLACES
