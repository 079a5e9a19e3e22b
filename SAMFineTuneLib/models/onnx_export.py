"""A tuned model as an ONNX file, for programs without PyTorch; checked against the network."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMFineTuneLib import __version__
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.models.model_file import ModelCard, load_model, load_prompted, read_card
from SAMFineTuneLib.networks.spec import find

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".onnx"
# The largest difference from PyTorch's result that is allowed, as a share of its largest value
# where that is above 1.
TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxruntime")
_OPSET = 17
# It makes the image smaller without aliasing, which PyTorch does not write into ONNX files.
_NOT_IN_ONNX = ("prompt_network",)
# The format's own limit for one file, in bytes, with a margin for all that is no tensor.
_LARGEST_FILE = 2_000_000_000


@dataclass(frozen=True)
class ExportedModel:
    """An ONNX file that has been written.

    Attributes:
        file: its path.
        task: "automatic", or "prompted".
        inputs: names of its inputs.
        outputs: names of its outputs.
        largest_difference: from PyTorch's results on the slice that it was checked on.
    """

    file: Path
    task: str
    inputs: list[str]
    outputs: list[str]
    largest_difference: float


def export_onnx(
    model: Path,
    file: Path,
    find_checkpoint: Callable[[ModelCard], Path],
    prompted: bool = False,
) -> ExportedModel:
    """Writes one network of a tuned model; the file appears whole, and checked, or not at all.

    Args:
        model: the tuned model.
        file: where to write; it must not exist.
        find_checkpoint: returns the file of the backbone's weights.
        prompted: whether the network for prompts is meant, and not the automatic one.

    Raises:
        InputError: a package is missing, the model has no weights for prompts or cannot be used,
            the network is too large for the format, or the file exists or cannot be written.
    """
    _require_packages()
    import torch

    card = read_card(model)
    _require_new(file)
    if prompted and card.prompts is None:
        raise InputError(
            f"{model.name} has no weights for prompts",
            "fine-tune with weights for prompts, or export the automatic network",
            code="no_prompt_weights",
        )
    if not prompted and card.head in _NOT_IN_ONNX:
        raise InputError(
            f"the head {card.head} has an operation that ONNX files cannot hold",
            "fine-tune with another head to export the model",
            code="head_not_in_onnx",
        )
    network, names, results = _network(model, card, find_checkpoint, prompted)
    _require_small(network, card)
    samples = _samples(card, prompted)
    with torch.no_grad():
        # Some heads predict no intersection over union.
        results = results[: len(network(*samples[0]))]
    try:
        with written_whole(file) as unfinished:
            _write(network, samples[0], names, results, unfinished)
            _describe(unfinished, card, prompted, results)
            difference = max(_difference(network, each, names, unfinished) for each in samples)
            if not difference <= TOLERANCE:
                raise InputError(
                    f"the exported network differs from PyTorch's by {difference:.1e}, more than "
                    f"{TOLERANCE:.0e}",
                    "try other versions of torch and onnxruntime",
                    code="onnx_differs",
                )
    except OSError as error:
        raise InputError(
            f"cannot write {file}: {error.strerror or error}",
            "free some space or choose another folder",
            code="cannot_write",
        ) from error
    task = "prompted" if prompted else "automatic"
    return ExportedModel(file, task, list(names), list(results), difference)


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        words = " ".join(missing)
        raise InputError(
            f"these Python packages are not installed: {words}",
            f"Install them: pip install {words}",
            code="missing_package",
            packages=words,
        )


def _require_new(file: Path) -> None:
    if not file.name.lower().endswith(SUFFIX):
        raise InputError(
            f"{file.name} does not end in {SUFFIX}", f"name a {SUFFIX} file", code="bad_name"
        )
    if file.exists():
        raise InputError(
            f"{file} is there already", "name another file, or delete that one", code="file_exists"
        )


def _require_small(network: nn.Module, card: ModelCard) -> None:
    size = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    if size > _LARGEST_FILE:
        raise InputError(
            f"{card.backbone} takes {size / 1e9:.1f} GB, and an ONNX file holds 2 GB at most",
            "fine-tune a smaller backbone to export it",
            code="too_large",
        )


def _network(
    model: Path,
    card: ModelCard,
    find_checkpoint: Callable[[ModelCard], Path],
    prompted: bool,
) -> tuple[nn.Module, Sequence[str], Sequence[str]]:
    """The network with the names of its inputs and of the outputs that it may have."""
    from SAMFineTuneLib.heads.automatic_from_tensors import AutomaticFromTensors
    from SAMFineTuneLib.heads.prompted_from_tensors import PromptedFromTensors

    if not prompted:
        segmenter = AutomaticFromTensors(load_model(model, find_checkpoint, card=card)[0]).eval()
        return segmenter, ("image",), ("logits", "iou_predictions")
    answering = PromptedFromTensors(load_prompted(model, find_checkpoint, card)[0]).eval()
    return answering, ("image", "points", "point_labels", "box"), ("logits", "iou_prediction")


def _samples(card: ModelCard, prompted: bool) -> list[tuple[Tensor, ...]]:
    """Inputs to check with: a smooth slice, normalised; with prompts, points, a box and both."""
    import torch
    from torch.nn import functional

    from SAMFineTuneLib.slices.intensity import IntensityWindow
    from SAMFineTuneLib.slices.pixels import network_pixels

    size = card.input_size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 9, 9, generator=generator)
    grey = functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)[0, 0]
    window = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=0.25)
    pixels = card.pixels or find(card.backbone).normalisation
    image = network_pixels(grey, window, pixels)[None].contiguous()
    if not prompted:
        return [(image,)]
    points = torch.tensor([[[0.3, 0.4], [0.6, 0.55], [0.1, 0.9]]]) * size
    labels = torch.tensor([[1, 0, 1]])
    box = torch.tensor([[0.2, 0.25, 0.7, 0.65]]) * size
    nowhere, none = torch.full((1, 4), torch.nan), torch.full((1, 1), -1)
    return [
        (image, points, labels, box),
        (image, points[:, :1], labels[:, :1], nowhere),
        (image, points[:, :1], none, box),
    ]


def _write(
    network: nn.Module,
    sample: tuple[Tensor, ...],
    names: Sequence[str],
    results: Sequence[str],
    path: Path,
) -> None:
    import torch

    several = {1: "number_of_points"}
    with warnings.catch_warnings(), torch.no_grad():
        # Of branches that are the same for every image of this size, and of the older exporter,
        # which needs no further package and keeps the number of points open.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            sample,
            str(path),
            input_names=list(names),
            output_names=list(results),
            dynamic_axes={name: several for name in ("points", "point_labels") if name in names},
            opset_version=_OPSET,
            **_older_exporter(),
        )


def _older_exporter() -> dict[str, Any]:
    """The argument that chooses it, which versions of PyTorch before 2.5 do not have."""
    import inspect

    import torch

    return {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


def _difference(
    network: nn.Module, sample: tuple[Tensor, ...], names: Sequence[str], path: Path
) -> float:
    """Largest difference of any output, as a share of the largest value where that is above 1."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: each.numpy() for name, each in zip(names, sample, strict=True)}
    with torch.no_grad():
        expected = network(*sample)
    return max(
        float((torch.from_numpy(found) - true).abs().max() / max(1.0, float(true.abs().max())))
        for found, true in zip(session.run(None, given), expected, strict=True)
    )


