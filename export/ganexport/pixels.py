"""Variants that give pixels: made of the float graph, equal to it, and held against references that give values.

Two things are shown of such a variant. Against its float graph, in one backend: equal pixels, every one. Against the
source network, whose outputs are values: both sides as levels, 255 over the range, the reference unrounded and cut to
[0, 255]. A pixel that was rounded rightly is then at most half a level away, so its bound is half a level more than the
float graph's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganexport.golden import Arrays, GoldenSamples
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import Proof, proofs_of
from ganruntime.images import uint8_from_output
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sizes import Size, size_text, spec_at
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

HALF_A_LEVEL = 0.5


@dataclass(frozen=True)
class Comparison:
    """How a session's outputs and its reference's are made comparable.

    spec: of what is compared. rounding: what rounding to pixels may add to the bound of images, in the units of `spec`.
    """

    spec: GeneratorSpec
    rounding: float
    contract: GeneratorSpec

    @classmethod
    def of(cls, session: Session, size: Size | None = None) -> Comparison:
        """`size`: where height and width vary, the one that is compared."""
        contract = spec_at(session.contract, size)
        if session.variant.output != "uint8":
            return cls(contract, 0.0, contract)
        return cls.in_levels(contract)

    @classmethod
    def in_levels(cls, contract: GeneratorSpec) -> Comparison:
        """Both sides as levels, where at least one gives pixels."""
        outputs = tuple(
            replace(t, role=replace(t.role, range=(0.0, 255.0))) if isinstance(t.role, Image) else t
            for t in contract.outputs
        )
        return cls(replace(contract, outputs=outputs), HALF_A_LEVEL, contract)

    def of_candidate(self, outputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """What a session gave, in the layouts of the reference."""
        if not self.rounding:
            return dict(outputs)
        return {t.name: _in_layout(outputs[t.name], t) for t in self.spec.outputs}

    def of_reference(self, outputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """What the source network gave, of whole outputs or of chosen elements."""
        if not self.rounding:
            return dict(outputs)
        return {t.name: _levels(outputs[t.name], t) for t in self.contract.outputs}

    def of_golden(self, golden: GoldenSamples) -> GoldenSamples:
        if not self.rounding:
            return golden
        return replace(golden, whole=self.of_reference(golden.whole), elements=self.of_reference(golden.elements))


def _in_layout(pixels: NDArray[Any], tensor: TensorSpec) -> NDArray[Any]:
    """uint8 [N, H, W, C] as float32 in the tensor's own layout; another output as it is."""
    if not isinstance(tensor.role, Image):
        return pixels
    if tensor.role.layout == "CHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels, np.float32)


def _levels(values: NDArray[Any], tensor: TensorSpec) -> NDArray[Any]:
    """Values as levels of 255, not rounded; NaN stays NaN, which no gate passes."""
    if not isinstance(tensor.role, Image):
        return values
    low, high = tensor.role.range
    levels = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(levels, 0.0, 255.0).astype(np.float32)


def pixel_problems(
    values: Session,
    pixels: Session,
    seed: int,
    latents: int,
    batches: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Runs both sessions over the same latents in every batch size; empty where every pixel is equal.

    Args:
        values, pixels: sessions of the float graph and of the graph that gives pixels, in one backend on one device.
    """
    for proof in proofs_of(values.contract, latents, batches):
        for batch in proof.batches:
            problems = _unequal_pixels(values, pixels, seed, proof, batch, progress)
            if problems:
                return problems
    return []


def _unequal_pixels(
    values: Session, pixels: Session, seed: int, proof: Proof, batch: int, progress: Callable[[int], None] | None
) -> list[str]:
    contract = spec_at(values.spec, proof.size)
    floats, found = empty_outputs(contract, batch), empty_outputs(spec_at(pixels.spec, proof.size), batch)
    for start in range(0, proof.latents, batch):
        inputs = probe_inputs(contract, seed, start, batch)
        values.run(inputs, floats)
        pixels.run(inputs, found)
        for t in contract.outputs:
            image = isinstance(t.role, Image)
            expected = uint8_from_output(floats[t.name], t) if image else floats[t.name]
            unequal = np.argwhere(expected != found[t.name])
            if len(unequal):
                sample = start + int(unequal[0][0])
                gap = np.abs(expected.astype(np.float64) - found[t.name].astype(np.float64)).max()
                at_size = f" at {size_text(proof.size)}" if proof.size is not None else ""
                return [
                    f"{t.name} differs at sample {sample} in a batch of {batch}{at_size}, by up to {gap:g}, "
                    f"in {len(unequal)} of {expected.size} places"
                ]
        if progress is not None:
            progress(min(batch, proof.latents - start))
    return []
