"""Where a generator comes from: a checkpoint of ours, or a function of yours that returns a module."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganruntime.errors import CheckpointError, ExportError, InputError, MissingDependencyError, SpecError
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    from torch import nn

    from ganruntime.bundle import Bundle


@dataclass(frozen=True)
class Source:
    """A network with its spec, a line that says where it came from, and what was done to it since, for reports."""

    module: nn.Module
    spec: GeneratorSpec
    origin: str
    notes: Mapping[str, Any] = field(default_factory=dict)

    def weights_sha256(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, in the order of their names."""
        import torch

        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            array = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def require_torch() -> None:
    """Raises `MissingDependencyError` naming the extra, where torch or onnx is not installed."""
    for package in ("torch", "onnx", "onnxscript", "safetensors"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingDependencyError(
                f"exporting needs {package}, which is not installed",
                got=str(error),
                remedy='pip install "ganexport[export]"',
            ) from error


def generator_from_checkpoint(path: Path | str) -> Source:
    """The generator of a checkpoint or run folder.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    require_torch()
    from gantrain.checkpoint import load_generator

    module, spec = load_generator(path)
    return Source(module, spec, f"checkpoint {Path(path).resolve().name}")


def generator_from_factory(factory: str, spec_file: Path | str | None = None) -> Source:
    """The module that `package.module:function` returns, called without arguments, with a spec read from a JSON file.

    Without a file the spec is what can be told from the network without a doubt.

    Raises:
        InputError: the name is not of that form, or cannot be imported.
        SpecError: the file is not a spec; without one, something in it would have to be guessed.
        ExportError: the module or the function fails, or the function returns something else.
    """
    require_torch()
    spec = read_spec(spec_file) if spec_file is not None else None
    module = module_from_factory(factory)
    if spec is None:
        from ganexport.spec_draft import spec_from_module

        remedy = f"ganexport spec --factory {factory} -o spec.json; check it, then --spec spec.json"
        try:
            draft = spec_from_module(module)
        except SpecError as error:
            raise SpecError(error.problem, got=error.got, expected=error.expected, remedy=remedy) from error
        if draft.to_check:
            raise SpecError(
                f"{draft.spec.name}: the spec has to be guessed in part",
                got="; ".join(draft.to_check),
                expected="a spec that says it",
                remedy=remedy,
            )
        spec = draft.spec
    return Source(module, spec, f"factory {factory}")


def module_from_factory(factory: str) -> nn.Module:
    """The module that `package.module:function` returns. Modules are looked up on Python's path and in the working
    directory. Raises as `generator_from_factory` does."""
    require_torch()
    from torch import nn

    module_name, _, function_name = factory.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise InputError(f"{factory!r} does not name a function", expected="package.module:function")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise InputError(
            f"cannot import {factory}", got=str(error), remedy="run in the folder that holds the package, or install it"
        ) from error
    except Exception as error:  # whatever a stranger's code raises
        raise ExportError(f"importing {module_name} failed", got=f"{type(error).__name__}: {error}") from error
    try:
        module = function()
    except Exception as error:  # whatever a stranger's code raises
        raise ExportError(f"{factory}() failed", got=f"{type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ExportError(
            f"{factory}() returned something else", got=type(module).__name__, expected="a torch.nn.Module"
        )
    return module


def require_origin(bundle: Bundle, source: Source, checkpoint: Path | str) -> None:
    """Raises `CheckpointError` unless the bundle was exported from this checkpoint: same tensors, same weights."""
    remedy = f"name the checkpoint that {bundle.path} was exported from, or export it again: ganexport to-onnx"
    if (source.spec.inputs, source.spec.outputs) != (bundle.spec.inputs, bundle.spec.outputs):
        raise CheckpointError(
            f"{checkpoint} is not the checkpoint of {bundle.path}",
            got=_tensors_text(source.spec),
            expected=_tensors_text(bundle.spec),
            remedy=remedy,
        )
    report = bundle.manifest.reports.get("export", {})
    recorded = report.get("weights_sha256") if isinstance(report, Mapping) else None
    if recorded is not None and recorded != source.weights_sha256():
        raise CheckpointError(
            f"{checkpoint} is not the checkpoint of {bundle.path}: its weights are others",
            got=f"weights with SHA-256 {source.weights_sha256()[:16]}…",
            expected=f"{str(recorded)[:16]}… as the bundle was exported from",
            remedy=remedy,
        )


def read_spec(path: Path | str) -> GeneratorSpec:
    """A spec from a JSON file. Raises `SpecError`, with the file's name in it."""
    path = Path(path)
    try:
        return GeneratorSpec.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the spec {path}", got=str(error)) from error
    except SpecError as error:
        raise SpecError(
            f"{path}: {error.problem}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error


def _tensors_text(spec: GeneratorSpec) -> str:
    return ", ".join(f"{t.name} {list(t.shape)}" for t in (*spec.inputs, *spec.outputs))
