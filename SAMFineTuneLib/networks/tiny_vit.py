"""MobileSAM's TinyViT at any input size.

Definition: the `mobile_sam` package (Zhang et al. 2023, "Faster Segment Anything"; Wu et al. 2022,
"TinyViT"). The package's own forward pass works at 1024 pixels only, the weights at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite, mlp_lora_sites
from SAMFineTuneLib.networks.definitions import mobile_sam_tiny_vit
from SAMFineTuneLib.networks.network import PATCH_SIZE, SamNetwork
from SAMFineTuneLib.networks.sam_vit import build_mask_decoder, build_prompt_encoder
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.staged_encoder import Stage, StagedEncoder, on_features


class TinyVitEncoder(StagedEncoder):
    """The package's TinyViT, taken apart into stages.

    Batch normalisation keeps the checkpoint's statistics in training too: fine-tuning batches are
    too small to estimate new ones.

    Args:
        encoder: a TinyViT built for `input_size`; its parts become this module's. The
            classification head, which no segmentation uses, comes along so that checkpoints fit.
        input_size: side of the square images in pixels.
    """

    def __init__(self, encoder: Any, input_size: int) -> None:
        super().__init__()
        self.side = input_size // PATCH_SIZE
        self.patch_embed = encoder.patch_embed
        self.layers = encoder.layers
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
    device = torch.empty(0).device
    # The definition reads values of tensors while it is built, which tensors on "meta" do not have.
    with torch.device("cpu"):
        encoder = mobile_sam_tiny_vit().TinyViT(
            img_size=input_size,
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
    return SamNetwork(
        BACKBONES["vit_t"],
        input_size,
        TinyVitEncoder(encoder, input_size).to(device),
        build_prompt_encoder(input_size),
        build_mask_decoder(),
    )
