"""Lists of images and masks as people and programs write them, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.image_list import evenly_spread, read_image_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("i1.png", "m1.png", "i2.png", "m2.png", "my image.png", "a, b.png"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"x")
    return tmp_path / "data"


def pairs(folder: Path, text: str | bytes, images: Path | None = None) -> list[tuple[str, str]]:
    path = folder / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = read_image_list(path, images).pairs
    return [(each.image.path.name, each.mask.path.name) for each in found if each.mask]


@pytest.mark.parametrize(
    "text",
    [
        "i1.png,m1.png\ni2.png,m2.png\n",
        "i1.png, m1.png\r\n\r\ni2.png ,m2.png\r\n",
        "\ufeffimage,mask\ni1.png,m1.png\ni2.png,m2.png",
        "Image;Mask\ni1.png;m1.png\n\n\ni2.png;m2.png",
        "image_path\tlabel_path\ni1.png\tm1.png\ni2.png\tm2.png",
        "i1.png m1.png\n  i2.png   m2.png  \n",
        '"i1.png","m1.png"\n"i2.png","m2.png"',
        "i1.png,m1.png,patient 1\ni2.png,m2.png,patient 2\n",
        "/i1.png,/m1.png\n/i2.png,/m2.png\n",
        "data/i1.png,/data/m1.png\ndata/i2.png,/data/m2.png\n",
        "..\\data\\i1.png,..\\data\\m1.png\n..\\data\\i2.png,..\\data\\m2.png\n",
        "i1.png,m1.png\ni2.png,m2.png\n".encode("utf-16"),
    ],
)
def test_ways_to_write_a_list(text: str | bytes, folder: Path) -> None:
    assert pairs(folder, text) == [("i1.png", "m1.png"), ("i2.png", "m2.png")]


@pytest.mark.parametrize(
    "row", ["my image.png,m1.png", "my image.png\tm1.png", '"my image.png" m1.png']
)
def test_blanks_in_names(row: str, folder: Path) -> None:
    assert pairs(folder, row) == [("my image.png", "m1.png")]


def test_a_comma_in_a_quoted_name(folder: Path) -> None:
    assert pairs(folder, '"a, b.png",m1.png') == [("a, b.png", "m1.png")]
    assert pairs(folder, "a, b.png;m1.png") == [("a, b.png", "m1.png")]


def test_names_are_relative_to_a_named_folder(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    assert pairs(elsewhere, "/i1.png,m1.png\n", folder) == [("i1.png", "m1.png")]


def test_absolute_names(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    text = f"{folder / 'i1.png'},{folder / 'm1.png'}\n"
    assert pairs(elsewhere, text) == [("i1.png", "m1.png")]


def test_a_list_of_images_alone(folder: Path) -> None:
    (folder / "list.txt").write_text("my image.png\ni1.png\n")
    found = read_image_list(folder / "list.txt", columns=1).pairs
    assert [each.image.path.name for each in found] == ["my image.png", "i1.png"]
    assert found[0].mask is None


def test_a_row_that_is_named_twice_is_taken_once(folder: Path) -> None:
    (folder / "list.csv").write_text("i1.png,m1.png\ni2.png,m2.png\ni1.png,m1.png\n")
    found = read_image_list(folder / "list.csv")
    assert len(found.pairs) == 2
    assert "1 row more than once" in found.remarks[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("i1.png,m1.png\n\ni2.png\ni2.png,\n", "line 3, and 1 other line: a column is missing"),
        ("i1.png\n", "line 1: a column is missing"),
        ("", "is empty"),
        ("\n  \n", "is empty"),
        ("image,mask\n", "names no image"),
        ("i1.png,i1.png\n", "line 1: i1.png is its own mask"),
        (b"\xe4\xf6,m1.png\n", "not UTF-8"),
        ('"i1.png,m1.png\n' + "x" * 200_000, "cannot be read"),
        ('i1.png,m1.png\ni2.png,"m2.png\ni3.png,m3.png\n', "line 2: a quotation mark is opened"),
        ("# my list\ni1.png,m1.png\ni2.png,m2.png\n", "line 1: a column is missing"),
    ],
)
def test_lists_that_are_refused(text: str | bytes, told: str, folder: Path) -> None:
    with pytest.raises(InputError) as refusal:
        pairs(folder, text)
    assert told in refusal.value.message


def test_all_missing_files_are_told_of_at_once(folder: Path) -> None:
    rows = "".join(f"gone{number}.png,m1.png\n" for number in range(30))
    with pytest.raises(InputError) as refusal:
        pairs(folder, "i1.png,m1.png\n" + rows)
    message = refusal.value.message
    assert message.startswith("30 files of list.csv cannot be found")
    assert "gone0.png (line 2)" in message
    assert "and 20 more" in message
    assert "gone10.png" not in message


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        read_image_list(tmp_path / "none.csv")
    assert refusal.value.code == "no_such_file"


def test_a_selection_is_evenly_spread() -> None:
    assert evenly_spread(3, 5) == [0, 1, 2]
    assert evenly_spread(10, 5) == [0, 2, 4, 6, 8]
