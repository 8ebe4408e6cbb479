"""API conformance: every attribute, flag and call of TensorRT and cuda-python that we use exists in the real bindings.

What is held: our sources are type-checked against stubs made from the docstrings of the official bindings of both
majors, so each use is looked up on the type that it is used on, with its argument names and number; a use whose type
is not known is an error too, so nothing slips through. What is not held: that an engine is built or runs. That needs
NVIDIA's libraries and a GPU.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from binding_stubs import cuda_parameters, signatures_of, write_cuda_stub, write_tensorrt_stub
from cuda_double import cuda_runtime
from imaginary_machine import Machine
from official_bindings import CUDA, TENSORRT, Bindings, cuda_bindings, tensorrt_bindings
from tensorrt_double import tensorrt

ROOT = Path(__file__).parents[3]
# Each TensorRT with a CUDA: both majors, the oldest and the newest of each.
PAIRS = [("10.12.0.36", "12.8.0"), ("10.16.1.11", "13.4.4"), ("11.4.0.106", "13.4.4")]
DYNAMIC_NAMES = {"__version__", "__file__"}  # what getattr() may be asked for in these files
OTHER_MODULES = {"ort"}  # ONNX Runtime itself, which has no types, where a file of ours loads TensorRT for it
_MYPY_LINE = re.compile(r"(?P<file>[^:]+):(?P<at>\d+:\d+:\d+:\d+): error: (?P<text>.*?)(?:\s+\[(?P<code>[\w-]+)\])?$")

# Uses that must be found wrong: {line: on which majors}. The lines are below, in order.
CONTROL = """\
from __future__ import annotations
from typing import Any
import tensorrt as trt
from cuda.bindings import runtime as cudart
def control(config: trt.IBuilderConfig, tensor: trt.ITensor, cache: trt.ITimingCache, context: trt.IExecutionContext):
    config.set_flag(trt.BuilderFlag.FP16)
    print(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    print(config.int8_calibrator)
    tensor.dtype = trt.DataType.HALF
    config.set_timing_cache(cache, ignore_mismatches=False)
    config.set_timing_cache(cache)
    config.progress_monitor = 3
    context.execute_async_v3(1, 2)
    context.execute_v2([1])
    context.execute_async([1])
    trt.ICudaEngine()
    trt.OnnxParser(tensor, trt.Logger())
    error, one, two = cudart.cudaMalloc(8)
    cudart.cudaMemcpyAsync(1, 2, 3, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice)
    print(cudart.cudaError_t.cudaErrorOfNobody)
    config.set_timing_cache(cache, ignore_mismatch=False)
def unknown(engine: Any, untyped) -> None:  # type: ignore[no-untyped-def]
    print(engine.num_layers)
    print(untyped.num_layers)
"""
WRONG_ON_BOTH = {10, 11, 12, 13, 15, 16, 17, 18, 19, 20}
WRONG_ON_11 = {6, 7, 8, 9}
UNKNOWN_TYPES = {23, 24}


def sources() -> list[Path]:
    """Every file of ours that imports TensorRT or cuda-python."""
    found = []
    for path in sorted([*ROOT.glob("runtime/**/*.py"), *ROOT.glob("export/**/*.py"), *ROOT.glob("train/**/*.py")]):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
        if names & {"tensorrt", "tensorrt_bindings", "cuda"}:
            found.append(path)
    return found


@pytest.fixture(scope="module")
def cache_folder(pytestconfig: pytest.Config) -> Path:
    cache = pytestconfig.cache
    assert cache is not None
    return cache.mkdir("official-bindings")


@pytest.fixture(scope="module", params=list(TENSORRT))
def bindings(request: pytest.FixtureRequest, cache_folder: Path) -> Bindings:
    return fetched(request.param, cache_folder)


@cache
def fetched(version: str, folder: Path) -> Bindings:
    return cuda_bindings(version, folder) if version in CUDA else tensorrt_bindings(version, folder)


@dataclass(frozen=True)
class Checked:
    """What mypy said: {file: {line: messages}} of wrong uses, and the places of expressions whose type is Any."""

    major: int
    wrong: dict[str, dict[int, list[str]]]
    untyped: dict[str, set[tuple[int, int, int, int]]]
    control: Path


@pytest.fixture(scope="module", params=PAIRS, ids=[f"tensorrt-{t}-cuda-{c}" for t, c in PAIRS])
def checked(request: pytest.FixtureRequest, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    tensorrt_version, cuda_version = request.param
    pytest.importorskip("mypy", reason="mypy is not installed (extra dev)")
    folder = tmp_path_factory.mktemp("stubs")
    write_tensorrt_stub(fetched(tensorrt_version, cache_folder).api, folder)
    write_cuda_stub(fetched(cuda_version, cache_folder).api, folder)
    control = folder / "control.py"
    control.write_text(CONTROL)
    settings = folder / "mypy.ini"
    paths = [folder, ROOT / "runtime", ROOT / "export", ROOT / "train"]
    settings.write_text(
        "[mypy]\n"
        f"mypy_path = {':'.join(map(str, paths))}\n"
        f"cache_dir = {cache_folder / 'mypy'}\n"
        "explicit_package_bases = True\ncheck_untyped_defs = True\nignore_missing_imports = True\n"
        "follow_imports = silent\ndisallow_any_expr = True\n"
    )
    options = ["--show-error-end", "--no-error-summary", "--hide-error-context", "--no-pretty", "--no-color-output"]
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), *options]
    done = subprocess.run(
        [*command, *map(str, sources()), str(control)], capture_output=True, text=True, cwd=folder, timeout=600
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    wrong: dict[str, dict[int, list[str]]] = {}
    untyped: dict[str, set[tuple[int, int, int, int]]] = {}
    for line in done.stdout.splitlines():
        match = _MYPY_LINE.match(line)
        if match is None:
            continue
        path = str((folder / match["file"]).resolve())
        first, column, last, end = (int(n) for n in match["at"].split(":"))
        if match["text"] == 'Expression has type "Any"':
            untyped.setdefault(path, set()).add((first, column, last, end))
        elif "Expression type contains" not in match["text"]:
            wrong.setdefault(path, {}).setdefault(first, []).append(match["text"])
    return Checked(int(tensorrt_version.partition(".")[0]), wrong, untyped, control.resolve())


def attributes_of_unknown_types(checked: Checked, path: Path) -> set[int]:
    """Lines where an attribute is taken of something whose type mypy does not know."""
    places = checked.untyped.get(str(path), set())
    lines = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            base = node.value
            if isinstance(base, ast.Name) and base.id in OTHER_MODULES:
                continue
            # mypy counts columns from 1 and names the last one; ast counts from 0 and names the one after.
            if (base.lineno, base.col_offset + 1, base.end_lineno, base.end_col_offset) in places:
                lines.add(node.lineno)
    return lines


def test_our_uses_are_found() -> None:
    names = {path.name for path in sources()}
    assert names >= {"cuda.py", "cuda_streams.py", "tensorrt_calls.py", "tensorrt_engine.py", "tensorrt_lanes.py"}
    assert names >= {"tensorrt_library.py", "tensorrt_refit.py", "engine_builder.py", "readback.py", "progress.py"}
    assert "refit.py" in names


def test_every_use_is_in_the_bindings(checked: Checked) -> None:
    wrong = {str(path): checked.wrong.get(str(path.resolve()), {}) for path in sources()}
    assert {path: lines for path, lines in wrong.items() if lines} == {}


def test_no_use_hides_behind_a_type_that_is_not_known(checked: Checked) -> None:
    hidden = {str(path): attributes_of_unknown_types(checked, path) for path in sources()}
    assert {path: lines for path, lines in hidden.items() if lines} == {}


def test_no_use_hides_behind_getattr() -> None:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "eval"):
                name = node.args[1] if len(node.args) > 1 else None
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}"
                assert name.value in DYNAMIC_NAMES, f"{path}:{node.lineno}"


def test_the_check_finds_what_is_wrong(checked: Checked) -> None:
    wrong = set(checked.wrong[str(checked.control)])
    expected = WRONG_ON_BOTH | (WRONG_ON_11 if checked.major == 11 else set())
    assert wrong == expected
    if checked.major == 11:
        assert '"type[BuilderFlag]" has no attribute "FP16"' in checked.wrong[str(checked.control)][6]
    assert attributes_of_unknown_types(checked, checked.control) == UNKNOWN_TYPES


# --- what a signature cannot say --------------------------------------------------------------------------------------


def test_tensorrt_calls_back_into_our_classes(bindings: Bindings) -> None:
    """Through pybind11's own dispatch: the base class's method, called as C++ calls it, ends in ours."""
    said = bindings.run(
        "import sys, tensorrt_bindings as trt; sys.modules['tensorrt'] = trt\n"
        "from ganexport.tensorrt.progress import PhaseTree, monitor_from_phases\n"
        "from ganruntime.sessions.tensorrt_library import captured_messages, require_tensorrt, shared_logger\n"
        "seen = []\n"
        "tree = PhaseTree(lambda fraction, phase: seen.append((fraction, phase)))\n"
        "monitor = monitor_from_phases(tree)\n"
        "base = trt.IProgressMonitor\n"
        "base.phase_start(monitor, 'build', None, 2)\n"
        "assert base.step_complete(monitor, 'build', 0) is True\n"
        "tree.cancelled.set()\n"
        "assert base.step_complete(monitor, 'build', 1) is False\n"
        "base.phase_finish(monitor, 'build')\n"
        "assert [f for f, _ in seen] == [0.0, 0.5, 1.0, 1.0], seen\n"
        "logger = shared_logger()\n"
        "assert logger is shared_logger()\n"
        "with captured_messages() as messages:\n"
        "    trt.ILogger.log(logger, trt.ILogger.Severity.ERROR, 'an error')\n"
        "    trt.ILogger.log(logger, trt.ILogger.Severity.INTERNAL_ERROR, 'another')\n"
        "    trt.ILogger.log(logger, trt.ILogger.Severity.WARNING, 'a warning')\n"
        "    trt.ILogger.log(logger, trt.ILogger.Severity.INFO, 'chatter')\n"
        "assert messages.errors == ['an error', 'another'], messages.errors\n"
        "assert messages.warnings == ['a warning']\n"
        "print(require_tensorrt())\n"
    )
    assert said.strip() == bindings.version


def test_the_builder_is_reached_with_arguments_that_it_takes(bindings: Bindings) -> None:
    """Our own build up to where the placeholder libraries give no builder: an error of ours, no traceback."""
    said = bindings.run(
        "import sys, tensorrt_bindings as trt; sys.modules['tensorrt'] = trt\n"
        "from ganexport.tensorrt import engine_builder\n"
        "from ganexport.tensorrt.options import BuildOptions\n"
        "from ganruntime.errors import EngineError\n"
        "from ganruntime.sessions.cuda import Gpu\n"
        "from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec\n"
        "engine_builder.gpu_from_index = lambda index: Gpu(0, 'none', '8.9', 1, 'none', '13.0', '13.0')\n"
        "engine_builder.use_gpu = lambda index: None\n"
        "z = TensorSpec('z', 'float32', (4,), Latent())\n"
        "spec = GeneratorSpec('g', (z,), (TensorSpec('x', 'float32', (1, 2, 2), Image()),))\n"
        "try:\n"
        "    engine_builder.engine_from_onnx(b'', spec, BuildOptions())\n"
        "except EngineError as error:\n"
        "    print(error)\n"
    )
    assert "TensorRT could not build the engine" in said
    assert "factory function returned nullptr" in said


def test_enums_turn_into_flags_and_shapes_into_tuples(bindings: Bindings) -> None:
    bindings.run(
        "import tensorrt_bindings as trt\n"
        "flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)\n"
        "assert flag == (1 if trt.__version__.startswith('11.') else 2), flag\n"
        "assert trt.DataType.FLOAT.name == 'FLOAT' and trt.TensorIOMode.INPUT.name == 'INPUT'\n"
        "dims = trt.Dims((-1, 3, 8))\n"
        "assert tuple(dims) == (-1, 3, 8) and dims[0] == -1 and len(dims) == 3\n"
        "assert trt.BuilderFlag.TF32 == trt.BuilderFlag.TF32 != trt.BuilderFlag.REFIT\n"
    )


def test_plans_are_buffers(bindings: Bindings) -> None:
    assert bindings.api["classes"]["IHostMemory"]["buffer"]
    assert not bindings.api["classes"]["ICudaEngine"]["buffer"]


# --- the double -------------------------------------------------------------------------------------------------------

INSTANCE_ATTRIBUTES = {
    "IBuilderConfig": ("progress_monitor", "profiling_verbosity", "builder_optimization_level"),
    "ITensor": ("name", "dtype", "shape"),
}


def differences(double: type, real: dict[str, Any], where: str) -> list[str]:
    """What a class of the double offers, and the real one does not, or does differently."""
    members = real["members"]
    found: list[str] = []
    for name in INSTANCE_ATTRIBUTES.get(double.__name__, ()):
        if members.get(name, {}).get("kind") != "property":
            found.append(f"{where}.{name} is not a property")
    for name, member in vars(double).items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, enum.Enum):
            if members.get(name, {}).get("kind") != "enumerator":
                found.append(f"{where}.{name} is not there")
        elif isinstance(member, type):
            if members.get(name, {}).get("kind") != "class":
                found.append(f"{where}.{name} is not a class")
            else:
                found += differences(member, members[name]["class"], f"{where}.{name}")
        elif isinstance(member, property):
            if members.get(name, {}).get("kind") != "property":
                found.append(f"{where}.{name} is not a property")
        elif inspect.isfunction(member):
            found += call_differences(member, members.get(name), f"{where}.{name}")
    return found


def call_differences(function: Any, real: dict[str, Any] | None, where: str) -> list[str]:
    if real is None or real["kind"] != "method":
        return [f"{where} is not a method"]
    ours = list(inspect.signature(function).parameters.values())[1:]  # without self
    overloads = [[p for p in parameters if p[0] != "self"] for parameters, _ in signatures_of(real["doc"])]
    if not overloads:
        # Only TensorRT makes these; the double makes its own from what it likes.
        return [] if function.__name__ == "__init__" else [f"{where} has no signature"]
    for parameters in overloads:
        names_fit = [p.name for p in ours] == [name for name, _, _ in parameters[: len(ours)]]
        rest_is_optional = all(has_default for _, _, has_default in parameters[len(ours) :])
        defaults_fit = all(
            has_default or p.default is inspect.Parameter.empty
            for p, (_, _, has_default) in zip(ours, parameters, strict=False)
        )
        if names_fit and rest_is_optional and defaults_fit:
            return []
    return [f"{where}({', '.join(p.name for p in ours)}) is {overloads}"]


def test_the_double_offers_only_what_the_bindings_offer(bindings: Bindings) -> None:
    module = tensorrt(Machine())
    real = bindings.api["classes"]
    found = []
    for name, thing in vars(module).items():
        if isinstance(thing, type):
            found += [f"{name} is not there"] if name not in real else differences(thing, real[name], name)
    assert found == []


@pytest.mark.parametrize("version", list(CUDA))
def test_the_double_of_cuda_offers_only_what_cuda_python_offers(version: str, cache_folder: Path) -> None:
    api = fetched(version, cache_folder).api
    found = []
    for name, thing in vars(cuda_runtime(Machine())).items():
        if name.startswith("__"):
            continue
        if inspect.isfunction(thing):
            ours = list(inspect.signature(thing).parameters)
            real = [parameter for parameter, _, _ in cuda_parameters(api["functions"][name]["signature"])]
            if ours != real:
                found.append(f"{name}{ours} is {real}")
        elif isinstance(thing, type) and issubclass(thing, enum.Enum):
            members = api["classes"][name]["members"]
            found += [f"{name}.{m} is not there" for m in thing.__members__ if m not in members]
        elif isinstance(thing, type):
            assert name == "cudaDeviceProp"
            assert {"name", "major", "minor", "totalGlobalMem"} <= set(api["classes"][name]["members"])
        elif name not in api["constants"]:
            found.append(f"{name} is not there")
    assert found == []


def test_the_check_of_the_double_finds_what_is_wrong(bindings: Bindings) -> None:
    class Builder:
        def create_network(self, options: int = 0) -> None:
            """Its argument has another name."""

        def create_engine(self) -> None:
            """There is no such method."""

        @property
        def create_builder_config(self) -> None:
            """A method, not a property."""

    class BuilderFlag(enum.Enum):
        TF32 = 1
        NOT_A_FLAG = 2

    real = bindings.api["classes"]
    assert len(differences(Builder, real["Builder"], "Builder")) == 3
    assert differences(BuilderFlag, real["BuilderFlag"], "BuilderFlag") == ["BuilderFlag.NOT_A_FLAG is not there"]
