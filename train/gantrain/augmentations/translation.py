"""Translation: every image shifted by whole pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ganruntime.noise import stream_of, uniform

BACKGROUND = -1.0  # black; the paper pads with zeros, which in [-1, 1] would draw a grey frame


def shifts(seed: int, first: int, count: int, most_pixels: int, use: str) -> np.ndarray:
    """How far images `first` … `first + count - 1` move: int64 [count, 2], each in [-most_pixels, most_pixels].

    A function of its arguments alone; `use` tells the calls of one training step apart.
    """
    u = uniform(seed, first, count, 2, stream=stream_of(f"gantrain.augment.{use}"))  # [-1, 1)
    return np.floor((u.astype(np.float64) + 1.0) / 2.0 * (2 * most_pixels + 1)).astype(np.int64) - most_pixels


def shifted(images: Tensor, moves: np.ndarray) -> Tensor:
    """float32 [N, C, H, W] -> the same shape: image n moved by moves[n] = (down, right), black coming in."""
    n, _, height, width = images.shape
    most = int(np.abs(moves).max()) if len(moves) else 0
    if most == 0:
        return images
    padded = pad(images, (most, most, most, most), value=BACKGROUND).permute(0, 2, 3, 1)  # [N, H + 2m, W + 2m, C]
    down, right = torch.from_numpy(moves).to(images.device).unbind(1)  # [N]
    rows = most - down[:, None] + torch.arange(height, device=images.device)  # [N, H]
    columns = most - right[:, None] + torch.arange(width, device=images.device)  # [N, W]
    batch = torch.arange(n, device=images.device)
    moved = padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return moved.permute(0, 3, 1, 2)
