"""The fields of job.json, checked in the same way when a job is written and when it is run."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from SAMFineTuneLib.adaptation.method import Method, Scope
from SAMFineTuneLib.adaptation.places import PARTS
from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import possible_path
from SAMFineTuneLib.heads.names import HEAD_DEPTHS, HeadName
from SAMFineTuneLib.image_endings import IMAGE_ENDINGS, SEGMENTATION_ENDINGS
from SAMFineTuneLib.jobs.cases import MOST_IMAGES, case_apart, cases_apart
from SAMFineTuneLib.networks.spec import BACKBONES, BackboneName
from SAMFineTuneLib.prompts.mode import PromptMode
from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge
from SAMFineTuneLib.training.presets import PRESETS, Preset
from SAMFineTuneLib.weights.weights_kind import WeightsKind
from SAMFineTuneLib.worker.json_text import to_json, write_json

SCHEMA_VERSION = 1
JOB_FILE = "job.json"
_LONGEST_UID = 64


def _numbers_or(*keywords: str, minimum: int) -> PlainValidator:
    """Accepts one of the keywords, or a list of whole numbers without repetition."""
    allowed = " or ".join([*(f'"{keyword}"' for keyword in keywords), "a list"])
    rule = f"must be {allowed} of whole numbers from {minimum} up, such as [3, 9]"

    def check(value: object) -> object:
        if isinstance(value, str) and value in keywords:
            return value
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(rule)
        if any(type(item) is not int or item < minimum for item in value):
            raise ValueError(rule)
        if len(set(value)) != len(value):
            raise ValueError("must not name a number twice")
        return list(value)

    return PlainValidator(check)


def _check_slices(value: object) -> object:
    """Accepts a list of slice numbers without repetition, which may be empty."""
    if not isinstance(value, list | tuple) or any(
        type(each) is not int or each < 0 for each in value
    ):
        raise ValueError("must be a list of whole numbers from 0 up, such as [3, 9]")
    if len(set(value)) != len(value):
        raise ValueError("must not name a number twice")
    return list(value)


def _check_extent(value: object) -> object:
    if value is None:
        return value
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be the first and the last slice, such as [3, 40]")
    first, last = value
    if any(type(each) is not int or each < 0 for each in value) or first > last:
        raise ValueError("must be two whole numbers from 0 up, the second not below the first")
    return first, last


def _check_on_top(value: object) -> object:
    """Accepts a list of names and labels; labels become text, as on the command line."""
    if not isinstance(value, list | tuple) or any(
        type(each) not in (str, int) or not str(each).strip() for each in value
    ):
        raise ValueError('must be a list of names or labels, the highest first, such as ["tumour"]')
    return [str(each) for each in value]


def _check_merge(value: dict[int, Any]) -> dict[int, Any]:
    """Accepts new labels with their parts; no label may be a part of two."""
    parts = [each for own in value.values() if own != "all" for each in own]
    if "all" in value.values() and len(value) > 1:
        raise ValueError("must not name further labels beside all")
    if not all(value.values()) or any(each < 1 for each in (*value, *parts)):
        raise ValueError("must give labels, whole numbers from 1 up, such as {3: [1, 2]}")
    if len(set(parts)) != len(parts):
        raise ValueError("must not name a label twice")
    return value


def _check_parts(value: object) -> object:
    if not isinstance(value, list | tuple) or not value or not set(value) <= set(PARTS):
        raise ValueError(f"must name some of {', '.join(PARTS)}")
    if len(set(value)) != len(value):
        raise ValueError("must not name a part twice")
    return list(value)


def _check_input_size(value: object) -> object:
    if value == "auto":
        return value
    if type(value) is not int or not 128 <= value <= 1024 or value % 16:
        raise ValueError('must be "auto" or a multiple of 16 from 128 to 1024')
    return value


def _check_path_text(value: object) -> object:
    # To pathlib an empty path is the current folder, which is never what is meant.
    if isinstance(value, str) and not value.strip():
        raise ValueError("must be the path of a file or a folder")
    return value


def _check_path(value: Path) -> Path:
    try:
        return possible_path(value)
    except InputError as error:
        raise ValueError(f"must be the path of a file or a folder: {error.message}") from error


def _check_series(value: object) -> object:
    if type(value) is int and value > 0:
        return str(value)
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _LONGEST_UID:
        raise ValueError("must be the number of a DICOM series in its folder, or its UID")
    return value.strip()


def _check_model_name(value: Path) -> Path:
    if not value.name.lower().endswith(".safetensors"):
        raise ValueError("must be the name of a file that ends in .safetensors")
    return value


FilePath = Annotated[Path, BeforeValidator(_check_path_text), AfterValidator(_check_path)]
Labels = Annotated[Literal["all"] | list[int], _numbers_or("all", minimum=1)]
LabelledSlices = Annotated[Literal["nonempty"] | list[int], _numbers_or("nonempty", minimum=0)]
EmptySlices = Annotated[
    Literal["auto", "outside", "none"] | list[int],
    _numbers_or("auto", "outside", "none", minimum=0),
]
Slices = Annotated[list[int], PlainValidator(_check_slices)]
Extent = Annotated[tuple[int, int] | None, PlainValidator(_check_extent)]
Merge = Annotated[dict[int, Literal["all"] | list[int]], AfterValidator(_check_merge)]
OnTop = Annotated[list[str], PlainValidator(_check_on_top)]
InputSize = Annotated[Literal["auto"] | int, PlainValidator(_check_input_size)]
AdapterBlocks = Annotated[
    Literal["auto", "first2last2", "all"] | list[int],
    _numbers_or("auto", "first2last2", "all", minimum=0),
]
LoraBlocks = Annotated[
    Literal["first2last2", "all"] | list[int], _numbers_or("first2last2", "all", minimum=0)
]
DecoderBlocks = Annotated[Literal["all", "none"] | list[int], _numbers_or("all", "none", minimum=0)]
LoraParts = Annotated[list[str], PlainValidator(_check_parts)]
Frame = Annotated[int, Field(ge=0)]
Frames = Annotated[list[int], _numbers_or(minimum=0)]
Series = Annotated[str, PlainValidator(_check_series)]
# The networks have three input channels, and the first image of a case is one of them.
Channels = Annotated[list[FilePath], Field(max_length=MOST_IMAGES - 1)]
Axis = Literal["axial", "coronal", "sagittal"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
# The largest values that make sense: a fine-tune of a month, and batches for the largest GPUs.
MOST_STEPS, MOST_MINUTES, LARGEST_BATCH = 10_000_000, 60.0 * 24 * 31, 512
LARGEST_RANK, LARGEST_SCALE = 256, 1000.0
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Minutes = Annotated[float, Field(gt=0, le=MOST_MINUTES, allow_inf_nan=False)]
Batch = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]
Rate = Annotated[float, Field(gt=0, le=10.0, allow_inf_nan=False)]
Millimetres = Annotated[float, Field(gt=0, le=10_000.0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=False)


class Example(_Record):
    """One labelled volume to learn from.

    Slice numbers count along `axis` from 0 in the index order of the volume's file.
    """

    volume: FilePath = Field(
        description="image file, which may be a picture (PNG, JPEG, TIFF, BMP), or DICOM folder"
    )
    segmentation: FilePath = Field(
        description="labels of the volume, in any geometry that lies over it: an image file, a "
        "DICOM segmentation (SEG), DICOM contours (RTSTRUCT), or a folder with one of these two; "
        "or a picture of the size of the volume, whose values, palette or colours are labels"
    )
    channels: Channels = Field(
        default_factory=list,
        description="further images of the same case, such as other contrasts, at most two; they "
        "are resampled onto the first one. Instead, `volume` may be a list of all images",
    )
    group: str = Field(
        "",
        description="examples that name the same group, such as frames of one patient, are held "
        "out together, as examples of one volume are",
    )
    labels: Labels = Field(
        "all", description="the labels to learn, by number in the segmentation, or all that occur"
    )
    label_names: dict[int, str] = Field(
        default_factory=dict,
        description="names of the labels, by number, instead of the names in the file. "
        "Labels of one name are one structure in all examples, whatever their numbers",
    )
    axis: Literal["auto", Axis] = Field(
        "auto",
        description="the axis of the slices; auto: the one with the widest spacing or, where no "
        "spacing is widest, the one on which the labels were drawn",
    )
    labelled: LabelledSlices = Field(
        "nonempty",
        description="nonempty: each label counts on the slices that show it, and is unknown on "
        "slices between that show only others; a list: slices on which every label is complete",
    )
    empty: EmptySlices = Field(
        "auto",
        description="slices known to hold none of the labels. outside: all slices beyond the "
        "labelled range; auto: the same without a margin as wide as the largest gap between "
        "labelled slices, and no slice where only one is labelled; none: no slice; or a list",
    )
    complete: Slices = Field(
        default_factory=list,
        description="further slices on which every label is complete: a label that is not drawn on "
        "one of them is absent there",
    )
    unfinished: Slices = Field(
        default_factory=list,
        description="slices whose labels do not count; nothing is known of them",
    )
    known_empty: Slices = Field(
        default_factory=list, description="further slices known to hold none of the labels"
    )
    extent: Extent = Field(
        None,
        description="the first and the last slice that hold any of the labels: all slices beyond "
        "are empty. It replaces outside, auto and none in `empty`; slices that `empty` lists stay "
        "empty",
    )
    on_top: OnTop = Field(
        default_factory=list,
        description="names or labels of segments that cover the others where segments of a file "
        "overlap; without it such a file is refused; the highest first",
    )
    merge: Merge = Field(
        default_factory=dict,
        description="labels that count as one: the new number and its parts, or all of them; "
        "`labels` and `label_names` count after merging",
    )
    series: Series | None = Field(
        None,
        description="which series of a DICOM folder that holds several: its UID, or its number in "
        "the list that is shown if none is chosen",
    )
    frame: Frame | None = Field(
        None,
        description="which frame of a volume with an axis of time was labelled, counted from 0; "
        "without it a segmentation of as many frames labels each frame on which it shows a label",
    )

    @property
    def images(self) -> list[Path]:
        """All images of the case, in their order."""
        return [self.volume, *self.channels]

    @property
    def slice_knowledge(self) -> SliceKnowledge:
        """What is stated about the slices of the volume."""
        return SliceKnowledge(
            labelled=self.labelled,
            empty=self.empty,
            complete=self.complete,
            unfinished=self.unfinished,
            known_empty=self.known_empty,
            extent=self.extent,
        )

    @field_validator("unfinished", "known_empty", mode="after")
    @classmethod
    def _in_no_other_list(cls, value: list[int], info: ValidationInfo) -> list[int]:
        contrary = {
            "unfinished": ("labelled", "empty", "complete"),
            "known_empty": ("complete", "unfinished"),
        }
        for name in contrary[str(info.field_name)]:
            # A field with a fault is missing here, and a keyword is no list of slices.
            other = info.data.get(name)
            common = set(value) & set(other) if isinstance(other, list) else set()
            if common:
                raise ValueError(f'must not name slice {min(common)}, which "{name}" names too')
        return value


class FinetuneJob(_Record):
    """Fine-tune a network on examples and write the tuned model.

    What is None or "auto" is chosen by the preset and the data.
    """

    kind: Literal["finetune"] = "finetune"
    schema_version: Literal[1] = 1
    image_list: FilePath | None = Field(
        None,
        description="instead of `examples`: a text file with an image and its mask on each line, "
        "separated by a comma, a semicolon, a tab or blanks; every label is complete in every mask",
    )
    validation_list: FilePath | None = Field(
        None,
        description="such a list to measure on; its images are never learnt from. Of a long one, "
        "up to 200 images are used, evenly spread",
    )
    images: FilePath | None = Field(
        None,
        description="the folder that names in lists are relative to, instead of that of the list",
    )
    skip_unreadable: bool = Field(
        False, description="go on without the images and masks of a list that cannot be read"
    )
    labels: Labels = Field(
        "all", description="the labels to learn of a list, by number, or all that occur"
    )
    merge: Merge = Field(
        default_factory=dict,
        description="labels of a list that count as one: the new number and its parts, or all of "
        "them; `labels` and `label_names` count after merging",
    )
    examples: list[Example] = Field(
        default_factory=list, description="the volumes to learn from, with their labels"
    )
    output: Annotated[FilePath, AfterValidator(_check_model_name)] = Field(
        description="the tuned model"
    )
    preset: Preset = Field("laptop", description="sets the fields that are not given")
    backbone: BackboneName = Field("starter", description="the network that is tuned")
    checkpoint: FilePath | None = Field(
        None,
        description="file of the backbone's weights; by default those that come with the program "
        "for starter, and the official ones for the others",
    )
    weights_kind: WeightsKind | None = Field(
        None,
        description="what the weights in `checkpoint` were trained as, which decides how pixels "
        "are normalised: sam, sslsam and supsam as for Segment Anything, medsam from 0 to 1, own "
        "as usual for the backbone",
    )
    weights: Literal["pretrained", "random"] = Field(
        "pretrained",
        description="random: begin with random weights, for comparison or where the pretrained "
        "weights are not available",
    )
    method: Literal["auto", Method] = Field(
        "auto",
        description="what is trained: small adapters, low-rank updates, or (vanilla) the weights "
        "themselves; of these only the parameters of normalisation layers (norm) or the biases "
        "(bias), beside the decoder's output layers; auto: all weights for the starter network, "
        "whose decoder begins with random weights, and adapters for the others",
    )
    scope: Literal["auto", Scope] = Field(
        "auto",
        description="where weights are trained; decoder: in the mask decoder alone; "
        "encoder_decoder and auto: in the image encoder as well",
    )
    rank: Annotated[int, Field(ge=1, le=LARGEST_RANK)] = Field(
        4, description="rank of the low-rank updates"
    )
    input_size: InputSize = Field(
        "auto",
        description="side of the network's square input in pixels: 256 to 1024, from 128 on for "
        "starter, and 128 to 512 for lite_medsam",
    )
    steps: Steps | None = Field(
        None,
        description="number of optimiser steps, instead of the preset's; if only one of `steps` "
        "and `minutes` is given, the preset's limit of the other does not apply",
    )
    minutes: Minutes | None = Field(None, description="time for the optimiser steps")
    batch: Batch | None = Field(None, description="slices in a step")
    learning_rate: Rate | None = Field(None, description="peak learning rate")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="on a CPU, the same seed gives the same model"
    )
    device: Device = Field("auto", description="where to compute")
    validation: Literal["auto", "none"] = Field(
        "auto",
        description="auto: some volumes or slices are held out and measured on, and if they are "
        "enough to tell, the best weights are kept; none: all are trained on",
    )
    initial_model: FilePath | None = Field(
        None, description="tuned model whose weights are tuned further, instead of the backbone's"
    )
    prompts: bool = Field(
        False,
        description="also tune a copy of the network for points and boxes, with which results are "
        "corrected; takes about two thirds as long again. If `initial_model` has such a copy, that "
        "one is tuned further",
    )
    label_names: dict[int, str] = Field(
        default_factory=dict,
        description="names of structures, by their number in the results, instead of the names in "
        "the first example that has them, or in `initial_model`. Labels of one name are one "
        "structure in all examples; a label with a number that is named here is also taken for "
        "this structure if an example names it otherwise and no other structure has that name",
    )
    head: Literal["auto", HeadName] = Field(
        "auto",
        description="what is put on the image encoder and finds the structures; auto: convnet for "
        "the preset loramednet, that of `initial_model` where one is given, and else mask_decoder",
    )
    head_depth: Annotated[int, Field(ge=HEAD_DEPTHS[0], le=HEAD_DEPTHS[-1])] | None = Field(
        None,
        description="number of blocks of the head convnet, 2 to 4; by default 4 for the preset "
        "loramednet, and else 2",
    )

    adapter_blocks: AdapterBlocks = Field(
        "auto",
        description="blocks of the image encoder that get adapters, counted from 0. first2last2: "
        "the first two and the last two, as in the study; all: every block, its A*; auto: every "
        "block of the starter network, which has 7, and first2last2 for the others",
    )
    lora_blocks: LoraBlocks = Field(
        "all", description="blocks of the image encoder that get low-rank updates"
    )
    lora_parts: LoraParts = Field(
        ["q", "v"],
        description="the layers of each block, and of the mask decoder's, that get low-rank "
        "updates: an attention's query, key, value and output projection, and both layers of an "
        "MLP. The blocks of the starter network's encoder have two convolutions instead, which get "
        "updates whatever the parts",
    )
    lora_scale: Annotated[float, Field(gt=0, le=LARGEST_SCALE, allow_inf_nan=False)] = Field(
        1.0,
        description="factor of the low-rank updates; elsewhere it is written as alpha / rank, so "
        "that an alpha of 16 with rank 4 is a scale of 4",
    )
    decoder_adapters: DecoderBlocks = Field(
        "all",
        description="blocks of the mask decoder's two-way transformer that get adapters, counted "
        "from 0; there are two",
    )
    prompt_mode: PromptMode = Field(
        "correction",
        description="which simulated prompts the copy for points and boxes learns from, and is "
        "measured with. correction: a box or a point, and further clicks into the error, from "
        "nothing or from a wrong mask; box, point, mixed: as in the study, for each connected "
        "region of a structure a box, a point, or one of them at random, and no clicks after",
    )
    tensorboard: FilePath | None = Field(
        None,
        description="also write loss, validation DSC and learning rate of the steps to this "
        "folder, for TensorBoard",
    )
    unlabelled: list[FilePath] = Field(
        default_factory=list,
        description="a volume without labels to learn from as well, such as one that is to be "
        "segmented: an image file or a DICOM folder. A step then takes about twice as long",
    )
    unlabelled_examples: bool | None = Field(
        None,
        description="learn from the other slices of the examples' volumes as well, as from "
        "`unlabelled`; by default with the preset thorough alone",
    )
    unlabelled_channels: list[Channels] = Field(
        default_factory=list,
        description="for each volume of `unlabelled` the further images of the same case, in the "
        "order of the examples; empty where an example is one image. Instead, an item of "
        "`unlabelled` may be a list of all images",
    )
    go_on: bool = Field(
        False,
        description="go on where the fine-tune of `initial_model` ended, with the same examples: a "
        "gentle restart at a third of the preset's learning rate, for the planned steps that are "
        "left and at least a quarter of the preset's. `output` may be the same file. Nothing is "
        "measured on slices that were learnt from before",
    )

    @model_validator(mode="after")
    def _depth_of_a_head_that_has_one(self) -> FinetuneJob:
        head = PRESETS[self.preset].head if self.head == "auto" else self.head
        if self.head_depth is not None and self.initial_model is None and head != "convnet":
            raise ValueError(f'"head_depth" goes with the "head" convnet, not with {head}')
        return self

    @model_validator(mode="after")
    def _model_to_go_on_from(self) -> FinetuneJob:
        if self.go_on and self.initial_model is None:
            raise ValueError('"go_on" goes with "initial_model"')
        return self

    @model_validator(mode="after")
    def _mode_of_prompts(self) -> FinetuneJob:
        if self.prompt_mode != "correction" and not self.prompts:
            raise ValueError('"prompt_mode" goes with "prompts"')
        return self

    @model_validator(mode="after")
    def _size_of_backbone(self) -> FinetuneJob:
        sizes = BACKBONES[self.backbone].input_sizes
        # A model that is tuned further brings its own backbone and size.
        if self.initial_model is None and self.input_size not in ("auto", *sizes):
            raise ValueError(
                f'"input_size" must be "auto" or, for backbone {self.backbone}, a multiple of '
                f"{sizes.step} from {sizes[0]} to {sizes[-1]}"
            )
        return self

    @model_validator(mode="after")
    def _examples_or_list(self) -> FinetuneJob:
        if self.image_list is None and not self.examples:
            raise ValueError('"examples" or "image_list" must say what to learn from')
        if self.image_list is not None and self.examples:
            raise ValueError('"examples" and "image_list" exclude each other')
        if self.image_list is not None and self.unlabelled_examples:
            raise ValueError('"unlabelled_examples" goes with "examples"')
        of_list = ("validation_list", "images", "skip_unreadable", "merge")
        if self.image_list is None and (
            self.labels != "all" or any(getattr(self, name) for name in of_list)
        ):
            named = ", ".join(f'"{name}"' for name in of_list)
            raise ValueError(f'{named} and "labels" go with "image_list"')
        if self.validation_list is not None and self.validation == "none":
            raise ValueError('"validation_list" and "validation": "none" exclude each other')
        return self

    @model_validator(mode="after")
    def _channels_of_unlabelled(self) -> FinetuneJob:
        further = self.unlabelled_channels
        if further and len(further) != len(self.unlabelled):
            raise ValueError('"unlabelled_channels" must have an item for each "unlabelled"')
        return self

    @model_validator(mode="after")
    def _other_slices_as_the_preset_says(self) -> FinetuneJob:
        # Settled here, so that a job equals one of an older program, which wrote false.
        if self.unlabelled_examples is None:
            by_preset = PRESETS[self.preset].unlabelled_examples
            self.unlabelled_examples = by_preset and self.image_list is None
        return self


class ApplyJob(_Record):
    """Segment whole volumes with a tuned model."""

    kind: Literal["apply"] = "apply"
    schema_version: Literal[1] = 1
    model: FilePath = Field(description="the tuned model")
    volumes: list[FilePath] = Field(
        default_factory=list,
        description="image file, which may be a picture (PNG, JPEG, TIFF, BMP), or DICOM folder",
    )
    image_list: FilePath | None = Field(
        None,
        description="instead of `volumes`: a text file with an image on each line; further columns "
        "are ignored",
    )
    images: FilePath | None = Field(
        None, description="the folder that names in the list are relative to"
    )
    skip_unreadable: bool = Field(
        False, description="go on without the images of the list that cannot be read"
    )
    channels: list[Channels] = Field(
        default_factory=list,
        description="for each volume the further images of the same case, in the order of the "
        "model; empty for a model of one image. Instead, an item of `volumes` may be a list of all "
        "images",
    )
    series: list[Series] = Field(
        default_factory=list,
        description="which series of a DICOM folder that holds several: its UID, or its number in "
        "the list that is shown if none is chosen; one for each volume that is a folder, in their "
        "order, or one for all",
    )
    output: FilePath = Field(
        description="a file (.nii.gz .nii .nrrd .seg.nrrd .mha .mhd; .seq.nrrd for several frames; "
        ".png .tif .bmp for a picture; .dcm for a DICOM volume: a DICOM segmentation that belongs "
        "to its series), or a folder, "
        "as for several volumes"
    )
    uncertainty: FilePath | None = Field(
        None,
        description="also write how uncertain the model is of each voxel, including voxels of "
        "slices that are drawn already: a file (.tif for a picture), or a folder, as for several "
        "volumes",
    )
    drawn: list[Example] = Field(
        default_factory=list,
        description="labels on slices of the volumes that are drawn already: they are kept, and "
        "the result between them also follows their shape; examples of other volumes are ignored",
    )
    frames: Frames | None = Field(
        None,
        description="which frames of a volume with an axis of time are segmented, counted from 0, "
        "such as [0, 3]; all others are empty in the result. Without it all frames are segmented",
    )
    largest_component: bool = Field(
        False, description="keep only the largest connected part of each label"
    )
    compress: bool = Field(
        True,
        description="compress the output; otherwise plain voxels are written if the format "
        "allows it, which are read much faster",
    )
    checkpoint: FilePath | None = Field(
        None,
        description="file of the weights of the backbone that the model was tuned from, if they "
        "are not in the cache",
    )
    device: Device = Field("auto", description="where to compute")
    batch: Batch | None = Field(None, description="slices computed at once")
    tidy: bool = Field(
        True,
        description="look at the volume as a whole: neighbouring slices that look alike decide "
        "together, and small regions apart from a structure that is in one piece on every example "
        "of the model are dropped; what is drawn stays",
    )

    def further_images(self, index: int) -> list[Path]:
        """The further images of the case of a volume."""
        return self.channels[index] if self.channels else []

    @model_validator(mode="after")
    def _volumes_or_list(self) -> ApplyJob:
        if self.image_list is None and not self.volumes:
            raise ValueError('"volumes" or "image_list" must say what to segment')
        excluded = ("volumes", "series", "drawn", "frames")
        if self.image_list is not None and any(getattr(self, name) for name in excluded):
            raise ValueError('"image_list" excludes "volumes", "series", "drawn" and "frames"')
        if self.image_list is None and (self.images or self.skip_unreadable):
            raise ValueError('"images" and "skip_unreadable" go with "image_list"')
        return self

    @model_validator(mode="after")
    def _outputs_fit(self) -> ApplyJob:
        if self.channels and len(self.channels) != len(self.volumes):
            raise ValueError('"channels" must have an item for each volume')
        for name, path, suffixes in (
            ("output", self.output, SEGMENTATION_ENDINGS),
            ("uncertainty", self.uncertainty, IMAGE_ENDINGS),
        ):
            if path is None:
                continue
            is_file = path.name.lower().endswith(suffixes)
            if (len(self.volumes) > 1 or self.image_list is not None) and is_file:
                raise ValueError(f'"{name}" must be a folder when there are several volumes')
            if not is_file and path.suffix and not path.is_dir():
                formats = " ".join(suffixes)
                raise ValueError(f'"{name}" must be a folder or end in one of {formats}')
        return self


class EvaluateJob(_Record):
    """Compare a segmentation with a reference: DSC, IoU, NSD at a tolerance in mm, and HD95."""

    kind: Literal["evaluate"] = "evaluate"
    schema_version: Literal[1] = 1
    prediction: FilePath | None = Field(None, description="the segmentation to measure")
    reference: FilePath | None = Field(
        None, description="the segmentation that is taken as the truth"
    )
    image_list: FilePath | None = Field(
        None,
        description="instead of one segmentation and its reference: a text file with both on each "
        "line or, with `predictions`, with an image and its reference",
    )
    predictions: FilePath | None = Field(
        None, description="folder that `apply` wrote the segmentations of the list's images to"
    )
    images: FilePath | None = Field(
        None, description="the folder that names in the list are relative to"
    )
    skip_unreadable: bool = Field(
        False, description="go on without the files of the list that cannot be read"
    )
    labels: Labels = Field(
        "all", description="the labels to measure, by number in the reference, or all that occur"
    )
    label_names: dict[int, str] = Field(
        default_factory=dict,
        description="names of the labels, by number. Labels of one name are one structure, "
        "whatever their numbers; a number that is named here is one structure even if the two "
        "files name it differently",
    )
    slices: Annotated[list[int] | None, _numbers_or(minimum=0)] | None = Field(
        None, description="only these slices of the reference, counted from 0 along the axis"
    )
    frames: Frames | None = Field(
        None,
        description="only these frames of segmentations with an axis of time, counted from 0; "
        "without it all on which the reference shows a label. A reference without an axis of time "
        "is compared with the one frame that is named here",
    )
    axis: Axis = Field("axial", description="the axis that `slices` count along")
    tolerance_mm: Millimetres = Field(
        2.0, description="surfaces that are closer than this, in mm, count as equal in the NSD"
    )
    merge: Merge = Field(
        default_factory=dict,
        description="labels of the reference that count as one: the new number and its parts, or "
        "all of them; `labels` and `label_names` count after merging",
    )
    on_top: OnTop = Field(
        default_factory=list,
        description="names or labels of segments that cover the others where segments of a file "
        "overlap; without it such a file is refused; the highest first",
    )
    output: FilePath | None = Field(
        None,
        description="also write the figures to this file; of a list, a table of all cases (.csv) "
        "or the same as JSON (.json)",
    )

    @model_validator(mode="after")
    def _pair_or_list(self) -> EvaluateJob:
        if self.image_list is None:
            if self.prediction is None or self.reference is None:
                missing = "prediction" if self.prediction is None else "reference"
                raise ValueError(f'"{missing}" must be given, or "image_list"')
            if self.predictions or self.images or self.skip_unreadable:
                raise ValueError(
                    '"predictions", "images" and "skip_unreadable" go with "image_list"'
                )
            return self
        if self.prediction is not None or self.reference is not None or self.frames:
            raise ValueError('"image_list" excludes "prediction", "reference" and "frames"')
        if self.output is not None and self.output.suffix.lower() not in (".csv", ".json"):
            raise ValueError('"output" must end in .csv or .json for a list')
        return self


class CheckpointJob(_Record):
    """Fetch the official weights of a backbone into the user's cache."""

    kind: Literal["checkpoint"] = "checkpoint"
    schema_version: Literal[1] = 1
    backbone: BackboneName = Field(description="the backbone whose weights are fetched")


