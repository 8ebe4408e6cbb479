"""ganruntime: generates images from a bundle. Needs NumPy, Pillow and one backend; never torch.

>>> import ganruntime
>>> generator = ganruntime.load("digits.gan")          # doctest: +SKIP
>>> images = generator.generate(16, seed=7)            # doctest: +SKIP  uint8 [16, H, W, C]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Generator", "GeneratorSpec", "__version__", "load"]

if TYPE_CHECKING:
    from ganruntime.generator import Generator, load
    from ganruntime.spec import GeneratorSpec

_HOME = {"Generator": "generator", "load": "generator", "GeneratorSpec": "spec"}


def __getattr__(name: str) -> object:
    # Lazy (PEP 562): a service that imports ganruntime pays for a backend when it loads a bundle, not before.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"ganruntime.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ganruntime' has no attribute {name!r}")
