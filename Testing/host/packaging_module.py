"""Stands for `slicer.packaging`: says what is missing, and installs nothing."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import Requirement


def load_requirements(path: str | Path) -> list[Requirement]:
    """The requirements of a requirements.txt; pip's options and comments are left out."""
    lines = [one.partition("#")[0].strip() for one in Path(path).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def _requirements(given: Any) -> list[Requirement]:
    if isinstance(given, str):
        given = [given]
    elif isinstance(given, Requirement):
        return [given]
    if not isinstance(given, list):
        raise TypeError(f"Expected str, Requirement, or list, got {type(given).__name__}")
    return [one if isinstance(one, Requirement) else Requirement(one) for one in given]


def pip_check(req: str | Requirement | list[str | Requirement]) -> bool:
    """Whether all of the requirements that apply here are met."""
    return all(_is_met(one) for one in _requirements(req))


def _is_met(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(
    requirements: str | Requirement | list[str | Requirement],
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Installs what is missing; nothing in testing mode, as in Slicer."""
    missing = [str(one) for one in _requirements(requirements) if not pip_check(one)]
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return None
    return pip_install(missing, constraints=constraints, skip_packages=skip_packages)


def pip_install(requirements: str | list[str], **options: Any) -> list[str] | None:
    """Refuses: tests change no environment."""
    raise RuntimeError(f"the test host installs no packages ({requirements})")


def isPipInstallInProgress() -> bool:
    return False
