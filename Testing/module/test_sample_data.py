"""The sample in Slicer's Sample Data module: from the atlas's three files to nodes of the scene."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from SAMFineTuneLib.demo import atlas_files
from SAMFineTuneLib.demo.atlas_files import ATLAS_FILES, installed_atlas
from Testing.support.time_limits import within

LABELLED = [68, 76, 84, 92, 100]


@pytest.fixture
def sample_data(module, scene):
    import SAMFineTunePanel.scene.sample_data

    if installed_atlas() is None:
        pytest.skip("nilearn, from which the head is taken, is not installed")
    return SAMFineTunePanel.scene.sample_data


@pytest.fixture
def repository(sample_data, monkeypatch, tmp_path) -> Path:
    """A folder in place of nilearn's repository, from which the files are to be downloaded."""
    import slicer

    folder = tmp_path / "repository"
    data = folder / "nilearn" / "datasets" / "data"
    data.mkdir(parents=True)
    for each in ATLAS_FILES:
        shutil.copyfile(installed_atlas() / each.name, data / each.name)
    monkeypatch.setattr(atlas_files, "_REPOSITORY", folder.as_uri())
    monkeypatch.setattr(atlas_files, "installed_atlas", lambda: None)
    cache = tmp_path / "cache"
    manager = slicer.mrmlScene.GetCacheManager()
    before = manager.GetRemoteCacheDirectory()
    manager.SetRemoteCacheDirectory(str(cache))
    yield data
    manager.SetRemoteCacheDirectory(before)


def sources(category: str) -> list:
    import slicer

    return slicer.modules.sampleDataSources.get(category, [])


def nodes(class_name: str) -> list:
    import slicer

    return slicer.util.getNodesByClass(class_name)


def labelled_slices(volume, segmentation) -> list[int]:
    import slicer

    segment = segmentation.GetSegmentation().GetNthSegmentID(0)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
    return np.flatnonzero(array.any(axis=(1, 2))).tolist()


def test_sample_is_there_once_slicer_has_started(sample_data):
    assert [source.sampleName for source in sources("SAMFineTune")] == ["SAMFineTuneHead"]


def test_sample_is_registered_once_with_files_checksums_and_thumbnail(sample_data):
    sample_data.registerSampleData()
    sample_data.registerSampleData()

    (source,) = sources("SAMFineTune")
    assert source.sampleName == "SAMFineTuneHead"
    assert source.uris == [each.url for each in ATLAS_FILES]
    assert source.checksums == [f"SHA256:{each.sha256}" for each in ATLAS_FILES]
    assert source.fileNames == [each.name for each in ATLAS_FILES]
    assert Path(source.thumbnailFileName).is_file()


def test_head_becomes_a_volume_with_a_named_coloured_and_coded_segment(sample_data):
    import slicer
    import vtk

    with within(10, "loading the sample, half a second on an idle machine"):
        volume, segmentation = sample_data.loadSampleHead()

    assert volume.GetName() == "SAMFineTuneHead"
    assert segmentation.GetName() == "ventricles"
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "lateral ventricles"
    assert segment.GetColor() == pytest.approx((88 / 255, 106 / 255, 215 / 255))
    tag = vtk.reference("")
    assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
    assert "~SCT^66720007^Lateral ventricle~" in str(tag)
    assert labelled_slices(volume, segmentation) == LABELLED


def test_head_lies_where_the_atlas_lies(sample_data):
    import slicer

    volume, segmentation = sample_data.loadSampleHead()

    ijk_to_ras = slicer.util.vtkMatrixFromArray(np.eye(4))
    volume.GetIJKToRASMatrix(ijk_to_ras)
    matrix = slicer.util.arrayFromVTKMatrix(ijk_to_ras)
    # Voxel (98, 134, 72) is the anterior commissure, the origin of the atlas's space.
    assert (matrix @ [98, 134, 72, 1]).tolist() == [0, 0, 0, 1]
    assert (matrix @ [99, 135, 73, 1]).tolist() == [1, 1, 1, 1]
    assert (
        segmentation.GetNodeReference(
            slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        )
        is volume
    )


def test_a_second_head_does_not_take_the_name_of_the_first(sample_data):
    first, second = sample_data.loadSampleHead(), sample_data.loadSampleHead()

    assert len({first[1].GetName(), second[1].GetName()}) == 2
    assert labelled_slices(*second) == LABELLED


def test_choosing_the_sample_loads_it(sample_data):
    sample_data.registerSampleData()
    (source,) = sources("SAMFineTune")

    source.customDownloader(source)

    assert [node.GetName() for node in nodes("vtkMRMLSegmentationNode")] == ["ventricles"]


def test_without_nilearn_the_files_are_downloaded_once(sample_data, repository):
    volume, segmentation = sample_data.loadSampleHead()
    assert labelled_slices(volume, segmentation) == LABELLED

    # Where the files came from is gone: the second time they are in Slicer's cache.
    shutil.rmtree(repository)
    volume, segmentation = sample_data.loadSampleHead()
    assert labelled_slices(volume, segmentation) == LABELLED


def test_a_file_that_has_been_changed_is_not_used(sample_data, repository):
    (repository / ATLAS_FILES[1].name).write_bytes(b"not what it was")

    with pytest.raises(RuntimeError, match="damaged or has been changed"):
        sample_data.loadSampleHead()
    assert nodes("vtkMRMLScalarVolumeNode") == []


def test_without_a_connection_the_words_say_so(sample_data, repository):
    shutil.rmtree(repository)

    with pytest.raises(RuntimeError, match="cannot be downloaded"):
        sample_data.loadSampleHead()
    assert nodes("vtkMRMLSegmentationNode") == []
