"""MobileSAM as its own package puts it together, to compare with."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.adaptation.strategy import Method, Scope, adapt
from SAMFineTuneLib.networks.definitions import mobile_sam_tiny_vit, segment_anything_modeling
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.networks.tiny_vit import TinyVitEncoder

SIZE = 1024
_WIDTH = 256


class PlainMobileSam(nn.Module):
    """TinyViT, prompt encoder and mask decoder with the arguments of the package's `build_sam`.

    The three masks of the mask decoder are taken for background and two structures. Both packages
    define prompt encoder and mask decoder alike.
    """

    def __init__(self) -> None:
        super().__init__()
        modeling = segment_anything_modeling()
        side = SIZE // 16
        self.image_encoder: Any = mobile_sam_tiny_vit().TinyViT(
            img_size=SIZE,
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
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=_WIDTH,
            image_embedding_size=(side, side),
            input_image_size=(SIZE, SIZE),
            mask_in_chans=16,
        )
        self.mask_decoder = modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8
            ),
            transformer_dim=_WIDTH,
            iou_head_depth=3,
            iou_head_hidden_dim=_WIDTH,
        )

    def choose_trained(self, method: str, scope: str) -> None:
        """Lets the same parameters train as the library does, in the package's own modules."""
        # The staged encoder shares the parts, so what is put into it is in the package's too.
        staged = TinyVitEncoder(self.image_encoder, SIZE)
        network = SamNetwork(
            BACKBONES["vit_t"], SIZE, staged, self.prompt_encoder, self.mask_decoder
        )
        known_method: Method = "adapter" if method == "adapter" else "vanilla"
        known_scope: Scope = "decoder" if scope == "decoder" else "encoder_decoder"
        adapt(network, known_method, known_scope)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 1024, 1024) to scores (B, 3, 256, 256), without prompts."""
        embeddings = self.image_encoder(images)
        return torch.cat([self._decode(embedding) for embedding in embeddings])

    def _decode(self, embedding: Tensor) -> Tensor:
        sparse, dense = self.prompt_encoder(points=None, boxes=None, masks=None)
        masks, _ = self.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        decoded: Tensor = masks
        return decoded


class PlainLoss(nn.Module):
    """MONAI's Dice + cross entropy on masks interpolated to the images' size."""

    def __init__(self) -> None:
        super().__init__()
        self._loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """Scores (B, 3, 256, 256) and class numbers (B, 1024, 1024) to a scalar."""
        fine = functional.interpolate(
            scores, target.shape[-2:], mode="bilinear", align_corners=False
        )
        loss: Tensor = self._loss(fine, target[:, None])
        return loss
