"""Comparisons at several sizes, where height and width vary: which, how many latents at each, and the worst of all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ganexport.comparison.comparison import Comparison, compare
from ganexport.comparison.compatibility import require_comparable
from ganexport.comparison.side import Side
from ganexport.proof_sizes import fewer, proof_sizes
from ganruntime.errors import InputError
from ganruntime.sizes import Size, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec

_TEXT = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})\Z")


def sizes_from_texts(texts: Sequence[str], spec: GeneratorSpec) -> tuple[Size | None, ...]:
    """`48x64` for height 48 and width 64. Without texts, those that an export is proven at; `(None,)` where the spec
    fixes them.

    Raises:
        InputError: a text is no size, the spec leaves none open, or the network does not take it.
    """
    if not texts:
        return proof_sizes(spec) or (None,)
    if not varying_inputs(spec):
        raise InputError(
            f"{spec.name} has a fixed height and width", got=f"--size {texts[0]}", remedy="leave --size away"
        )
    sizes = []
    for text in texts:
        found = _TEXT.match(text)
        if found is None:
            raise InputError("a size is told as HEIGHTxWIDTH", got=text, expected="such as 48x64")
        size = int(found[1]), int(found[2])
        spec_at(spec, size)
        sizes.append(size)
    return tuple(dict.fromkeys(sizes))


def latents_at(sizes: Sequence[Size | None], latents: int, *, chosen: bool) -> list[int]:
    """How many latents each size gets: all of them where the sizes were chosen; else all at the first one and fewer at
    the others, as in the gate, for what breaks at a size breaks in every image."""
    return [latents if chosen or i == 0 else fewer(latents) for i in range(len(sizes))]


def compare_at_sizes(
    a: Side,
    b: Side,
    sizes: Sequence[Size | None],
    latents: Sequence[int],
    *,
    seed: int = 0,
    first: int = 0,
    device: str = "cpu",
    keep: int = 8,
    progress: Callable[[int], None] | None = None,
) -> tuple[Comparison, ...]:
    """A comparison for each size, over as many latents. Arguments and errors are those of `compare`."""
    require_comparable(a, b)
    return tuple(
        compare(a, b, latents=n, seed=seed, first=first, device=device, keep=keep, progress=progress, size=size)
        for size, n in zip(sizes, latents, strict=True)
    )


def problems_at_sizes(comparisons: Sequence[Comparison], problems: Sequence[list[str]]) -> list[str]:
    """The problems of all of them, each with its size where there is one."""
    return [
        f"{comparison.size_label}: {problem}" if comparison.size else problem
        for comparison, found in zip(comparisons, problems, strict=True)
        for problem in found
    ]


def worst_comparison(comparisons: Sequence[Comparison], name: str) -> Comparison:
    """The one that holds the worst case of an output."""
    return min(comparisons, key=lambda c: next(o.worst[0].psnr_db for o in c.outputs if o.tensor.name == name))
