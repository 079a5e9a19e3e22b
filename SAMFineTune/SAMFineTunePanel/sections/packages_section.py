"""The section that installs what is missing, and is seen only while something is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.sections.panel_section import PanelSection, allow, showProblem, showText
from SAMFineTunePanel.texts.sizes_and_times import sizeText
from SAMFineTunePanel.widgets.table_rows import layOutColumns, setRow
from SAMFineTunePanel.worker import python_packages

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic


class PackagesSection(PanelSection):
    """Lists the packages with their sizes, and installs them when asked to."""

    uiFile = "SAMFineTunePackagesSection.ui"

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self.missing: list[python_packages.PythonPackage] = []
        # Whether Slicer works with new packages only after a restart.
        self.needsRestart = False
        # Slicer lets events through while it installs: this may be asked for again meanwhile.
        self._installing = False
        layOutColumns(self.ui.packagesTable, (0,))
        self.ui.restartButton.visible = False
        self.ui.installProgressBar.visible = False
        showText(self.ui.statusLabel, "")
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.restartButton.connect("clicked(bool)", self.onRestart)

    def look(self) -> bool:
        """Look at what is installed; whether everything is there."""
        if self._installing:
            return False
        self.missing = python_packages.missingPackages()
        self._show()
        self.widget.visible = bool(self.missing) or self.needsRestart
        return not self.missing and not self.needsRestart

    def onInstall(self, checked: bool = False) -> None:
        """Install what is missing."""
        if self._installing:
            return
        self._installing = True
        self.ui.installButton.enabled = False
        self.ui.installProgressBar.visible = True
        showText(self.ui.statusLabel, _("Installing. This takes some minutes, in which Slicer may not answer."))
        slicer.app.processEvents()
        try:
            self.needsRestart |= python_packages.install(self.missing)
            showText(self.ui.statusLabel, _("Restart Slicer to work with it.") if self.needsRestart else "")
        except python_packages.InstallationError as error:
            showProblem(self.ui.statusLabel, str(error))
        finally:
            self._installing = False
            self.ui.installProgressBar.visible = False
            self.ui.restartButton.visible = self.needsRestart
            self.changed()

    def onRestart(self, checked: bool = False) -> None:
        """Restart Slicer."""
        slicer.util.restart()

    def _show(self) -> None:
        table = self.ui.packagesTable
        table.setRowCount(len(self.missing))
        for row, package in enumerate(self.missing):
            setRow(table, row, [str(package.requirement), sizeText(package.megabytes * 1_000_000), _stateText(package)])
        total = sum(each.megabytes for each in self.missing)
        problem = python_packages.problemWithInstallation(self.missing)
        text = _("About {size} to download.").format(size=sizeText(total * 1_000_000))
        showText(self.ui.totalLabel, text if total else "")
        showProblem(self.ui.problemLabel, problem)
        nothing = "" if self.missing else _("Everything is installed")
        allow(self.ui.installButton, problem or nothing, _("Download and install what is missing into Slicer's Python"))


def _stateText(package: python_packages.PythonPackage) -> str:
    return _("{version}, too old").format(version=package.installed) if package.installed else _("missing")
