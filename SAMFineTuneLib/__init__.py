"""Fine-tune the Segment Anything Model on a few labelled slices and segment whole volumes.

For Python users: `finetune`, `load_model`, `apply`, `evaluate`, `read_volume`, `read_labelmap`,
`read_time`, `write_labelmap`, `write_frames`, and the classes of their arguments and results. See
`SAMFineTuneLib.api`. Tensor and image libraries are imported when one of these names is first used,
so that Slicer's process can import this package without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from SAMFineTuneLib.api import LoadedModel, apply, evaluate, finetune, load_model
    from SAMFineTuneLib.errors import InputError
    from SAMFineTuneLib.volumes import (
        Labelmap,
        Volume,
        read_labelmap,
        read_time,
        read_volume,
        write_frames,
        write_labelmap,
    )

__version__ = "0.1.0"

_MODULE_OF = {
    **dict.fromkeys(("LoadedModel", "apply", "evaluate", "finetune", "load_model"), "api"),
    **dict.fromkeys(
        (
            *("Labelmap", "Volume", "read_labelmap", "read_time", "read_volume"),
            *("write_frames", "write_labelmap"),
        ),
        "volumes",
    ),
    "InputError": "errors",
}

__all__ = [
    "InputError",
    "Labelmap",
    "LoadedModel",
    "Volume",
    "apply",
    "evaluate",
    "finetune",
    "load_model",
    "read_labelmap",
    "read_time",
    "read_volume",
    "write_frames",
    "write_labelmap",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
