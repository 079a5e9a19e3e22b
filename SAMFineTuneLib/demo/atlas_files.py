"""The three files of a brain atlas from which the demonstration's head is made.

They are the ICBM 152 (2009a, nonlinear, symmetric) T1 average of 152 healthy brains, and its maps
of grey and white matter (Fonov et al. 2011, "Unbiased average age-appropriate atlases for
pediatric studies", NeuroImage). The package nilearn contains them since its version 0.8.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_REPOSITORY = "https://raw.githubusercontent.com/nilearn/nilearn/0.14.0"
_FOLDER = "nilearn/datasets/data"


@dataclass(frozen=True)
class AtlasFile:
    """One file of nilearn's package and of its repository."""

    name: str
    sha256: str

    @property
    def url(self) -> str:
        """The address of the file, for computers on which the package is not installed."""
        return f"{_REPOSITORY}/{_FOLDER}/{self.name}"

    def lies_in(self, folder: Path) -> bool:
        """Whether the folder contains the file with the expected content."""
        path = folder / self.name
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


T1 = AtlasFile(
    "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
)
GREY_MATTER = AtlasFile(
    "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
)
WHITE_MATTER = AtlasFile(
    "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
    "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
)
ATLAS_FILES = (T1, GREY_MATTER, WHITE_MATTER)


def installed_atlas() -> Path | None:
    """The folder of the three files in an installed nilearn; None if it does not contain them."""
    # The package is found without importing it, which would take a second.
    package = find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    return folder if all(each.lies_in(folder) for each in ATLAS_FILES) else None
