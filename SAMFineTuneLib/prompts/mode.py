"""Which simulated prompts a network is tuned for. Loads no tensor library."""

from __future__ import annotations

from typing import Literal, get_args

# The study's prompts, of which all are given at once (Gu et al., MELBA 2025:006): a box or a point
# for each connected region of a structure, or one of them drawn for each.
DrawnMode = Literal["mixed", "box", "point"]
# What a user of the correction does: further clicks into the error follow the first prompt.
PromptMode = Literal["correction", "mixed", "box", "point"]
PROMPT_MODES: tuple[PromptMode, ...] = get_args(PromptMode)