Job = FinetuneJob | ApplyJob | EvaluateJob | CheckpointJob
AnyJob = TypeVar("AnyJob", FinetuneJob, ApplyJob, EvaluateJob, CheckpointJob)
_JOBS: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="kind")])
_KINDS: dict[str, type[_Record]] = {
    "finetune": FinetuneJob,
    "apply": ApplyJob,
    "evaluate": EvaluateJob,
    "checkpoint": CheckpointJob,
}


def names_an_image(path: Path) -> bool:
    """Whether a path has the ending of a file format in which images are written."""
    return path.name.lower().endswith(IMAGE_ENDINGS)


def names_a_dicom_segmentation(path: Path) -> bool:
    """Whether a path has the ending of DICOM segmentations (SEG)."""
    return path.name.lower().endswith(".dcm")


def make_job(
    job_type: type[AnyJob],
    fields: Mapping[str, Any],
    field_name: Callable[[str], str] | None = None,
) -> AnyJob:
    """A checked job from its fields.

    Args:
        job_type: FinetuneJob, ApplyJob, EvaluateJob or CheckpointJob.
        fields: the job's fields; missing ones take their defaults.
        field_name: how messages name a field; None says field "name".

    Raises:
        InputError: naming the first field that does not fit.
    """
    try:
        return job_type.model_validate(cases_apart(fields))
    except ValidationError as error:
        named = field_name or (lambda field: f'field "{field}"')
        raise _input_error(error, job_type, named, in_rules=field_name) from error


