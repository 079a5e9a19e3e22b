"""What heads, methods and places of an adaptation are called, in the order in which they are offered."""

from __future__ import annotations

from slicer.i18n import tr as _


def methodTitles() -> dict[str, str]:
    """How weights change, by the library's names."""
    return {
        "auto": _("automatic"),
        "adapter": _("Adapter"),
        "lora": _("LoRA"),
        "norm": _("normalisation layers alone"),
        "bias": _("biases alone"),
        "vanilla": _("vanilla: all weights"),
    }


def scopeTitles() -> dict[str, str]:
    """Which part of the network learns."""
    return {"auto": _("automatic"), "encoder_decoder": _("encoder and decoder"), "decoder": _("decoder alone")}


def headTitles() -> dict[str, str]:
    """What is put on the image encoder and finds the structures."""
    return {
        "auto": _("automatic"),
        "mask_decoder": _("mask decoder"),
        "multimask": _("mask decoder, best of three masks"),
        "convnet": _("convolutions (LoRaMedNet)"),
        "vit": _("ViT: decoder run once a structure"),
        "linear": _("linear"),
        "prompt_network": _("prompt network (AutoSAM)"),
    }


def headDepthTitles() -> dict[int, str]:
    """Number of blocks of a head that has several; 0 leaves it to the preset."""
    return {0: _("automatic"), 2: "2", 3: "3", 4: "4"}


def promptModeTitles() -> dict[str, str]:
    """Which simulated prompts the weights for corrections learn from."""
    return {
        "correction": _("as in a correction"),
        "mixed": _("a box or a point a region (the study's)"),
        "box": _("a box a region (the study's)"),
        "point": _("a point a region (the study's)"),
    }


def adapterBlockTitles() -> dict[str, str]:
    """Blocks of the image encoder that get adapters."""
    return {"auto": _("automatic"), "first2last2": _("first two and last two"), "all": _("all")}


def loraBlockTitles() -> dict[str, str]:
    """Blocks of the image encoder that get low-rank updates."""
    return {"all": _("all"), "first2last2": _("first two and last two")}


def loraPartTitles() -> dict[str, str]:
    """Layers of a block that get low-rank updates, with commas between them."""
    return {
        "q,v": _("query and value"),
        "q,k,v,o": _("all of attention"),
        "q,k,v,o,mlp": _("attention and MLP"),
    }
