"""What the scene remembers of the module: saved with it, and there again when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper, parameterPack

if TYPE_CHECKING:
    from slicer import vtkMRMLScriptedModuleNode


@parameterPack
class Example:
    """A volume with a segmentation of which some slices are labelled.

    Slices are numbered from 0 along the volume's own voxel axis.
    """

    if TYPE_CHECKING:
        # Made by Slicer's decorator, which type checkers cannot look into.
        def __init__(self, **values: Any) -> None: ...

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    # Further images of the same case, such as a FLAIR beside a T1; at most two, in one order in all examples.
    channels: list[vtkMRMLScalarVolumeNode]
    # Index value of the item on which a volume that shows a sequence was labelled; "" for the one in view.
    frame: str = ""
    # The segments to learn; an empty list means all.
    segmentIDs: list[str]
    # "auto", "axial", "coronal" or "sagittal".
    orientation: str = "auto"
    # Every chosen segment is complete on these slices; those not to be seen are not there.
    complete: list[int]
    # What is painted on these slices does not count yet.
    unfinished: list[int]
    # None of the segments is on these slices.
    empty: list[int]
    # The first and the last slice that hold anything; -1 where nobody has said.
    first: int = -1
    last: int = -1


@parameterNodeWrapper
class SAMFineTuneParameterNode:
    """Everything that the panel lets one choose; "" and 0 mean: chosen by the program."""

    if TYPE_CHECKING:
        # Made by Slicer's decorator, which type checkers cannot look into.
        def __init__(self, parameterNode: vtkMRMLScriptedModuleNode) -> None: ...

        def connectGui(self, widgets: Any) -> int:
            """Keep widgets and parameters in step; the number is for `disconnectGui`."""

        def disconnectGui(self, tag: int) -> None:
            """Undo `connectGui`."""

    examples: list[Example]

    modelName: str = ""
    preset: str = ""
    backbone: str = "starter"
    checkpoint: str = ""
    # What the weights in that file were trained as, as the library calls it; "" is as usual for the backbone.
    weightsKind: str = ""
    device: str = "auto"
    method: str = "auto"
    scope: str = "auto"
    rank: int = 4
    head: str = "auto"
    headDepth: int = 0
    # Blocks of the image encoder, and the layers of these blocks with commas between them, as the library calls them.
    adapterBlocks: str = "auto"
    loraBlocks: str = "all"
    loraParts: str = "q,v"
    inputSize: int = 0
    steps: int = 0
    minutes: float = 0.0
    seed: int = 0
    startFrom: str = ""
    # This does not count where there is a tuned model to start from.
    randomWeights: bool = False
    # Whether a second set of weights is tuned, for points and boxes.
    tuneForPrompts: bool = True
    # Which simulated prompts these weights learn from, as the library calls it.
    promptMode: str = "correction"

    applyModel: str = ""
    applyVolumes: list[vtkMRMLScalarVolumeNode]
    # The further images of the one volume that is chosen, for a model that takes several.
    applyChannels: list[vtkMRMLScalarVolumeNode]
    # Every frame of the sequence that the one volume shows.
    applyAllFrames: bool = False
    applySegmentation: vtkMRMLSegmentationNode
    # Whether the segmentation is tidied up across slices, as the library's field of this name says.
    tidy: bool = True
    largestComponent: bool = False
    makeUncertainty: bool = False
    show3D: bool = False
    keepKnown: bool = True

    correctVolume: vtkMRMLScalarVolumeNode
    correctSegmentation: vtkMRMLSegmentationNode
    # ID of the segment.
    correctSegment: str = ""
    # "" is the backbone as it is.
    correctModel: str = ""
    # "auto", "segment", "model" or "nothing".
    correctStart: str = "auto"
    # 0 is as far as the structure goes.
    propagateSlices: int = 10

    # Volumes without labels that a fine-tune learns from as well.
    unlabelledVolumes: list[vtkMRMLScalarVolumeNode]
    # Whether these are the ones that are chosen under Apply, whichever they are; the list above does not count then.
    unlabelledOfApply: bool = False
    # Whether the other slices of the examples are learnt from without labels: "yes", "no", or "" as the preset says.
    otherSlices: str = ""


def parameterNodeOfScene() -> SAMFineTuneParameterNode | None:
    """What the scene remembers of the module; None where nobody has used it yet."""
    node = slicer.mrmlScene.GetSingletonNode("SAMFineTune", "vtkMRMLScriptedModuleNode")
    return SAMFineTuneParameterNode(node) if node is not None else None


# The parameters that `strategyOf` passes on where they have an effect.
STRATEGY = frozenset(
    ("method", "scope", "rank", "promptMode", "head", "headDepth", "adapterBlocks", "loraBlocks", "loraParts")
)


def strategyOf(node: SAMFineTuneParameterNode) -> dict[str, Any]:
    """What the scene says of head, adaptation and prompts, by the logic's names, without what has no effect in it."""
    strategy: dict[str, Any] = {"method": node.method, "scope": node.scope}
    if node.method == "lora":
        strategy["rank"] = node.rank
    if node.tuneForPrompts:
        strategy["promptMode"] = node.promptMode
    if node.startFrom:
        # The tuned model says the rest.
        return strategy
    strategy["head"] = node.head
    if node.head == "convnet":
        strategy["headDepth"] = node.headDepth
    if node.method == "lora":
        strategy["loraParts"] = node.loraParts.split(",")
    if node.method == "lora" and node.scope != "decoder":
        strategy["loraBlocks"] = node.loraBlocks
    if node.method == "adapter" and node.scope != "decoder":
        strategy["adapterBlocks"] = node.adapterBlocks
    return strategy


def unlabelledVolumesOf(node: SAMFineTuneParameterNode) -> list[vtkMRMLScalarVolumeNode]:
    """The volumes without labels that are learnt from as well, without those that have left the scene."""
    chosen = node.applyVolumes if node.unlabelledOfApply else node.unlabelledVolumes
    return [each for each in chosen if each is not None]


def beginsAtRandom(node: SAMFineTuneParameterNode) -> bool:
    """Whether a fine-tune is to begin with a network that has learnt nothing."""
    return node.randomWeights and not node.startFrom
