"""The section of the tuned models on this computer, and of what else lies there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import qt
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.sections.panel_section import PanelSection, allow, problemWithStarting, showProblem, showText
from SAMFineTunePanel.texts.model_card_text import cells, details
from SAMFineTunePanel.texts.sizes_and_times import sizeText
from SAMFineTunePanel.widgets.table_rows import layOutColumns, selectedRow, setRow

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.jobs.storage import StorageUsed
    from SAMFineTuneLib.models.library import TunedModel

_SUFFIX = ".safetensors"

Given = TypeVar("Given")


class ModelsSection(PanelSection):
    """A table of tuned models; names are edited in place."""

    uiFile = "SAMFineTuneModelsSection.ui"

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self._models: list[TunedModel] = []
        self._used: StorageUsed | None = None
        layOutColumns(self.ui.modelsTable, (0, 3))
        showText(self.ui.statusLabel, "")
        showProblem(self.ui.errorLabel, "")
        self.ui.modelsTable.connect("itemSelectionChanged()", self.update)
        self.ui.modelsTable.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        self.ui.renameButton.connect("clicked(bool)", self.onRename)
        self.ui.deleteButton.connect("clicked(bool)", self.onDelete)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.ui.importButton.connect("clicked(bool)", self.onImport)
        self.ui.clearStorageButton.connect("clicked(bool)", self.onClearStorage)

    @property
    def selectedModel(self) -> TunedModel | None:
        """The model of the selected row; None when there is none."""
        row = selectedRow(self.ui.modelsTable)
        return self._models[row] if 0 <= row < len(self._models) else None

    def update(self) -> None:
        model = self.selectedModel
        showText(
            self.ui.cardLabel,
            details(model)
            if model is not None
            else ""
            if self._models
            else _("Models that you fine-tune or import are listed here."),
        )
        none = "" if model is not None else _("Select a model in the table first")
        broken = none if model is None or model.card is not None else model.fault
        allow(self.ui.renameButton, none, _("Edit the model's name in the table"))
        allow(self.ui.deleteButton, none, _("Delete the model from this computer"))
        allow(self.ui.exportButton, broken, _("Save the model as one file, to share it or keep it elsewhere"))
        allow(self.ui.importButton, "", _("Take over a tuned model from a file"))
        allow(
            self.ui.clearStorageButton,
            self._problemWithClearing(),
            _("Delete downloaded weights, interrupted fine-tunes and prepared slices; tuned models stay"),
        )

    def updateFromFiles(self, models: list[TunedModel]) -> None:
        from SAMFineTuneLib.jobs.storage import storage_used

        selected = self.selectedModel
        self._models = list(models)
        used = self._used = storage_used()
        self._showTable(selected.name if selected is not None else "")
        jobs = [*used.interrupted, *used.other_jobs]
        self.ui.storageLabel.text = _(
            "On the disk: weights {weights}, unfinished jobs {jobs}, slices prepared for correcting {slices}, models "
            "{models}"
        ).format(
            weights=sizeText(sum(each.bytes for each in used.checkpoints)),
            jobs=sizeText(sum(each.bytes for each in jobs)),
            slices=sizeText(sum(each.bytes for each in used.embeddings)),
            models=sizeText(sum(each.bytes for each in models)),
        )
        self.ui.storageLabel.toolTip = _("Weights, jobs and prepared slices lie in {folder}").format(folder=used.folder)
        self.update()

    def onRename(self, checked: bool = False) -> None:
        """Let the user edit the name where it stands."""
        table = self.ui.modelsTable
        table.editItem(table.item(selectedRow(table), 0))

    def onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        """A name was edited."""
        model = self._models[item.row()]
        if item.column() != 0 or item.text() == model.name:
            return
        renamed = self._try(lambda: self.logic.renameModel(model, item.text()))
        if renamed is None:
            self._showTable(model.name)
            return
        self._followName(model.name, renamed.name)
        self._models[item.row()] = renamed
        self._done(_("Renamed to {name}.").format(name=renamed.name))

    def onDelete(self, checked: bool = False) -> None:
        """Delete the selected model, once the user has confirmed it."""
        model = self.selectedModel
        if model is None:
            return
        if slicer.util.confirmOkCancelDisplay(
            _("Delete the tuned model {name}? This cannot be undone.").format(name=model.name)
        ):
            self._try(lambda: self.logic.deleteModel(model), _("Deleted {name}.").format(name=model.name))

    def onExport(self, checked: bool = False) -> None:
        """Save the selected model as a file."""
        model = self.selectedModel
        if model is None:
            return
        path = qt.QFileDialog.getSaveFileName(
            self.widget, _("Export a tuned model"), f"{model.name}{_SUFFIX}", _fileFilter()
        )
        if path:
            # The dialog has asked whether a file may be replaced only if the name that was typed ends so.
            wasAsked = path.lower().endswith(_SUFFIX)
            path = path if wasAsked else path + _SUFFIX
            self._try(
                lambda: self.logic.exportModel(model, path, overwrite=wasAsked),
                _("Exported to {path}.").format(path=path),
            )

    def onImport(self, checked: bool = False) -> None:
        """Take over a model from a file."""
        path = qt.QFileDialog.getOpenFileName(self.widget, _("Import a tuned model"), "", _fileFilter())
        if path:
            self._try(lambda: self.logic.importModel(path), _("Imported {name}.").format(name=Path(path).stem))

    def onClearStorage(self, checked: bool = False) -> None:
        """Delete what can be fetched or made again, once the user has confirmed it."""
        from SAMFineTuneLib.jobs.storage import clear_storage

        if slicer.util.confirmOkCancelDisplay(
            _(
                "Delete the downloaded weights, all interrupted fine-tunes and the slices prepared for correcting? "
                "Tuned models stay; those tuned from downloaded weights need them again to be applied."
            )
        ):
            self._try(clear_storage, _("Cleared."))

    def _problemWithClearing(self) -> str:
        if self._used is None or not self._used.bytes:
            return _("There is nothing to clear")
        # One of this Slicer need not have begun to use its folder.
        isBusy = bool(problemWithStarting(self.logic)) or self.logic.correction.session.isOpen
        return _("A job or a correction is at work; end it first") if self._used.running or isBusy else ""

    def _try(self, act: Callable[[], Given], done: str = "") -> Given | None:
        """What `act` gives; None, with the error shown, where it did not work."""
        from SAMFineTuneLib.errors import InputError

        showProblem(self.ui.errorLabel, "")
        showText(self.ui.statusLabel, "")
        try:
            result = act()
        except (InputError, OSError) as error:
            showProblem(self.ui.errorLabel, str(error))
            return None
        if done:
            self._done(done)
        return result

    def _done(self, text: str) -> None:
        self.filesChanged()
        showText(self.ui.statusLabel, text)

    def _followName(self, before: str, after: str) -> None:
        if not self.hasParameters:
            return
        for name in ("applyModel", "startFrom", "correctModel"):
            if getattr(self.parameterNode, name) == before:
                setattr(self.parameterNode, name, after)

    def _showTable(self, selectedName: str) -> None:
        table = self.ui.modelsTable
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(self._models))
        for row, model in enumerate(self._models):
            setRow(table, row, cells(model))
            for column in range(table.columnCount):
                editable = qt.Qt.ItemIsEditable if column == 0 else qt.Qt.NoItemFlags
                table.item(row, column).setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | editable)
        names = [model.name for model in self._models]
        table.clearSelection()
        if selectedName in names:
            table.selectRow(names.index(selectedName))
        table.blockSignals(wasBlocked)


def _fileFilter() -> str:
    return _("Tuned models") + f" (*{_SUFFIX})"
