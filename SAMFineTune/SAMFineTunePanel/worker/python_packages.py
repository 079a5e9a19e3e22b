"""The Python packages that the worker needs: which are missing, how large they are, and how they come."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import slicer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from slicer.i18n import tr as _

from SAMFineTunePanel.folders import resourcePath

_TORCH = Requirement("torch>=2.2")

# Megabytes to download, with what each brings along; about, since they differ between systems.
_MEGABYTES = {
    "torch": 200,
    "simpleitk": 50,
    "scipy": 36,
    "matplotlib": 18,
    "numpy": 17,
    "pillow": 7,
    "monai": 3,
    "pydantic": 3,
}
_MEGABYTES_OF_SMALL_ONES = 1
_MEGABYTES_OF_TORCH_WITH_CUDA = 2700

# Slicer and other extensions rely on the versions of these that are there.
_LEFT_ALONE = ("torch", "torchvision", "numpy", "SimpleITK", "pillow")


class InstallationError(RuntimeError):
    """Packages could not be installed; the message is for the user."""


@dataclass(frozen=True)
class PythonPackage:
    """A package that the worker needs.

    Attributes:
        requirement: its name and the oldest version that does.
        installed: the version that is there, "" for none.
        megabytes: about, to download.
    """

    requirement: Requirement
    installed: str
    megabytes: int

    @property
    def name(self) -> str:
        return self.requirement.name

    @property
    def isMissing(self) -> bool:
        """Whether it is not there, or too old."""
        return not self.installed or not self.requirement.specifier.contains(self.installed, prereleases=True)


def neededPackages() -> list[PythonPackage]:
    """Everything the worker needs, torch first; looks at what is installed and imports nothing."""
    importlib.invalidate_caches()
    return [_package(each) for each in (_TORCH, *_requirements()) if each.marker is None or each.marker.evaluate()]


def missingPackages() -> list[PythonPackage]:
    """What has to be installed before anything can be computed."""
    return [each for each in neededPackages() if each.isMissing]


def problemWithInstallation(missing: list[PythonPackage]) -> str:
    """Why `install` would not work, and what to do about it; "" when it would."""
    if any(each.name == "torch" for each in missing) and not _hasPyTorchExtension():
        return _(
            'PyTorch comes through the extension "PyTorch", which is not installed. Open the Extensions '
            "Manager (menu View), search for PyTorch, install it, restart Slicer, and come back here."
        )
    return ""


def install(missing: list[PythonPackage]) -> bool:
    """Install packages; takes minutes.

    Returns:
        Whether Slicer has to be restarted, because something that it has loaded was replaced.

    Raises:
        InstallationError: in words for the user.
    """
    before = _versionsLoaded()
    if any(each.name == "torch" for each in missing):
        _installTorch()
    # torch brings some of the others.
    others = [each for each in missing if each.name != "torch" and _package(each.requirement).isMissing]
    if others:
        _installOthers([each.requirement for each in others])
    _requireAll(missing)
    return any(_installedVersion(name) != version for name, version in before.items())


def _requirements() -> list[Requirement]:
    text = Path(resourcePath("SAMFineTuneRequirements.txt")).read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def _package(requirement: Requirement) -> PythonPackage:
    name = canonicalize_name(requirement.name)
    megabytes = _MEGABYTES.get(name, _MEGABYTES_OF_SMALL_ONES)
    if name == "torch" and shutil.which("nvidia-smi"):
        megabytes = _MEGABYTES_OF_TORCH_WITH_CUDA
    return PythonPackage(requirement, _installedVersion(requirement.name), megabytes)


def _installedVersion(name: str) -> str:
    try:
        return importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _hasPyTorchExtension() -> bool:
    return importlib.util.find_spec("PyTorchUtils") is not None


def _installTorch() -> None:
    import PyTorchUtils

    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=str(_TORCH.specifier)
        )
    # What goes wrong in there is of many kinds: pip, the network, a library that does not load.
    except Exception as error:
        raise InstallationError(
            _("PyTorch could not be installed: {error}. {remedy}").format(error=error, remedy=_remedyForTorch())
        ) from error
    if torch is None:
        raise InstallationError(_("PyTorch was not installed, since you declined."))


def _remedyForTorch() -> str:
    if _installedVersion("torch"):
        return _("Open the module PyTorch Utils, uninstall PyTorch there, restart Slicer, and try again.")
    return _("Slicer's Python console shows why; without internet, ask for this package: {name}").format(name=_TORCH)


def _installOthers(requirements: list[Requirement]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        pinned = [f"{name}=={_installedVersion(name)}" for name in _LEFT_ALONE if _mayStay(name)]
        constraints.write_text("".join(f"{line}\n" for line in pinned), encoding="utf-8")
        try:
            _pipInstall(requirements, constraints)
        except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
            raise InstallationError(
                _(
                    "Packages could not be installed ({error}). Slicer's Python console shows why; without internet, "
                    "ask for these packages: {names}"
                ).format(error=error, names=", ".join(str(each) for each in requirements))
            ) from error


def _pipInstall(requirements: list[Requirement], constraints: Path) -> None:
    try:
        from slicer import packaging
    except ImportError:
        # Slicer 5.10 has no slicer.packaging.
        slicer.util.pip_install(["-c", str(constraints), *(str(each) for each in requirements)])
        return
    # The panel lists the packages and has asked already; it tells of a restart, too.
    packaging.pip_ensure(
        requirements, constraints=constraints, requester="SAMFineTune", prompt_install=False, prompt_restart=False
    )


def _mayStay(name: str) -> bool:
    installed = _installedVersion(name)
    wanted = [each for each in (_TORCH, *_requirements()) if canonicalize_name(each.name) == canonicalize_name(name)]
    return bool(installed) and not any(_package(each).isMissing for each in wanted)


def _requireAll(packages: list[PythonPackage]) -> None:
    importlib.invalidate_caches()
    still = [each.name for each in packages if _package(each.requirement).isMissing]
    if still:
        raise InstallationError(_("Still missing: {names}.").format(names=", ".join(still)))


def _versionsLoaded() -> dict[str, str]:
    """Versions of the distributions of which something is loaded into Slicer."""
    owners = importlib.metadata.packages_distributions()
    loaded = {name for module, names in owners.items() if module in sys.modules for name in names}
    return {name: _installedVersion(name) for name in loaded}
