"""Stands for the module SampleData: data sets that modules register, and files fetched once."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer


@dataclass
class SampleDataSource:
    """One data set; lists of the same length say which files it consists of."""

    sampleName: str | None = None
    sampleDescription: str | None = None
    uris: Any = None
    fileNames: Any = None
    nodeNames: Any = None
    checksums: Any = None
    loadFiles: Any = None
    customDownloader: Callable[[Any], Any] | None = None
    thumbnailFileName: str | None = None
    loadFileTypes: Any = None
    loadFileProperties: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sampleDescription = self.sampleDescription or self.sampleName
        single = isinstance(self.uris, str)
        count = 1 if single else len(self.uris)
        for name in ("nodeNames", "checksums", "loadFiles", "loadFileTypes"):
            value = getattr(self, name)
            if single or value is None or isinstance(value, str):
                setattr(self, name, [value] * count)
        if single:
            self.uris, self.fileNames = [self.uris], [self.fileNames]
        lists = (self.fileNames, self.nodeNames, self.checksums, self.loadFiles, self.loadFileTypes)
        if any(len(one) != count for one in lists):
            raise ValueError("all lists of a sample data source must have the same length")


class SampleDataLogic:
    """Where modules register their data sets."""

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **description: Any) -> None:
        source = SampleDataSource(**description)
        sources = SampleDataLogic.sampleDataSourcesByCategory().setdefault(category, [])
        if source not in sources:
            sources.append(source)

    @staticmethod
    def sampleDataSourcesByCategory(category: str | None = None) -> Any:
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        every = slicer.modules.sampleDataSources
        return every if category is None else every.get(category, [])

    def downloadFileIntoCache(
        self, uri: str, name: str, checksum: str | None = None, forceDownload: bool = False
    ) -> str:
        """The path in the scene's cache; a file with a wrong checksum is removed."""
        folder = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
        path = folder / name
        if path.exists() and not forceDownload and _is_right(path, checksum):
            return str(path)
        try:
            urllib.request.urlretrieve(uri, path)
        except OSError as error:
            raise ValueError(f"Failed to download {uri} to {path}") from error
        if not _is_right(path, checksum):
            path.unlink()
        return str(path)

    def downloadFromSource(self, source: SampleDataSource) -> list[Any]:
        """What the person gets who clicks on the data set's picture."""
        if source.customDownloader is None:
            raise NotImplementedError("only data sets with a customDownloader")
        return [source.customDownloader(source)]


def _is_right(path: Path, checksum: str | None) -> bool:
    if checksum is None:
        return True
    algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
    return bool(slicer.util.computeChecksum(algorithm, str(path)) == digest)
