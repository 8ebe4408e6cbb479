"""The optimisers that settings name, and what the loop does with them."""

from __future__ import annotations

import torch
from torch import nn

from gantrain.recipes.training_settings import TrainingSettings

# What each keeps of a parameter, beside the number of its steps: float32, of the parameter's shape.
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("square_avg",),
}


def optimiser_of(network: nn.Module, s: TrainingSettings, rate: float) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2014), or RMSprop (Tieleman and Hinton 2012) with torch's α of 0.99.

    Adam's fused kernel goes over each parameter once, in place of a dozen times. It reads memory and not strides, so
    that a gradient must lie in its parameter's order; autograd sees to that, and a test of every recipe's networks.
    """
    if s.optimiser == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), rate, foreach=True)
    return torch.optim.Adam(network.parameters(), rate, (s.beta1, s.beta2), fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_norm(network: nn.Module) -> float:
    """The Euclidean norm of all gradients of a network, as its last backward pass left them."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
