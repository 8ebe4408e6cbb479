"""Cutout: a square of every image greyed out, as DiffAugment has it; it may hang over the edge."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def cut_out(images: Tensor, places: np.ndarray, share: float, chosen: np.ndarray) -> Tensor:
    """float32 [N, C, H, W] -> the same shape, 0 (middle grey) in a square whose side is `share` of the image's.

    Args:
        places: float [N, 2] in [-1, 1): the square's centre, from the top left to the bottom right of the image.
        chosen: bool [N]: the images that lose a square.
    """
    height, width = images.shape[2:]
    inside = []
    for side, place in ((height, places[:, 0]), (width, places[:, 1])):
        half = share * side / 2.0
        centre = (place.astype(np.float64) + 1.0) / 2.0 * side  # in [0, side)
        inside.append(np.abs(np.arange(side)[None] + 0.5 - centre[:, None]) < half)  # [N, side]
    cut = inside[0][:, :, None] & inside[1][:, None, :] & chosen[:, None, None]  # [N, H, W]
    return images.masked_fill(torch.from_numpy(cut).to(images.device)[:, None], 0.0)