def read_examples(path: Path, defaults: Mapping[str, Any]) -> list[Example]:
    """Examples from a JSON list of objects with the fields of `Example`.

    Relative paths are taken from the folder of the file, or, where there is no such file, from
    the current folder.

    Args:
        path: the JSON file.
        defaults: values of the fields that an example leaves out.

    Raises:
        InputError: no such file, not JSON, not such a list, or a field that does not fit.
    """
    listed = _parse(_read_text(path), path)
    if not isinstance(listed, list) or not listed:
        raise InputError(
            f"{path} is not a list of examples",
            'Write [{"volume": "ct.nii.gz", "segmentation": "labels.nii.gz"}]',
            code="bad_examples",
        )
    return [
        _example(entry, f"{path}, example {n}", path, defaults) for n, entry in enumerate(listed)
    ]


def read_job(folder: Path) -> Job:
    """The job of a folder; relative paths in it are taken from that folder.

    Raises:
        InputError: job.json is missing, is not JSON, is newer than this program, or has an
            unknown field, a missing field or a value of the wrong type.
    """
    path = Path(folder) / JOB_FILE
    if not path.is_file():
        raise InputError(f"no {JOB_FILE} in {folder}", "Name the folder of a job", code="no_job")
    text = _read_text(path)
    data = _parse(text, path)
    if not isinstance(data, dict):
        raise InputError(
            f"{path} is not a JSON object",
            'Write its fields in braces, such as {"kind": "checkpoint", "backbone": "vit_t"}',
            code="bad_job",
        )
    _refuse_newer(data.get("schema_version"), path)
    apart = cases_apart(data)
    try:
        job = _JOBS.validate_json(text if apart == data else to_json(apart), strict=True)
    except ValidationError as error:
        model = _KINDS.get(str(data.get("kind")))
        raise _input_error(error, model, lambda field: f'{path}: field "{field}"') from error
    absolute: Job = _absolute(job, Path(folder).absolute())
    return absolute


