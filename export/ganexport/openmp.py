"""How long PyTorch's OpenMP threads spin at a barrier while they train, before they sleep.

libgomp spins for milliseconds by default. On a machine of one's own that is harmless; where cores are shared, a thread
whose partner was descheduled burns its time slice at every barrier. Sleeping at once (OMP_WAIT_POLICY=PASSIVE) is worse
on a quiet machine. Measured on two cores, milliseconds a training step of the demo's DCGAN:

    spins                  quiet    two busy neighbours
    default                   39    173
    10,000                    35    119
    0 (PASSIVE)          49 – 72    not measured
"""

from __future__ import annotations

import os

VARIABLE = "GOMP_SPINCOUNT"
SPINS = "10000"
POLICY = "OMP_WAIT_POLICY"  # where the user chose one, a count would override it
_found: dict[str, str | None] = {}


def spin_briefly() -> None:
    """Must be called before torch is imported; leaves what the user chose."""
    if POLICY in os.environ:
        return
    if VARIABLE not in _found:
        _found[VARIABLE] = os.environ.get(VARIABLE)
    os.environ.setdefault(VARIABLE, SPINS)


def environment_as_found() -> dict[str, str]:
    """For processes that are to run as the user would start them."""
    environment = dict(os.environ)
    if VARIABLE in _found and _found[VARIABLE] is None:
        environment.pop(VARIABLE, None)
    return environment
