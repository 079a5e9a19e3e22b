"""The user's folder of tuned models: listed, renamed, copied in and out, never overwritten."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.models import library as model_library
from SAMFineTuneLib.models.library import (
    TunedModel,
    delete_model,
    export_model,
    find_model,
    import_model,
    list_models,
    new_model_path,
    rename_model,
)
from SAMFineTuneLib.models.model_file import LabelCard, ModelCard, Strategy
from SAMFineTuneLib.models.name import model_name
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow
from SAMFineTuneLib.user_folders import models_folder
from Testing.support.in_process import Shell, shell_of

WINDOW = IntensityWindow(low=-100, high=300, mean=0.4, standard_deviation=0.2)


def model_bytes(**changed: Any) -> bytes:
    """A tuned model without tensors: the library looks at cards alone."""
    card = ModelCard(
        # Not the present: the same model has the same bytes a second later.
        created="2026-03-04T10:00:00+00:00",
        backbone="starter",
        checkpoint_sha256=None,
        strategy=Strategy(method="vanilla", scope="encoder_decoder", rank=4),
        labels=[LabelCard(value=5, name="liver", terminology="a~SCT^10200004^Liver")],
        axis="axial",
        normalisation=IntensityNormalisation(kind="calibrated", window=WINDOW),
        input_size=256,
    )
    text = json.dumps({**card.model_dump(), **changed})
    return with_header(json.dumps({"__metadata__": {"samfinetune": text}}))


def with_header(text: str) -> bytes:
    """A safetensors file without tensors."""
    header = text.encode()
    return len(header).to_bytes(8, "little") + header


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library's folder, which does not exist yet."""
    path = tmp_path / "meine Modelle"
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(path))
    return path


def put(folder: Path, name: str, content: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.safetensors"
    path.write_bytes(model_bytes() if content is None else content)
    return path


def names() -> list[str]:
    return [model.name for model in list_models()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_the_user_s_and_not_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models_folder() == folder
    monkeypatch.setenv("SAMFINETUNE_MODELS", "")
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    found = models_folder()
    assert found.is_absolute() and "SAMFineTune" in found.parts and found.name == "models"
    assert "cache" not in str(found).lower()
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="where Linux has it")
def test_the_folder_follows_the_desktop_s_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAMFINETUNE_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert models_folder() == tmp_path / "SAMFineTune" / "models"


def test_there_are_no_models_at_first_and_asking_makes_nothing(folder: Path) -> None:
    assert list_models() == []
    assert new_model_path("liver") == folder / "liver.safetensors"
    assert not folder.exists()


def test_models_are_listed_with_their_cards(folder: Path) -> None:
    put(folder, "b")
    put(folder, "Ärzte & Co")
    path = put(folder, "A.1")
    (folder / "notes.txt").write_text("mine")
    (folder / ".c.safetensors.123.part").write_bytes(b"")
    (folder / ".hidden.safetensors").write_bytes(b"")
    (folder / "a folder.safetensors").mkdir()
    (folder / "LOUD.SAFETENSORS").write_bytes(model_bytes())
    first, *rest = list_models()
    assert [model.name for model in rest] == ["b", "LOUD", "Ärzte & Co"]
    assert first.name == "A.1" and first.path == path and first.bytes == path.stat().st_size
    assert first.card is not None and first.fault == ""
    assert first.card.labels[0].terminology == "a~SCT^10200004^Liver"


DAMAGED = {
    "empty": b"",
    "short": b"\x07",
    "text": b"this is a letter to the editor",
    "cut": model_bytes()[:-20],
    "longer": model_bytes() + b"0",
    "huge header": (2**60).to_bytes(8, "little"),
    "deep": with_header("[" * 200_000),
    "deep card": with_header(json.dumps({"__metadata__": {"samfinetune": "[" * 200_000}})),
    "newer": model_bytes(format_version=99),
    "no label": model_bytes(labels="none"),
    "other file": with_header("{}"),
    "no card": with_header('{"__metadata__": "text"}'),
    "number for a card": with_header('{"__metadata__": {"samfinetune": 7}}'),
}


def test_damaged_files_are_listed_with_their_fault_and_hide_nothing(folder: Path) -> None:
    for name, content in DAMAGED.items():
        put(folder, name, content)
    put(folder, "whole")
    models = {model.name: model for model in list_models()}
    assert set(models) == {*DAMAGED, "whole"}
    assert models.pop("whole").fault == ""
    for name, model in models.items():
        assert model.card is None, name
        assert f"{name}.safetensors" in model.fault and "\n" not in model.fault
    assert "update SAMFineTune" in models["newer"].fault


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights bind this user")
def test_a_file_that_may_not_be_read_is_listed(folder: Path) -> None:
    put(folder, "secret").chmod(0)
    put(folder, "whole")
    assert names() == ["secret", "whole"]


def test_a_file_that_goes_while_it_is_listed_hides_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "whole")
    gone = folder / "gone.safetensors"
    listed = model_library._files()
    monkeypatch.setattr(model_library, "_files", lambda: [gone, *listed])
    assert names() == ["whole"]


