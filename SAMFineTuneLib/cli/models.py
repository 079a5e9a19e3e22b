"""`models`: lists, renames, copies and deletes the user's tuned models."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.models.library import (
    TunedModel,
    delete_model,
    export_model,
    find_model,
    import_model,
    list_models,
    rename_model,
)
from SAMFineTuneLib.models.measured_text import measured_in_words
from SAMFineTuneLib.models.model_file import ModelCard
from SAMFineTuneLib.models.name import SUFFIX
from SAMFineTuneLib.user_folders import models_folder
from SAMFineTuneLib.worker.standard_output import output_on_errors

_COMMAND = "  python -m SAMFineTuneLib models"
_DESCRIPTION = """\
The user's tuned models, which 3D Slicer lists too. They are kept in a folder of the user's data
(SAMFINETUNE_MODELS names another folder). finetune writes its model to the file that --output
names; import copies such a file into the folder.
"""
_EXAMPLE = f"""\
{_COMMAND} list
{_COMMAND} import liver.safetensors
{_COMMAND} rename liver "liver, portal venous"
{_COMMAND} export "liver, portal venous" /media/stick/liver.safetensors
{_COMMAND} delete liver
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands, "models", _list, "list, rename, copy, delete models", _DESCRIPTION, _EXAMPLE
    )
    actions = parser.add_subparsers(
        title="actions", metavar="list|rename|delete|export|import", required=True
    )
    add_command(
        actions,
        "list",
        _list,
        "the models with their cards",
        "List the tuned models with their cards: labels, backbone, DSC, IoU, NSD and HD95; damaged "
        "files, too.",
        f"{_COMMAND} list",
    )
    rename = add_command(
        actions,
        "rename",
        _rename,
        "rename a model",
        "Rename a model; characters that some system does not allow in a file's name become _.",
        f'{_COMMAND} rename liver "liver, portal venous"',
    )
    _add_name(rename)
    rename.add_argument("new_name", metavar="NEW", help="a name that no other model has")
    delete = add_command(
        actions,
        "delete",
        _delete,
        "delete a model",
        "Delete a model from the folder. It cannot be brought back.",
        f"{_COMMAND} delete liver",
    )
    _add_name(delete)
    export = add_command(
        actions,
        "export",
        _export,
        "copy a model to a file",
        "Copy a model to a file, for another computer or another person; or write its network as "
        "an ONNX file, for programs without PyTorch. The ONNX file is checked against PyTorch, and "
        "its metadata say what goes in and what comes out.",
        f"{_COMMAND} export liver /media/stick/liver.safetensors\n"
        f"{_COMMAND} export liver --onnx liver.onnx",
    )
    export.add_argument(
        "name",
        metavar="NAME",
        help="the model's name, as list shows it; with --onnx also the file of a tuned model",
    )
    export.add_argument(
        "file", nargs="?", metavar="FILE", help="a file that does not exist yet, or a folder"
    )
    export.add_argument(
        "--onnx",
        type=path_from_text,
        metavar="FILE.onnx",
        help="instead: write the automatic network to this file, which does not exist yet "
        "(packages onnx and onnxruntime)",
    )
    export.add_argument(
        "--prompted",
        action="store_true",
        help="with --onnx: the network for points and boxes, of a model that has weights for "
        "prompts",
    )
    export.add_argument(
        "--checkpoint",
        type=path_from_text,
        metavar="FILE",
        help="with --onnx: the weights of the backbone that the model was tuned from, if they are "
        "not in the cache",
    )
    bring = add_command(
        actions,
        "import",
        _import,
        "copy a file to the models",
        "Copy a tuned model to the folder; a number is added if its name is taken.",
        f"{_COMMAND} import liver.safetensors",
    )
    bring.add_argument(
        "file", type=path_from_text, metavar="FILE", help="a file that finetune or export wrote"
    )


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the model's name, as list shows it")


def _list(chosen: argparse.Namespace) -> int:
    models = list_models()
    for model in models:
        print_message(f"{model.name}  {model.bytes / 1e6:.1f} MB  {_summary(model)}")
    print_result({"folder": models_folder(), "models": [_as_fields(model) for model in models]})
    return 0


def _rename(chosen: argparse.Namespace) -> int:
    return _print_model(rename_model(find_model(chosen.name), chosen.new_name))


def _delete(chosen: argparse.Namespace) -> int:
    model = find_model(chosen.name)
    delete_model(model)
    print_result({"deleted": model.path, "freed_bytes": model.bytes})
    return 0


def _export(chosen: argparse.Namespace) -> int:
    if (chosen.onnx is None) == (chosen.file is None):
        raise InputError(
            "models export takes either FILE or --onnx FILE.onnx",
            "Give one of the two",
            code="usage",
        )
    if chosen.onnx is not None:
        return _export_onnx(chosen)
    if chosen.prompted or chosen.checkpoint is not None:
        raise InputError(
            "--prompted and --checkpoint go with --onnx", "Give --onnx as well", code="usage"
        )
    model = find_model(chosen.name)
    target = path_from_text(chosen.file)
    # A path that ends in a separator names a folder, which is made if it does not exist.
    if chosen.file.endswith(("/", os.sep)):
        target = target / f"{model.name}{SUFFIX}"
    print_result({"name": model.name, "file": export_model(model, target)})
    return 0


def _export_onnx(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.models.onnx_export import export_onnx
    from SAMFineTuneLib.weights.choice import find_weights

    model, file = path_from_text(chosen.name), chosen.onnx.expanduser().absolute()
    if not (model.name.lower().endswith(SUFFIX) and model.is_file()):
        model = find_model(chosen.name).path
    with output_on_errors():
        exported = export_onnx(
            model,
            file,
            lambda card: find_weights(card.backbone, chosen.checkpoint),
            chosen.prompted,
        )
    print_message(f"{exported.file}: {exported.task} network, checked against PyTorch")
    print_result(asdict(exported))
    return 0


def _import(chosen: argparse.Namespace) -> int:
    return _print_model(import_model(chosen.file))


def _print_model(model: TunedModel) -> int:
    print_message(model.name)
    print_result(_as_fields(model))
    return 0


def _summary(model: TunedModel) -> str:
    if model.card is None:
        return f"cannot be used: {model.fault}"
    labels = ", ".join(label.name or str(label.value) for label in model.card.labels)
    measured = measured_in_words(model.card.metrics) or _before_going_on(model.card)
    described = f"{model.card.backbone}, {model.card.axis}: {labels}"
    return f"{described}; {measured}" if measured else described


def _before_going_on(card: ModelCard) -> str:
    """What was measured before the model went on learning from the slices that were held out."""
    before = card.metrics.get("before_going_on")
    words = measured_in_words(before) if isinstance(before, dict) else ""
    return f"before it went on learning: {words}" if words else ""


def _as_fields(model: TunedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": model.path,
        "bytes": model.bytes,
        "card": model.card,
        "fault": model.fault or None,
    }
