"""The network definitions of segment-anything and MobileSAM, without those packages' other parts.

Both packages import torchvision, and one imports timm, for demonstrations that have nothing to do
with the networks. Here only the files that define the networks are executed, under module names of
this project, so that neither is needed and a program that uses the real packages is not affected.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from SAMFineTuneLib.errors import InputError

_ALIASES = {
    "segment_anything": "_samfinetune_segment_anything_modeling",
    "mobile_sam": "_samfinetune_mobile_sam_tiny_vit",
}
_importing = threading.RLock()


def segment_anything_modeling() -> ModuleType:
    """`segment_anything.modeling`: ImageEncoderViT, PromptEncoder, MaskDecoder, …"""
    return _loaded("segment_anything", "segment-anything", Path("modeling", "__init__.py"))


def mobile_sam_tiny_vit() -> ModuleType:
    """`mobile_sam.modeling.tiny_vit_sam`: TinyViT and its parts."""
    with _importing:
        if _ALIASES["mobile_sam"] in sys.modules:
            return sys.modules[_ALIASES["mobile_sam"]]
        with _timm_stand_ins():
            return _loaded("mobile_sam", "mobilesam-mirror", Path("modeling", "tiny_vit_sam.py"))


def _loaded(package: str, distribution: str, file: Path) -> ModuleType:
    alias = _ALIASES[package]
    with _importing:
        if alias not in sys.modules:
            _execute(alias, _package_folder(package, distribution) / file)
        return sys.modules[alias]


def _execute(alias: str, file: Path) -> None:
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(alias, file, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise


def _package_folder(package: str, distribution: str) -> Path:
    spec = _find_installed(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the Python package {distribution} is not installed",
            f"Install it: pip install {distribution}",
            code="missing_package",
            packages=distribution,
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _find_installed(package: str) -> ModuleSpec | None:
    # importlib.util.find_spec would look into sys.modules first, where a program may have put
    # another module of this name.
    for finder in sys.meta_path:
        spec = finder.find_spec(package, None)
        if spec is not None:
            return spec
    return None


class _DropPath(nn.Module):
    """Stochastic depth is defined but not used at rate 0, the rate of MobileSAM's TinyViT."""

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob:
            raise NotImplementedError("stochastic depth")
        return x


def _to_2tuple(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


def _register_model(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return function


@contextmanager
def _timm_stand_ins() -> Iterator[None]:
    """Within the context, the four names that TinyViT imports from timm are defined here."""
    layers = ModuleType("timm.models.layers")
    vars(layers).update(
        DropPath=_DropPath, to_2tuple=_to_2tuple, trunc_normal_=nn.init.trunc_normal_
    )
    registry = ModuleType("timm.models.registry")
    vars(registry).update(register_model=_register_model)
    stand_ins = {module.__name__: module for module in (layers, registry)}
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
