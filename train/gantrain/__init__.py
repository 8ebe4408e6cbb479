"""gantrain: trains generators into checkpoints that `ganexport` takes with no further word."""

from ganruntime import __version__

__all__ = ["__version__"]
