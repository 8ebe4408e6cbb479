"""In how many bits the networks' passes are made: all of float32, or 16 under torch's autocast.

Micikevicius et al., "Mixed Precision Training", 2017 (arXiv:1710.03740). Autocast makes convolutions and matrix
products in 16 bits, from weights that stay float32, as do their averages, the optimisers' moments and every
checkpoint. Logits, losses and augmentation are float32, as are a StyleGAN2's mapping and minibatch deviation, and every
pass that a penalty takes the slope of, for the gradient of a slope is a difference of nearly equal numbers.

bf16 has float32's range. fp16 has not: losses are scaled up before the backward pass so that small gradients survive,
and a step whose gradients overflow is left out, with half the scale after it (`torch.amp.GradScaler`, one a network).
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from ganruntime.errors import DeviceError

PRECISIONS = ("fp32", "bf16", "fp16")
LEAST_SCALE = 1.0  # what overflows fp16 unscaled does not overflow for the scale's sake
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The precision called `name` on a device."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._half, self._device = _HALVES.get(name), device

    def passing(self, *, exact: bool = False) -> contextlib.AbstractContextManager[object]:
        """A context for one forward pass; `exact` for float32 whatever the precision."""
        if self._half is None or exact:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._half)

    def widened(self, output: Tensor) -> Tensor:
        """What a network gave, in float32."""
        return output if self._half is None else output.float()


def check_precision(name: str, device: torch.device) -> None:
    """Raises `DeviceError` for bf16 on a GPU that only imitates it."""
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError(
            f"{torch.cuda.get_device_name(device)} has no bf16",
            expected="compute capability 8.0 or newer",
            remedy="--set precision=fp16",
        )


def fresh_scalers(name: str, device: torch.device) -> dict[str, torch.amp.GradScaler]:
    """The scalers of the two networks' losses; none for a precision that needs none."""
    if name != "fp16":
        return {}
    return {network: torch.amp.GradScaler(device.type) for network in ("generator", "discriminator")}


def scales_of(scalers: dict[str, torch.amp.GradScaler]) -> dict[str, dict[str, float]]:
    """Where the scalers stand, by network, for a checkpoint: the scale and the steps since it last changed."""
    states = {network: scaler.state_dict() for network, scaler in scalers.items()}
    return {network: {"scale": s["scale"], "steps": s["_growth_tracker"]} for network, s in states.items()}


def set_scales(scalers: dict[str, torch.amp.GradScaler], scales: object) -> None:
    """Puts fresh scalers where `scales_of` found them. Raises `ValueError` where `scales` is not of that form."""
    for network, scaler in scalers.items():
        kept = scales.get(network) if isinstance(scales, dict) else None
        scale, steps = (kept.get("scale"), kept.get("steps")) if isinstance(kept, dict) else (None, None)
        if not isinstance(scale, (int, float)) or not 0.0 < scale < float("inf"):
            raise ValueError(f"a {network}'s loss scale of {scale!r}")
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"{steps!r} steps since the {network}'s loss scale changed")
        scaler.load_state_dict(scaler.state_dict() | {"scale": float(scale), "_growth_tracker": steps})
