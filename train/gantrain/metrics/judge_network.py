"""The network of a judge: a small convolutional classifier with a head for every attribute, and how it is trained.

Its sizes are for two CPU cores: it learns 64 features of 32×32 images in seconds. Training is deterministic for one
thread, and takes one: the same images give the same judge on the same machine, however many threads the caller has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gantrain.data import order

LARGEST_SIDE = 32
FEATURES = 64
_BATCH = 64
_RATE = 1e-2  # with batch normalisation; a third of it takes twice the steps
_SMOOTHING = 0.02


class JudgeNetwork(nn.Module):
    """Images float32 [N, C, S, S] in [-1, 1] -> features float32 [N, 64], logits float32 [N, classes] of every head.

    Args:
        channels: C.
        heads: attribute -> number of classes.
    """

    def __init__(self, channels: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = []
        for fan_in, fan_out in ((channels, 32), (32, 64), (64, FEATURES)):
            layers += [
                nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(fan_out),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())  # 4 × 4 already at 32 px
        self.features = nn.Sequential(
            nn.Linear(FEATURES * 16, FEATURES, bias=False), nn.BatchNorm1d(FEATURES), nn.ReLU()
        )
        self.heads = nn.ModuleList([nn.Linear(FEATURES, classes) for classes in heads.values()])

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.features(self.body(images))
        return features, [head(features) for head in self.heads]


def trained(
    images: Tensor, labels: Mapping[str, NDArray[np.int64]], heads: Mapping[str, int], steps: int, seed: int
) -> JudgeNetwork:
    """A network in eval mode that tells the classes of images float32 [N, C, S, S] in [-1, 1].

    torch's random state and number of threads are as before afterwards.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = JudgeNetwork(images.shape[1], heads)
        wanted = torch.from_numpy(np.stack([labels[name] for name in heads], axis=1))  # [N, heads]
        optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
        for step in range(steps):
            chosen = torch.from_numpy(order.indices(seed, step * _BATCH, _BATCH, len(images)))
            # No shifts: they cost the small attributes of drawn faces, such as the mouth, a third of their accuracy.
            _, logits = network(images[chosen])
            losses = [
                functional.cross_entropy(head, wanted[chosen, k], label_smoothing=_SMOOTHING)
                for k, head in enumerate(logits)
            ]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        return network.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in the order of a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def at_judges_size(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, C] -> float32 [N, C, S, S] in [-1, 1], S at most 32: antialiased, and never enlarged."""
    # Digits are a source that nobody may write into, which torch would warn of: a float copy first.
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32))
    if max(pixels.shape[2:]) > LARGEST_SIDE:
        pixels = functional.interpolate(
            pixels, (LARGEST_SIDE, LARGEST_SIDE), mode="bilinear", antialias=True, align_corners=False
        )
    return pixels.div_(127.5).sub_(1.0)
