"""NVIDIA's official Python bindings, fetched by pip and imported without libraries or a GPU, and what they offer.

`tensorrt.so` of a bindings wheel needs nine symbols of three libraries. Placeholders that define them are enough to
import it and to read every class, enum and signature (pybind11 writes them into docstrings). Nothing can be built.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The oldest that we drive, the newest of each major.
TENSORRT = {
    "10.12.0.36": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
CUDA = {"12.8.0": "cuda-bindings", "13.4.4": "cuda-bindings"}
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FETCH_TIMEOUT_S = 300
_unavailable: dict[tuple[str, str], str] = {}  # why a version was skipped: one try is enough


@dataclass(frozen=True)
class Bindings:
    """One version, unpacked: the environment in which `module` imports, and its API as plain data."""

    version: str
    module: str
    environment: dict[str, str]
    api: dict[str, Any]

    def run(self, code: str) -> str:
        """Runs Python code beside these bindings; its stdout. Fails the test where the code fails."""
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout


def tensorrt_bindings(version: str, folder: Path) -> Bindings:
    """Fetches, unpacks and reads one version; skips the test where pip or a C compiler cannot do its part."""
    unpacked = _unpacked(TENSORRT[version], version, folder)
    libraries = _placeholder_libraries(unpacked, version.partition(".")[0])
    paths = [str(libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = os.environ | {"PYTHONPATH": str(unpacked), "LD_LIBRARY_PATH": os.pathsep.join(paths)}
    return _read(version, "tensorrt_bindings", environment)


def cuda_bindings(version: str, folder: Path) -> Bindings:
    """cuda-python's bindings: they import without a driver."""
    unpacked = _unpacked(CUDA[version], version, folder)
    # The search for NVIDIA's libraries, which newer ones import.
    pathfinder = _unpacked("cuda-pathfinder", "1.3.0", folder)
    paths = os.pathsep.join([str(unpacked), str(pathfinder)])  # `cuda` is one namespace over both
    return _read(version, "cuda.bindings.runtime", os.environ | {"PYTHONPATH": paths})


def _unpacked(package: str, version: str, folder: Path) -> Path:
    target = folder / f"{package}-{version}"
    if target.is_dir():
        return target
    if (package, version) in _unavailable:
        pytest.skip(_unavailable[package, version])
    downloads = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--timeout",
        "20",
        "--retries",
        "1",
        "--only-binary=:all:",
        "--dest",
        str(downloads),
        f"{package}=={version}",
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S)
    except (subprocess.SubprocessError, OSError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        _unavailable[package, version] = f"pip cannot fetch {package} {version}: {said[-1] if said else error}"
        pytest.skip(_unavailable[package, version])
    stem = package.replace("-", "_")
    (wheel,) = (p for p in downloads.glob("*.whl") if p.name.startswith(f"{stem}-{version}-"))
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)
    wheel.unlink()
    return _moved(partial, target)


def _placeholder_libraries(unpacked: Path, major: str) -> Path:
    target = unpacked / "placeholders"
    if target.is_dir():
        return target
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build the placeholder libraries with")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    partial.mkdir()
    source = partial / "placeholder.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(partial / name), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return _moved(partial, target)


def _moved(partial: Path, target: Path) -> Path:
    try:
        partial.rename(target)
    except OSError:  # another run of the tests was first
        shutil.rmtree(partial)
    return target


def _read(version: str, module: str, environment: dict[str, str]) -> Bindings:
    empty = Bindings(version, module, environment, {})
    return Bindings(version, module, environment, json.loads(empty.run(_READER + f"\nread({module!r})\n")))


# Runs beside the bindings, in a process of its own.
_READER = r"""
import ctypes, importlib, inspect, json

BUFFER_PROCEDURES = 20 * ctypes.sizeof(ctypes.c_void_p)  # of PyTypeObject, the same in CPython 3.8 to 3.13

def text_of(thing):
    return (getattr(thing, "__doc__", None) or "").strip()

def signature_of(thing):
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""

def class_of(cls):
    members = {}
    for name in dir(cls):
        if name.startswith("__") and name not in ("__init__", "__int__", "__index__", "__len__", "__getitem__"):
            continue
        member = inspect.getattr_static(cls, name)
        if isinstance(member, type):
            members[name] = {"kind": "class", "class": class_of(member)}
        elif isinstance(member, property):
            members[name] = {"kind": "property", "doc": text_of(member.fget), "settable": member.fset is not None}
        elif isinstance(member, cls):
            members[name] = {"kind": "enumerator"}
        elif callable(getattr(cls, name)):
            members[name] = {"kind": "method", "doc": text_of(getattr(cls, name))}
        else:
            members[name] = {"kind": "attribute", "settable": type(member).__name__ == "getset_descriptor"}
    enumerators = getattr(cls, "__members__", None)
    for name in enumerators or ():
        members[name] = {"kind": "enumerator"}
    has_buffer = ctypes.c_void_p.from_address(id(cls) + BUFFER_PROCEDURES).value
    return {
        "members": members,
        "buffer": bool(has_buffer and ctypes.c_void_p.from_address(has_buffer).value),
        "bases": [base.__name__ for base in cls.__bases__],
    }

def read(name):
    module = importlib.import_module(name)
    api = {"classes": {}, "functions": {}, "constants": {}}
    for key, thing in vars(module).items():
        if isinstance(thing, type):
            if thing.__module__.partition(".")[0] != name.partition(".")[0]:
                continue
            api["classes"][key] = class_of(thing)
        elif isinstance(thing, (int, str, bytes)) and (not key.startswith("_") or key == "__version__"):
            api["constants"][key] = type(thing).__name__
        elif callable(thing) and not key.startswith("_"):
            api["functions"][key] = {"doc": text_of(thing), "signature": signature_of(thing)}
    for key in ("cudaDeviceProp",):  # its fields tell their types by their values only
        if key in api["classes"]:
            instance = getattr(module, key)()
            for field, member in api["classes"][key]["members"].items():
                if member["kind"] == "attribute":
                    member["type"] = type(getattr(instance, field)).__name__
    print(json.dumps(api))
"""