def test_a_folder_that_is_a_file_is_told(folder: Path) -> None:
    folder.write_text("")
    for ask in (list_models, lambda: new_model_path("liver")):
        with pytest.raises(InputError, match="cannot be read") as refused:
            ask()
        assert str(folder) in refused.value.message


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ("liver", "liver"),
        ("  liver, portal venous  ", "liver, portal venous"),
        ("a/b", "a_b"),
        ("a\\b:c*?", "a_b_c__"),
        ('<"|>', "____"),
        ("line\nbreak\ttab", "line break tab"),
        ("bell\x07", "bell_"),
        ("", ""),
        ("   ", ""),
        (".", ""),
        ("..", ""),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("dots...", "dots"),
        ("v1.2", "v1.2"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com1", "_com1"),
        ("lpt¹", "_lpt¹"),
        ("console", "console"),
        ("liver.safetensors", "liver"),
        ("liver.SafeTensors", "liver"),
        (".safetensors", ""),
        ("Milz für Größen", "Milz für Größen"),
        ("ge\u0308nau", "gënau"),
        ("bad \ud800 text", "bad _ text"),
        ("肝臓", "肝臓"),
    ],
)
def test_names_that_every_system_takes(wished: str, expected: str) -> None:
    assert model_name(wished) == expected
    assert model_name(expected) == expected


@pytest.mark.parametrize("character", ["x", "ü", "肝", "😀"])
def test_a_very_long_name_still_makes_a_file(character: str, folder: Path) -> None:
    for number in range(3):
        path = new_model_path(character * 5000)
        assert not path.exists() and path.name.startswith(character)
        path.parent.mkdir(exist_ok=True)
        # As the model is written, beside its name.
        path.with_name(f".{path.name}.{2**22}.part").touch()
        path.write_bytes(model_bytes())
        assert len(list_models()) == number + 1


def test_a_new_name_is_a_free_one(folder: Path) -> None:
    assert new_model_path("..").name == "model.safetensors"
    for expected in ("liver", "liver 2", "liver 3"):
        path = new_model_path("liver")
        assert path == folder / f"{expected}.safetensors"
        put(folder, expected)
    # On many systems these would be the same file.
    assert new_model_path("LIVER").name == "LIVER 4.safetensors"
    put(folder, "LIVER 4", b"damaged")
    assert new_model_path("liver 4").name == "liver 4 2.safetensors"


def test_a_model_is_called_otherwise(folder: Path) -> None:
    path = put(folder, "liver")
    renamed = rename_model(find_model("liver"), " Leber/venös ")
    assert renamed.name == "Leber_venös" and renamed.card is not None
    assert files(folder) == ["Leber_venös.safetensors"] and not path.exists()
    assert rename_model(renamed, "Leber_venös") == renamed
    assert rename_model(renamed, "LEBER_venös").name == "LEBER_venös"
    assert names() == ["LEBER_venös"]


def test_a_damaged_model_can_be_renamed_and_deleted(folder: Path) -> None:
    put(folder, "liver", b"damaged")
    renamed = rename_model(find_model("liver"), "old")
    assert renamed.fault and names() == ["old"]
    delete_model(renamed)
    assert files(folder) == []


@pytest.mark.parametrize(
    ("wished", "code"),
    [
        ("spleen", "name_taken"),
        ("SPLEEN", "name_taken"),
        ("spleen.safetensors", "name_taken"),
        ("", "bad_name"),
        ("..", "bad_name"),
        (" . ", "bad_name"),
    ],
)
def test_a_name_that_cannot_be_is_refused(wished: str, code: str, folder: Path) -> None:
    put(folder, "liver")
    spleen = put(folder, "spleen", b"another")
    with pytest.raises(InputError) as refused:
        rename_model(find_model("liver"), wished)
    assert refused.value.code == code and refused.value.remedy
    assert files(folder) == ["liver.safetensors", "spleen.safetensors"]
    assert spleen.read_bytes() == b"another"


def test_a_model_that_has_gone_is_told(folder: Path, tmp_path: Path) -> None:
    path = put(folder, "liver")
    model = find_model("liver")
    path.unlink()
    for act in (
        lambda: rename_model(model, "other"),
        lambda: delete_model(model),
        lambda: export_model(model, tmp_path / "out"),
        lambda: find_model("liver"),
    ):
        with pytest.raises(InputError) as refused:
            act()
        assert "liver" in refused.value.message and refused.value.remedy


