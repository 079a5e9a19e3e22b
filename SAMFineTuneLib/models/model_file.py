"""The tuned model: one safetensors file with the changed tensors and a card.

The file holds the tensors that training changed; the others come from the backbone's checkpoint,
which the card names by its SHA-256. A model that started from random weights holds all of its
tensors, and so does a model of the starter network: it is small, and other versions of the program
come with other starter weights.
If the fine-tune also made weights for prompts, the file holds this second set too, under names that
begin with "prompts.", and its format version is 2, so that programs that know only the first set
refuse it with a message.
The card is JSON in the file's header, so that it can be read without loading a tensor. It holds
nothing about patients: no file names, no dates of birth, no image.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from SAMFineTuneLib import __version__
from SAMFineTuneLib.adaptation.places import USUAL_PLACES, Places
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.heads.names import DEFAULT_HEAD
from SAMFineTuneLib.models.card_check import fault_of, unique_keys
from SAMFineTuneLib.models.structure_shape import StructureShape
from SAMFineTuneLib.networks.spec import PixelNormalisation, find
from SAMFineTuneLib.slices.intensity import IntensityNormalisation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
    from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
    from SAMFineTuneLib.networks.network import SamNetwork

FORMAT = "SAMFineTune tuned model"
# The newest version that can be read. Version 1 has no weights for prompts. Version 3 is that of
# models for colour images, for several images of a case, or for weights that take pixels otherwise
# than usual for their backbone, with or without weights for prompts. Version 4 is that of models of
# Segment Anything's family, whose class decoders have a linear map, of straight grey curves, with
# another head than the mask decoder, or whose adaptation older programs do not know, such as
# adapters in other blocks, whatever else they have.
FORMAT_VERSION = 4
_AUTOMATIC_VERSION, _PROMPTS_VERSION, _CHANNELS_VERSION, _HEADS_VERSION = 1, 2, 3, 4
# The tensors that class decoders have since version 4; without them they are zero.
_LINEAR_MAP = ("mask_decoder.linear_weight", "mask_decoder.linear_bias")
_PROMPTS = "prompts."
# Parameters: more than MobileSAM has, and less than a ViT-B.
_MOST_BUILT_IN_MEMORY = 20_000_000
_HEADER_KEY = "samfinetune"
# The limit of safetensors itself; a file that begins with a larger number has another format.
_LARGEST_HEADER = 100_000_000
# Characters that end a line or a field of a file, or cannot be displayed.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LONGEST_NAME, _LONGEST_TERMINOLOGY = 1000, 10_000


class LabelCard(BaseModel):
    """A structure that the model finds; `terminology` describes it in 3D Slicer's coded terms.

    Both texts are kept on one line. A name is cut after 1000 characters; a terminology of more than
    10 000 characters is not valid and is dropped.
    """

    model_config = ConfigDict(extra="ignore")

    value: int
    name: str = ""
    colour: tuple[float, float, float] | None = None
    terminology: str = ""

    @field_validator("name", mode="after")
    @classmethod
    def _name_of_one_line(cls, value: str) -> str:
        return _CONTROL.sub(" ", value)[:_LONGEST_NAME].strip() if value else value

    @field_validator("terminology", mode="after")
    @classmethod
    def _terminology_of_one_line(cls, value: str) -> str:
        return "" if len(value) > _LONGEST_TERMINOLOGY else _CONTROL.sub(" ", value)


class Strategy(BaseModel):
    """How the network was adapted; the places are those of `adaptation.places.Places`."""

    model_config = ConfigDict(extra="ignore")

    method: str
    scope: str
    rank: int
    adapter_blocks: str | list[int] = "auto"
    lora_blocks: str | list[int] = "all"
    lora_parts: list[str] = Field(default_factory=lambda: ["q", "v"])
    lora_scale: float = 1.0
    decoder_adapters: str | list[int] = "all"

    @property
    def places(self) -> Places:
        """Where adapters and low-rank updates are."""
        return Places.of(self)

    @property
    def is_known_to_version_3(self) -> bool:
        """Whether older programs know the method and would put its modules at these places."""
        return self.method in ("vanilla", "adapter", "lora") and self.places == USUAL_PLACES


class PromptCard(BaseModel):
    """The set of weights that is tuned for prompts.

    Attributes:
        strategy: how the network was adapted.
        training: steps, batch and the like.
        mode: which simulated prompts it learnt from; see `prompts.mode`.
    """

    model_config = ConfigDict(extra="ignore")

    strategy: Strategy
    training: dict[str, Any] = Field(default_factory=dict)
    mode: str = "correction"

    @property
    def prompt_encoder_fixed(self) -> bool:
        """Whether the prompt encoder stayed as it was whatever the method, as in the study."""
        return self.mode != "correction"


class ModelCard(BaseModel):
    """Everything about a tuned model but its tensors.

    Attributes:
        format: always `FORMAT`.
        format_version: increased by changes of the format that older programs cannot read.
        created: date and time of creation, UTC, ISO 8601.
        backbone: name of the network; see `networks.spec`.
        checkpoint_sha256: SHA-256 of the backbone's weights; None if training started from random
            weights.
        strategy: how the network was adapted.
        labels: the structures that the model finds.
        axis: the axis of the slices that it was trained on.
        normalisation: the normalisation of intensities.
        input_size: side of the square input in pixels.
        channels: the names of the images of a case, in the order in which they are given; empty
            where a case is one image.
        pixels: how pixels are normalised, where the weights take them otherwise than usual for the
            backbone; None as usual.
        initial_weights: what the weights that training started from were trained as, if the user
            has named them; see `weights.weights_kind`.
        training: steps, batch and the like.
        data: counts of volumes and slices, nothing that identifies a patient.
        metrics: what was measured, and on what.
        prompts: the card of the weights tuned for prompts; None if there are none.
        versions: versions of the program and of the packages that it uses.
        head: what finds the structures; see `heads.names`.
        head_depth: of a head that has one; None for the others.
        shapes: what the examples show of the structures' shapes; empty in older models.
        temperature: by which logits are divided where probabilities are to tell how sure the model
            is; see `training.temperature`. 1 where it could not be measured, and in older models.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    format: str = FORMAT
    format_version: int = _AUTOMATIC_VERSION
    created: str = Field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds")
    )
    backbone: str
    checkpoint_sha256: str | None
    strategy: Strategy
    labels: list[LabelCard]
    axis: str
    normalisation: IntensityNormalisation
    input_size: int
    channels: list[str] = Field(default_factory=list)
    pixels: PixelNormalisation | None = None
    initial_weights: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    prompts: PromptCard | None = None
    versions: dict[str, str] = Field(default_factory=lambda: _versions())
    head: str = DEFAULT_HEAD
    head_depth: int | None = None
    shapes: list[StructureShape] = Field(default_factory=list)
    temperature: float = 1.0


