"""A generator in NumPy behind a session, with faults to order: what the gate must find, without an export each."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle import Variant
from ganruntime.sessions.base import Arrays, Session
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector

LATENT, CHANNELS, SIZE = 8, 3, 6
_WEIGHTS = np.random.default_rng(3).standard_normal((LATENT, CHANNELS * SIZE * SIZE)) * 0.4

Fault = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def numpy_spec(low: float = -1.0, high: float = 1.0) -> GeneratorSpec:
    latent = TensorSpec("z", "float32", (LATENT,), Latent())
    image = TensorSpec("image", "float32", (CHANNELS, SIZE, SIZE), Image("CHW", (low, high)))
    return GeneratorSpec("numpy", (latent,), (image,))


def vector_spec() -> GeneratorSpec:
    latent = TensorSpec("z", "float32", (LATENT,), Latent())
    return GeneratorSpec("numpy", (latent,), (TensorSpec("curve", "float32", (CHANNELS, SIZE, SIZE), Vector()),))


def images_of(z: NDArray[np.float32], weights: NDArray[np.float64] = _WEIGHTS) -> NDArray[np.float32]:
    """[N, 8] -> [N, 3, 6, 6] in [-1, 1]."""
    images: NDArray[np.float32] = np.tanh(z.astype(np.float64) @ weights).astype(np.float32)
    return images.reshape(-1, CHANNELS, SIZE, SIZE)


def evaluate_of(spec: GeneratorSpec) -> Callable[[dict[str, NDArray[np.generic]]], dict[str, NDArray[np.generic]]]:
    return lambda inputs: {spec.outputs[0].name: images_of(np.asarray(inputs["z"], np.float32))}


def perturbed_weights(by: float) -> NDArray[np.float64]:
    weights = _WEIGHTS.copy()
    weights[2, 40] += by
    return weights


class NumpySession(Session):
    """Runs `fault(z, right images)`, and keeps what came and went, for figures by brute force."""

    backend: ClassVar[str] = "numpy"

    def __init__(self, spec: GeneratorSpec, fault: Fault | None = None, precision: str = "fp32") -> None:
        super().__init__(spec, Variant(precision, precision, "onnx", "model.onnx"), "cpu", (1,))
        self.fault = fault
        self.batches: list[int] = []
        self.references: list[NDArray[np.float32]] = []
        self.candidates: list[NDArray[np.float32]] = []

    def run(self, inputs: Arrays, out: Arrays) -> None:
        z = np.asarray(inputs["z"], np.float32)
        right = images_of(z)
        found = right if self.fault is None else self.fault(z, right.copy())
        self.batches.append(len(z))
        self.references.append(right)
        self.candidates.append(found.astype(np.float32))
        np.copyto(out[self.spec.outputs[0].name], found)

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def close(self) -> None:
        pass
