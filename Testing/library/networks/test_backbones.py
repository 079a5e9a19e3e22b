"""The Segment Anything backbones: stages, input sizes, and what their definitions leave behind."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.definitions import mobile_sam_tiny_vit, segment_anything_modeling
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.staged_encoder import FeatureState

pytestmark = pytest.mark.usefixtures("one_thread")


def perturb(network: SamNetwork) -> SamNetwork:
    """Moves every tensor off its initial value: zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


@pytest.fixture(scope="module")
def networks() -> dict[str, SamNetwork]:
    torch.manual_seed(0)
    return {name: perturb(build(name, 256)).eval() for name in ("vit_t", "vit_b")}


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("name", ["vit_t", "vit_b"])
def test_embedding_has_a_sixteenth_of_the_side(name: str, size: int) -> None:
    # Shapes need no numbers, with which ViT-B takes seconds.
    with torch.no_grad(), torch.device("meta" if name == "vit_b" else "cpu"):
        network = build(name, size)
        state = network.image_encoder(torch.randn(1, 3, size, size))
    assert state.x.shape == (1, 256, size // 16, size // 16)
    assert state.skips == ()
    assert network.embedding_size == size // 16
    assert network.prompt_encoder.get_dense_pe().shape[-2:] == (size // 16, size // 16)  # type: ignore[operator]


# ViT-B takes images of any size, and small ones in a tenth of the time.
@pytest.mark.parametrize(("name", "size"), [("vit_t", 256), ("vit_b", 64)])
def test_prefix_then_rest_is_the_whole(
    name: str, size: int, networks: dict[str, SamNetwork]
) -> None:
    encoder = networks[name].image_encoder
    images = torch.randn(1, 3, size, size)
    count = len(encoder.stages())
    with torch.no_grad():
        whole = encoder(images).x
        for cut in (0, 2, count - 1, count):
            prefix = encoder.run(FeatureState(images), 0, cut)
            kept = prefix.x.clone()
            rest = encoder.run(prefix, cut, count).x
            assert torch.equal(rest, whole)
            assert torch.equal(prefix.x, kept), "a stage changed the state that was given to it"


def test_every_parameter_belongs_to_one_stage(networks: dict[str, SamNetwork]) -> None:
    for name, network in networks.items():
        encoder = network.image_encoder
        used = [id(p) for stage in encoder.stages() for p in stage.parameters()]
        assert len(used) == len(set(used))
        unused = {n for n, p in encoder.named_parameters() if id(p) not in set(used)}
        expected = {"norm_head.weight", "norm_head.bias", "head.weight", "head.bias"}
        assert unused == (expected if name == "vit_t" else set())


def test_stage_names() -> None:
    with torch.device("meta"):
        tiny = [stage.name for stage in build("vit_t", 256).image_encoder.stages()]
        base = [stage.name for stage in build("vit_b", 256).image_encoder.stages()]
    assert tiny[:3] == ["patch_embed", "layers.0", "layers.1.blocks.0"]
    assert tiny[-2:] == ["layers.3.blocks.1", "neck"] and len(tiny) == 2 + 10 + 1
    assert base == ["embedding", *(f"blocks.{i}" for i in range(12)), "neck"]


def test_frozen_prefix_ends_at_the_first_trained_stage(networks: dict[str, SamNetwork]) -> None:
    encoder = copy.deepcopy(networks["vit_b"]).requires_grad_(False).image_encoder
    assert encoder.frozen_prefix() == 14
    encoder.get_submodule("blocks.3.attn.proj").requires_grad_(True)
    assert encoder.frozen_prefix() == 4
    assert isinstance(encoder.pos_embed, nn.Parameter)
    encoder.pos_embed.requires_grad_(True)
    assert encoder.frozen_prefix() == 0


@pytest.mark.parametrize("name", ["vit_l", "vit_h"])
def test_large_networks_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        network = build(name, 512)
        state = network.image_encoder(torch.empty(1, 3, 512, 512))
    assert state.x.shape == (1, 256, 32, 32)


@pytest.mark.slow
def test_tiny_vit_at_1024_is_the_package() -> None:
    network = perturb(build("vit_t", 1024)).eval()
    package = mobile_sam_tiny_vit().TinyViT(
        img_size=1024, embed_dims=[64, 128, 160, 320], depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10], window_sizes=[7, 7, 14, 7], drop_path_rate=0.0,
    )  # fmt: skip
    package.load_state_dict(network.image_encoder.state_dict())
    package.eval()
    images = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        assert torch.allclose(network.image_encoder(images).x, package(images), atol=1e-5)


def check_vit_b(network: SamNetwork) -> None:
    size = network.input_size
    tensors = network.image_encoder.state_dict()
    # Its initial numbers take a second, and are replaced.
    with torch.device("meta"):
        package = segment_anything_modeling().ImageEncoderViT(
            img_size=1024, embed_dim=768, depth=12, num_heads=12, out_chans=256, qkv_bias=True,
            norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6), use_rel_pos=True,
            window_size=14, global_attn_indexes=[2, 5, 8, 11],
        )  # fmt: skip
    package.load_state_dict(tensors, assign=True)
    if size != 1024:
        grid = tensors["pos_embed"].permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, (size // 16,) * 2, mode="bicubic")
        package.pos_embed = nn.Parameter(grid.permute(0, 2, 3, 1))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(network.image_encoder(images).x, package(images), atol=1e-5)


def test_vit_b_at_256_is_the_package_with_interpolated_positions(
    networks: dict[str, SamNetwork],
) -> None:
    check_vit_b(networks["vit_b"])


@pytest.mark.slow
def test_vit_b_at_1024_is_the_package() -> None:
    check_vit_b(perturb(build("vit_b", 1024)).eval())


def test_attention_biases_take_effect_at_once(networks: dict[str, SamNetwork]) -> None:
    encoder = copy.deepcopy(networks["vit_t"]).image_encoder
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        for mode in (False, True):
            encoder.train(mode)
            before = encoder(images).x
            biases = encoder.get_parameter("layers.1.blocks.0.attn.attention_biases")
            biases.normal_(0, 2)
            changed = encoder(images).x
            assert not torch.allclose(before, changed, atol=1e-4)
            encoder.train(not mode)
            assert torch.equal(encoder(images).x, changed)


def test_batch_norm_statistics_survive_training(networks: dict[str, SamNetwork]) -> None:
    network = copy.deepcopy(networks["vit_t"]).train()
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    assert any(name.endswith("running_mean") for name in buffers)
    optimiser = torch.optim.SGD(network.image_encoder.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        network.image_encoder(torch.randn(1, 3, 256, 256)).x.square().mean().backward()
        optimiser.step()
    for name, value in network.named_buffers():
        assert torch.equal(value, buffers[name]), name
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        trained = network.image_encoder(images).x
        assert torch.equal(network.eval().image_encoder(images).x, trained)


def test_unsuitable_sizes_and_names_are_refused() -> None:
    for size in (0, 240, 250, 1040):
        with pytest.raises(InputError, match=f"input size {size}"):
            build("vit_b", size)
    with pytest.raises(InputError, match=r"no backbone 'vit_x'.*vit_b"):
        build("vit_x", 256)


def test_registry_is_complete() -> None:
    assert set(BACKBONES) == {"starter", "lite_medsam", "vit_t", "vit_b", "vit_l", "vit_h"}
    for name, spec in BACKBONES.items():
        assert spec.name == name
        assert spec.default_input_size in spec.input_sizes
        if spec.checkpoint is not None:
            assert spec.checkpoint.url.startswith("https://")
            assert len(spec.checkpoint.sha256) == 64


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_registry_and_checkpoint_cache_load_no_torch() -> None:
    code = """
        import sys
        import SAMFineTuneLib.networks.spec, SAMFineTuneLib.weights.official
        print("torch" in sys.modules)
    """
    assert run_python(code) == "False"


def test_definitions_leave_no_package_behind_and_the_users_modules_alone() -> None:
    code = """
        import sys, types
        from SAMFineTuneLib.networks import definitions
        definitions.mobile_sam_tiny_vit(), definitions.segment_anything_modeling()
        roots = {name.split(".")[0] for name in sys.modules}
        assert not roots & {"timm", "torchvision", "segment_anything", "mobile_sam"}, roots

        # Anew, beside modules of the user's that have these names.
        for name in [each for each in sys.modules if "samfinetune" in each.lower()]:
            del sys.modules[name]
        names = ("timm", "timm.models", "timm.models.layers", "segment_anything", "mobile_sam")
        mine = {name: types.ModuleType(name) for name in names}
        sys.modules.update(mine)
        from SAMFineTuneLib.networks import definitions as anew
        assert anew is not definitions
        anew.mobile_sam_tiny_vit(), anew.segment_anything_modeling()
        assert all(sys.modules[name] is module for name, module in mine.items())
        assert "timm.models.registry" not in sys.modules
        assert not vars(mine["timm.models.layers"]).get("DropPath")
        print("untouched")
    """
    assert run_python(code) == "untouched"