def save_model(
    path: Path,
    segmenter: AutomaticSegmenter,
    card: ModelCard,
    prompted: PromptedSegmenter | None = None,
) -> None:
    """Writes the tuned model; the file appears whole or not at all.

    Args:
        path: the file.
        segmenter: the tuned network.
        card: the model's card.
        prompted: the network tuned for prompts, if the card has `prompts`.

    Raises:
        InputError: the file cannot be written.
        ValueError: the card does not describe the network, so that the file could not be loaded.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if (prompted is None) != (card.prompts is None):
        raise ValueError("the card and the networks do not agree on weights for prompts")
    kept = dict(_kept_tensors(segmenter, card))
    card = card.model_copy(update={"format_version": _version_of(card, kept)})
    _require_described(kept, card, segmenter)
    if prompted is not None:
        kept |= {_PROMPTS + name: each for name, each in _kept_tensors(prompted, card)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}
    try:
        with written_whole(path) as unfinished:
            save_file(tensors, unfinished, metadata={_HEADER_KEY: card.model_dump_json()})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write {path}: {error}",
            "free some space or choose another folder",
            code="cannot_write",
        ) from error


def _version_of(card: ModelCard, kept: Mapping[str, Tensor]) -> int:
    strategies = [card.strategy, *([card.prompts.strategy] if card.prompts else [])]
    known = all(each.is_known_to_version_3 for each in strategies)
    linear = any(name.endswith(_LINEAR_MAP) for name in kept)
    straight = card.normalisation.curve == "straight"
    drawn = card.prompts is not None and card.prompts.mode != "correction"
    if card.head != DEFAULT_HEAD or linear or straight or drawn or not known:
        return _HEADS_VERSION
    if card.normalisation.kind == "colour" or card.channels or card.pixels is not None:
        return _CHANNELS_VERSION
    return _AUTOMATIC_VERSION if card.prompts is None else _PROMPTS_VERSION


def read_card(path: Path) -> ModelCard:
    """The card of a tuned model; reads only the header and imports no tensor library.

    Raises:
        InputError: there is no such file, or it is damaged, no tuned model, or of a newer format.
    """
    text = _header(path).get("__metadata__", {}).get(_HEADER_KEY)
    if text is None:
        raise _unreadable(path, "is a safetensors file but not a tuned model of SAMFineTune")
    try:
        content = json.loads(text, object_pairs_hook=unique_keys)
        found = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, "has a damaged card") from error
    if type(found) is int and found > FORMAT_VERSION:
        raise InputError(
            f"{path.name} has format version {found if found < 10**9 else 'beyond 10^9'}; this "
            f"program reads up to {FORMAT_VERSION}",
            "update SAMFineTune, or save the model with an older version",
            code="newer_format",
        )
    if type(found) is not int or found < 1 or content.get("format", FORMAT) != FORMAT:
        raise _unreadable(path, "has a damaged card (format, format_version)")
    try:
        card = ModelCard.model_validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in fault["loc"])
        raise _unreadable(path, f"has a damaged card: {field}: {fault['msg']}") from error
    fault_found = fault_of(card)
    if fault_found is not None:
        raise _unreadable(path, f"has a damaged card: {fault_found}")
    return card


def load_model(
    path: Path,
    find_checkpoint: Callable[[ModelCard], Path],
    expected_backbone: str | None = None,
    card: ModelCard | None = None,
) -> tuple[AutomaticSegmenter, ModelCard]:
    """A tuned model ready to segment, on the CPU, in eval mode.

    Args:
        path: the tuned model.
        find_checkpoint: returns the file of the backbone's weights; called only if the card names
            some.
        expected_backbone: a model of another backbone is refused; None accepts every one.
        card: the model's card, if the caller has read it already.

    Raises:
        InputError: the file does not fit its card, the checkpoint or the expected backbone.
    """
    card = card or read_card(path)
    if expected_backbone is not None and card.backbone != expected_backbone:
        raise InputError(
            f"{path.name} was tuned from backbone {card.backbone}, not {expected_backbone}",
            f"choose backbone {card.backbone}, or another model",
            code="other_backbone",
            backbone=card.backbone,
        )
    segmenter = _automatic_network(card, find_checkpoint)
    _fill(path, segmenter, card, prefix="")
    return segmenter.eval(), card


def load_prompted(
    path: Path,
    find_checkpoint: Callable[[ModelCard], Path],
    card: ModelCard | None = None,
) -> tuple[PromptedSegmenter, ModelCard, bool]:
    """The network that finds masks from prompts, on the CPU, in eval mode.

    Args:
        path: the tuned model.
        find_checkpoint: returns the file of the backbone's weights; called only if the model's file
            does not hold all tensors that are needed.
        card: the model's card, if the caller has read it already.

    Returns:
        The network; the model's card; and whether the network is tuned for prompts. If the model
        has no weights for prompts, the network is the backbone as it is.

    Raises:
        InputError: the file does not fit its card or the checkpoint.
    """
    from SAMFineTuneLib.adaptation.strategy import adapt_for_prompts
    from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
    from SAMFineTuneLib.networks.build import build
    from SAMFineTuneLib.weights.official import load_checkpoint
    from SAMFineTuneLib.weights.weights_kind import pixels_of

    card = card or read_card(path)
    if card.prompts is None:
        # The preset of the automatic part may have normalised pixels otherwise than these weights
        # take them.
        kind: Any = card.initial_weights
        network = build(card.backbone, card.input_size, pixels_of(kind))
        load_checkpoint(network, find_checkpoint(card))
        return PromptedSegmenter(network).eval(), card, False
    network = _backbone_of(card, find_checkpoint)
    segmenter = PromptedSegmenter(network)
    strategy: Any = card.prompts.strategy
    adapt_for_prompts(
        network,
        strategy.method,
        strategy.scope,
        strategy.rank,
        strategy.places,
        card.prompts.prompt_encoder_fixed,
    )
    _fill(path, segmenter, card, prefix=_PROMPTS)
    return segmenter.eval(), card, True


def _automatic_network(
    card: ModelCard, find_checkpoint: Callable[[ModelCard], Path]
) -> AutomaticSegmenter:
    return _with_head(_backbone_of(card, find_checkpoint), card)


def _with_head(network: SamNetwork, card: ModelCard) -> AutomaticSegmenter:
    """The backbone with the head and the adaptation that the card names."""
    from SAMFineTuneLib.adaptation.strategy import adapt
    from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter

    strategy: Any = card.strategy
    head: Any = card.head
    segmenter = AutomaticSegmenter(network, len(card.labels), None, head, card.head_depth)
    adapt(network, strategy.method, strategy.scope, strategy.rank, strategy.places)
    return segmenter


def _require_described(
    kept: Mapping[str, Tensor], card: ModelCard, segmenter: AutomaticSegmenter
) -> None:
    """Refuses a network that the card would not build again.

    A large one is built without memory. The random numbers of one without memory make PyTorch load
    its compiler, which takes 3 s and as long again when the process ends; a small one is built in
    0.1 s.
    """
    import torch

    from SAMFineTuneLib.networks.build import build

    parameters = sum(each.numel() for each in segmenter.parameters())
    device = "meta" if parameters > _MOST_BUILT_IN_MEMORY else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        described = _with_head(build(card.backbone, card.input_size, card.pixels), card)
    shapes = {name: tensor.shape for name, tensor in _kept_tensors(described, card)}
    if shapes != {name: tensor.shape for name, tensor in kept.items()}:
        different = sorted(
            name
            for name in shapes.keys() | kept.keys()
            if name not in kept or shapes.get(name) != kept[name].shape
        )
        raise ValueError(f"the card does not describe the network; see {', '.join(different[:3])}")


def _backbone_of(card: ModelCard, find_checkpoint: Callable[[ModelCard], Path]) -> SamNetwork:
    """The backbone; its weights are loaded if the model's file holds only the changed tensors."""
    from SAMFineTuneLib.networks.build import build
    from SAMFineTuneLib.weights.official import load_checkpoint

    network = build(card.backbone, card.input_size, card.pixels)
    if _needs_checkpoint(card):
        assert card.checkpoint_sha256 is not None
        loaded = load_checkpoint(network, find_checkpoint(card))
        if loaded.sha256 != card.checkpoint_sha256:
            raise InputError(
                f"the model was tuned from other {card.backbone} weights "
                f"(SHA-256 {card.checkpoint_sha256[:12]}…) than {loaded.path.name} "
                f"({loaded.sha256[:12]}…)",
                "give the weights that it was tuned from",
                code="other_checkpoint",
            )
    return network


