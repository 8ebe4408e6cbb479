"""What a generator makes of the inputs that a seed gives, for sheets and scores; and how varied samples are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganruntime.noise import inputs
from ganruntime.spec import GeneratorSpec

Inputs = dict[str, NDArray[np.generic]]


@torch.no_grad()
def samples_of(
    generator: nn.Module, spec: GeneratorSpec, seed: int, first: int, count: int, device: torch.device
) -> tuple[NDArray[np.float32], Inputs]:
    """Samples `first` … of `seed`, those that `ganexport generate --seed SEED` gives, and the inputs that they are of.

    Returns:
        The generator's output as it is, float32 [count, C, H, W] or [count, length]; inputs by name.
    """
    drawn = dict(inputs(spec, seed, first, count))
    output = generator(*(torch.from_numpy(drawn[t.name]).to(device) for t in spec.inputs))
    return output.to("cpu", torch.float32).numpy(), drawn


@torch.no_grad()
def diversity(generated: Tensor, real: Tensor) -> Tensor:
    """How varied a generated batch is against a real one: 0 where all its samples are the same, about 1 where it
    varies as the data do.

    The ratio of the root mean variances over the batch, of pixels [N, C, H, W] or numbers [N, length]. It sees that
    everything has become alike, not that some kinds are missing: for that there are the metrics.

    Returns:
        A scalar; NaN where the real batch does not vary.
    """
    real_spread = _spread(real)
    return torch.where(real_spread > 0, _spread(generated) / real_spread, torch.nan)


def _spread(samples: Tensor) -> Tensor:
    return samples.float().var(dim=0, correction=0).mean().sqrt()
