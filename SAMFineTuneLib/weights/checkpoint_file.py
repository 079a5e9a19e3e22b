"""Reads the tensors of a checkpoint file and finds its architecture; never runs its code."""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.tensor_file import UNREADABLE, tensors_of

_WRAPPERS = ("model", "state_dict", "model_state_dict")
_PARALLEL_PREFIX = "module."
_CODE_OPCODES = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "REDUCE"}

# The exceptions that reading a PyTorch file raises if bytes are missing or changed.
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
)


def load_into(network: SamNetwork, file: Path) -> None:
    """Loads the file's tensors into the network; see `official.load_checkpoint`."""
    tensors = read_tensors(file)
    _require_match(network, tensors, file)
    network.load_state_dict(tensors)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a PyTorch or safetensors file by name, on the CPU.

    Raises:
        InputError: there is no such file, or it is damaged, holds pickled code, or is no dictionary
            of tensors.
    """
    if not file.is_file():
        raise InputError(f"there is no checkpoint file {file}", "Check the path", "no_such_file")
    content = _read_safetensors(file) if _is_safetensors(file) else _read_pytorch(file)
    tensors = _unwrapped(content)
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(
            f"{file} is not a dictionary of tensors", "Choose a checkpoint file", "not_a_checkpoint"
        )
    if all(name.startswith(_PARALLEL_PREFIX) for name in tensors):
        return {name[len(_PARALLEL_PREFIX) :]: value for name, value in tensors.items()}
    return tensors


def architecture_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The backbone whose landmark tensor is among these, if any."""
    for spec in BACKBONES.values():
        if spec.landmark is None:
            continue
        name, shape = spec.landmark
        if name in tensors and tuple(tensors[name].shape) == shape:
            return spec.name
    return None


def _is_safetensors(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(9)
    # Such a file begins with the header's length in 8 bytes and the header, a JSON object.
    return file.suffix.lower() == ".safetensors" or (
        start[8:] == b"{" and not start.startswith(b"PK")
    )


def _read_safetensors(file: Path) -> Any:
    try:
        return tensors_of(file)
    except UNREADABLE as error:
        raise _damaged(file) from error


def _read_pytorch(file: Path) -> Any:
    archive = zipfile.is_zipfile(file)
    try:
        with warnings.catch_warnings():
            # These warnings are about pickle protocols; faults of the file are reported below.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(str(file), map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        if archive or _names_code(file):
            raise InputError(
                f"{file} holds pickled code or objects besides tensors, which are never loaded",
                "Use the official file, or save the weights alone (a state_dict, or safetensors)",
                "checkpoint_code",
            ) from error
        raise _damaged(file) from error
    except _DAMAGE as error:
        raise _damaged(file) from error


def _names_code(file: Path) -> bool:
    """Whether a file of pickles without an archive refers to code, as far as it can be read.

    Nothing is run.
    """
    with file.open("rb") as stream:
        if stream.peek(2).startswith(b"PK"):
            return False  # the beginning of an archive
        try:
            while not any(op.name in _CODE_OPCODES for op, _, _ in pickletools.genops(stream)):
                pass
            return True
        except (ValueError, EOFError, OverflowError):
            return False


def _damaged(file: Path) -> InputError:
    return InputError(
        f"{file} is damaged, cut off, or not a checkpoint",
        "Download it again, or choose another file",
        "checkpoint_damaged",
    )


def _unwrapped(content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return dict(content[key])
    return dict(content)


def _require_match(network: SamNetwork, tensors: Mapping[str, Tensor], file: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected == found:
        return
    wanted = network.spec.name
    actual = architecture_of(tensors)
    if actual is not None and actual != wanted:
        raise InputError(
            f"{file} is a checkpoint of backbone {actual}, not of {wanted}",
            f"Choose backbone {actual}, or a checkpoint of {wanted}",
            "checkpoint_architecture",
        )
    raise InputError(
        f"{file} does not fit backbone {wanted}: {_differences(expected, found)}",
        f"Choose an official checkpoint of {wanted}",
        "checkpoint_architecture",
    )


_Shapes = Mapping[str, tuple[int, ...]]


def _differences(expected: _Shapes, found: _Shapes) -> str:
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [name for name in expected if name in found and expected[name] != found[name]]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
    return ", ".join(
        f"{len(names)} of its tensors {'is' if len(names) == 1 else 'are'} {kind} "
        f"(such as {names[0]})"
        for kind, names in kinds
        if names
    )