def write_job(folder: Path, job: Job) -> Path:
    """Write job.json with absolute paths, atomically; returns its path.

    Relative paths are taken from the current folder.
    """
    path = Path(folder) / JOB_FILE
    write_json(path, with_absolute_paths(job))
    return path


def with_absolute_paths(job: Job) -> Job:
    """The same job, its relative paths taken from the current folder."""
    absolute: Job = _absolute(job, Path.cwd())
    return absolute


def _absolute(value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return base / value
    if isinstance(value, list):
        return [_absolute(item, base) for item in value]
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return value.model_copy(
            update={name: _absolute(getattr(value, name), base) for name in fields}
        )
    return value


def _example(entry: object, where: str, path: Path, defaults: Mapping[str, Any]) -> Example:
    if not isinstance(entry, dict):
        raise InputError(
            f"{where} is not an object",
            'Write {"volume": …, "segmentation": …}',
            code="bad_examples",
        )
    try:
        example = Example.model_validate_json(
            to_json(case_apart({**defaults, **entry}, where)), strict=True
        )
    except ValidationError as error:
        raise _input_error(error, Example, lambda field: f'{where}: field "{field}"') from error
    folder = path.absolute().parent
    beside = {
        name: folder / value
        for name, value in (("volume", example.volume), ("segmentation", example.segmentation))
        if (folder / value).exists() or not value.exists()
    }
    channels = [
        folder / each if (folder / each).exists() or not each.exists() else each
        for each in example.channels
    ]
    return example.model_copy(update={**beside, "channels": channels})


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "Save it as UTF-8", "not_utf8") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path} cannot be read: {reason}", "Check the name", code="no_such_file"
        ) from error


