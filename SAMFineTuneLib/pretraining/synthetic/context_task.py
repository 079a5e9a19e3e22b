"""The automatic task: segmenting the classes of a few labelled images in other images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.networks.starter.context_decoder import ContextMaskDecoder
from SAMFineTuneLib.pretraining.synthetic.episode import Episode
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.loss import PartialLabelLoss
from SAMFineTuneLib.training.mask_loss import thinned

# Weight of the loss of the class similarities alone.
_SIMILARITY_WEIGHT = 0.4


def context_loss(
    network: SamNetwork,
    features: FeatureState,
    episode: Episode,
    loss: PartialLabelLoss,
    random: RandomSource,
) -> tuple[Tensor, Tensor]:
    """Loss of one episode on its unlabelled images.

    Args:
        network: the starter network.
        features: of the episode's images, in their order.
        episode: the images' labels.
        loss: the loss of a fine-tune.
        random: source of all random numbers.

    Returns:
        The loss, and the mean DSC over the classes that the unlabelled images show (NaN where
        they show none).
    """
    decoder = network.context_decoder
    assert isinstance(decoder, ContextMaskDecoder)
    prompts: Any = network.prompt_encoder
    positions = prompts.pe_layer(features.x.shape[-2:])[None]
    labelled = episode.labelled
    masks = functional.one_hot(episode.classes[:labelled], episode.class_count)
    context = decoder.form_context(
        chosen(features, slice(labelled)), positions, masks.permute(0, 3, 1, 2).float()
    )
    dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
    others = chosen(features, slice(labelled, None))
    logits, iou_predictions = decoder(others, positions, dense, context)
    similarities = decoder.similarities(others, positions, context).sum(2)
    target = thinned(episode.classes[labelled:], random)
    known = torch.ones(len(target), episode.class_count, dtype=torch.bool, device=target.device)
    # The loss of the similarities alone makes the features separate the classes by themselves, by
    # which both these and the layers after them learn sooner.
    of_logits = loss(logits, iou_predictions, target, known)
    of_similarities = loss(similarities, iou_predictions.detach(), target, known)
    return of_logits + _SIMILARITY_WEIGHT * of_similarities, _mean_dsc(logits, target)


def _mean_dsc(logits: Tensor, target: Tensor) -> Tensor:
    classes = logits.shape[1]
    fine = functional.interpolate(logits.detach().float(), target.shape[-2:], mode="bilinear")
    found = functional.one_hot(fine.argmax(1), classes).flatten(0, 2).float()
    true = functional.one_hot(target, classes).flatten(0, 2).float()
    shown = true.sum(0) > 0
    dsc = 2 * (found * true).sum(0) / (found.sum(0) + true.sum(0)).clamp(min=1)
    return dsc[1:][shown[1:]].mean()
