"""The names of the methods and scopes of an adaptation. Loads no tensor library."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["vanilla", "adapter", "lora", "norm", "bias"]
Scope = Literal["decoder", "encoder_decoder"]
METHODS: tuple[Method, ...] = get_args(Method)
SCOPES: tuple[Scope, ...] = get_args(Scope)
