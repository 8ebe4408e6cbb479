"""A source whose network draws random numbers, made one that does not: each draw an input, or a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch

from ganexport.inference import copied_network
from ganexport.probes import probe_inputs
from ganexport.program.draws import FREEZE_SEED, Draw, draws_of, frozen_noise, network_with_noise
from ganexport.proof_sizes import proof_sizes
from ganexport.source import Source
from ganruntime.errors import ExportError, InputError
from ganruntime.sizes import Size, default_size, size_text, spec_at
from ganruntime.spec import GeneratorSpec, Noise, TensorSpec

CHOICES = ("refuse", "input", "freeze")
_SEED = 0x64726177  # "draw"


@dataclass(frozen=True)
class _Standing:
    """What takes the place of a draw. shape: without the batch where `per_row`."""

    draw: Draw
    name: str
    shape: tuple[int, ...]
    per_row: bool


def source_with_noise(source: Source, choice: str) -> Source:
    """The source with its random draws made inputs (`input`) or constants (`freeze`); `refuse` leaves it as it is.

    With `input` the spec gains an input with the role `noise` per draw, in the order of the draws and after all others,
    so that image i of seed s is the same everywhere. With `freeze` every image has the same noise, drawn once from
    `ganruntime.noise` with a fixed seed. A draw of one row for the whole batch becomes one row for each image. The
    source's own network is not changed; what was done is in `notes`, for the bundle's report.

    Raises:
        InputError: the choice is none.
        ExportError: the network fails, or draws what can be made from neither normal nor uniform numbers, or in a shape
            that is not that of its batch; names the module, the function and the line.
    """
    if choice not in CHOICES:
        raise InputError(f"{choice!r} is no way to treat random numbers", expected=", ".join(CHOICES))
    if choice == "refuse":
        return source
    network = copied_network(source.module, source.spec)
    standings = _standings(source.spec, _runs(network, source.spec), choice)
    if not standings:
        return replace(source, notes={**source.notes, "random": choice, "draws": {}})
    plan: list[int | str] = []
    inputs = list(source.spec.inputs)
    for standing in standings:
        if choice == "input":
            plan.append(len(inputs) - len(source.spec.inputs))
            role = Noise(distribution=standing.draw.distribution)
            inputs.append(TensorSpec(standing.name, "float32", standing.shape, role))
        else:
            plan.append(standing.name)
            shape = (1, *standing.shape) if standing.per_row else standing.shape
            constant = frozen_noise(standing.name, standing.draw.distribution, shape)
            # Not part of the weights: their hash stays that of the checkpoint.
            network.register_buffer(standing.name, constant, persistent=False)
    network_with_noise(network, plan, len(inputs) - len(source.spec.inputs))
    spec = replace(source.spec, inputs=tuple(inputs))
    return replace(source, module=network, spec=spec, notes={**source.notes, **_notes(choice, standings)})


def _runs(network: torch.nn.Module, spec: GeneratorSpec) -> tuple[list[Draw], list[Draw]]:
    """What the network draws for a batch of 2, and of 3."""
    two, three = (_draws(network, spec, default_size(spec), batch) for batch in (2, 3))
    if [(d.place, d.distribution, len(d.shape)) for d in two] != [
        (d.place, d.distribution, len(d.shape)) for d in three
    ]:
        raise ExportError(
            f"{spec.name}: what the network draws depends on the batch",
            got=f"{len(two)} draws for a batch of 2, {len(three)} for one of 3",
            expected="the same draws, one row per image",
            remedy="draw noise of x.shape[0] rows in one call",
        )
    _require_same_at_sizes(network, spec, two)
    return two, three


def _draws(network: torch.nn.Module, spec: GeneratorSpec, size: Size | None, batch: int) -> list[Draw]:
    at_size = spec_at(spec, size)
    return draws_of(network, at_size, probe_inputs(at_size, _SEED, 0, batch))


def _require_same_at_sizes(network: torch.nn.Module, spec: GeneratorSpec, draws: list[Draw]) -> None:
    """Noise has a fixed shape: raises `ExportError` where a draw follows a height and width that vary."""
    for size in proof_sizes(spec)[1:]:
        for usual, other in zip_longest(draws, _draws(network, spec, size, 2)):
            if usual is None or other is None or usual.shape != other.shape:
                raise ExportError(
                    f"{spec.name}: random numbers in a shape that follows the height and width: {usual or other}",
                    got=f"{_shape_text(usual)} for the default size, {_shape_text(other)} for {size_text(size)}",
                    expected="the same noise for every size",
                    remedy="give fixed heights and widths in the spec, or make the noise an image input of forward",
                )


def _shape_text(draw: Draw | None) -> str:
    return "no draw" if draw is None else str(list(draw.shape))


def _standings(spec: GeneratorSpec, runs: tuple[list[Draw], list[Draw]], choice: str) -> list[_Standing]:
    standings = []
    names = _names(spec, len(runs[0]))
    for name, two, three in zip(names, *runs, strict=True):
        if not two.distribution:
            raise ExportError(
                f"{spec.name}: random numbers that can be made from neither normal nor uniform ones: {two}",
                remedy="make what is drawn an input of forward",
            )
        per_row = bool(two.shape) and (two.shape[0], three.shape[0]) == (2, 3) and two.shape[1:] == three.shape[1:]
        one_row = len(two.shape) > 1 and two.shape[0] == 1 and two.shape == three.shape
        if per_row or (one_row and choice == "input"):
            standings.append(_Standing(two, name, two.shape[1:], True))
        elif choice == "freeze" and two.shape == three.shape:
            standings.append(_Standing(two, name, two.shape, False))
        else:
            raise ExportError(
                f"{spec.name}: random numbers in a shape that is not one row per image: {two}",
                got=f"{list(two.shape)} for a batch of 2, {list(three.shape)} for one of 3",
                expected="[x.shape[0], …]",
                remedy="draw noise of x.shape[0] rows"
                + (", or --random freeze makes it a constant" if two.shape == three.shape else ""),
            )
    return standings


def _names(spec: GeneratorSpec, count: int) -> list[str]:
    """`noise` or `noise_0` …, with underscores before it while the spec has such a name."""
    taken = {t.name for t in (*spec.inputs, *spec.outputs)}
    names = ["noise"] if count == 1 else [f"noise_{i}" for i in range(count)]
    while taken & set(names):
        names = [f"drawn_{name}" for name in names]
    return names


def _notes(choice: str, standings: Sequence[_Standing]) -> dict[str, Any]:
    draws = {
        s.name: {"distribution": s.draw.distribution, "shape": list(s.shape), "drawn_in": str(s.draw)}
        for s in standings
    }
    return {"random": choice, "draws": draws} | ({"random_seed": FREEZE_SEED} if choice == "freeze" else {})
