"""What a head is: features of an image in, logits of the classes out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.networks.staged_encoder import FeatureState


class Candidates(NamedTuple):
    """Several masks for each class, of which a head has chosen one.

    Attributes:
        logits: (B, classes, masks, 4h, 4w).
        iou_predictions: (B, classes, masks), the intersection over union that is predicted for
            each.
    """

    logits: Tensor
    iou_predictions: Tensor


class ClassMasks(NamedTuple):
    """What a head finds in a batch of embedded images.

    Attributes:
        logits: (B, classes, 4h, 4w), background first.
        iou_predictions: (B, classes), the intersection over union that is predicted for each
            class's mask; None from a head that predicts none.
        candidates: what the masks were chosen from; None from a head that makes one a class.
    """

    logits: Tensor
    iou_predictions: Tensor | None = None
    candidates: Candidates | None = None


class Head(Protocol):
    """A module that takes the place of the mask decoder in the automatic task.

    It names the sites for adapters and low-rank updates in it (`networks.adaptation_sites`), none
    where it is trained as a whole.
    """

    def __call__(
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> ClassMasks | tuple[Tensor, Tensor]:
        """The masks of a batch of embedded images.

        Args:
            features: embedding (B, C, h, w) and skips of the image encoder; for a head that takes
                the image, the last skip is the image.
            positions: positional encoding (1, C, h, w).
            dense_prompt: what the prompt encoder adds to the embedding without prompts,
                (1, C, 1, 1).

        Returns:
            The masks; or logits and IoU predictions, which mean the same.
        """

    def adapter_sites(self) -> list[AdapterSite]:
        """The sites where the method adapter inserts adapters."""

    def lora_sites(self) -> list[LoraSite]:
        """The layers that the method LoRA updates."""
