"""The network without prompts as a function that gives tensors alone, as formats require."""

from __future__ import annotations

from torch import Tensor, nn

from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter


class AutomaticFromTensors(nn.Module):
    """What `AutomaticSegmenter` gives, without the predictions that its head may not have.

    Args:
        segmenter: the network, in eval mode.
    """

    def __init__(self, segmenter: AutomaticSegmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Class logits and, of heads that predict it, the intersection over union."""
        return tuple(each for each in self.segmenter(image) if each is not None)