def _fill(path: Path, network: nn.Module, card: ModelCard, prefix: str) -> None:
    """Loads one set of the file's tensors into its network.

    Args:
        path: the tuned model.
        network: the network of this set.
        card: the model's card.
        prefix: what the names of the set's tensors begin with in the file.

    Raises:
        InputError: the tensors are damaged or do not fit the network.
    """
    import torch

    tensors = _tensors(path, card, prefix)
    own = network.state_dict()
    floating = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    needed = {name for name, _ in _kept_tensors(network, card)}
    if card.format_version < _HEADS_VERSION:
        needed = {name for name in needed if not name.endswith(_LINEAR_MAP)}
    for name in sorted(needed ^ set(tensors)):
        what = "lacks" if name in needed else "holds an unknown tensor"
        raise _unreadable(path, f"does not fit its own card: it {what} {prefix}{name}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise _unreadable(
                path,
                f"does not fit its own card: {prefix}{name} is {tuple(tensor.shape)}, "
                f"not {tuple(own[name].shape)}",
            )
        own_type = own[name].dtype
        if tensor.dtype not in (floating if own_type.is_floating_point else (own_type,)):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise _unreadable(path, f"is damaged: {prefix}{name} is of type {kind}")
        # Checked in the network's own type, because a value of a larger type may overflow in it.
        if not torch.isfinite(tensor.to(own_type)).all():
            raise _unreadable(path, f"is damaged: {prefix}{name} holds NaN or infinity")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _tensors(path: Path, card: ModelCard, prefix: str) -> dict[str, Tensor]:
    """The tensors of one set; if the card has no `prompts`, all belong to the automatic one."""
    from SAMFineTuneLib.tensor_file import UNREADABLE, tensors_of

    def belongs(name: str) -> bool:
        return card.prompts is None or name.startswith(_PROMPTS) == bool(prefix)

    try:
        tensors = tensors_of(path)
    except UNREADABLE as error:
        raise _unreadable(path, "is damaged or incomplete") from error
    return {name[len(prefix) :]: each for name, each in tensors.items() if belongs(name)}


