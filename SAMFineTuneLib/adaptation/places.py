"""Where adapters and low-rank updates go in a network. Loads no tensor library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from SAMFineTuneLib.errors import InputError

Part = Literal["q", "k", "v", "o", "mlp"]
# Query, key and value projection of an attention, its output projection, and both layers of an MLP.
PARTS: tuple[Part, ...] = get_args(Part)
# Numbers of blocks, or "all", "first2last2", "none", and "auto" for those usual for the backbone.
Blocks = str | tuple[int, ...]
ENCODER_BLOCKS = ("all", "first2last2")
DECODER_BLOCKS = ("all", "none")


class ChoiceOfPlaces(Protocol):
    """Anything that has the fields of `Places`, such as a job or the strategy of a card."""

    @property
    def adapter_blocks(self) -> str | Sequence[int]:
        """Blocks of the image encoder that get adapters."""

    @property
    def lora_blocks(self) -> str | Sequence[int]:
        """Blocks of the image encoder that get low-rank updates."""

    @property
    def lora_parts(self) -> Sequence[str]:
        """The layers of a block that get low-rank updates."""

    @property
    def lora_scale(self) -> float:
        """Factor of the low-rank updates."""

    @property
    def decoder_adapters(self) -> str | Sequence[int]:
        """Blocks of the mask decoder that get adapters."""


@dataclass(frozen=True)
class Places:
    """The places of an adaptation. The defaults are those of models whose card names none.

    The study of fine-tuning strategies (MELBA 2025:006) compares adapters in the first two and the
    last two blocks, "A", with adapters in every block, "A*".

    Attributes:
        adapter_blocks: blocks of the image encoder that get adapters; "auto": those usual for the
            backbone.
        lora_blocks: blocks of the image encoder that get low-rank updates.
        lora_parts: the layers of these blocks, and of the mask decoder's, that get one.
        lora_scale: factor of the updates: alpha / rank where alpha is their strength.
        decoder_adapters: blocks of the mask decoder's transformer that get adapters.
    """

    adapter_blocks: Blocks = "auto"
    lora_blocks: Blocks = "all"
    lora_parts: tuple[str, ...] = ("q", "v")
    lora_scale: float = 1.0
    decoder_adapters: Blocks = "all"

    @classmethod
    def of(cls, chosen: ChoiceOfPlaces) -> Places:
        """The places that a job or a strategy names, numbers and parts in order."""
        return cls(
            adapter_blocks=_ordered(chosen.adapter_blocks),
            lora_blocks=_ordered(chosen.lora_blocks),
            lora_parts=tuple(part for part in PARTS if part in chosen.lora_parts),
            lora_scale=float(chosen.lora_scale),
            decoder_adapters=_ordered(chosen.decoder_adapters),
        )

    def as_fields(self) -> dict[str, Any]:
        """The fields by name, with lists in place of tuples, for a record."""
        fields = vars(self).items()
        return {name: list(each) if isinstance(each, tuple) else each for name, each in fields}


USUAL_PLACES = Places()
# The method of each field, and whether the field is about the image encoder.
METHOD_OF_FIELD = {
    "adapter_blocks": ("adapter", True),
    "lora_blocks": ("lora", True),
    "lora_parts": ("lora", False),
    "lora_scale": ("lora", False),
    "decoder_adapters": ("adapter", False),
}


def chosen_blocks(blocks: Blocks, there: int) -> set[int]:
    """The numbers of the chosen blocks of a network that has `there` of them.

    Raises:
        ValueError: a number that no block has, or an unknown word.
    """
    if blocks == "all":
        return set(range(there))
    if blocks == "first2last2":
        return {number for number in range(there) if number < 2 or number >= there - 2}
    if blocks == "none":
        return set()
    if isinstance(blocks, str):
        raise ValueError(f"unknown blocks {blocks!r}")
    for number in blocks:
        if not 0 <= number < there:
            raise ValueError(f"no block {number} among {there}")
    return set(blocks)


def settled_places(places: Places, method: str, scope: str) -> Places:
    """The places, if they have an effect.

    Raises:
        InputError: one is chosen that the method or the scope does not use.
    """
    for name, (needed, in_encoder) in METHOD_OF_FIELD.items():
        if getattr(places, name) == getattr(USUAL_PLACES, name):
            continue
        what = name.replace("_", " ")
        if method != needed:
            raise InputError(
                f"{what} are chosen, and the method is {method}, which does not use them",
                f"choose the method {needed}, or leave them out",
                code="without_effect",
                field=name,
                needed_method=needed,
            )
        if in_encoder and scope == "decoder":
            raise InputError(
                f"{what} of the image encoder are chosen, and only the decoder is trained",
                "choose the scope encoder_decoder, or leave them out",
                code="without_effect",
                field=name,
            )
    return places


def _ordered(blocks: str | Sequence[int]) -> Blocks:
    return blocks if isinstance(blocks, str) else tuple(sorted(blocks))
