"""The machine that the doubles of TensorRT and CUDA believe in: what it has, what breaks, what was done to it."""

from __future__ import annotations

import functools
import json
import os
import sys
import types
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cuda_double_device import Device

_DESCRIPTION = "GANEXPORT_TEST_MACHINE"


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
    loses_int8: bool = False  # multiplies in fp32 what the graph has in int8
    wrong_at_batch: int | None = None  # an engine that computes something else at this batch
    wrong_at_shapes: list[dict[str, tuple[int, ...]]] = field(default_factory=list)  # or at these of its inputs
    drops_dynamic_profile: bool = False
    ignores_hardware_level: bool = False  # builds for this GPU only, whatever was asked
    says_no_types: bool = False  # an inspector that tells of no layer what it got
    refitter_starts: bool = True
    refit_leaves: tuple[str, ...] = ()  # weights that a refit finds no values for
    refit_drops: tuple[str, ...] = ()  # weights that refittable engines take for zero, as TensorRT 11.3.0 does
    context_fits: bool = True
    captures: bool = True  # whether an engine's work can be captured
    pinnable_bytes: int | None = None  # the most that one piece of pinned memory may have
    execute_fails: bool = False
    launch_fails: bool = False  # of CUDA graphs
    gpu_is_lost: bool = False  # an error of a kernel: every later call ends in it
    kernels_fail: bool = False  # which shows when the host waits for them
    at_step: Callable[[int], None] | None = None  # called at each step of a build, on the builder's thread
    run_code: str = ""  # Python code for each run of an engine, in this process or another
    step_code: str = ""  # at_step for a machine in another process: Python code, which may use `step` and `machine`
    # What is held at present, and what has been done.
    last_error: Any = None  # what cudaGetLastError would say
    builds: list[dict[str, Any]] = field(default_factory=list)
    profile_switches: list[int] = field(default_factory=list)
    deserialised: int = 0

    def __post_init__(self) -> None:
        self.device = Device()
        self.engines: weakref.WeakSet[Any] = weakref.WeakSet()

    def check_is_clean(self) -> None:
        """Nothing was done in a wrong order, and all that was taken was given back."""
        assert self.device.violations == []
        assert self.last_error is None, "an error of CUDA was left for the next call to find"
        assert self.device.is_empty(), "memory, streams, events or graphs were not given back"

    def describe(self, monkeypatch: Any, folder: Path) -> None:
        """Gives processes that this one starts a machine like this one, and has engines built in one."""
        from ganexport.tensorrt.isolated import run_isolated

        kept = ("version", "gpus", "driver_cuda", "runtime_cuda", "unsupported", "build_errors", "forces_tf32")
        names = (*kept, "ignores_hardware_level", "step_code", "run_code")
        description = {k: v for k, v in asdict(self).items() if k in names}
        (folder / "machine.json").write_text(json.dumps(description))
        monkeypatch.setenv(_DESCRIPTION, str(folder / "machine.json"))
        monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_in"))
        for module in ("into_bundle", "refit_bundle"):
            monkeypatch.setattr(f"ganexport.tensorrt.{module}.run_isolated", run_isolated)

    def install(self, monkeypatch: Any) -> Machine:
        """Puts the double in place of the modules for one test; engines are built in this process."""
        from ganexport.tensorrt.job import run_job

        for module in ("into_bundle", "refit_bundle"):
            monkeypatch.setattr(f"ganexport.tensorrt.{module}.run_isolated", run_job)
        cuda, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
        from cuda_double import cuda_runtime
        from tensorrt_double import tensorrt

        runtime = cuda_runtime(self)
        cuda.bindings, bindings.runtime = bindings, runtime
        modules = {"cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
        for name, module in (modules | {"tensorrt": tensorrt(self)}).items():
            monkeypatch.setitem(sys.modules, name, module)
        return self


@functools.cache
def described_machine() -> Machine:
    """The machine that `Machine.describe` described, in a process that it started."""
    description = json.loads(Path(os.environ[_DESCRIPTION]).read_text())
    gpus = [FakeGpu(**gpu) for gpu in description.pop("gpus")]
    machine = Machine(gpus=gpus, **description)
    code = machine.step_code
    if code:
        machine.at_step = lambda step: exec(code, {"step": step, "machine": machine})
    return machine
