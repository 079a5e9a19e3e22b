"""The section of missing packages, and the panel that waits for them."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import types

import pytest

SECTIONS = ("examples", "model", "fineTune", "apply", "models")


@pytest.fixture
def installed(module, monkeypatch):
    """What seems to be installed; a test takes packages away and brings them."""
    from SAMFineTunePanel.worker import python_packages

    found = dict.fromkeys([each.name for each in python_packages.neededPackages()], "99.0") | {
        "numpy": "2.0.1"
    }
    monkeypatch.setattr(python_packages, "_installedVersion", lambda name: found.get(name, ""))
    return found


@pytest.fixture
def pytorch_extension(monkeypatch, tmp_path, installed):
    """Slicer's PyTorch extension, as far as it is asked; its `outcome` is what installing does."""
    (tmp_path / "PyTorchUtils.py").write_text(
        textwrap.dedent("""
        calls = []
        outcome = None

        class PyTorchUtilsLogic:
            def installTorch(self, askConfirmation=False, forceComputationBackend=None,
                             torchVersionRequirement=None, torchvisionVersionRequirement=None):
                calls.append((askConfirmation, torchVersionRequirement))
                return outcome()
    """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    sys.modules.pop("PyTorchUtils", None)
    extension = importlib.import_module("PyTorchUtils")

    def bring():
        installed["torch"] = "2.9.0+cpu"
        return types.SimpleNamespace(__version__="2.9.0+cpu")

    extension.outcome = bring
    yield extension
    sys.modules.pop("PyTorchUtils", None)


@pytest.fixture
def pip(monkeypatch, installed):
    """slicer.packaging, as far as it is asked."""
    import slicer

    asked = types.SimpleNamespace(requirements=[], constraints=[], error=None)

    def pip_ensure(
        requirements, constraints=None, requester=None, prompt_install=True, prompt_restart=True
    ):
        assert requester == "SAMFineTune" and not prompt_install and not prompt_restart
        if asked.error is not None:
            raise asked.error
        asked.requirements += [str(each) for each in requirements]
        asked.constraints += constraints.read_text(encoding="utf-8").splitlines()
        installed.update({each.name: "99.0" for each in requirements})

    monkeypatch.setattr(slicer.packaging, "pip_ensure", pip_ensure)
    return asked


def reopen(panel) -> None:
    panel.exit()
    panel.enter()


def rows(section) -> list[list[str]]:
    table = section.ui.packagesTable
    return [
        [table.item(row, column).text() for column in range(3)] for row in range(table.rowCount)
    ]


def locked(panel, name: str) -> bool:
    button = getattr(panel.panel, name).ui.collapsibleButton
    assert button.enabled or button.toolTip
    return not button.enabled and button.collapsed


def test_nothing_is_shown_when_nothing_is_missing(panel, installed):
    reopen(panel)
    assert not panel.panel.packages.widget.visible and panel.panel.isReady
    assert not any(locked(panel, name) for name in SECTIONS)


def test_missing_packages_lock_the_rest(panel, installed, pytorch_extension):
    installed.update(torch="", monai="", scipy="1.2.0")
    reopen(panel)
    section = panel.panel.packages
    assert section.widget.visible and all(locked(panel, name) for name in SECTIONS)
    assert [row[0].partition(">")[0] for row in rows(section)] == ["torch", "monai", "scipy"]
    assert rows(section)[2][2] == "1.2.0, too old" and all(
        "MB" in row[1] or "GB" in row[1] for row in rows(section)
    )
    assert "to download" in section.ui.totalLabel.text and section.ui.installButton.enabled


def test_without_the_pytorch_extension_it_says_where_to_get_it(panel, installed, monkeypatch):
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "PyTorch" not in each])
    installed["torch"] = ""
    reopen(panel)
    section = panel.panel.packages
    assert (
        not section.ui.installButton.enabled
        and "Extensions Manager" in section.ui.installButton.toolTip
    )
    assert "Extensions Manager" in section.ui.problemLabel.text and section.ui.problemLabel.visible


def test_one_button_installs_everything_and_opens_the_panel(
    panel, installed, pytorch_extension, pip
):
    installed.update({"torch": "", "segment-anything": "", "monai": ""})
    reopen(panel)
    section = panel.panel.packages
    section.ui.installButton.click()
    assert pytorch_extension.calls == [(True, ">=2.2")]
    assert [each.partition(">")[0] for each in pip.requirements] == ["segment-anything", "monai"]
    # What the extension chose, and what Slicer has loaded, is not replaced on the way.
    assert {"torch==2.9.0+cpu", "numpy==2.0.1"} <= set(pip.constraints)
    assert not section.widget.visible and panel.panel.isReady
    assert not any(locked(panel, name) for name in SECTIONS)
    assert not panel.panel.examples.ui.collapsibleButton.collapsed
    assert panel.panel.models.ui.collapsibleButton.collapsed


