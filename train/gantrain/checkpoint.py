"""Checkpoints: folders that describe themselves and hold no pickle.

    spec.json               the generator's spec (`GeneratorSpec.dumps`)
    network.json            {"schema_version": 1, "network": "dcgan_generator", "settings": {"z_size": 100, …}}
    generator.safetensors   the weights to export: the exponential moving average, where one was kept
    training/               for resume, and for nobody else (`gantrain.resume`)

A run folder holds its last checkpoint as `checkpoint/`; wherever a checkpoint is asked for, a run folder will do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ganruntime.errors import CheckpointError, InputError, SpecError
from ganruntime.files import folder_written_atomically
from ganruntime.spec import GeneratorSpec, Provenance, TensorSpec
from gantrain.networks import NetworkRecord, network_from_record

SCHEMA_VERSION = 1
SPEC_FILE = "spec.json"
NETWORK_FILE = "network.json"
WEIGHTS_FILE = "generator.safetensors"
FOLDER_IN_RUN = "checkpoint"
_MOST_JSON_BYTES = 16 << 20
_REMEDY = "take another checkpoint, or train again"

T = TypeVar("T")


class Described(Protocol):
    """What every generator of `gantrain.networks` says of itself, in the order of its `forward`."""

    def input_tensors(self) -> tuple[TensorSpec, ...]: ...

    def output_tensors(self) -> tuple[TensorSpec, ...]: ...


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder that `path` means: itself, or the `checkpoint/` of a run folder.

    Raises:
        CheckpointError: there is neither.
    """
    path = Path(path)
    for folder in (path, path / FOLDER_IN_RUN):
        if (folder / SPEC_FILE).is_file():
            return folder
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file, and a checkpoint is a folder",
            expected=f"a folder with {SPEC_FILE}, {NETWORK_FILE} and {WEIGHTS_FILE}, or a run folder",
            remedy="for your own weights: ganexport to-onnx --factory package.module:function --spec spec.json",
        )
    raise CheckpointError(
        f"{path} holds no checkpoint" if path.is_dir() else f"{path} does not exist",
        expected=f"a folder with {SPEC_FILE}, {NETWORK_FILE} and {WEIGHTS_FILE}, or a run folder",
        remedy="ganexport train RECIPE --data SOURCE --out RUN makes one",
    )


def spec_from_generator(generator: nn.Module, name: str, provenance: Provenance | None = None) -> GeneratorSpec:
    """The spec of one of our networks, which know their own inputs and outputs."""
    described = cast("Described", generator)
    return GeneratorSpec(name, described.input_tensors(), described.output_tensors(), provenance or Provenance())


def save_generator(path: Path | str, generator: nn.Module, record: NetworkRecord, spec: GeneratorSpec) -> None:
    """Writes a checkpoint without training state: whole, or not at all. A checkpoint at `path` is replaced.

    Raises:
        OutputError: it could not be written.
    """
    with folder_written_atomically(path) as folder:
        write_generator(folder, generator, record, spec)


def write_generator(folder: Path, generator: nn.Module, record: NetworkRecord, spec: GeneratorSpec) -> None:
    """Writes the three files of a generator into an existing folder."""
    (folder / SPEC_FILE).write_text(spec.dumps(), encoding="utf-8")
    table = {"schema_version": SCHEMA_VERSION, "network": record.network, "settings": dict(record.settings)}
    write_json(folder / NETWORK_FILE, table)
    write_tensors(folder / WEIGHTS_FILE, generator.state_dict())


def load_generator(path: Path | str) -> tuple[nn.Module, GeneratorSpec]:
    """The generator of a checkpoint or of a run, on the CPU, in eval mode, without gradients.

    Nothing is unpickled, and the network is laid out without memory before the weights are held against it, so that a
    file from a stranger can do no more than be refused.

    Raises:
        CheckpointError: a file is missing, truncated, edited, of a newer schema, or does not fit the others; names it.
    """
    folder = find_checkpoint(path)
    spec_file, network_file = folder / SPEC_FILE, folder / NETWORK_FILE
    try:
        spec = GeneratorSpec.loads(_text(spec_file))
    except SpecError as error:
        raise CheckpointError(
            f"{spec_file}: {error.problem}", got=error.got, expected=error.expected, remedy=error.remedy or _REMEDY
        ) from error
    generator = module_with_tensors(record_from_json(network_file), read_tensors(folder / WEIGHTS_FILE), network_file)
    described = spec_from_generator(generator, spec.name)
    if (described.inputs, described.outputs) != (spec.inputs, spec.outputs):
        raise CheckpointError(
            f"{spec_file} does not describe the network of {network_file}",
            got=_tensors_text(spec),
            expected=_tensors_text(described),
            remedy=_REMEDY,
        )
    return generator.eval().requires_grad_(False), spec


