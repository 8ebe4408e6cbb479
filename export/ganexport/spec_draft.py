"""A first draft of a network's spec: names from its signature, sizes from its first layers, outputs from a run.

What can be told from the network is told; what was guessed is listed, to be checked by a person; what cannot be known
is asked for. The draft is a spec like any other.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ganexport.inference import copied_network
from ganexport.input_text import GivenInput
from ganexport.probes import probe_inputs
from ganexport.program.place import place_of_failure
from ganexport.program.size_search import source_with_sizes
from ganexport.source import Source
from ganruntime.errors import ExportError, SpecError
from ganruntime.sizes import Size, default_size, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Scalar, TensorSpec, Vector

_SEED = 0x73706563  # "spec"
_RUN_ROWS = 16
_SIDES_FAR_APART = (64, 128)
_LATENT_NAMES = {"z", "zs", "latent", "latents", "noise", "eps", "x", "input", "inputs", "w"}
_SCALAR_NAMES = {"truncation", "psi", "truncation_psi", "temperature"}
_FIRST_GUESSES = (11, 13, 17, 19, 23, 29, 31, 37)  # primes, so that a size that is not theirs is seen as such
_CONVOLUTIONS = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}
_TRANSPOSED = {functional.conv_transpose1d: 1, functional.conv_transpose2d: 2, functional.conv_transpose3d: 3}


@dataclass(frozen=True)
class Draft:
    """A spec, and what in it was guessed, one sentence each."""

    spec: GeneratorSpec
    to_check: tuple[str, ...]


def spec_from_module(module: nn.Module, given: Mapping[str, GivenInput] | None = None, name: str = "") -> Draft:
    """The draft of a module's spec.

    Args:
        given: what the caller knows of inputs, by their names in `forward`.
        name: the generator's; by default its class, such as `my-generator`.

    Raises:
        SpecError: an input's shape cannot be told from the network; the remedy says what to give.
        ExportError: the network cannot be copied, fails on the inputs that were found, or gives something else than
            tensors.
    """
    name = name or _kebab(type(module).__name__)
    nothing = GeneratorSpec(name, (_latent("z", 1),), (TensorSpec("output", "float32", (1,), Vector()),))
    network = copied_network(module, nothing)
    names = _input_names(network, name)
    unknown = sorted(set(given or {}) - set(names))
    if unknown:
        raise SpecError(f"forward has no argument {unknown[0]!r}", expected=", ".join(names) or "none")
    inputs, doubts = _inputs(network, name, names, given or {})
    outputs, more = _outputs(network, name, inputs)
    spec = GeneratorSpec(name, inputs, outputs)
    if varying_inputs(spec):
        spec = source_with_sizes(Source(network, _with_varying_outputs(network, spec), "draft")).spec
    return Draft(spec, (*doubts, *more))


def _with_varying_outputs(network: nn.Module, spec: GeneratorSpec) -> GeneratorSpec:
    """The spec, with the height and width of an image output left open where they are others at another size."""
    shapes = []
    for side in _SIDES_FAR_APART:
        arguments = [torch.from_numpy(a) for a in _ordered(spec, 1, (side, side))]
        try:
            with torch.inference_mode():
                result = network(*arguments)
        except Exception:  # whatever a stranger's code raises: the search for sizes says where
            return spec
        shapes.append([tuple(t.shape[1:]) for t in (result if isinstance(result, (tuple, list)) else [result])])
    outputs: list[TensorSpec] = []
    for tensor, *sides in zip(spec.outputs, *shapes, strict=True):
        if len(set(sides)) == 1:
            outputs.append(tensor)
        elif isinstance(tensor.role, Image):
            outputs.append(replace(tensor, shape=(tensor.shape[0], None, None)))
        else:
            raise ExportError(
                f"{spec.name}: output {tensor.name!r} follows the height and width of the input, and is no image",
                got=" and ".join(str(list(s)) for s in sides),
                expected="[1, 3 or 4, H, W]",
                remedy="give the inputs fixed heights and widths",
            )
    return replace(spec, outputs=tuple(outputs))


def _latent(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", shape, Latent())


def _kebab(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text).lower().strip("_") or "generator"


def _input_names(network: nn.Module, name: str) -> list[str]:
    """Arguments of `forward` that a caller has to give."""
    names = []
    for parameter in inspect.signature(network.forward).parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL:
            raise SpecError(
                f"{name}: forward takes *{parameter.name}, which does not say how many inputs there are",
                remedy="write the spec by hand, or give forward an argument for each input",
            )
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is not parameter.empty:
                break
            names.append(parameter.name)
    if not names:
        raise SpecError(f"{name}: forward takes no input", remedy="a generator takes a latent, a label or an image")
    return names


@dataclass
class _Guess:
    """What is believed of an input while its network is tried."""

    shape: tuple[int, ...]
    classes: int | None = None
    learned: bool = False
    doubts: list[str] = field(default_factory=list)


class _Learned(Exception):
    def __init__(self, name: str, shape: tuple[int, ...] | None, classes: int | None) -> None:
        super().__init__(name)
        self.name, self.shape, self.classes = name, shape, classes


def _inputs(
    network: nn.Module, name: str, names: Sequence[str], given: Mapping[str, GivenInput]
) -> tuple[tuple[TensorSpec, ...], list[str]]:
    guesses = {n: _Guess((_FIRST_GUESSES[i % len(_FIRST_GUESSES)],)) for i, n in enumerate(names)}
    for n, guess in guesses.items():
        if n in given:
            guess.shape, guess.learned = tuple(d or 1 for d in given[n].shape), True
            guess.classes = given[n].classes
        elif n in _SCALAR_NAMES:
            guess.shape, guess.learned = (), True
    for _ in range(2 * len(names) + 1):
        try:
            _try(network, guesses, given)
        except _Learned as learned:
            guess = guesses[learned.name]
            guess.learned, guess.classes = learned.shape is not None, learned.classes
            if learned.shape is None:
                raise SpecError(
                    f"{name}: the size of input {learned.name!r} cannot be told: a convolution takes any",
                    remedy=f"--input {learned.name}=3x64x64,image (with your size)",
                ) from None
            guess.shape = learned.shape
            continue
        except Exception:  # whatever a stranger's code raises on sizes that were guessed
            break
        break
    missing = [n for n, guess in guesses.items() if not guess.learned]
    if missing:
        raise SpecError(
            f"{name}: the shape of input {missing[0]!r} cannot be told from the network",
            got="no layer with a fixed size takes it directly",
            remedy=" ".join(f"--input {n}=100" for n in missing) + " (with the sizes of your network)",
        )
    specs, doubts = [], []
    for n, guess in guesses.items():
        if n in given:
            specs.append(given[n].tensor(n))
            continue
        specs.append(_tensor_of(n, guess))
        if guess.classes is None and n not in _LATENT_NAMES | _SCALAR_NAMES:
            doubts.append(f"{n}: taken for a latent, N(0, 1), of shape {list(guess.shape)}")
        elif guess.classes is not None:
            doubts.append(f"{n}: taken for a label of {guess.classes} classes, whose names are numbers")
    return tuple(specs), doubts


def _tensor_of(name: str, guess: _Guess) -> TensorSpec:
    if guess.classes is not None:
        return TensorSpec(name, "int64", guess.shape, Label(tuple(str(i) for i in range(guess.classes))))
    if name in _SCALAR_NAMES:
        return TensorSpec(name, "float32", (), Scalar())
    return _latent(name, *guess.shape)


def _try(network: nn.Module, guesses: Mapping[str, _Guess], given: Mapping[str, GivenInput]) -> None:
    """Runs the network on the guesses. Raises `_Learned` at the first layer that says a size."""
    arguments = {}
    for name, guess in guesses.items():
        if name in given:
            tensor = given[name].tensor(name)
        else:
            tensor = _tensor_of(name, guess)
        probe = GeneratorSpec("try", (tensor,), (TensorSpec("output", "float32", (1,), Vector()),))
        arguments[name] = torch.from_numpy(probe_inputs(spec_at(probe, default_size(probe)), _SEED, 0, 2)[name])
    with torch.inference_mode(), _Learner(guesses, arguments):
        network(*arguments.values())


class _Learner(TorchFunctionMode):
    """Follows each input to the first layer that has a size of its own."""

    def __init__(self, guesses: Mapping[str, _Guess], arguments: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._guesses = guesses
        self._from: dict[int, tuple[Tensor, str]] = {
            id(t): (t, name) for name, t in arguments.items() if not guesses[name].learned
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        values = [*args, *kwargs.values()]
        tensors = [t for v in values for t in (v if isinstance(v, (tuple, list)) else [v]) if isinstance(t, Tensor)]
        name = next((self._from[id(t)][1] for t in tensors if id(t) in self._from), None)
        if name is not None and tensors:
            self._learn(func, name, tensors, args, kwargs)
        result = func(*args, **kwargs)
        if name is not None:
            for t in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(t, Tensor):
                    self._from[id(t)] = (t, name)
        return result

    def _learn(
        self, function: Any, name: str, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        guess = self._guesses[name]
        x = tensors[0]
        direct = x.shape[1:] == torch.Size(guess.shape)
        if function is functional.embedding and direct:
            raise _Learned(name, (), int(tensors[1].shape[0]))
        if function is functional.one_hot and direct:
            count = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
            if count > 0:
                raise _Learned(name, (), int(count))
        if function is functional.linear and id(x) in self._from:
            self._sized(name, int(tensors[1].shape[1]), int(x.shape[-1]))
        product = function in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__) and len(tensors) == 2
        if product and id(x) in self._from and tensors[1].ndim == 2:
            self._sized(name, int(tensors[1].shape[0]), int(x.shape[-1]))
        if function in _CONVOLUTIONS and id(x) in self._from:
            if direct:
                raise _Learned(name, None, None)
            groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
            self._sized(name, int(tensors[1].shape[1]) * groups, int(x.shape[1]))
        if function in _TRANSPOSED and id(x) in self._from:
            if direct:
                raise _Learned(name, (int(tensors[1].shape[0]), *[1] * _TRANSPOSED[function]), None)
            self._sized(name, int(tensors[1].shape[0]), int(x.shape[1]))

    def _sized(self, name: str, wanted: int, found: int) -> None:
        """A layer wants so many features; what the input did not bring was joined to it on the way."""
        (size,) = self._guesses[name].shape if len(self._guesses[name].shape) == 1 else (0,)
        if size and size + wanted - found > 0:
            raise _Learned(name, (size + wanted - found,), None)


class _LastOperation(TorchFunctionMode):
    """Which function made which tensor, so that an output's last activation is known."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[Tensor, Any, Any]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._made[id(result)] = (result, func, args[0] if args else None)
        return result

    def activation(self, tensor: Tensor) -> str:
        """`tanh`, `sigmoid` or nothing: what is last but for moves of data."""
        while id(tensor) in self._made:
            _, function, source = self._made[id(tensor)]
            last = getattr(function, "__name__", "")
            if last in ("tanh", "sigmoid"):
                return str(last)
            if last not in ("reshape", "view", "permute", "contiguous", "squeeze", "unsqueeze", "flatten", "unflatten"):
                return ""
            tensor = source
        return ""


