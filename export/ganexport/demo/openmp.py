"""How PyTorch's OpenMP threads wait for each other while a demo trains.

By default they spin, which is best on a machine of one's own. Where two cores are shared it is ruinous: a thread whose
partner was descheduled burns its whole time slice at every barrier. Measured on two cores with four busy neighbours,
milliseconds a training step of the demo's DCGAN: spinning 1,118, sleeping 346.
"""

from __future__ import annotations

import os

VARIABLE = "OMP_WAIT_POLICY"
_found: dict[str, str | None] = {}


def let_threads_sleep() -> None:
    """Must be called before torch is imported; leaves a policy that the user chose."""
    if "policy" not in _found:
        _found["policy"] = os.environ.get(VARIABLE)
    os.environ.setdefault(VARIABLE, "PASSIVE")


def environment_as_found() -> dict[str, str]:
    """For processes that are to run as the user would start them."""
    environment = dict(os.environ)
    if "policy" in _found and _found["policy"] is None:
        environment.pop(VARIABLE, None)
    return environment
