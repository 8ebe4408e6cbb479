"""Buffers that forward passes bring up to date (BatchNorm's averages, a StyleGAN2's mean of w, power iterations), where
a batch is taken in parts.

Every part begins with the buffers as they were before the step, and the step leaves the mean of what the parts made of
them. So a part that is one of four changes them as one of four processes does, one batch is one step of every moving
average, and what a pass computes from the weights alone, as spectral normalisation does, is the same in all parts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Statistics:
    """The buffers of a network through a step of `parts` parts; with one part nothing is copied or changed.

    A step is `begin`, then for each part `keep` or `drop` after its backward pass (which still reads them), and
    `settle`. Between `keep` and `settle` the tensors of `changes` may be summed over processes.
    """

    def __init__(self, network: nn.Module, parts: int) -> None:
        self._parts = parts
        self._buffers = list(network.buffers()) if parts > 1 else []
        self._before: list[Tensor] = []
        self.changes: list[Tensor] = []

    def begin(self) -> None:
        self._before = [buffer.clone() for buffer in self._buffers]
        self.changes = [torch.zeros_like(b, dtype=_floating(b)) for b in self._buffers]

    def keep(self) -> None:
        """Takes what a part has made of the buffers."""
        for buffer, before, change in zip(self._buffers, self._before, self.changes, strict=True):
            change.add_(buffer - before)
            buffer.copy_(before)

    def drop(self) -> None:
        """Forgets what a part has made of them: it will be passed again."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    def settle(self) -> None:
        for buffer, before, change in zip(self._buffers, self._before, self.changes, strict=True):
            mean = change / self._parts
            buffer.copy_(before + (mean if before.is_floating_point() else mean.round().to(before.dtype)))
        self._before, self.changes = [], []


def _floating(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.is_floating_point() else torch.float32
