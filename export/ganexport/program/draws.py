"""Random numbers that a network draws by itself: found, refused with their place, made inputs, or frozen to constants.

An image has to be a function of its inputs. `draws_of` runs a network and lists what it draws, and where. With noise
given in (`WithNoise`) the same code computes from these values instead of drawing its own; this is what is exported,
and what the graph is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ganexport.eager import Arrays, eager_outputs
from ganexport.program.place import Follower, Operation, Place
from ganruntime import noise
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

FREEZE_SEED = 0x66726565  # "free"
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """One draw of a run: where, of which distribution, and the shape that was drawn.

    distribution: `normal`, `uniform`, or empty for one that cannot be made from either.
    """

    place: Place
    distribution: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return str(self.place)


@dataclass(frozen=True)
class _Request:
    """A call that draws: what standard numbers it needs, N(0, 1) or U[-1, 1), and what it makes of them."""

    distribution: str
    shape: Sequence[Any]
    finish: Callable[[Tensor], Any]


def draws_of(network: nn.Module, spec: GeneratorSpec, inputs: Arrays) -> list[Draw]:
    """What a run on these inputs draws, in order."""
    recorder = _Recorder(network)
    # torch.cond compiles itself, which would compile the recorder too.
    with torch.compiler.set_stance("force_eager"), recorder:
        eager_outputs(network, spec, inputs)
    return recorder.draws


class _Recorder(Follower):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.draws: list[Draw] = []

    def answer(self, function: Operation, arguments: Arguments, keywords: Keywords) -> Any:
        request = _request_of(function, arguments, keywords)
        if request is not None:
            self.draws.append(Draw(self.place, request.distribution, tuple(int(d) for d in request.shape)))
        elif _draws_something_else(function, arguments, keywords):
            self.draws.append(Draw(self.place, "", ()))
        return super().answer(function, arguments, keywords)


class WithNoise:
    """Mixed into the class of a network: its forward takes noise after its own inputs, and draws none.

    noise_inputs: how many of the arguments of `forward` are noise.
    noise_plan: for each draw of a run, in order, the number of the noise argument, or the name of a buffer.
    """

    noise_inputs: int
    noise_plan: tuple[int | str, ...]

    def forward(self, *arguments: Tensor) -> Any:
        own = len(arguments) - self.noise_inputs
        given = [
            (arguments[own + p], False) if isinstance(p, int) else (getattr(self, p), True) for p in self.noise_plan
        ]
        with _Injector(given):
            return super().forward(*arguments[:own])  # type: ignore[misc]


class _Injector(TorchFunctionMode):
    """Answers the i-th call that draws from the i-th tensor, [N, …]; from a constant of the shape that is drawn, or of
    one row for all."""

    def __init__(self, given: Sequence[tuple[Tensor, bool]]) -> None:
        """given: each tensor, and whether it is a constant."""
        super().__init__()
        self._given = list(given)
        self._next = 0

    def __torch_function__(
        self, func: Operation, types: Any, args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        request = _request_of(func, args, kwargs or {})
        if request is None:
            return func(*args, **(kwargs or {}))
        if self._next >= len(self._given):
            raise ExportError(
                "the network draws more random numbers than it did when it was looked at", expected=len(self._given)
            )
        given, constant = self._given[self._next]
        self._next += 1
        # Of a constant only: asking a batch whether it is 1 would hold the graph to the answer.
        if constant and given.ndim and given.shape[0] == 1:
            given = given.expand(request.shape[0], *given.shape[1:])
        return request.finish(given)


def network_with_noise(network: nn.Module, plan: Sequence[int | str], inputs: int) -> None:
    """Makes a network take noise instead of drawing it, in place: names, parameters and modules stay as they are."""
    kind = type(network)
    network.__class__ = type(kind.__name__, (WithNoise, kind), {"__module__": kind.__module__})
    network.noise_plan, network.noise_inputs = tuple(plan), inputs  # type: ignore[assignment]


def frozen_noise(name: str, distribution: str, shape: Sequence[int]) -> Tensor:
    """The constant that takes the place of a draw: [*shape] of the fixed seed, as `ganruntime.noise` draws it."""
    draw = {"normal": noise.normal, "uniform": noise.uniform}[distribution]
    size = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(draw(FREEZE_SEED, 0, 1, size, stream=noise.stream_of(name)).reshape(tuple(shape)))


def _request_of(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request | None:
    make = _REQUESTS.get(function)
    return make(function, arguments, keywords) if make is not None else None


def _unit(u: Tensor) -> Tensor:
    """U[-1, 1) to U[0, 1), exactly: both lie on the grid of 2⁻²⁴."""
    return u * 0.5 + 0.5


def _factory(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request:
    """torch.randn and torch.rand: sizes one by one, as one list, or as `size=`."""
    size = keywords.get("size", arguments)
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    return _drawn(function is torch.randn, size, keywords.get("dtype"))


def _like(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request:
    tensor = arguments[0] if arguments else keywords["input"]
    return _drawn(function is torch.randn_like, tensor.shape, keywords.get("dtype") or tensor.dtype)


def _drawn(normal: bool, shape: Sequence[Any], dtype: torch.dtype | None) -> _Request:
    dtype = dtype or torch.get_default_dtype()
    if normal:
        return _Request("normal", shape, lambda n: n.to(dtype))
    return _Request("uniform", shape, lambda u: _unit(u).to(dtype))


def _filled(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request:
    """Tensor.normal_(mean, std) and Tensor.uniform_(low, high)."""
    tensor, *rest = arguments
    normal = function is torch.Tensor.normal_
    names, values = (("mean", "std"), [0.0, 1.0]) if normal else (("from", "to"), [0.0, 1.0])
    values[: min(2, len(rest))] = rest[:2]
    a, b = (keywords.get(name, value) for name, value in zip(names, values, strict=True))
    if normal:
        return _Request("normal", tensor.shape, lambda n: tensor.copy_(n * b + a))
    return _Request("uniform", tensor.shape, lambda u: tensor.copy_(_unit(u) * (b - a) + a))


def _normal(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request:
    """torch.normal, whose mean and deviation are tensors or numbers."""
    values = dict(zip(("mean", "std", "size"), arguments, strict=False)) | keywords
    mean, std = values.get("mean", 0.0), values.get("std", 1.0)
    shapes = [v.shape for v in (mean, std) if isinstance(v, Tensor)]
    shape = torch.broadcast_shapes(*shapes) if shapes else values["size"]  # type: ignore[no-untyped-call]
    return _Request("normal", shape, lambda n: n * std + mean)


def _bernoulli(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request:
    tensor = arguments[0] if arguments else keywords["input"]
    p = keywords.get("p", arguments[1] if len(arguments) > 1 else None)
    if function is torch.Tensor.bernoulli_:
        chance = 0.5 if p is None else p
        return _Request("uniform", tensor.shape, lambda u: tensor.copy_(_unit(u) < chance))
    chance = tensor if p is None else p
    return _Request("uniform", tensor.shape, lambda u: (_unit(u) < chance).to(tensor.dtype))


def _dropout(function: Operation, arguments: Arguments, keywords: Keywords) -> _Request | None:
    """Dropout that is on: an element, or with dropout1d to 3d a channel, stays where a uniform number is p or more."""
    values = dict(zip(("input", "p", "training", "inplace"), arguments, strict=False)) | keywords
    x, p = values["input"], float(values.get("p", 0.5))
    if not values.get("training", True) or p == 0.0:
        return None
    shape = x.shape if function is functional.dropout else (*x.shape[:2], *[1] * (x.ndim - 2))
    if p == 1.0:
        return _Request("uniform", shape, lambda u: x * 0.0)

    def kept(u: Tensor) -> Tensor:
        y: Tensor = x * (_unit(u) >= p).to(x.dtype) / (1.0 - p)
        return y

    return _Request("uniform", shape, lambda u: x.copy_(kept(u)) if values.get("inplace") else kept(u))


_REQUESTS: dict[Operation, Callable[[Operation, Arguments, Keywords], _Request | None]] = {
    torch.randn: _factory,
    torch.rand: _factory,
    torch.randn_like: _like,
    torch.rand_like: _like,
    torch.normal: _normal,
    torch.Tensor.normal_: _filled,
    torch.Tensor.uniform_: _filled,
    torch.bernoulli: _bernoulli,
    torch.Tensor.bernoulli: _bernoulli,
    torch.Tensor.bernoulli_: _bernoulli,
    functional.dropout: _dropout,
    functional.dropout1d: _dropout,
    functional.dropout2d: _dropout,
    functional.dropout3d: _dropout,
}
_OTHERS = {
    torch.randint,
    torch.randint_like,
    torch.randperm,
    torch.multinomial,
    torch.poisson,
    torch.binomial,
    torch.Tensor.multinomial,
    torch.Tensor.random_,
    torch.Tensor.exponential_,
    torch.Tensor.cauchy_,
    torch.Tensor.geometric_,
    torch.Tensor.log_normal_,
    functional.gumbel_softmax,
}
# Those that draw only while training, with the position of that argument.
_OTHERS_IN_TRAINING = {functional.alpha_dropout: 2, functional.feature_alpha_dropout: 2, functional.rrelu: 3}


def _draws_something_else(function: Operation, arguments: Arguments, keywords: Keywords) -> bool:
    if function in _OTHERS:
        return True
    position = _OTHERS_IN_TRAINING.get(function)
    if position is None:
        return False
    return bool(keywords.get("training", arguments[position] if len(arguments) > position else False))
