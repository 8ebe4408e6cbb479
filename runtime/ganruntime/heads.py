"""The head of a variant: whether its images leave the graph as values or as pixels, and which of the two is loaded.

`auto` takes values. Measured with ONNX Runtime on the CPU, a graph that gives pixels is as fast as one that gives
values whose pixels the runtime computes (docs/pixels.md has the figures), and with values `Generator.outputs` means the
same for every bundle. On a GPU a quarter of the bytes leaves the device; that is not measured yet.
"""

from __future__ import annotations

from dataclasses import replace

from ganruntime.bundle import Bundle
from ganruntime.bundle.manifest import OUTPUTS
from ganruntime.errors import InputError

CHOICES = ("auto", *OUTPUTS)


def bundle_with_output(bundle: Bundle, output: str) -> Bundle:
    """The bundle as a choice among its variants should see it: with those of that output; for `auto`, as it is, and
    `candidates` takes values.

    Raises:
        InputError: `output` is not one of `CHOICES`, or the bundle has no such variant.
    """
    if output not in CHOICES:
        raise InputError(f"{output!r} is not an output", expected=", ".join(CHOICES))
    if output == "auto":
        return bundle
    variants = bundle.manifest.variants
    kept = tuple(v for v in variants if v.output == output)
    if not kept:
        raise InputError(
            f"{bundle.path} has no variant whose output is {output}",
            got=", ".join(f"{v.name} ({v.output})" for v in variants),
            remedy="ganexport to-onnx CHECKPOINT -o NAME.gan --uint8 writes one" if output == "uint8" else None,
        )
    return replace(bundle, manifest=replace(bundle.manifest, variants=kept))
