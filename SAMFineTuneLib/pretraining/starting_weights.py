"""The network that a pre-training begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import PixelNormalisation, find
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from SAMFineTuneLib.weights.weights_kind import WeightsKind, pixels_of


@dataclass(frozen=True)
class StartingWeights:
    """Weights to begin with.

    Attributes:
        backbone: of the network.
        kind: "official", "random", or what the weights of the file were trained as.
        file: the weights, where a file is named.
    """

    backbone: str
    kind: str
    file: Path | None = None

    @property
    def pixels(self) -> PixelNormalisation:
        """How pixels are normalised for them."""
        kind = None if self.file is None else cast(WeightsKind, self.kind)
        return pixels_of(kind) or find(self.backbone).normalisation

    @property
    def kind_of_result(self) -> str:
        """The KIND by which a fine-tune takes weights that were trained on from these."""
        usual = self.pixels == find(self.backbone).normalisation
        return "own" if usual else self.kind

    def side(self, chosen: int | None) -> int:
        """The chosen side of the square input, otherwise that of the backbone."""
        return chosen or find(self.backbone).default_input_size

    def network(self, input_size: int) -> tuple[SamNetwork, dict[str, Any]]:
        """The network with these weights, and what the card tells of them.

        Raises:
            InputError: weights that are not there or are of another network; an input size that
                the network cannot take.
        """
        network = build(self.backbone, input_size, self.pixels)
        if self.kind == "random":
            return network, {"kind": "random"}
        loaded = load_checkpoint(network, self._path())
        return network, {"kind": self.kind, "file": loaded.path.name, "sha256": loaded.sha256}

    def _path(self) -> Path:
        try:
            return find_weights(self.backbone, self.file)
        except InputError as error:
            # A fine-tune names these weights by other options.
            if error.code == "weights_missing":
                raise InputError(
                    error.message,
                    error.remedy,
                    code="starting_weights_missing",
                    backbone=self.backbone,
                    megabytes=error.facts["megabytes"],
                ) from error
            if error.code == "no_such_checkpoint":
                raise InputError(error.message, error.remedy, code="no_such_file") from error
            raise