def _parse(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            "Correct it there",
            code="bad_job",
        ) from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply", "Write it anew", "bad_job") from error


def _refuse_newer(version: object, path: Path) -> None:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f'{path}: field "schema_version" is {version}, and this program knows up to '
            f"{SCHEMA_VERSION}",
            "Update SAMFineTune, or write the job again with this version",
            code="newer_job",
        )


def _input_error(
    error: ValidationError,
    model: type[BaseModel] | None,
    field_name: Callable[[str], str],
    in_rules: Callable[[str], str] | None = None,
) -> InputError:
    """One line for the first fault: which field, what was found, what is allowed.

    Args:
        error: what pydantic found.
        model: the kind of job, or the example.
        field_name: how the field at fault is named.
        in_rules: how a rule of several fields names each of them; None for its name in quotes.
    """
    faults = error.errors(include_url=False)
    fault = faults[0]
    steps = [step for step in fault["loc"] if step not in _KINDS]
    field = _dotted(steps)
    kind = str(fault["type"])
    if kind.startswith("union_tag"):
        field = "kind"
    name = field_name(field) if field else "the job"
    more = f" (and {counted(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
    if kind == "extra_forbidden":
        remedy = _known_fields(Example if len(steps) > 1 else model, str(steps[-1]))
        return InputError(f"{name} is unknown{more}", remedy, code="bad_job")
    if kind in ("missing", "union_tag_not_found"):
        return InputError(f"{name} is missing{more}", "Add it", code="bad_job")
    rule = _rule(fault)
    if not field and model is not None and in_rules is not None:
        known = "|".join(model.model_fields)
        rule = re.sub(f'"({known})"', lambda found: in_rules(found[1]), rule)
    return InputError(_found(name, fault, field) + more, rule, code="bad_job")


