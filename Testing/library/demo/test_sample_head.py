from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from SAMFineTuneLib.demo import atlas_files
from SAMFineTuneLib.demo.atlas_files import ATLAS_FILES, AtlasFile, installed_atlas
from SAMFineTuneLib.demo.sample_head import (
    VENTRICLES,
    SampleHead,
    few_slices,
    load_sample_head,
    write_sample,
)
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_labelmap, read_volume
from Testing.support.repository import REPOSITORY


@pytest.fixture(scope="module")
def head() -> SampleHead:
    if installed_atlas() is None:
        pytest.skip("nilearn, from which the head is taken, is not installed")
    return load_sample_head()


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_head_and_label_are_those_of_nilearns_own_loaders(head):
    # Both were recorded with nilearn.datasets.load_mni152_*_template of nilearn 0.14.1.
    assert digest(head.image) == "f76b9b5d8ce99185e454d8dc60cc01bfa098650cfc8aa8b147176b97f2374efc"
    assert (
        digest(head.truth.array)
        == "2f42e9ea27339afe107ab587d2dab72232ef544a64754af73acb0f8a05e45ad8"
    )
    assert head.truth.geometry.origin == (98.0, 134.0, -72.0)
    assert head.truth.geometry.direction == (-1, 0, 0, 0, -1, 0, 0, 0, 1)


def test_ventricles_lie_on_both_sides_of_the_middle(head):
    k, j, i = np.nonzero(head.truth.array)
    places = np.stack([i, j, k, np.ones_like(i)]).T @ head.truth.geometry.affine.T

    right = places[places[:, 0] < 0]
    left = places[places[:, 0] > 0]
    assert len(right) == pytest.approx(len(left), rel=0.1)
    # Lateral ventricles: 7 to 40 ml together in adults.
    assert 7 < len(places) * head.truth.geometry.voxel_ml < 40


def test_few_slices_keep_the_whole_label_on_evenly_spaced_slices(head):
    labelled, shown = few_slices(head.truth, 5)

    assert shown == [68, 76, 84, 92, 100]
    assert np.flatnonzero(labelled.array.any(axis=(1, 2))).tolist() == shown
    assert (labelled.array[shown] == head.truth.array[shown]).all()
    assert labelled.names == head.truth.names
    assert head.truth.array[70].any(), "the truth keeps the others"


def test_sample_is_written_with_name_colour_and_meaning(head, tmp_path):
    shown = write_sample(head, tmp_path, 3)

    labelled = read_labelmap(tmp_path / "labelled.seg.nrrd")
    assert labelled.names == {VENTRICLES: "lateral ventricles"}
    assert labelled.colours[VENTRICLES] == pytest.approx((88 / 255, 106 / 255, 215 / 255), abs=1e-4)
    # The code of SNOMED CT for a lateral ventricle.
    assert "~SCT^66720007^Lateral ventricle~" in labelled.terminologies[VENTRICLES]
    assert np.flatnonzero(labelled.array.any(axis=(1, 2))).tolist() == shown
    assert read_volume(tmp_path / "head.nii.gz").geometry.same_as(head.truth.geometry)


def test_without_nilearn_the_words_say_what_to_install(monkeypatch):
    monkeypatch.setattr(atlas_files, "find_spec", lambda name: None)
    assert installed_atlas() is None

    with pytest.raises(InputError, match="pip install nilearn"):
        load_sample_head()


def test_an_atlas_with_other_files_is_not_taken(monkeypatch, tmp_path):
    data = tmp_path / "nilearn" / "datasets" / "data"
    data.mkdir(parents=True)
    for each in ATLAS_FILES:
        (data / each.name).write_bytes(b"another head")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nilearn" / "__init__.py").write_text("raise ImportError('not to be imported')")
    assert installed_atlas() is None

    content = hashlib.sha256(b"another head").hexdigest()
    same = tuple(AtlasFile(each.name, content) for each in ATLAS_FILES)
    monkeypatch.setattr(atlas_files, "ATLAS_FILES", same)
    assert installed_atlas() == data


def test_addresses_name_one_release():
    for each in ATLAS_FILES:
        assert each.url == (
            "https://raw.githubusercontent.com/nilearn/nilearn/0.14.0/nilearn/datasets/data/"
            + each.name
        )


def test_the_head_needs_no_more_than_slicers_own_packages():
    """Slicer's Python has numpy and SimpleITK; the sample comes before anything is installed."""
    folder = installed_atlas()
    if folder is None:
        pytest.skip("nilearn, from which the head is taken, is not installed")
    code = f"""
import sys
from pathlib import Path
before = set(sys.modules)
from SAMFineTuneLib.demo.sample_head import few_slices, load_sample_head
few_slices(load_sample_head(Path({str(folder)!r})).truth, 5)
print(*sorted({{name.partition('.')[0] for name in set(sys.modules) - before}}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = set(ended.stdout.split())

    assert {"numpy", "SimpleITK"} <= found
    foreign = {name for name in found if not _comes_with_slicer(name)}
    assert not foreign


def _comes_with_slicer(name: str) -> bool:
    # SimpleITK's wrapping makes itself a module of its own.
    own = {"SAMFineTuneLib", "numpy", "SimpleITK", "swig_runtime_data5"}
    return name in own or name in sys.stdlib_module_names or name.startswith("_")


def test_a_folder_without_the_files_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        load_sample_head(tmp_path)
