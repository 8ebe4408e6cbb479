"""Learning rates that fall, linearly, from one step to another."""

from __future__ import annotations


def rate_factor(step: int, start: int, end: int, least: float) -> float:
    """What the learning rates of a step are multiplied with: 1 up to `start`, `least` from `end` on; in [least, 1].

    A function of the step, and not of how many there will be: a run that is given more steps stays the same run.
    """
    if end == 0 or step <= start:
        return 1.0
    return max(least, 1.0 - (1.0 - least) * (step - start) / (end - start)) if step < end else least
