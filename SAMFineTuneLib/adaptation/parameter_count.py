"""How many parameters a network has, and how many of them train.

Table 3 of the study (MELBA 2025:006) gives numbers in millions for two classes, that is three mask
tokens. Total and trainable parameters in the study and here, where they differ:

| backbone | scope           | method  | study         | here          | reason  |
|----------|-----------------|---------|---------------|---------------|---------|
| each     | decoder         | adapter | … / 0.13      | … / 0.76      | a       |
| ViT-B    | encoder_decoder | adapter | 97.28 / 3.68  | 96.09 / 3.13  | a, b    |
| ViT-H    | encoder_decoder | adapter | 650.93 / 9.98 | 647.65 / 7.33 | a, b    |
| ViT-T    | encoder_decoder | adapter | 10.31 / 0.32  | 10.36 / 1.00  | a, c    |
| ViT-T    | encoder_decoder | lora    | 10.04 / 0.79  | 10.04 / 0.68  | d       |
| ViT-T    | encoder_decoder | vanilla | 9.99 / 9.99   | 9.99 / 9.66   | e       |
| ViT-H    | encoder_decoder | vanilla | … / 640.95    | … / 640.94    | f       |
| ViT-B    | encoder_decoder | vanilla | … / 93.60     | … / 93.59     | f       |

a. The study trains adapters alone; here the class tokens and output layers (0.63) train as well,
   because they are new. The adapters in the decoder are the same 0.13.
b. Each of the study's blocks holds a third adapter, which its two-dimensional networks never call.
c. The study takes TinyViT's layers for blocks and so adapts all eight blocks of its layers 1 and 2;
   here, as in the other backbones, the first two and the last two transformer blocks are adapted.
   With `adapter_blocks` 0 to 7 the adapters have the study's 0.32.
d. The study also trains TinyViT's convolution layer (0.11).
e. TinyViT's classification head (0.32), which segmentation never calls, stays frozen; and f.
f. The prompt encoder (0.006), which gets no prompts to learn from, stays frozen.

Of its A*, adapters in every block, the study gives no numbers. Here they are 100.83 / 7.86 for
ViT-B.
"""

from __future__ import annotations

from dataclasses import dataclass

from SAMFineTuneLib.networks.network import SamNetwork


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part of a network."""

    part: str
    total: int
    trainable: int


def count(network: SamNetwork) -> list[PartCount]:
    """One row for each of image encoder, prompt encoder and mask decoder, then their sum.

    Inserted modules are counted in the part that they were inserted in.
    """
    parts = ("image_encoder", "prompt_encoder", "mask_decoder")
    rows = [_part(name, network) for name in parts]
    total = PartCount("total", sum(r.total for r in rows), sum(r.trainable for r in rows))
    return [*rows, total]


def _part(name: str, network: SamNetwork) -> PartCount:
    parameters = list(network.get_submodule(name).parameters())
    return PartCount(
        name.replace("_", " "),
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )
