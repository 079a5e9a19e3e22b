"""The starter network's automatic decoder: classes are given by labelled images, not by prompts.

A class is described by averages over its pixels in labelled images: of the features at strides 4, 8
and 16, and of the positions. A small network turns the averages into the class's token for the
two-way transformer. The averages over each cluster of a class are its prototypes, whose cosine
similarity with an image's features is added to the logits (as in prototype networks, Snell et al.
2017, and PANet, Wang et al. 2019). With the similarity, in-context segmentation can be learnt in
few steps; with tokens alone it cannot.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.networks.definitions import segment_anything_modeling
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.class_clusters import cluster_counts, cluster_masks
from SAMFineTuneLib.networks.starter.encoder import EMBEDDING_CHANNELS as CHANNELS
from SAMFineTuneLib.networks.starter.encoder import STRIDE_4_CHANNELS, STRIDE_8_CHANNELS
from SAMFineTuneLib.networks.starter.prompt_decoder import build_transformer
from SAMFineTuneLib.networks.starter.skip_upscaling import SkipUpscaling

# Width of the features that are compared with prototypes, at strides 4, 8 and 16.
COMPARED_CHANNELS = (32, 48, 64)
# Cosine similarities lie in -1 … 1; as logits they have to be further apart.
_FIRST_SHARPNESS = 5.0
# The weight of a pixel's place beside its features when pixels are clustered.
_PLACE_IN_CLUSTERS = 0.5
_ABSENT = -1e4
_REFINED = 12
# A cluster with fewer pixels than this is absent.
_LEAST_PIXELS = 1e-3


class ClassContext(NamedTuple):
    """The description of K classes that a decoder segments by, background first.

    Attributes:
        tokens: the classes' tokens, (K, C).
        prototypes: prototypes of the M clusters at strides 4, 8 and 16, (M, width) each, not
            normalised.
        places: averages of the positional encoding over the M clusters, (M, C).
        present: which clusters have pixels, (M,) bool.
    """

    tokens: Tensor
    prototypes: tuple[Tensor, ...]
    places: Tensor
    present: Tensor

    @property
    def counts(self) -> list[int]:
        """How many clusters each class has; those of one class follow each other."""
        return cluster_counts(len(self.tokens))


class ContextMaskDecoder(nn.Module):
    """Segments the classes of a context in other images; knows no class by itself."""

    def __init__(self) -> None:
        super().__init__()
        modeling = segment_anything_modeling()
        mlp = modeling.mask_decoder.MLP
        self.transformer = build_transformer()
        self.iou_token = nn.Embedding(1, CHANNELS)
        # One token for background and one for structures, to which the averages are added.
        self.base_tokens = nn.Embedding(2, CHANNELS)
        pooled = STRIDE_4_CHANNELS + STRIDE_8_CHANNELS + 2 * CHANNELS
        self.token_mlp: nn.Module = mlp(pooled, CHANNELS, CHANNELS, 2)
        # Empty here; the decoder of a tuned model has refining blocks.
        self.blocks16 = nn.Sequential()
        self.output_upscaling = SkipUpscaling(CHANNELS)
        self.output_mlp: nn.Module = mlp(CHANNELS, CHANNELS, CHANNELS // 4, 3)
        self.overlap_mlp: nn.Module = mlp(2 * CHANNELS, CHANNELS, 1, 2)
        self.compared = nn.ModuleList(
            nn.Conv2d(channels, width, 1)
            for channels, width in zip(
                (STRIDE_4_CHANNELS, STRIDE_8_CHANNELS, CHANNELS), COMPARED_CHANNELS, strict=True
            )
        )
        self.sharpness = nn.Parameter(torch.full((3,), _FIRST_SHARPNESS))
        self.place_sharpness = nn.Parameter(torch.ones(3))
        # Applied to the logits of each class alone; sees the surroundings of each pixel.
        self.refinement = nn.Sequential(
            nn.Conv2d(4, _REFINED, 5, padding=2), nn.GELU(), nn.Conv2d(_REFINED, 1, 5, padding=2)
        )

    def form_context(
        self, features: FeatureState, positions: Tensor, masks: Tensor
    ) -> ClassContext:
        """The context of labelled images.

        Args:
            features: embedding (N, C, h, w) and skips of N images.
            positions: positional encoding (1, C, h, w).
            masks: (N, K, H, W), the share of each class, background first, at any resolution; zero
                everywhere in an image in which a class is not labelled.

        Returns:
            The context of K classes.
        """
        stride4, stride8 = features.skips
        place = positions.expand(len(masks), -1, -1, -1)
        pooled = [_masked_average(each, masks) for each in (stride4, stride8, features.x, place)]
        kinds = torch.ones(masks.shape[1], dtype=torch.long, device=masks.device)
        kinds[0] = 0
        tokens = self.token_mlp(torch.cat(pooled, dim=1)) + self.base_tokens(kinds)
        compared = self._compared_features(features)
        clusters = self._clusters(compared[1], place, masks)
        return ClassContext(
            tokens,
            tuple(_masked_average(each, clusters) for each in compared),
            _masked_average(place, clusters),
            clusters.flatten(2).sum((0, 2)) > _LEAST_PIXELS,
        )

    def similarities(
        self, features: FeatureState, positions: Tensor, context: ClassContext
    ) -> Tensor:
        """How similar every place is to each class, by features of stride 4, 8 and 16.

        Returns:
            Logits (B, K, 3, 4h, 4w).
        """
        size = features.skips[0].shape[-2:]
        place = _cosines(positions, context.places)
        found = []
        for number, each in enumerate(self._compared_features(features)):
            alike = self.sharpness[number] * _cosines(each, context.prototypes[number])
            here = self.place_sharpness[number] * _resized(place, each.shape[-2:])
            of_clusters = (alike + here).masked_fill(~context.present[:, None, None], _ABSENT)
            found.append(_resized(_best_of_classes(of_clusters, context.counts), size))
        return torch.stack(found, dim=2)

    @staticmethod
    def _clusters(features: Tensor, place: Tensor, masks: Tensor) -> Tensor:
        """The share of each cluster (N, M, h, w), at the features' resolution."""
        shares = functional.interpolate(masks, features.shape[-2:], mode="area")
        where = functional.normalize(_resized(place, features.shape[-2:]), dim=1)
        joined = torch.cat([features, _PLACE_IN_CLUSTERS * where], dim=1)
        return cluster_masks(joined.detach(), shares)

    def forward(
        self,
        features: FeatureState,
        positions: Tensor,
        dense_prompt: Tensor,
        context: ClassContext,
        output_mlps: nn.ModuleList | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Class logits of a batch of embedded images.

        Args:
            features: embedding (B, C, h, w) and skips of the image encoder.
            positions: positional encoding (1, C, h, w).
            dense_prompt: what the prompt encoder adds to the embedding, (1, C, 1, 1) or larger.
            context: the description of K classes.
            output_mlps: one output layer for each class, instead of one for all.

        Returns:
            Logits (B, K, 4h, 4w), background first; and the intersection over union that the
            network predicts for each class's mask, (B, K).
        """
        embedding = features.x
        batch = len(embedding)
        tokens = torch.cat([self.iou_token.weight, context.tokens])
        tokens_out, source = self.transformer(
            embedding + dense_prompt,
            positions.expand(batch, -1, -1, -1),
            tokens.expand(batch, -1, -1),
        )
        source = self.blocks16(source.transpose(1, 2).reshape(embedding.shape))
        upscaled = self.output_upscaling(source, features.skips)
        of_classes = tokens_out[:, 1:]
        filters = self._filters(of_classes, output_mlps)
        logits = torch.einsum("bkc,bchw->bkhw", filters, upscaled)
        similarities = self.similarities(features, positions, context)
        refined = self._refined(torch.cat([logits[:, :, None], similarities], dim=2))
        overall = tokens_out[:, :1].expand_as(of_classes)
        iou_predictions = self.overlap_mlp(torch.cat([of_classes, overall], dim=2)).squeeze(2)
        return logits + similarities.sum(2) + refined, iou_predictions

    @staticmethod
    def _each(mlps: nn.ModuleList, tokens: Tensor) -> Tensor:
        return torch.stack([mlp(tokens[:, number]) for number, mlp in enumerate(mlps)], dim=1)

    def _filters(self, tokens: Tensor, output_mlps: nn.ModuleList | None) -> Tensor:
        filters: Tensor = (
            self.output_mlp(tokens) if output_mlps is None else self._each(output_mlps, tokens)
        )
        return filters

    def _compared_features(self, features: FeatureState) -> list[Tensor]:
        """Features at strides 4, 8 and 16, of length 1 at every place."""
        maps = (*features.skips, features.x)
        return [
            functional.normalize(layer(each).float(), dim=1)
            for layer, each in zip(self.compared, maps, strict=True)
        ]

    def _refined(self, evidence: Tensor) -> Tensor:
        """From (B, K, 4, H, W) to (B, K, H, W); each class is computed by itself."""
        batch, classes = evidence.shape[:2]
        refined: Tensor = self.refinement(evidence.flatten(0, 1))
        return refined.reshape(batch, classes, *evidence.shape[-2:])


def single_precision(features: Tensor) -> torch.autocast:
    """A context without autocast, because averages of many small numbers need single precision."""
    return torch.autocast(features.device.type, enabled=False)


def _masked_average(features: Tensor, masks: Tensor) -> Tensor:
    """Averages (K, C) of features (N, C, h, w) over masks (N, K, H, W); 0 for an absent class."""
    shares = functional.interpolate(masks, features.shape[-2:], mode="area")
    with single_precision(features):
        total = torch.einsum("nchw,nkhw->kc", features.float(), shares)
    return total / (shares.sum((0, 2, 3))[:, None] + _LEAST_PIXELS)


def _cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosines (B, M, h, w) between features (B, C, h, w) and prototypes (M, C)."""
    with single_precision(features):
        unit_features = functional.normalize(features.float(), dim=1)
        unit_prototypes = functional.normalize(prototypes.float(), dim=1)
        return torch.einsum("bchw,mc->bmhw", unit_features, unit_prototypes)


def _best_of_classes(of_clusters: Tensor, counts: list[int]) -> Tensor:
    """Class logits (B, K, h, w) from cluster logits (B, M, h, w): a soft maximum over clusters."""
    parts = of_clusters.split(counts, dim=1)
    return torch.stack([part.logsumexp(1) for part in parts], dim=1).clamp(min=_ABSENT / 100)


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)
