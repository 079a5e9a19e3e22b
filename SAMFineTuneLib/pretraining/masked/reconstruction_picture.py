"""A picture of reconstructions: each row shows an image, what is visible of it, and the guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.pretraining.masked.autoencoder import MaskedAutoencoder
from SAMFineTuneLib.pretraining.masked.patches import (
    draw_masks,
    images_of,
    patches_of,
    with_statistics_of,
)
from SAMFineTuneLib.pretraining.masked.plan import MASKED
from SAMFineTuneLib.pretraining.saved import cannot_write

_GAP = 4
_LARGEST_SIDE = 384


@torch.no_grad()
def reconstructions(autoencoder: MaskedAutoencoder, images: Tensor) -> Tensor:
    """Images (B, 3, S, S) to (B, 3, 3, S, S): original, masked, and reconstructed.

    The guessed patches get mean and deviation of the true ones, as only normalised pixels are
    predicted; visible patches are shown as they are. The masks are always the same ones.
    """
    noise = torch.rand(len(images), autoencoder.patches, generator=torch.Generator().manual_seed(0))
    masked = draw_masks(MASKED, noise).to(images.device)
    true = patches_of(images, autoencoder.patch)
    guessed = with_statistics_of(autoencoder(images, masked).float(), true)
    hidden = masked[..., None]
    darkest = images.amin((1, 2, 3))[:, None, None].expand_as(true)
    shown = [true, torch.where(hidden, darkest, true), torch.where(hidden, guessed, true)]
    return torch.stack([images_of(each, autoencoder.patch) for each in shown], dim=1)


def write_picture(path: Path, rows: Tensor) -> None:
    """Writes reconstructions (B, 3, 3, S, S) as a PNG; grey levels span those of the original.

    Raises:
        InputError: it cannot be written.
    """
    low = rows[:, :1].amin((1, 2, 3, 4), keepdim=True)
    high = rows[:, :1].amax((1, 2, 3, 4), keepdim=True)
    levels = ((rows - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).cpu()
    step = max(1, levels.shape[-1] // _LARGEST_SIDE)
    levels = levels[..., ::step, ::step]
    padded = torch.nn.functional.pad(levels, (0, _GAP, 0, _GAP), value=1.0)
    # Rows of images below each other, the three of a row beside each other.
    sheet = padded.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    pixels = (sheet.numpy() * 255).round().astype(np.uint8)
    try:
        with written_whole(path) as unfinished:
            Image.fromarray(pixels).save(unfinished, format="PNG")
    except OSError as error:
        raise cannot_write(path, error) from error
