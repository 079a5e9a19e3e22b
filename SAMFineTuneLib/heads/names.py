"""The heads by name, with what each is and how it learns. Loads no tensor library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

HeadName = Literal["mask_decoder", "multimask", "convnet", "vit", "linear", "prompt_network"]
LossName = Literal["exclusive", "independent"]
HEAD_NAMES: tuple[HeadName, ...] = get_args(HeadName)
HEAD_DEPTHS = (2, 3, 4)
DEFAULT_HEAD: HeadName = "mask_decoder"
# Hu et al. begin with depth 2, of which every deeper head has about four times the parameters.
DEFAULT_DEPTH = 2


@dataclass(frozen=True)
class HeadSpec:
    """One head.

    Attributes:
        summary: what it is, in words for a list.
        loss: "exclusive" has one class win at each pixel (softmax); "independent" judges the mask
            of each structure by itself.
        alone: whether, unless the user says otherwise, the encoder stays as it is.
        takes_image: whether it looks at the image itself beside the features.
    """

    summary: str
    loss: LossName = "exclusive"
    alone: bool = False
    takes_image: bool = False


HEADS: dict[HeadName, HeadSpec] = {
    "mask_decoder": HeadSpec(
        "the backbone's mask decoder with one token for each class (for starter also what the "
        "labelled slices say of the classes)"
    ),
    "multimask": HeadSpec(
        "the same with three masks for each class, of which the one with the highest predicted "
        "overlap is taken"
    ),
    "convnet": HeadSpec("convolutions on the embedding, with random weights at first"),
    "vit": HeadSpec("the mask decoder without prompts, run once for each class"),
    "linear": HeadSpec("the mask decoder's upscaling and two layers that see one pixel each"),
    "prompt_network": HeadSpec(
        "a network that looks at the image and takes the place of prompts, in front of the mask "
        "decoder, which stays as it is",
        loss="independent",
        alone=True,
        takes_image=True,
    ),
}


def settled_depth(head: HeadName, depth: int | None) -> int | None:
    """The depth of a head that has one, by default `DEFAULT_DEPTH`; None for the others."""
    return (depth or DEFAULT_DEPTH) if head == "convnet" else None
