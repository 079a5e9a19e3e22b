"""Several DICOM series in one folder: told apart, read, and named in jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.interactive.protocol import SessionSettings
from SAMFineTuneLib.jobs.schema import ApplyJob, Example, FinetuneJob, make_job
from SAMFineTuneLib.jobs.series_choice import series_of_volumes
from SAMFineTuneLib.tasks.drawn_slices import known_structures, require_drawn
from SAMFineTuneLib.volumes import Labelmap, read_volume, write_labelmap
from Testing.support.in_process import run_here
from Testing.support.job_records import example_of
from Testing.support.synthetic_dicom_series import (
    AXIAL,
    assert_every_voxel_in_place,
    dataset,
    refused,
    save,
    write_stack,
)

SERIES = ("1.2.826.71001", "1.2.826.72002")


def two_series(folder: Path) -> Path:
    """Two series of one description in one folder, told apart by their numbers; bright blobs."""
    for number, uid in enumerate(SERIES, start=1):
        for n in range(8):
            values = np.random.default_rng(n).normal(20 * number, 3, (48, 40))
            if 2 <= n < 6:
                values[10:30, 10 + 5 * number : 25 + 5 * number] += 100
            data = dataset(
                values, SeriesInstanceUID=uid, SeriesNumber=number, SeriesDescription="venous"
            )
            data.ImagePositionPatient = [0, 0, 4 * n + number]
            data.ImageOrientationPatient = list(AXIAL)
            save(data, folder / f"{number}_{n}.dcm")
    return folder


def labels_for(folder: Path, number: int, path: Path, slices=range(8)) -> Path:
    volume = read_volume(folder, SERIES[number - 1])
    array = (volume.array > 20 * number + 50).astype(np.uint8)
    array[[n for n in range(8) if n not in slices]] = 0
    write_labelmap(path, Labelmap(array, volume.geometry))
    return path


class TestSeveralSeries:
    def test_they_are_told_apart(self, tmp_path):
        error = refused(two_series(tmp_path))
        assert error.code == "several_series" and "by its number" in error.remedy
        for number, uid in enumerate(SERIES, start=1):
            assert f"{number}: CT 'venous' (8 files), series number {number}" in error.message
            assert f"40 x 48 x 8, UID ...{uid[-8:]}" in error.message
        assert "2020-01-02" in error.message

    @pytest.mark.parametrize("wanted", ["2", SERIES[1], "72002", "...826.72002"])
    def test_one_is_chosen(self, tmp_path, wanted):
        volume = read_volume(two_series(tmp_path), wanted)
        assert volume.series == SERIES[1] and volume.remarks == ()
        assert volume.geometry.origin == (0.0, 0.0, 2.0)

    @pytest.mark.parametrize("wanted", ["0", "3", "1.2.3", "826"])
    def test_one_that_is_not_there(self, tmp_path, wanted):
        error = refused(two_series(tmp_path), wanted)
        assert error.code == "no_such_series" and "venous" in error.message

    def test_a_choice_for_a_file(self, tmp_path):
        folder = two_series(tmp_path)
        assert read_volume(folder / "1_3.dcm", SERIES[0]).array.shape[0] == 1
        assert refused(folder / "1_3.dcm", SERIES[1]).code == "no_such_series"
        write_labelmap(tmp_path / "l.nrrd", Labelmap(np.ones((2, 2, 2), np.uint8), UNIT))
        assert refused(tmp_path / "l.nrrd", "1").code == "no_such_series"

    def test_folders_below(self, tmp_path):
        write_stack(tmp_path / "a" / "x", SeriesInstanceUID="1.2.3.1111")
        write_stack(tmp_path / "b", SeriesInstanceUID="1.2.3.2222")
        error = refused(tmp_path)
        assert f"in {Path('a') / 'x'}" in error.message and "in b" in error.message
        assert read_volume(tmp_path, "1.2.3.2222").series == "1.2.3.2222"
        write_stack(tmp_path, SeriesInstanceUID="1.2.3.3333")
        assert read_volume(tmp_path).series == "1.2.3.3333"
        assert read_volume(tmp_path, "1.2.3.1111").series == "1.2.3.1111"

    def test_a_series_spread_over_folders(self, tmp_path):
        write_stack(tmp_path)
        for n in range(3):
            (tmp_path / "more").mkdir(exist_ok=True)
            (tmp_path / f"im{n:02}.dcm").rename(tmp_path / "more" / f"im{n:02}.dcm")
        (tmp_path / "rest").mkdir()
        for path in tmp_path.glob("*.dcm"):
            path.rename(tmp_path / "rest" / path.name)
        assert_every_voxel_in_place(read_volume(tmp_path))

    def test_one_choice_for_all_folders_or_one_for_each(self, tmp_path):
        folders = [tmp_path / name for name in "ab"]
        for each in folders:
            each.mkdir()
        volumes = [folders[0], tmp_path / "c.nii.gz", folders[1]]
        assert series_of_volumes(volumes, []) == [None, None, None]
        assert series_of_volumes(volumes, ["2"]) == ["2", None, "2"]
        assert series_of_volumes(volumes, ["2", "1"]) == ["2", None, "1"]
        for wrong in (["1", "2", "3"],):
            assert refused(volumes, wrong, action=series_of_volumes).code == "contrary_options"
        assert refused(volumes[1:2], ["1"], action=series_of_volumes).code == "contrary_options"


UNIT = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.mark.usefixtures("one_thread", "small_inputs")
class TestSeriesInJobs:
    def test_a_number_or_a_uid_is_accepted(self):
        fields = {"volume": "a", "segmentation": "b"}
        assert Example.model_validate({**fields, "series": 2}).series == "2"
        assert Example.model_validate({**fields, "series": SERIES[0]}).series == SERIES[0]
        for wrong in (0, "", "  ", 1.5, True, "1" * 65):
            with pytest.raises(InputError):
                make_job(
                    FinetuneJob,
                    {"examples": [{**fields, "series": wrong}], "output": "m.safetensors"},
                )
        job = {"model": "m.safetensors", "volumes": ["a"], "output": "b", "series": ["2"]}
        assert make_job(ApplyJob, job).series == ["2"]
        assert SessionSettings.model_validate({"volume": "a", "series": "2"}).series == "2"

    def test_examples_of_two_series_are_of_two_volumes(self, tmp_path):
        folder = two_series(tmp_path / "d")
        labels = [labels_for(folder, n, tmp_path / f"{n}.nrrd") for n in (1, 2)]
        both = [example_of(folder, labels[n], series=str(n + 1)) for n in (0, 1)]
        assert load_examples(both).volumes == 2
        same = [example_of(folder, labels[0], series=each) for each in ("1", SERIES[0])]
        assert load_examples(same).volumes == 1

    def test_what_is_drawn_is_of_one_series(self, tmp_path):
        folder = two_series(tmp_path / "d")
        labels = labels_for(folder, 1, tmp_path / "1.nrrd", [3])
        example = Example(volume=folder, segmentation=labels, series="1")
        words: list[str] = []
        for series, found in ((SERIES[0], 1), ("1", 1), (SERIES[1], 0), ("2", 0)):
            volume = read_volume(folder, series)
            known = known_structures(
                [example], folder, volume, {1: ""}, "axial", words.append, series=series
            )
            assert len(known) == found
            words.clear()
            require_drawn([example], [folder], words.append, [series])
            assert len(words) == 1 - found

    def test_from_labels_to_segmentations(self, tmp_path, monkeypatch):
        """The commands themselves: learnt on one series, applied to both of the same folder."""
        from SAMFineTuneLib.cli import main

        # What a process of its own adds is shown by the commands' own tests.
        monkeypatch.setattr("SAMFineTuneLib.cli.execution.run_worker", run_here)
        monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
        folder = two_series(tmp_path / "d")
        labels = labels_for(folder, 2, tmp_path / "2.nrrd", [2, 4, 5])
        model = tmp_path / "m.safetensors"
        learn = ["finetune", "--volume", str(folder), "--segmentation", str(labels)]
        tiny = ["--steps", "1", "--batch", "1", "--output", str(model)]
        assert main([*learn, *tiny]) == 2
        assert main([*learn, *tiny, "--series", "2"]) == 0
        use = ["apply", "--model", str(model), "--output", str(tmp_path / "out")]
        both = ["--volume", str(folder), "--series", "1", "--volume", str(folder), "--series"]
        assert main([*use, *both, SERIES[1]]) == 0
        written = sorted((tmp_path / "out").iterdir())
        origins = [sitk.ReadImage(str(path)).GetOrigin()[2] for path in written]
        assert sorted(origins) == pytest.approx([1.0, 2.0])

        examples = tmp_path / "examples.json"
        entry = {"volume": str(folder), "segmentation": str(labels), "series": 2}
        examples.write_text(json.dumps([entry]))
        drawn = ["--examples", str(examples), "--volume", str(folder), "--series", SERIES[1]]
        assert main([*use, *drawn]) == 0
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
        file = tmp_path / "out" / "d_segmentation.nii.gz"
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        np.testing.assert_array_equal(found[[2, 4, 5]], truth[[2, 4, 5]])
