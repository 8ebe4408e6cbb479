"""What a generator may see, and what is kept from it: a split of the data that training and evaluation both work out.

Nothing is written down: which images are held out is a pure function of their number and the share, so a bundle can be
judged on them years later, from the data and that share alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ganruntime.errors import InputError
from ganruntime.noise import stream_of
from gantrain.data.source import ImageSource

MOST_HELD_OUT = 0.5
HELD_OUT_KEY = "held_out_share"  # in a spec's provenance.metrics, where something was kept back
_STREAM = stream_of("gantrain.data.split")


@dataclass(frozen=True)
class Split:
    """train: what a generator learns from. held_out: what it never sees; None where nothing is kept from it."""

    train: ImageSource
    held_out: ImageSource | None


def split(source: ImageSource, share: float) -> Split:
    """Keeps `share` of the images, rounded to a whole number, out of training; their order stays.

    Args:
        share: in [0, 0.5]; 0 keeps none.

    Raises:
        InputError: the share is out of range, or leaves fewer than two images on a side.
    """
    if not 0.0 <= share <= MOST_HELD_OUT:
        raise InputError("not a share to hold out", got=share, expected=f"from 0 to {MOST_HELD_OUT}")
    if share == 0.0:
        return Split(source, None)
    count = len(source.images)
    kept_out = round(share * count)
    if kept_out < 2 or count - kept_out < 2:
        raise InputError(
            f"{source.name} is too small to hold out {share:g} of it",
            got=f"{count} images",
            expected="at least two images to train on and two held out",
            remedy="--set held_out=0, or more images",
        )
    # The order of 64-bit words from Philox, as in `gantrain.data.order`: no release of NumPy changes it.
    words = np.random.Philox(counter=0, key=_STREAM << 64).random_raw(count)
    order = np.argsort(words, kind="stable")
    held_out, train = np.sort(order[:kept_out]), np.sort(order[kept_out:])
    return Split(source.part(train), source.part(held_out))