def _dotted(steps: list[int | str]) -> str:
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        # Pydantic marks members of a union and keys of a dictionary with brackets; these are no
        # field names.
        elif "[" not in step:
            text += f".{step}" if text else step
    return text


def _found(name: str, fault: Any, field: str) -> str:
    if not field:
        return f"{name} does not fit together"
    value = fault["input"]
    if str(fault["type"]).startswith("union_tag") and isinstance(value, dict):
        value = value.get("kind")
    shown = to_json(str(value) if isinstance(value, Path) else value)
    return f"{name} has the value {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _rule(fault: Any) -> str:
    if str(fault["type"]) == "string_pattern_mismatch":
        return "It must be auto, cpu, cuda, cuda:NUMBER or mps"
    if str(fault["type"]).startswith("union_tag"):
        return f"It must be one of {', '.join(_KINDS)}"
    if str(fault["type"]) == "too_long":
        most, found = (fault["ctx"][name] for name in ("max_length", "actual_length"))
        return f"It should have at most {most} items, not {found}"
    rule = str(fault["msg"]).removeprefix("Value error, ")
    if rule.startswith("Input should "):
        return "It should " + rule.removeprefix("Input should ")
    return rule[0].upper() + rule[1:] if rule.startswith('"') else f"It {rule}"


def _known_fields(model: type[BaseModel] | None, unknown: str) -> str:
    known = list(model.model_fields) if model else []
    close = difflib.get_close_matches(unknown, known, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known)}"