def _kept_tensors(segmenter: nn.Module, card: ModelCard) -> list[tuple[str, Tensor]]:
    tensors = dict(segmenter.state_dict())
    if _needs_checkpoint(card):
        trained = {name for name, each in segmenter.named_parameters() if each.requires_grad}
        return [(name, tensor) for name, tensor in tensors.items() if name in trained]
    return list(tensors.items())


def _needs_checkpoint(card: ModelCard) -> bool:
    return card.checkpoint_sha256 is not None and find(card.backbone).bundled is None


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _LARGEST_HEADER:
                raise _unreadable(path, "is not a tuned model")
            text = file.read(length)
    except OSError as error:
        raise InputError(
            f"cannot read the model {path}: {error.strerror or error}",
            "check the name of the file",
            code="no_such_file",
        ) from error
    if len(text) < length:
        raise _unreadable(path, "is not a tuned model, or is cut off")
    try:
        header = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "is not a tuned model, or is damaged") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise _unreadable(path, "is not a tuned model")
    _refuse_incomplete(path, header, 8 + length)
    return header


def _refuse_incomplete(path: Path, header: dict[str, Any], start: int) -> None:
    try:
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
        complete = path.stat().st_size == start + max(ends, default=0)
    except (TypeError, KeyError, IndexError) as error:
        raise _unreadable(path, "is not a tuned model, or is damaged") from error
    if not complete:
        raise _unreadable(path, "is damaged: its size is not what its header says")


def _unreadable(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path.name} {problem}", "choose the .safetensors file of a tuned model", code="bad_model"
    )


def _versions() -> dict[str, str]:
    found = {"SAMFineTune": __version__, "python": platform.python_version()}
    for package in ("torch", "segment-anything", "mobilesam-mirror", "SimpleITK", "monai", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
