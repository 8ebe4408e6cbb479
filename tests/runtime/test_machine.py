"""The machine: what it is told by, in what two differ, and versions of backends without importing them."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ganruntime import machine as module
from ganruntime.bundle import Machine
from ganruntime.cores import usable_cores
from ganruntime.errors import DeviceError, InputError
from ganruntime.machine import backend_version, cpu_field, differences, instruction_sets, this_machine
from ganruntime.sessions import devices

HERE = Machine("cpu", "EPYC", "x86_64", ("avx2", "fma"), 2)


def test_it_is_told_by_what_decides_speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor: 0\nmodel name\t: A CPU: fast\nflags\t: fma sse4_2 nonsense avx2\n\nprocessor: 1\n")
    monkeypatch.setattr(module, "_CPU_FILE", file)
    assert instruction_sets() == ["sse4_2", "fma", "avx2"]
    found = this_machine("cpu")
    assert (found.device, found.cpu, found.instruction_sets) == ("cpu", "A CPU: fast", ("avx2", "fma", "sse4_2"))
    assert found.cores == usable_cores()
    assert (found.gpu, found.driver) == ("", "")
    monkeypatch.setattr(module, "_CPU_FILE", tmp_path / "none")
    assert (cpu_field("flags"), this_machine("cpu").instruction_sets) == (None, ())
    with pytest.raises(InputError, match="is not a device"):
        this_machine("auto")


def test_a_gpu_counts_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpu_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(module, "driver_version", lambda: "580.65.06")
    found = this_machine("cuda:1")
    assert (found.device, found.gpu, found.driver) == ("cuda", "GPU 1", "580.65.06")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cores": 8}, ["cores 2 then, 8 here"]),
        ({"cpu": "Xeon"}, ["cpu EPYC then, Xeon here"]),
        ({"gpu": "H100", "driver": "1"}, ["gpu none then, H100 here", "driver none then, 1 here"]),
        ({"instruction_sets": ("avx2", "avx512f")}, ["without fma here", "avx512f here only"]),
        ({}, []),
    ],
)
def test_differences_are_named(change: dict[str, Any], words: list[str]) -> None:
    assert differences(HERE, replace(HERE, **change)) == words


def test_versions_come_from_the_installers_records(monkeypatch: pytest.MonkeyPatch) -> None:
    backend_version.cache_clear()
    found = metadata.version("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it would fail
    assert backend_version("onnxruntime") == found

    def not_recorded(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    backend_version.cache_clear()
    monkeypatch.setattr(metadata, "version", not_recorded)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__="1.99"))
    assert backend_version("onnxruntime") == "1.99"
    backend_version.cache_clear()


class DriverDouble:
    """The few functions of libcuda, for GPUs of these names."""

    def __init__(self, *names: bytes) -> None:
        self.names = names

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0 if index < len(self.names) else 101

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = self.names[device.value]
        return 0


def test_the_driver_is_asked_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: DriverDouble(b"NVIDIA H100 80GB HBM3", b"NVIDIA L4"))
    assert devices.gpu_count() == 2
    assert [devices.gpu_name(i) for i in (0, 1)] == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    with pytest.raises(DeviceError, match="no GPU 2") as error:
        devices.gpu_name(2)
    assert error.value.got == "2 GPU(s)"


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert devices.gpu_count() == 0
    with pytest.raises(DeviceError, match="no GPU 0"):
        devices.gpu_name(0)
