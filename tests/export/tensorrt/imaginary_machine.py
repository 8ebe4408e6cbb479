"""The machine that the doubles of TensorRT and CUDA believe in: what it has, what breaks, what was done to it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class FakeGpu:
    name: str = "Imaginary L4"
    major: int = 8
    minor: int = 9
    memory_bytes: int = 24 << 30


@dataclass
class Machine:
    """The imaginary machine: what is installed, what breaks, and what was done to it."""

    version: str = "11.4.0.106+double"
    gpus: list[FakeGpu] = field(default_factory=lambda: [FakeGpu()])
    driver_cuda: int = 13000
    runtime_cuda: int = 13000
    unsupported: dict[str, str] = field(default_factory=dict)  # operator -> what the parser says
    build_errors: list[str] = field(default_factory=list)  # logged, and the build returns None
    builder_starts: bool = True
    forces_tf32: bool = False  # builds TF32 kernels whatever the flag says
    forces_half: bool = False  # builds fp16 layers whatever the graph says
    wrong_at_batch: int | None = None  # an engine that computes something else at this batch
    drops_dynamic_profile: bool = False
    context_fits: bool = True
    execute_fails: bool = False
    at_step: Callable[[int], None] | None = None  # called at each step of a build, on the builder's thread
    # What is held at present, and what has been done.
    allocations: dict[int, np.ndarray] = field(default_factory=dict)
    streams: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    builds: list[dict[str, Any]] = field(default_factory=list)
    profile_switches: list[int] = field(default_factory=list)
    deserialised: int = 0

    def install(self, monkeypatch: Any) -> Machine:
        """Puts the double in place of the modules for one test."""
        cuda, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
        from cuda_double import cuda_runtime
        from tensorrt_double import tensorrt

        runtime = cuda_runtime(self)
        cuda.bindings, bindings.runtime = bindings, runtime
        modules = {"cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
        for name, module in (modules | {"tensorrt": tensorrt(self)}).items():
            monkeypatch.setitem(sys.modules, name, module)
        return self
