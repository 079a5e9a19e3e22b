"""MobileSAM's TinyViT at any input size, and LiteMedSAM's, which keeps the full resolution longer.

Definition: the `mobile_sam` package (Zhang et al. 2023, "Faster Segment Anything"; Wu et al. 2022,
"TinyViT"). The package's own forward pass works at 1024 pixels only, the weights at any size.

LiteMedSAM (the branch of that name of Ma et al. 2024, "Segment anything in medical images") has the
same layers behind another stem: two 1 × 1 convolutions that do not reduce the image, so that an
image of 256 pixels has the same embedding, 64 × 64, as one of 1024 pixels in MobileSAM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite, mlp_lora_sites
from SAMFineTuneLib.networks.definitions import mobile_sam_tiny_vit
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.sam_vit import build_mask_decoder, build_prompt_encoder
from SAMFineTuneLib.networks.spec import BACKBONES, BackboneSpec
from SAMFineTuneLib.networks.staged_encoder import Stage, StagedEncoder, on_features


class TinyVitEncoder(StagedEncoder):
    """The package's TinyViT, taken apart into stages.

    Batch normalisation keeps the checkpoint's statistics in training too: fine-tuning batches are
    too small to estimate new ones.

    Args:
        encoder: a TinyViT for these images; its parts become this module's. The classification
            head, which no segmentation uses, comes along where the checkpoint has it.
        side: of the embedding.
    """

    def __init__(self, encoder: Any, side: int) -> None:
        super().__init__()
        self.side = side
        self.patch_embed = encoder.patch_embed
        self.layers = encoder.layers
        if hasattr(encoder, "head"):
            self.norm_head = encoder.norm_head
            self.head = encoder.head
        self.neck = encoder.neck
        self.train(self.training)

    def train(self, mode: bool = True) -> TinyVitEncoder:
        """Sets the mode, but never that of batch normalisation and attention."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
            elif hasattr(module, "attention_bias_idxs"):
                _use_current_biases(module)
        return self

    def stages(self) -> list[Stage]:
        """Patch embedding, the convolution layer, each transformer block, the neck."""
        convolutions = self.layers[0]
        blocks = [stage for number in (1, 2, 3) for stage in self._layer_stages(number)]
        return [
            Stage("patch_embed", (self.patch_embed,), on_features(self.patch_embed)),
            Stage("layers.0", (convolutions,), on_features(convolutions)),
            *blocks,
            Stage("neck", (self.neck,), on_features(self._reduce)),
        ]

    def adapter_sites(self) -> list[AdapterSite]:
        """Attention and MLP of every transformer block."""
        numbered = list(enumerate(self._transformer_blocks()))
        return [
            AdapterSite(block, "attn", "attention", block.dim, block=number)
            for number, block in numbered
        ] + [
            AdapterSite(block, "mlp", "mlp", block.dim, block=number) for number, block in numbered
        ]

    def lora_sites(self) -> list[LoraSite]:
        """Attention and MLP of every transformer block; the fused layer is ordered by head."""
        sites: list[LoraSite] = []
        for number, block in enumerate(self._transformer_blocks()):
            heads = block.num_heads
            sites += [
                LoraSite(block.attn, "qkv", fused_heads=heads, part="qkv", block=number),
                LoraSite(block.attn, "proj", part="o", block=number),
                *mlp_lora_sites(block.mlp, ("fc1", "fc2"), number),
            ]
        return sites

    def _transformer_blocks(self) -> list[Any]:
        return [block for layer in self.layers[1:] for block in layer.blocks]

    def _layer_stages(self, number: int) -> list[Stage]:
        """One stage a block; the last block's also holds the layer's downsampling, if any."""
        layer = self.layers[number]
        stages = []
        for index, block in enumerate(layer.blocks):
            used: tuple[nn.Module, ...] = (block,)
            if index == len(layer.blocks) - 1 and layer.downsample is not None:
                used = (block, layer.downsample)
            name = f"layers.{number}.blocks.{index}"
            stages.append(Stage(name, used, on_features(_in_turn(used))))
        return stages

    def _reduce(self, x: Tensor) -> Tensor:
        reduced: Tensor = self.neck(x.transpose(1, 2).unflatten(2, (self.side, self.side)))
        return reduced


def _in_turn(modules: tuple[nn.Module, ...]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)
        return x

    return run


def _use_current_biases(attention: nn.Module) -> None:
    """Makes an attention read its biases at every call.

    In evaluation mode the package's attention reads a copy that was made when the mode was set and
    that loading or training does not update. Its training mode has no other effect.
    """
    attention.training = True
    attention._buffers.pop("ab", None)


def build_tiny_vit(input_size: int) -> SamNetwork:
    """The network `vit_t` with random weights for square images."""
    return _network(BACKBONES["vit_t"], input_size, _definition(input_size))


def build_lite_medsam(input_size: int) -> SamNetwork:
    """The network `lite_medsam` with random weights for square images."""
    # MobileSAM's stem reduces an image four times before the first layer, and this stem does not.
    encoder = _definition(4 * input_size)
    with torch.device("cpu"):
        encoder.patch_embed.seq = _full_resolution_stem(encoder.patch_embed.seq)
    del encoder.norm_head, encoder.head
    return _network(BACKBONES["lite_medsam"], input_size, encoder)


def _definition(image_size: int) -> Any:
    # The definition reads values of tensors while it is built, which tensors on "meta" do not have.
    with torch.device("cpu"):
        return mobile_sam_tiny_vit().TinyViT(
            img_size=image_size,
            in_chans=3,
            num_classes=1000,
            embed_dims=[64, 128, 160, 320],
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 5, 10],
            window_sizes=[7, 7, 14, 7],
            mlp_ratio=4.0,
            drop_rate=0.0,
            drop_path_rate=0.0,
            use_checkpoint=False,
            mbconv_expand_ratio=4.0,
            local_conv_size=3,
            layer_lr_decay=0.8,
        )


def _full_resolution_stem(stem: nn.Sequential) -> nn.Sequential:
    """The layers of MobileSAM's stem with 1 × 1 convolutions, of stride 1."""
    normalised = mobile_sam_tiny_vit().Conv2d_BN
    activation, last = stem[1], stem[2].c
    assert isinstance(last, nn.Conv2d)
    inner, width = last.in_channels, last.out_channels
    return nn.Sequential(normalised(3, inner), activation, normalised(inner, width))


def _network(spec: BackboneSpec, input_size: int, encoder: Any) -> SamNetwork:
    device = torch.empty(0).device
    return SamNetwork(
        spec,
        input_size,
        TinyVitEncoder(encoder, input_size // spec.patch_size).to(device),
        build_prompt_encoder(spec, input_size),
        build_mask_decoder(),
    )
