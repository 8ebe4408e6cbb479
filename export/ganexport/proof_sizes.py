"""Sizes to prove a generator at, where height and width vary, and how much of the proof each of them gets.

Needs NumPy only, as the gate does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganruntime.sizes import Size, default_size, varying_inputs
from ganruntime.spec import GeneratorSpec, Image

_TRACED_SIDE = 32  # about: small enough to be quick, and larger than what only small images do
_SMALL_SHARE = 32
_LEAST_LATENTS = 8
_LARGEST_SMALL_BATCH = 3


@dataclass(frozen=True)
class Proof:
    """A run of the gate: at this size (None where nothing varies), over so many latents, in these batches."""

    size: Size | None
    latents: int
    batches: tuple[int, ...]

    @property
    def images(self) -> int:
        return self.latents * len(self.batches)


def proof_sizes(spec: GeneratorSpec) -> tuple[Size, ...]:
    """The default size, the smallest, and two that are not square and were never traced; none where nothing varies.

    The graph itself is traced at another one (`traced_size`).
    """
    start = default_size(spec)
    if start is None:
        return ()
    multiple, least, usual = _steps(spec)
    small = (least * multiple, least * multiple)
    tall = ((least + 5) * multiple, (least + 2) * multiple)
    wide = (usual * multiple, (usual + 5) * multiple)
    return tuple(dict.fromkeys((start, small, tall, wide)))


def traced_size(spec: GeneratorSpec) -> Size | None:
    """The size of the example that the graph is traced with: not square, so that height and width stay apart."""
    if not varying_inputs(spec):
        return None
    multiple, _, usual = _steps(spec)
    return (usual + 1) * multiple, (usual + 3) * multiple


def proofs_of(spec: GeneratorSpec, latents: int, batches: Sequence[int]) -> tuple[Proof, ...]:
    """What the gate runs: all latents in all batches at the default size, and fewer at the other ones: what breaks at a
    size breaks in every image."""
    sizes = proof_sizes(spec)
    if not sizes:
        return (Proof(None, latents, tuple(batches)),)
    return (
        Proof(sizes[0], latents, tuple(batches)),
        *(Proof(size, fewer(latents), small_batches(batches)) for size in sizes[1:]),
    )


def fewer(latents: int) -> int:
    """How many latents a size gets that is not the default."""
    return min(latents, max(_LEAST_LATENTS, latents // _SMALL_SHARE))


def small_batches(batches: Sequence[int]) -> tuple[int, ...]:
    """Those of the batches that a size gets that is not the default."""
    return tuple(b for b in batches if b <= _LARGEST_SMALL_BATCH) or (min(batches),)


def _steps(spec: GeneratorSpec) -> tuple[int, int, int]:
    """The multiple, how many of it are the smallest size, and how many a usual one."""
    role = varying_inputs(spec)[0].role
    assert isinstance(role, Image)
    least = -(-role.minimum // role.multiple)
    return role.multiple, least, max(least, -(-_TRACED_SIDE // role.multiple))
