"""The extension's sample: a real head, its lateral ventricles labelled on five slices.

It is made on the user's computer from three files of a brain atlas: those of an installed nilearn,
or else fetched once from nilearn's repository into Slicer's cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.folders import makeLibraryImportable, resourcePath

if TYPE_CHECKING:
    from SAMFineTuneLib.demo.sample_head import SampleHead
    from SAMFineTuneLib.volumes import Labelmap

CATEGORY = "SAMFineTune"
SAMPLE_NAME = "SAMFineTuneHead"
SEGMENTATION_NAME = "ventricles"
_LABELLED_SLICES = 5


def registerSampleData() -> None:
    """Add the sample to the module Sample Data. To be called once Slicer has started."""
    import SampleData

    makeLibraryImportable()
    from SAMFineTuneLib.demo.atlas_files import ATLAS_FILES

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        uris=[each.url for each in ATLAS_FILES],
        fileNames=[each.name for each in ATLAS_FILES],
        checksums=[f"SHA256:{each.sha256}" for each in ATLAS_FILES],
        # Three maps of an atlas are no example; the nodes are made from them.
        loadFiles=[False] * len(ATLAS_FILES),
        customDownloader=_onSampleChosen,
        thumbnailFileName=resourcePath(f"Icons/{SAMPLE_NAME}.png"),
    )


def _onSampleChosen(_source: object) -> None:
    with slicer.util.tryWithErrorDisplay(_("The sample could not be loaded."), waitCursor=True):
        loadSampleHead()


def loadSampleHead() -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode]:
    """The head and its segmentation as nodes of the scene, shown in the slice views.

    Raises:
        RuntimeError: the files are not on this computer and cannot be downloaded.
    """
    makeLibraryImportable()
    # SimpleITK takes a moment to load; the panel opens without it.
    from SAMFineTuneLib.demo.sample_head import few_slices, load_sample_head

    head = load_sample_head(_atlasFolder())
    labelled, numbers = few_slices(head.truth, _LABELLED_SLICES)
    volumeNode = _addVolume(head)
    segmentationNode = _addSegmentation(labelled, volumeNode)
    _show(volumeNode, numbers[len(numbers) // 2])
    return volumeNode, segmentationNode


def _atlasFolder() -> Path:
    from SAMFineTuneLib.demo.atlas_files import installed_atlas

    return installed_atlas() or _downloadAtlas()


def _downloadAtlas() -> Path:
    """Fetch what is not yet in Slicer's cache; the folder in which the three files lie."""
    import SampleData

    from SAMFineTuneLib.demo.atlas_files import ATLAS_FILES

    logic = SampleData.SampleDataLogic()
    for each in ATLAS_FILES:
        try:
            path = Path(logic.downloadFileIntoCache(each.url, each.name, f"SHA256:{each.sha256}"))
        except ValueError as error:
            text = _("{url} cannot be downloaded. Is there a connection to the internet?")
            raise RuntimeError(text.format(url=each.url)) from error
        # A file that is not the right one has been removed, but only the log has it.
        if not each.lies_in(path.parent):
            text = _("What came from {url} is damaged or has been changed. Try again later.")
            raise RuntimeError(text.format(url=each.url))
    return path.parent


def _addVolume(head: SampleHead) -> slicer.vtkMRMLScalarVolumeNode:
    import numpy as np

    # The library's coordinates are LPS, Slicer's are RAS.
    ijkToRAS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ head.truth.geometry.affine
    return slicer.util.addVolumeFromArray(head.image, ijkToRAS, SAMPLE_NAME)


def _addSegmentation(labelled: Labelmap, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
    from SAMFineTuneLib.demo.sample_head import VENTRICLES

    segmentationNode = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(SEGMENTATION_NAME)
    )
    segmentationNode.CreateDefaultDisplayNodes()
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    segmentation = segmentationNode.GetSegmentation()
    segmentID = segmentation.AddEmptySegment("", labelled.names[VENTRICLES], labelled.colours[VENTRICLES])
    segmentation.GetSegment(segmentID).SetTag(
        slicer.vtkSegment.GetTerminologyEntryTagName(), labelled.terminologies[VENTRICLES]
    )
    slicer.util.updateSegmentBinaryLabelmapFromArray(labelled.array, segmentationNode, segmentID, volumeNode)
    return segmentationNode


def _show(volumeNode: slicer.vtkMRMLScalarVolumeNode, number: int) -> None:
    """Show the volume in all slice views, the axial one at a slice that is labelled."""
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    ijkToRAS = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRAS)
    size = volumeNode.GetImageData().GetDimensions()
    place = ijkToRAS.MultiplyPoint([size[0] / 2, size[1] / 2, number, 1])[:3]
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.OffsetJumpSlice)