def test_a_name_that_nobody_has_is_told_with_those_there_are(folder: Path) -> None:
    put(folder, "liver")
    put(folder, "spleen")
    with pytest.raises(InputError, match="choose one of: liver, spleen"):
        find_model("kidney")


def test_a_model_goes_out_and_comes_back(folder: Path, tmp_path: Path) -> None:
    content = put(folder, "liver").read_bytes()
    file = export_model(find_model("liver"), tmp_path / "stick" / "für Müller")
    assert file == tmp_path / "stick" / "für Müller.safetensors"
    assert file.read_bytes() == content and files(file.parent) == [file.name]
    brought = import_model(file)
    assert brought.name == "für Müller" and brought.card is not None
    again = import_model(file)
    assert again.name == "für Müller 2"
    assert names() == ["für Müller", "für Müller 2", "liver"]
    assert file.read_bytes() == content


def test_an_export_never_writes_over_what_is_there(folder: Path, tmp_path: Path) -> None:
    path = put(folder, "liver")
    model = find_model("liver")
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"precious")
    for target in (there, there.with_suffix(""), path, tmp_path):
        if target == tmp_path:
            (tmp_path / "out.safetensors").mkdir()
            target = tmp_path / "out"
        with pytest.raises(InputError, match="is there already") as refused:
            export_model(model, target)
        assert refused.value.code == "file_exists"
    assert there.read_bytes() == b"precious" and path.read_bytes() == model_bytes()
    # The user was asked, and wants it; but a model onto itself would be no copy.
    assert export_model(model, there, overwrite=True).read_bytes() == model_bytes()
    with pytest.raises(InputError):
        export_model(model, path, overwrite=True)
    assert path.read_bytes() == model_bytes()


def test_a_damaged_model_is_not_copied(folder: Path, tmp_path: Path) -> None:
    put(folder, "liver", DAMAGED["cut"])
    with pytest.raises(InputError, match="cut off"):
        export_model(find_model("liver"), tmp_path / "out")
    for name, content in DAMAGED.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        with pytest.raises(InputError) as refused:
            import_model(file)
        assert refused.value.message.startswith(f"{name}.safetensors ")
    for absent in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(InputError):
            import_model(absent)
    assert files(folder) == ["liver.safetensors"]
    assert not (tmp_path / "out.safetensors").exists()


def test_a_disk_that_fills_up_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "liver")
    file = export_model(find_model("liver"), tmp_path / "out")

    def fail(source: Path, target: Path) -> None:
        target.write_bytes(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(InputError, match="no space left") as refused:
        import_model(file)
    assert refused.value.code == "no_space"
    assert files(folder) == ["liver.safetensors"]


def test_a_copy_that_is_cut_off_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "liver")
    file = export_model(find_model("liver"), tmp_path / "out")
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: target.write_bytes(b"some"))
    with pytest.raises(InputError, match="not all of it was written"):
        import_model(file)
    assert files(folder) == ["liver.safetensors"]


def test_a_place_that_cannot_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    put(folder, "liver")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot copy") as refused:
        export_model(find_model("liver"), tmp_path / "file" / "out")
    assert refused.value.code == "not_writable"


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_the_commands(shell: Shell, folder: Path, tmp_path: Path) -> None:
    file = put(tmp_path / "stick", "liver")
    put(folder, "broken", b"damaged")
    brought = shell("models", "import", file)
    assert brought.code == 0 and brought.result["name"] == "liver"
    renamed = shell("models", "rename", "liver", "Leber, venös")
    assert renamed.result["path"] == str(folder / "Leber, venös.safetensors")
    listed = shell("models", "list")
    assert listed.code == 0 and listed.result["folder"] == str(folder)
    broken, liver = listed.result["models"]
    assert broken["card"] is None and "broken" in broken["fault"]
    assert liver["card"]["labels"][0]["name"] == "liver" and liver["fault"] is None
    assert "cannot be used" in listed.err and "starter, axial: liver" in listed.err
    out = tmp_path / "out.safetensors"
    assert shell("models", "export", "Leber, venös", out).result["file"] == str(out)
    again = shell("models", "export", "Leber, venös", out)
    assert again.code == 2 and len(again.error_lines) == 1
    taken = shell("models", "rename", "Leber, venös", "broken")
    assert taken.code == 2 and "already a model" in taken.err
    deleted = shell("models", "delete", "broken")
    assert deleted.result["freed_bytes"] == 7
    assert files(folder) == ["Leber, venös.safetensors"]


def test_a_model_is_what_the_list_says(folder: Path) -> None:
    path = put(folder, "liver")
    card = find_model("liver").card
    assert find_model("liver") == TunedModel("liver", path, path.stat().st_size, card)
