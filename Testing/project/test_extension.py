"""What Slicer's build system and its extension index need, checked without either."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.weights.choice import bundled_path
from SAMFineTuneLib.weights.official import file_sha256
from Testing.support.cmake_lists import calls, install, installed_files, variables
from Testing.support.repository import REPOSITORY

TOP = REPOSITORY / "CMakeLists.txt"
RAW = "https://raw.githubusercontent.com/SAMFineTune/SlicerSAMFineTune/main/"


def python_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def metadata(name: str) -> str:
    (value,) = variables(TOP)[f"EXTENSION_{name}"]
    return value


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


# Every file is listed


def test_every_script_of_the_library_is_listed():
    listed = variables(REPOSITORY / "SAMFineTuneLib" / "scripts.cmake")["SAMFineTuneLib_SCRIPTS"]

    assert set(listed) == {
        f"SAMFineTuneLib/{name}" for name in python_files(REPOSITORY / "SAMFineTuneLib")
    }


def test_bundled_weights_and_their_card_are_listed_and_tracked():
    listed = variables(REPOSITORY / "SAMFineTuneLib" / "scripts.cmake")["SAMFineTuneLib_WEIGHTS"]

    bundled = BACKBONES["starter"].bundled
    assert bundled is not None
    path = bundled_path(bundled)
    assert path.relative_to(REPOSITORY).as_posix() in listed
    assert path.with_suffix(".md").relative_to(REPOSITORY).as_posix() in listed
    # Neither a build nor a fresh clone has what git leaves out.
    assert all((REPOSITORY / name).is_file() for name in listed)
    assert file_sha256(path) == bundled.sha256


def test_every_script_of_the_module_is_listed():
    listed = variables(REPOSITORY / "SAMFineTune" / "CMakeLists.txt")["MODULE_PYTHON_SCRIPTS"]

    assert set(listed) == python_files(REPOSITORY / "SAMFineTune")
    assert "SAMFineTune.py" in listed


def test_every_resource_but_the_screenshots_is_listed():
    listed = variables(REPOSITORY / "Resources" / "resources.cmake")["SAMFineTune_RESOURCES"]

    on_disk = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "Resources").rglob("*")
        if path.is_file() and path.suffix != ".cmake" and not path.name.startswith(".")
    }
    assert set(listed) == {name for name in on_disk if "/Screenshots/" not in name}
    assert {Path(name).suffix for name in listed} >= {".ui", ".png", ".txt"}


def test_no_file_is_listed_twice():
    for path, name in (
        (REPOSITORY / "SAMFineTuneLib" / "scripts.cmake", "SAMFineTuneLib_SCRIPTS"),
        (REPOSITORY / "SAMFineTuneLib" / "scripts.cmake", "SAMFineTuneLib_WEIGHTS"),
        (REPOSITORY / "Resources" / "resources.cmake", "SAMFineTune_RESOURCES"),
        (REPOSITORY / "SAMFineTune" / "CMakeLists.txt", "MODULE_PYTHON_SCRIPTS"),
    ):
        twice = [each for each, times in Counter(variables(path)[name]).items() if times > 1]
        assert not twice, f"{name} lists {twice} twice"


def test_names_do_not_collide_where_all_extensions_are_installed_together():
    names = [name.lower() for name in installed_files()]
    assert len(names) == len(set(names)), "names that differ in case only are one on Windows"

    top = {name.split("/")[0] for name in installed_files()}
    assert top == {
        "SAMFineTune.py",
        "SAMFineTuneEffect",
        "SAMFineTunePanel",
        "SAMFineTuneLib",
        "Resources",
    }


def test_the_installed_files_are_where_the_module_looks_for_them(tmp_path):
    install(tmp_path)

    assert (tmp_path / "SAMFineTune.py").is_file()
    assert (tmp_path / "SAMFineTuneLib" / "__main__.py").is_file()
    assert (tmp_path / "Resources" / "Icons" / "SAMFineTune.png").is_file()
    assert python_files(tmp_path) == {name for name in installed_files() if name.endswith(".py")}


# CMake


def test_both_parts_are_built_by_slicers_own_macro():
    top = calls(TOP)
    module = calls(REPOSITORY / "SAMFineTune" / "CMakeLists.txt")
    builds = [
        arguments
        for command, arguments in top + module
        if command == "slicermacrobuildscriptedmodule"
    ]

    assert [arguments[arguments.index("NAME") + 1] for arguments in builds] == [
        "SAMFineTuneLib",
        "${MODULE_NAME}",
    ]
    assert ("add_subdirectory", ["SAMFineTune"]) in top
    assert ("include", ["SAMFineTuneLib/scripts.cmake"]) in top
    assert ("include", ["Resources/resources.cmake"]) in top


def test_the_calls_of_an_extension_come_in_their_order():
    order = [command for command, _ in calls(TOP) if command != "set"]
    expected = ["cmake_minimum_required", "project", "find_package", "include"]

    assert order[: len(expected)] == expected
    assert calls(TOP)[-2:] == [
        ("include", ["${Slicer_EXTENSION_GENERATE_CONFIG}"]),
        ("include", ["${Slicer_EXTENSION_CPACK}"]),
    ]
    assert ("include", ["${Slicer_USE_FILE}"]) in calls(TOP)


def test_the_module_is_tested_by_slicers_ctest():
    module = calls(REPOSITORY / "SAMFineTune" / "CMakeLists.txt")

    assert ("slicer_add_python_unittest", ["SCRIPT", "${MODULE_NAME}.py"]) in module
    (build,) = [words for command, words in module if command == "slicermacrobuildscriptedmodule"]
    assert "WITH_GENERIC_TESTS" in build


# Metadata


@pytest.mark.parametrize(
    "name", ["HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"]
)
def test_metadata_is_one_quoted_string_on_one_line(name):
    # The index reads the file by a regular expression, not by CMake.
    found = re.findall(rf'^set\(EXTENSION_{name} "([^"\n]+)"\)$', TOP.read_text("utf-8"), re.M)

    assert len(found) == 1
    assert found[0] == found[0].strip()


def test_pictures_of_the_catalogue_are_in_the_repository():
    for url in [metadata("ICONURL"), *metadata("SCREENSHOTURLS").split()]:
        assert url.startswith(RAW)
        png_size(REPOSITORY / url.removeprefix(RAW))


def test_icons_have_the_sizes_that_slicer_shows():
    assert png_size(REPOSITORY / metadata("ICONURL").removeprefix(RAW)) == (128, 128)
    width, height = png_size(REPOSITORY / "Resources" / "Icons" / "SAMFineTuneHead.png")
    assert 240 <= width <= 300 and 240 <= height <= 300


def test_the_package_carries_this_licence_and_readme():
    for name in ("LICENSE_FILE", "README_FILE"):
        path = metadata(name).replace("${CMAKE_CURRENT_SOURCE_DIR}", str(REPOSITORY))
        assert Path(path).stat().st_size > 1000


# The index's catalogue


def test_catalogue_entry_has_the_shape_of_its_schema():
    path = REPOSITORY / "SAMFineTune.json"
    entry = json.loads(path.read_text("utf-8"))

    types = {
        "$schema": str,
        "build_dependencies": list,
        "category": str,
        "scm_revision": str,
        "scm_url": str,
        "tier": int,
    }
    assert {key: type(value) for key, value in entry.items()} == types
    assert entry["$schema"] == (
        "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/"
        "slicer-extension-catalog-entry-schema-v1.0.1.json#"
    )
    assert entry["category"] == "Segmentation"
    assert 1 <= entry["tier"] <= 5
    assert all(isinstance(each, str) for each in entry["build_dependencies"])


def test_catalogue_entry_has_line_feeds_only():
    content = (REPOSITORY / "SAMFineTune.json").read_bytes()

    assert b"\r" not in content
    assert content.endswith(b"}\n")


def test_catalogue_entry_and_cmake_agree():
    entry = json.loads((REPOSITORY / "SAMFineTune.json").read_text("utf-8"))

    assert ("project", ["SAMFineTune"]) in calls(TOP), "the entry's file is named as the project"
    assert metadata("DEPENDS").split() == entry["build_dependencies"] == ["PyTorch"]
    assert entry["scm_url"] == metadata("HOMEPAGE") + ".git"
    repository = metadata("HOMEPAGE").rsplit("/", 1)[1]
    assert repository.startswith("Slicer"), "the index wants it of repositories"
    assert not entry["scm_url"].startswith("git@")
