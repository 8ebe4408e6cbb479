"""Ours: the runtime as an embedding program calls it, to float outputs and to pixels."""

from __future__ import annotations

from typing import Any

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.parity import floors_of
from ganruntime.generator import Generator


class Runtime(Contender):
    """Ours, as an embedding program calls it: `Generator.outputs`, checks and batch buckets included."""

    name = "ganruntime"
    label = "ganruntime"
    family = "ours"
    includes = "latents in host memory -> float outputs in host memory: Generator.outputs, with its checks and buckets"

    def __init__(self, generator: Generator, suffix: str = "") -> None:
        """`suffix`: what was asked for beyond the default, such as `:int8@openvino`; it becomes part of the names."""
        variant = generator.session.variant
        self.generator = generator
        self.name += suffix
        self.label += suffix.replace(":", " ", 1)
        self.precision = variant.precision
        self.floors = floors_of(variant)
        if variant.output == "uint8" and not self.gives_pixels:
            self.gives_pixels = True
            self.includes = self.includes.replace("float outputs", "uint8 images [N, H, W, C]")

    def run(self, inputs: Arrays) -> Arrays:
        return self.generator.outputs(inputs)

    def setting(self) -> str:
        about = self.generator.describe()
        versions = " ".join(f"{name} {version}" for name, version in about["versions"].items())
        threads = f", {about['threads']} thread(s)" if "threads" in about else ""
        streams = f", {about['streams']} stream(s)" if "streams" in about else ""
        return (
            f"{versions} on {about['device']}{threads}{streams}, variant {about['variant']}, buckets {about['buckets']}"
        )


class RuntimeImages(Runtime):
    """Ours to the end: pixels of latents."""

    name = "ganruntime_uint8"
    label = "ganruntime, to uint8"
    includes = "latents in host memory -> uint8 images [N, H, W, C] in host memory: Generator(latents)"
    gives_pixels = True

    def run(self, inputs: Arrays) -> Arrays:
        spec = self.generator.spec
        assert spec.latent is not None
        assert spec.image is not None
        latents, others = latents_and_others(inputs, spec.latent.name)
        return {spec.image.name: self.generator(latents, **others)}


def latents_and_others(inputs: Arrays, latent: str) -> tuple[Any, dict[str, Any]]:
    """The inputs as `Generator(latents, **others)` and `Batcher.submit(latents, **others)` take them."""
    return inputs[latent], {name: array for name, array in inputs.items() if name != latent}
