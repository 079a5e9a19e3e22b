"""`finetune --unlabelled`, from the option to the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.volumes import write_volume
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_a_model_that_learnt_from_unlabelled_volumes_too(shell: Shell, tmp_path: Path) -> None:
    volume, labelmap = head()
    image, labels = write_pair(tmp_path, volume, keep_slices(labelmap, [4, 6]), "a")
    other = tmp_path / "other.nii.gz"
    write_volume(other, head(seed=1)[0].array, volume.geometry)
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no volume")
    model, job = tmp_path / "m.safetensors", tmp_path / "job"
    words = ("finetune", "--volume", image, "--segmentation", labels, "--output", model)
    more = ("--steps", 2, "--batch", 1, "--device", "cpu", "--empty", "none")
    refused = shell(*words, *more, "--unlabelled", damaged)
    assert refused.code == 2
    assert len(refused.error_lines) == 1
    assert "none of the volumes without labels can be used" in refused.error_lines[0]
    both = ("--unlabelled", other, "--unlabelled", damaged)
    done = shell(*words, *more, *both, "--job", job)
    assert done.code == 0, done.err
    assert "12 slices without labels, of 1 volume" in done.err
    assert "damaged.nii.gz is left out" in done.err
    card = read_card(model)
    assert card.data["unlabelled_volumes"] == 1
    assert card.data["unlabelled_slices"] == 12
    assert not (job / "unlabelled").exists()


@pytest.mark.parametrize(("options", "slices"), [((), 10), (("--no-unlabelled-examples",), None)])
def test_thorough_learns_from_other_slices_unless_told_otherwise(
    shell: Shell, tmp_path: Path, options: tuple[str, ...], slices: int | None
) -> None:
    volume, labelmap = head()
    image, labels = write_pair(tmp_path, volume, keep_slices(labelmap, [4, 6]), "a")
    model = tmp_path / "m.safetensors"
    words = ("finetune", "--volume", image, "--segmentation", labels, "--output", model)
    more = ("--steps", 1, "--batch", 1, "--device", "cpu", "--empty", "none")
    done = shell(*words, *more, "--preset", "thorough", *options)
    assert done.code == 0, done.err
    assert read_card(model).data.get("unlabelled_slices") == slices