def record_from_json(path: Path) -> NetworkRecord:
    """Reads `network.json`. Raises `CheckpointError`."""
    table = read_json(path)
    version = table.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema version is newer than this release reads",
            got=version,
            expected=SCHEMA_VERSION,
            remedy="pip install --upgrade ganexport",
        )
    name, settings = table.get("network"), table.get("settings")
    if version != SCHEMA_VERSION or not isinstance(name, str) or not isinstance(settings, dict):
        raise CheckpointError(
            f"{path} does not name a network",
            got=repr(table)[:120],
            expected='{"schema_version": 1, "network": name, "settings": {…}}',
            remedy=_REMEDY,
        )
    return NetworkRecord(name, settings)


def module_with_tensors(record: NetworkRecord, tensors: Mapping[str, Tensor], where: Path) -> nn.Module:
    """The network with these parameters and buffers. Raises `CheckpointError` where the two do not fit."""
    try:
        with torch.device("meta"):
            network = network_from_record(record)
    except InputError as error:
        raise CheckpointError(
            f"{where}: {error.problem}", got=error.got, expected=error.expected, remedy=_REMEDY
        ) from error
    check_tensors(tensors, network.state_dict(), f"{where}: the weights are not those of {record.network!r}")
    network.load_state_dict(dict(tensors), assign=True)
    return network


def check_tensors(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], problem: str) -> None:
    """Raises `CheckpointError` where names, shapes or dtypes differ."""
    for name, tensor in expected.items():
        if name not in given or _tensor_text(given[name]) != _tensor_text(tensor):
            raise CheckpointError(
                f"{problem}: {name}",
                got=_tensor_text(given[name]) if name in given else "nothing",
                expected=_tensor_text(tensor),
                remedy=_REMEDY,
            )
    surplus = sorted(set(given) - set(expected))
    if surplus:
        raise CheckpointError(f"{problem}: {surplus[0]}", got="a tensor too many", remedy=_REMEDY)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file through our own file handle, so that a full disk is an `OSError` like any other."""
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(on_cpu))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. Raises `CheckpointError` where it is missing, truncated or malformed."""

    def read() -> dict[str, Tensor]:
        return safetensors.torch.load(path.read_bytes())

    try:
        return _reading(path, read)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file", got=str(error)[:200], remedy=_REMEDY
        ) from error


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(json_text(table), encoding="utf-8")


def json_text(table: Mapping[str, Any]) -> str:
    """Canonical JSON text: sorted keys, two spaces, a newline at the end."""
    return json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises `CheckpointError` where it is missing, truncated or something else."""
    try:
        table = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON", got=str(error)[:200], remedy=_REMEDY) from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path} is not a JSON object", got=repr(table)[:80], remedy=_REMEDY)
    return table


def _text(path: Path) -> str:
    def read() -> str:
        with path.open("rb") as file:
            data = file.read(_MOST_JSON_BYTES + 1)
        if len(data) > _MOST_JSON_BYTES:
            raise CheckpointError(f"{path} is too large", got=f"more than {_MOST_JSON_BYTES >> 20} MiB", remedy=_REMEDY)
        return data.decode("utf-8")

    try:
        return _reading(path, read)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text", got=str(error), remedy=_REMEDY) from error


def _reading(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing", remedy=_REMEDY) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read", got=error.strerror or str(error), remedy=_REMEDY) from error


def _tensor_text(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _tensors_text(spec: GeneratorSpec) -> str:
    return ", ".join(f"{t.name} {t.dtype} {list(t.shape)} {t.role}" for t in (*spec.inputs, *spec.outputs))
