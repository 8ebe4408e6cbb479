"""What generated images are held against: real ones that the generator never saw, where there are any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ganruntime.errors import InputError
from ganruntime.noise import stream_of
from gantrain.data.named import FACES_SEED
from gantrain.data.source import ImageSource
from gantrain.data.split import split

SPLITS = ("auto", "held-out", "train", "all")
_STREAM = stream_of("gantrain.metrics.reference")
_LEAST = 16


@dataclass(frozen=True)
class Reference:
    """The real side of a score.

    whole: the source, which a judge is fitted to.
    train: what the generator learned from.
    held_out: as much as there is of what it never saw; None where it saw everything.
    images: the real images of every figure but memorisation.
    text: what `images` are, for people.
    """

    whole: ImageSource
    train: ImageSource
    held_out: ImageSource | None
    images: ImageSource
    text: str


def reference_of(source: ImageSource, held_out: float = 0.0, which: str = "auto", most: int = 2_500) -> Reference:
    """Chooses the real images.

    Args:
        source: the data, whole.
        held_out: the share of it that was kept out of training (`gantrain.data.split`); 0 for none.
        which: `held-out`, `train`, `all`, or `auto`: held-out images where there are any, otherwise all.
        most: no more than this many, chosen at random and always the same; as many as are generated, because
            neighbourhood figures compare only at equal numbers.

    Raises:
        InputError: there are no held-out images, or too few images; or an argument is none.
    """
    if which not in SPLITS:
        raise InputError("no part of the data has this name", got=repr(which), expected=", ".join(SPLITS))
    parts = split(source, held_out)
    unseen, what = parts.held_out, f"held out of {source.name}"
    if unseen is None and _is_faces(source) and which in ("auto", "held-out"):
        unseen, what = _fresh_faces(source, most), "drawn afresh, of another seed than those trained on"
    if which == "held-out" and unseen is None:
        raise InputError(
            f"nothing of {source.name} was held out",
            expected="a generator trained with --set held_out=SHARE, or --held-out SHARE for one that was",
            remedy="--reference train compares with what it learned from",
        )
    if which in ("auto", "held-out") and unseen is not None:
        images = unseen
    elif which == "train" or held_out == 0.0:
        images, what = parts.train, f"of {source.name}, which the generator learned from"
    else:
        images, what = source, f"of {source.name}, learned from and held out"
    chosen = _at_most(images, most)
    if len(chosen.images) < _LEAST:
        raise InputError(
            f"too few images of {source.name} to compare with",
            got=f"{len(chosen.images)}: {what}",
            expected=f"at least {_LEAST}",
            remedy="--reference all, or more data",
        )
    count = len(chosen.images)
    text = (
        f"{count:,} images {what}"
        if count == len(images.images)
        else f"{count:,} of {len(images.images):,} images {what}"
    )
    return Reference(source, parts.train, unseen, chosen, text)


def _at_most(source: ImageSource, most: int) -> ImageSource:
    count = len(source.images)
    if count <= most:
        return source
    words = np.random.Philox(counter=0, key=_STREAM << 64).random_raw(count)
    return source.part(np.sort(np.argsort(words, kind="stable")[:most]))


def _is_faces(source: ImageSource) -> bool:
    from gantrain.data.faces import FACE_ATTRIBUTES

    return source.name == "faces" and dict(source.classes) == dict(FACE_ATTRIBUTES)


def _fresh_faces(source: ImageSource, count: int) -> ImageSource:
    from gantrain.data.faces import FACE_ATTRIBUTES, face_images
    from gantrain.data.named import grey_from_rgb

    # No more than were trained on: memorisation compares equal numbers.
    pixels, labels = face_images(FACES_SEED + 1, 0, min(count, len(source.images)), source.images.shape[1])
    pixels = grey_from_rgb(pixels) if source.channels == 1 else pixels
    return ImageSource("faces", pixels, labels, classes=FACE_ATTRIBUTES)
