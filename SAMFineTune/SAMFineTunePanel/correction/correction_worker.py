"""A correction worker of Slicer's: its folder with the volume, its process, and the masks that pass through files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.image_files import ImageFiles
from SAMFineTunePanel.scene.voxel_grid import gridOf
from SAMFineTunePanel.texts.error_text import errorText, textOf
from SAMFineTunePanel.worker.chunked_task import ChunkedTask
from SAMFineTunePanel.worker.qprocess_transport import QProcessTransport

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.client import AnsweredRequest
    from SAMFineTuneLib.interactive.protocol import Answer, Failure, Message, Ready
    from SAMFineTuneLib.jobs.folder import JobFolder

# A worker that does not end when it is asked to close is ended from here.
_CLOSE_GRACE_S = 1.5

# Qt's objects live as long as something refers to them, and a worker that is ending is nobody's.
_ending: set[CorrectionWorker] = set()


def endAllNow() -> None:
    """End what was closed and has not ended yet, and wait: Slicer is closing."""
    for worker in list(_ending):
        worker.endForClosing()


@dataclass(frozen=True, eq=False)
class _MaskFiles:
    """The files through which masks pass, mapped into memory; there while the worker is ready.

    Attributes:
        given: (slices, rows, columns), 1 where a mask holds a voxel; written here.
        found: as `given`; written by the worker.
    """

    given: np.ndarray
    found: np.ndarray


class CorrectionWorker:
    """A worker on one volume. Masks are bool (rows, columns): the two axes of the array (k, j, i) that are left.

    Args:
        volumeNode: the image.
        channels: the further images of the same case, in the order of the model.
        settings: further fields of SAMFineTuneLib.interactive.protocol.SessionSettings.
        onMessage: called with Ready, Embedded and Log.
        onRestart: called with the reason when the worker died and is started again.
        onEnd: called once, with the reason, when it cannot go on.
    """

    def __init__(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode],
        settings: dict[str, Any],
        onMessage: Callable[[Message], None],
        onRestart: Callable[[str], None],
        onEnd: Callable[[str], None],
    ) -> None:
        from SAMFineTuneLib.interactive.client import CorrectionClient

        self.ready: Ready | None = None
        self._onMessage, self._onRestart, self._onEnd = onMessage, onRestart, onEnd
        self._volumeNode = volumeNode
        self._channels = tuple(channels)
        self._settings = dict(settings)
        self._about = _aboutOf(volumeNode, self._channels, self._settings)
        self._modelFile = _stampOf(self._settings)
        self._transport = QProcessTransport(self._command)
        self._madeFolder: JobFolder | None = None
        self._preparing: ChunkedTask | None = None
        self._given: dict[int, np.ndarray] = {}
        self._masks: _MaskFiles | None = None
        self._closed = False
        self._client = CorrectionClient(
            self._transport, self._takeMessage, self._onWorkerDied, self._onWorkerEnd, self._onWorkerGone
        )

    @property
    def processID(self) -> int:
        """The worker's process ID; 0 when it does not run."""
        return self._transport.processID

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the volume's array (k, j, i), as it was read."""
        return self._about[0]

    @property
    def labels(self) -> dict[int, str]:
        """Number → name of the structures that the tuned model finds; none before the worker is ready."""
        return self.ready.labels if self.ready is not None else {}

    @property
    def isOpen(self) -> bool:
        """Whether it can be asked: it is at work, or will be soon."""
        return not self._closed and self._client.state != "ended"

    def open(self) -> None:
        """Write the volume and start the worker; returns at once.

        Raises:
            InputError: the cache cannot be written.
        """
        from SAMFineTuneLib.interactive.stale_sessions import CORRECTION, remove_stale_sessions
        from SAMFineTuneLib.jobs.folder import new_job_folder

        remove_stale_sessions()
        self._madeFolder = new_job_folder(CORRECTION)
        # Who clears the cache sees that it is in use: by Slicer itself, for workers may come and go.
        self._folder.lock()
        self._preparing = ChunkedTask(self._writeSession(), self._client.start, self._onCannotWrite)
        self._preparing.start()

    def canGoOnWith(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode],
        settings: dict[str, Any],
    ) -> bool:
        """Whether another session can use it: the model's file may have been replaced since it was read."""
        isSame = self.isOpen and self.isAbout(volumeNode, channels, settings)
        return isSame and self._modelFile == _stampOf(settings)

    def isAbout(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode],
        settings: dict[str, Any],
    ) -> bool:
        """Whether it works on this volume and these further images as they are now, with these settings."""
        isSame = self._volumeNode is volumeNode and self._channels == tuple(channels)
        return isSame and self._about == _aboutOf(volumeNode, channels, settings)

    def ask(
        self, request: AnsweredRequest, onAnswer: Callable[[Answer], None], onFailure: Callable[[Failure], None]
    ) -> None:
        """Ask the worker; see CorrectionClient.ask."""
        self._client.ask(request, onAnswer, onFailure)

    def dropMasks(self, number: int | None = None) -> None:
        """Nobody wants the masks that were asked for, of a slice or of all."""
        self._client.drop_masks(number)

    def stopPropagation(self) -> None:
        """Break off what propagates masks to other slices."""
        self._client.stop()

    def give(self, number: int, mask: np.ndarray) -> None:
        """Have the worker know a mask of a slice."""
        # Eight voxels a byte: many slices may be given.
        self._given[number] = np.packbits(mask)
        self._writeGiven(number)

    def found(self, number: int) -> np.ndarray:
        """The mask of a slice that the worker has just reported."""
        if self._masks is None:
            raise ValueError(_("The correction worker is not ready."))
        masks = self._masks.found
        return masks[number] > 0 if self._masksAreWhole() else np.zeros(masks.shape[1:], bool)

    def close(self) -> None:
        """End it and remove its folder; returns at once."""
        if self._closed:
            return
        self._closed = True
        if self._preparing is not None:
            self._preparing.stop()
        self._forgetFiles()
        if self._transport.hasEnded:
            self._client.close()
            self._removeFolder()
            return
        _ending.add(self)
        self._client.close()
        self._transport.call_later(_CLOSE_GRACE_S, self._transport.kill)

    def endForClosing(self) -> None:
        """End it and wait, at most a second: Slicer is closing, and nothing may stay behind."""
        self.close()
        if not self._transport.hasEnded:
            self._transport.kill()
            self._transport.waitUntilEnded(1000)
        self._removeFolder()
        _ending.discard(self)

    @property
    def _folder(self) -> JobFolder:
        """Its folder, once `open` has made it."""
        if self._madeFolder is None:
            raise ValueError(_("The correction worker was not opened."))
        return self._madeFolder

    def _command(self, program: Path) -> list[str]:
        from SAMFineTuneLib.interactive import client

        return client.serve_command(self._folder.path, program)

    def _writeSession(self) -> Generator[None, None, None]:
        from SAMFineTuneLib.interactive.protocol import SESSION_FILE, SessionSettings

        files = ImageFiles(self._folder.path)
        volume, *channels = yield from files.steps(self._volumeNode, self._channels)
        settings = SessionSettings(volume=volume, channels=channels, **self._settings)
        (self._folder.path / SESSION_FILE).write_text(settings.model_dump_json(), encoding="utf-8")

    def _takeMessage(self, message: Message) -> None:
        if message.type == "ready":
            if message.shape != self.shape:
                self._fail(_("The volume was changed while it was being read. Start again."))
                return
            if not self._openFiles(message):
                return
        self._onMessage(message)

    def _openFiles(self, ready: Ready) -> bool:
        from SAMFineTuneLib.errors import InputError
        from SAMFineTuneLib.interactive.mask_files import opened
        from SAMFineTuneLib.interactive.protocol import FOUND_FILE, GIVEN_FILE

        try:
            masks = [opened(self._folder.path / name, ready.shape) for name in (GIVEN_FILE, FOUND_FILE)]
        except InputError as error:
            self._fail(textOf(error))
            return False
        self.ready = ready
        given, found = (np.moveaxis(each, ready.array_axis, 0) for each in masks)
        self._masks = _MaskFiles(given, found)
        # A worker that was started again has begun with an empty file.
        for number in self._given:
            self._writeGiven(number)
        return True

    def _writeGiven(self, number: int) -> None:
        masks = self._masks
        if masks is not None and self._masksAreWhole():
            target = masks.given[number]
            target[...] = np.unpackbits(self._given[number], count=target.size).reshape(target.shape)

    def _masksAreWhole(self) -> bool:
        """Whether memory may look into the files: one that is cut off would end Slicer."""
        from SAMFineTuneLib.errors import InputError
        from SAMFineTuneLib.interactive.mask_files import require_whole
        from SAMFineTuneLib.interactive.protocol import FOUND_FILE, GIVEN_FILE

        try:
            for name in (GIVEN_FILE, FOUND_FILE):
                path = self._folder.path / name
                # A file that was removed stays whole for who looks into it; one that was cut off does not.
                if path.exists():
                    require_whole(path, self.shape)
        except InputError as error:
            self._fail(textOf(error))
            return False
        return True

    def _forgetFiles(self) -> None:
        # The next worker makes the files anew, and memory must not look into one that is cut off.
        self._masks = None

    def _onWorkerDied(self, reason: str) -> None:
        from SAMFineTuneLib.interactive.protocol import SESSION_FILE

        self._forgetFiles()
        if not (self._folder.path / SESSION_FILE).is_file():
            self._fail(_("{words}, and its folder was removed. Start again.").format(words=reason))
            return
        self._onRestart(reason)

    def _onWorkerEnd(self, failure: Failure) -> None:
        self._fail(errorText(failure.message, failure.remedy, failure.code, failure.facts))

    def _onCannotWrite(self, error: Exception) -> None:
        reason = str(error)
        if isinstance(error, OSError):
            reason = _("The volume cannot be written to {folder}: {reason}. Free some space there.").format(
                folder=self._folder.path, reason=error.strerror or error
            )
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if self._closed:
            return
        self.close()
        self._onEnd(reason)

    def _onWorkerGone(self) -> None:
        self._removeFolder()
        _ending.discard(self)

    def _removeFolder(self) -> None:
        """It holds a patient's image, which does not stay on the disk."""
        if self._madeFolder is not None:
            self._madeFolder.remove()


def _aboutOf(
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
    channels: Sequence[slicer.vtkMRMLScalarVolumeNode],
    settings: dict[str, Any],
) -> tuple:
    """Changes when voxels do, or what the worker is to do with them; a move of all images together changes nothing."""
    grid = gridOf(volumeNode)
    toVolume = np.linalg.inv(grid.ijkToRas)
    placed = tuple((_timesOf(each), (toVolume @ gridOf(each).ijkToRas).round(4).tobytes()) for each in channels)
    spacing = tuple(grid.spacing.round(6))
    return grid.shape, _timesOf(volumeNode), spacing, placed, tuple(sorted(settings.items()))


def _timesOf(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> tuple[int, int]:
    """When a volume's voxels were last changed."""
    image = volumeNode.GetImageData()
    return image.GetMTime(), image.GetPointData().GetScalars().GetMTime()


def _stampOf(settings: dict[str, Any]) -> tuple[int, int] | None:
    """Changes when the model's file is replaced; None without a model, or where it is gone."""
    try:
        status = Path(settings["model"]).stat()
    except (KeyError, OSError):
        return None
    return status.st_mtime_ns, status.st_size
