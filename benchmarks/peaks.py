"""What the machine can multiply at best, measured: large square matrix products in fp32, bf16 and int8."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

_SIZES = {"cpu": 2048, "cuda": 8192}  # a GPU has done with smaller ones before the next is launched
_SECONDS = 1.0


def measured_peaks(device: str) -> dict[str, float]:
    """{precision: 10⁹ operations a second}, a multiplication and an addition being two: the best of a second of
    products of square matrices by PyTorch; on a GPU fp32 is that and not TF32. What this PyTorch does not multiply
    there is left out."""
    torch.manual_seed(0)
    size = _SIZES[device]
    whole = torch.randn(size, size, device=device)
    half, short, bytes_ = whole.bfloat16(), whole.half(), (whole * 20).to(torch.int8)
    products: dict[str, Callable[[], Tensor]] = {
        "fp32": lambda: whole @ whole,
        "bf16": lambda: half @ half,
        **({"fp16": lambda: short @ short} if device != "cpu" else {}),  # no rung runs in it on a CPU
        "int8": lambda: torch._int_mm(bytes_, bytes_),
    }
    found = {}
    for precision, product in products.items():
        try:
            found[precision] = 2e-9 * size**3 / _fastest(product, device)
        except RuntimeError:  # no kernel
            continue
    return found


def _fastest(product: Callable[[], Tensor], device: str) -> float:
    times = []
    product()
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        product()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