def _describe(path: Path, card: ModelCard, prompted: bool, results: Sequence[str]) -> None:
    """Writes into the file what its numbers mean."""
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, description_of(card, prompted, results))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def description_of(
    card: ModelCard, prompted: bool, results: Sequence[str] | None = None
) -> dict[str, str]:
    """The metadata of the file: what goes in and what comes out, and the card as JSON.

    Args:
        card: the model's card.
        prompted: whether the network is the one for prompts.
        results: names of the outputs; None for all.
    """
    from SAMFineTuneLib.slices.pixels import SAM_DEVIATION, SAM_MEAN

    size = card.input_size
    masks = size // find(card.backbone).mask_stride
    side = f"{masks}, {masks}"
    image = (
        f"float32 (1, 3, {size}, {size}): a slice whose intensities are mapped to 0 ... 1 by "
        "intensity_normalisation, resampled bilinearly so that its longer side in mm fills the "
        "square from the first row and column, then pixel_normalisation; a grey level is repeated "
        "in three channels"
    )
    inputs = {"image": image}
    outputs = {
        "logits": f"float32 (1, classes, {side}) of the whole square, background first; the "
        "class of a pixel is that of the largest logit, after bilinear interpolation to the slice; "
        "probabilities that tell how sure the model is are their softmax after a division by "
        "temperature in card",
        "iou_predictions": "float32 (1, classes): predicted intersection over union",
    }
    if prompted:
        inputs |= {
            "points": "float32 (1, N, 2): x and y in pixels of the square, pixel centres at "
            "half-integers; N from 1",
            "point_labels": "int64 (1, N): 1 on the structure, 0 beside it, -1 for no point",
            "box": "float32 (1, 4): left, top, right, bottom in the same pixels; NaN for none",
        }
        outputs = {
            "logits": f"float32 (1, 1, {side}) of the whole square; above 0 is the structure",
            "iou_prediction": "float32 (1, 1): predicted intersection over union",
        }
    kind = card.pixels or find(card.backbone).normalisation
    pixels: dict[str, Any] = {"kind": kind}
    if kind == "sam":
        pixels |= {"scale": 255, "mean": SAM_MEAN, "standard_deviation": SAM_DEVIATION}
    elif kind == "unit":
        pixels["mean_and_standard_deviation"] = "those of the intensity window"
    background = {"class": 0, "value": 0, "name": "background"}
    labels = [
        {"class": number, "value": each.value, "name": each.name}
        for number, each in enumerate(card.labels, start=1)
    ]
    told: dict[str, Any] = {
        "program": f"SAMFineTune {__version__}",
        "task": "prompted" if prompted else "automatic",
        "inputs": inputs,
        "outputs": {name: told for name, told in outputs.items() if name in (results or outputs)},
        "intensity_normalisation": card.normalisation.model_dump(),
        "pixel_normalisation": pixels,
        "labels": [] if prompted else [background, *labels],
        "axis": card.axis,
        "card": card.model_dump(),
    }
    return {
        name: each if isinstance(each, str) else json.dumps(each) for name, each in told.items()
    }