def _outputs(network: nn.Module, name: str, inputs: tuple[TensorSpec, ...]) -> tuple[tuple[TensorSpec, ...], list[str]]:
    probe = GeneratorSpec(name, inputs, (TensorSpec("output_", "float32", (1,), Vector()),))
    arguments = [torch.from_numpy(a) for a in _ordered(probe, _RUN_ROWS, default_size(probe))]
    last = _LastOperation()
    try:
        with torch.inference_mode(), last:
            result = network(*arguments)
    except Exception as error:  # whatever a stranger's code raises
        place = place_of_failure(network, arguments)
        raise ExportError(
            f"{name}: forward failed in {place}",
            got=f"{type(error).__name__}: {error}",
            expected="to take " + ", ".join(f"{t.name} {['N', *t.shape]}" for t in inputs),
            remedy="give the shapes of the inputs: " + " ".join(f"--input {t.name}=…" for t in inputs),
        ) from error
    tensors = list(result) if isinstance(result, (tuple, list)) else [result]
    wrong = [type(t).__name__ for t in tensors if not isinstance(t, Tensor)]
    if wrong or not tensors:
        raise ExportError(
            f"{name}: forward gives something else than tensors",
            got=", ".join(wrong) or "nothing",
            remedy="return one tensor, or a tuple of tensors",
        )
    specs: list[TensorSpec] = []
    doubts: list[str] = []
    taken = {t.name for t in inputs}
    for index, tensor in enumerate(tensors):
        shape = tuple(int(d) for d in tensor.shape[1:])
        pictures = len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) > 1
        base = "image" if pictures else "output"
        own = base if base not in taken else f"{base}_{index}"
        taken.add(own)
        dtype = str(tensor.dtype).removeprefix("torch.")
        role: Image | Vector = Vector()
        if pictures:
            role, doubt = _image_role(tensor, last.activation(tensor))
            doubts += [f"{own}: {doubt}"] if doubt else []
        specs.append(TensorSpec(own, dtype, shape, role))
    return tuple(specs), doubts


def _ordered(spec: GeneratorSpec, rows: int, size: Size | None) -> list[Any]:
    probes = probe_inputs(spec_at(spec, size), _SEED, 0, rows)
    return [probes[t.name] for t in spec.inputs]


def _image_role(tensor: Tensor, activation: str) -> tuple[Image, str]:
    known = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
    if activation in known:
        return Image(range=known[activation]), ""
    low, high = float(tensor.min()), float(tensor.max())
    guess = (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (0.0, 255.0) if low >= 0.0 and high > 2.0 else (-1.0, 1.0)
    return Image(range=guess), (
        f"its range was guessed as {list(guess)}: no tanh or sigmoid at its end, and {_RUN_ROWS} samples lie in "
        f"[{low:.3g}, {high:.3g}]"
    )
