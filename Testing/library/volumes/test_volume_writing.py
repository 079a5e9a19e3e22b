"""Volumes and labelmaps are written, and read back as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.volumes import (
    Labelmap,
    check_writable,
    labelmap_onto,
    read_labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)
from Testing.support.repository import REPOSITORY
from Testing.support.volume_geometries import (
    CUBE,
    LIVER,
    PLAIN,
    SUFFIXES,
    random_labelmap,
    refused,
    reoriented,
)


class TestWriting:
    @pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd"])
    def test_names_and_colours_survive_in_nrrd(self, tmp_path, suffix):
        names = {1: "Leber links", 2: "肝臓 & Rippe", 3: "no\nbreak"}
        colours = {1: (0.5, 0.25, 1.0), 2: (0.0, 0.0, 0.0)}
        source = random_labelmap(PLAIN)
        write_labelmap(tmp_path / f"s{suffix}", Labelmap(source.array, PLAIN, names, colours))
        read = read_labelmap(tmp_path / f"s{suffix}")
        assert read.names == {**names, 3: "no break"}
        assert {label: read.colours[label] for label in colours} == colours
        np.testing.assert_array_equal(read.array, source.array)

    @pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd"])
    def test_terms_survive_in_nrrd(self, tmp_path, suffix):
        source = random_labelmap(PLAIN)
        written = replace(source, terminologies={1: LIVER, 3: "not | a\nterm"})
        write_labelmap(tmp_path / f"s{suffix}", written)
        read = read_labelmap(tmp_path / f"s{suffix}")
        assert read.terminologies == {1: LIVER, 3: "not a term"}
        write_labelmap(tmp_path / "again.seg.nrrd", read)
        assert read_labelmap(tmp_path / "again.seg.nrrd").terminologies == read.terminologies

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            (f"TerminologyEntry:{LIVER}|Segmentation.Status:completed|", {7: LIVER}),
            (f"Segmentation.Status:inprogress|TerminologyEntry:{LIVER}|", {7: LIVER}),
            (f"TerminologyEntry:{LIVER}", {7: LIVER}),
            ("Segmentation.Status:inprogress|", {}),
            ("TerminologyEntry:|", {}),
            ("My.TerminologyEntry:a|", {}),
            ("TerminologyEntry", {}),
            ("|||:|", {}),
        ],
    )
    def test_tags_as_slicer_may_write_them(self, tmp_path, tags, expected):
        array = np.zeros(PLAIN.shape, np.uint8)
        array[1, 2, 3] = 7
        write_labelmap(tmp_path / "s.seg.nrrd", Labelmap(array, PLAIN, {7: "liver"}))
        content = (tmp_path / "s.seg.nrrd").read_bytes()
        assert content.count(b"Segment0_Tags:=|") == 1
        content = content.replace(b"Segment0_Tags:=|", f"Segment0_Tags:={tags}".encode())
        (tmp_path / "s.seg.nrrd").write_bytes(content)
        read = read_labelmap(tmp_path / "s.seg.nrrd")
        assert read.terminologies == expected and read.names == {7: "liver"}

    def test_terms_stay_with_their_labels_on_another_grid(self):
        source = replace(random_labelmap(PLAIN), terminologies={2: LIVER})
        flipped = reoriented(source, (0, 1, 2), (True, False, False)).geometry
        assert labelmap_onto(source, flipped).terminologies == {2: LIVER}

    @pytest.mark.parametrize("suffix", [".seg.nrrd", ".nrrd", ".mha"])
    def test_uncompressed_files_hold_plain_voxels(self, tmp_path, suffix):
        labelmap = Labelmap(np.zeros((20, 30, 40), np.uint8), CUBE)
        labelmap.array[3, 4, 5] = 1
        plain, packed = tmp_path / f"plain{suffix}", tmp_path / f"packed{suffix}"
        write_labelmap(plain, labelmap, compress=False)
        write_labelmap(packed, labelmap)
        assert plain.stat().st_size >= 24000 > packed.stat().st_size
        if suffix != ".mha":
            assert b"encoding: raw" in plain.read_bytes()[:4000]
        np.testing.assert_array_equal(read_labelmap(plain).array, labelmap.array)
        write_volume(plain, labelmap.array.astype(np.float32), CUBE, compress=False)
        assert plain.stat().st_size >= 96000

    def test_the_header_is_the_one_that_slicer_reads(self, tmp_path):
        array = np.zeros(PLAIN.shape, np.uint8)
        array[1:3, 2:5, 4] = 7
        write_labelmap(tmp_path / "s.seg.nrrd", Labelmap(array, PLAIN, {7: "tumour"}))
        header = (tmp_path / "s.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
        for line in (
            "Segment0_LabelValue:=7",
            "Segment0_Name:=tumour",
            "Segment0_Layer:=0",
            "Segment0_Extent:=4 4 2 4 1 2",
        ):
            assert line in header
        assert "Segment1_" not in header

    def test_segments_of_slicer_without_a_label_value(self, tmp_path):
        image = sitk.GetImageFromArray(np.ones(PLAIN.shape, np.uint8))
        image.SetMetaData("Segment0_Name", "old")
        image.SetMetaData("Segment0_Color", "1 0.5 0")
        sitk.WriteImage(image, tmp_path / "s.seg.nrrd")
        labelmap = read_labelmap(tmp_path / "s.seg.nrrd")
        assert labelmap.names == {1: "old"} and labelmap.colours == {1: (1.0, 0.5, 0.0)}

    def test_an_older_file_is_replaced(self, tmp_path):
        write_labelmap(tmp_path / "s.nrrd", random_labelmap(PLAIN, 0))
        write_labelmap(tmp_path / "s.nrrd", random_labelmap(PLAIN, 1))
        found = read_labelmap(tmp_path / "s.nrrd").array
        np.testing.assert_array_equal(found, random_labelmap(PLAIN, 1).array)
        assert [path.name for path in tmp_path.iterdir()] == ["s.nrrd"]

    def test_masks_and_half_precision_are_stored(self, tmp_path):
        mask = random_labelmap(PLAIN).array > 1
        write_volume(tmp_path / "m.nii.gz", mask, PLAIN)
        assert read_volume(tmp_path / "m.nii.gz").array.dtype == np.uint8
        write_volume(tmp_path / "h.nii.gz", mask.astype(np.float16), PLAIN)
        np.testing.assert_array_equal(read_volume(tmp_path / "h.nii.gz").array, mask)

    def test_an_array_of_another_shape_is_a_mistake_of_the_caller(self, tmp_path):
        with pytest.raises(ValueError, match="does not fit"):
            write_volume(tmp_path / "v.nii", np.zeros((2, 2, 2)), PLAIN)
        with pytest.raises(ValueError, match="does not fit"):
            Labelmap(np.zeros((2, 2, 2), np.uint8), PLAIN)

    @pytest.mark.parametrize("name", ["v.jpg", "v", "v.nii.zip"])
    def test_unknown_formats(self, tmp_path, name):
        assert refused(check_writable, tmp_path / name).code == "unknown_format"
        assert not list(tmp_path.iterdir())

    def test_places_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "folder.nrrd").mkdir()
        for place in (
            tmp_path / "file" / "v.nrrd",
            tmp_path / "file" / "deeper" / "v.nrrd",
            tmp_path / "folder.nrrd",
            tmp_path / ("long" * 100 + ".nrrd"),
        ):
            assert refused(check_writable, place).code == "unwritable"
            error = refused(write_labelmap, place, random_labelmap(PLAIN))
            assert error.code == "unwritable"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.nrrd"]

    @pytest.mark.skipif(
        os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
        reason="the rights of a folder do not bind this user",
    )
    def test_a_folder_without_the_right_to_write(self, tmp_path):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        error = refused(write_labelmap, folder / "v.nrrd", random_labelmap(PLAIN))
        assert error.code == "unwritable"

    @pytest.mark.skipif(os.name == "nt", reason="file size limits are a matter of POSIX")
    def test_a_disk_that_fills_up_leaves_the_older_file(self, tmp_path):
        script = """
import resource, signal, sys
import numpy as np
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import Geometry, write_volume
folder = sys.argv[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
geometry = Geometry((40, 30, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
noise = np.random.default_rng(0).random(geometry.shape)
for suffix in sys.argv[2:]:
    write_volume(f"{folder}/v{suffix}", np.zeros(geometry.shape, np.uint8), geometry)
    try:
        write_volume(f"{folder}/v{suffix}", noise, geometry)
    except InputError as error:
        assert error.code in ("unwritable", "no_space"), error
        print("refused", suffix)
"""
        # Plain .nii would not even hold the zeros within the limit.
        suffixes = [suffix for suffix in SUFFIXES if suffix != ".nii"]
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), *suffixes],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [word for s in suffixes for word in ("refused", s)]
        for suffix in suffixes:
            assert not read_volume(tmp_path / f"v{suffix}").array.any()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def test_reading_and_writing_need_no_torch(self):
        code = (
            "import sys, SAMFineTuneLib.volumes; "
            "assert not {'torch', 'monai', 'scipy'} & set(sys.modules)"
        )
        root = REPOSITORY
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