def test_a_user_who_declines_is_told(panel, installed, pytorch_extension, pip):
    pytorch_extension.outcome = lambda: None
    installed.update(torch="", monai="")
    reopen(panel)
    section = panel.panel.packages
    section.ui.installButton.click()
    assert "declined" in section.ui.statusLabel.text and pip.requirements == []
    assert section.ui.installButton.enabled and not section.ui.installProgressBar.visible


def test_a_failure_is_told_in_the_panel(panel, installed, pytorch_extension, pip):
    def fail():
        raise OSError("no connection")

    pytorch_extension.outcome = fail
    installed.update(torch="", monai="")
    reopen(panel)
    section = panel.panel.packages
    section.ui.installButton.click()
    words = section.ui.statusLabel.text
    assert "no connection" in words and "without internet" in words and "torch" in words
    assert "uninstall" not in words, "nothing was installed"

    def bring_what_does_not_load():
        installed["torch"] = "2.9.0"
        fail()

    pytorch_extension.outcome = bring_what_does_not_load
    section.ui.installButton.click()
    assert "uninstall PyTorch there" in section.ui.statusLabel.text
    installed["torch"] = ""
    pytorch_extension.outcome = lambda: installed.update(torch="2.9.0") or True
    pip.error = subprocess.CalledProcessError(1, "pip install")
    section.ui.installButton.click()
    assert (
        "monai" in section.ui.statusLabel.text and "Python console" in section.ui.statusLabel.text
    )
    assert all(locked(panel, name) for name in SECTIONS)


def test_packages_that_did_not_come_are_named(panel, installed, pip, monkeypatch):
    import slicer

    monkeypatch.setattr(slicer.packaging, "pip_ensure", lambda *arguments, **names: None)
    installed["monai"] = ""
    reopen(panel)
    panel.panel.packages.ui.installButton.click()
    assert "Still missing: monai" in panel.panel.packages.ui.statusLabel.text


def test_what_slicer_has_loaded_needs_a_restart(panel, installed, pip, monkeypatch):
    import slicer

    restarts = []
    monkeypatch.setattr(slicer.util, "restart", lambda: restarts.append(1))
    installed["numpy"] = "1.2"
    reopen(panel)
    section = panel.panel.packages
    section.ui.installButton.click()
    assert section.ui.restartButton.visible and "Restart Slicer" in section.ui.statusLabel.text
    assert all(locked(panel, name) for name in SECTIONS)
    assert "Restart" in panel.panel.examples.ui.collapsibleButton.toolTip
    section.ui.restartButton.click()
    assert restarts == [1]
    section.needsRestart = False
    section.ui.restartButton.visible = False


def test_slicer_5_10_installs_by_its_older_way(panel, installed, monkeypatch):
    import slicer

    asked = []

    def pip_install(arguments):
        asked.extend(arguments)
        installed["monai"] = "99.0"

    monkeypatch.delattr(slicer, "packaging")
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", pip_install, raising=False)
    installed["monai"] = ""
    reopen(panel)
    panel.panel.packages.ui.installButton.click()
    assert asked[0] == "-c" and asked[2].startswith("monai>=") and panel.panel.isReady


def test_what_is_really_installed_is_enough():
    """The environment of the tests has all packages: the true check must agree."""
    from SAMFineTunePanel.worker import python_packages

    assert python_packages.missingPackages() == []
    assert python_packages.neededPackages()[0].name == "torch"


def test_a_second_click_while_packages_come_changes_nothing(
    panel, installed, pytorch_extension, monkeypatch
):
    """Slicer lets events through while pip works: clicks, and coming back to the module."""
    from SAMFineTunePanel.worker import python_packages

    installed.clear()
    panel.panel._lookAtPackages()
    section = panel.panel.packages
    calls = []

    def install(missing):
        calls.append([each.name for each in missing])
        section.onInstall()
        panel.panel._lookAtPackages()
        assert not section.ui.installButton.enabled and not panel.panel.isReady
        raise python_packages.InstallationError("no connection")

    monkeypatch.setattr(python_packages, "install", install)
    section.ui.installButton.click()
    assert len(calls) == 1 and "no connection" in section.ui.statusLabel.text
    assert section.ui.installButton.enabled and not section.ui.installProgressBar.visible
