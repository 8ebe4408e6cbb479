"""Real handwritten digits: the 1,797 of the UCI test set (Alpaydin and Kaynak 1998) that come with scikit-learn.

No download: the data are inside the package. They are 8×8 pixels with 17 levels of grey, each pixel the number of inked
dots in a 4×4 block of a 32×32 bitmap of pen strokes. Here they get a margin of one such pixel, are enlarged with
Lanczos' kernel, and their contrast is raised by half about the middle grey, where the edge of the stroke was: so the
blur of the 4×4 blocks goes, and what comes back looks like the bitmap.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from ganruntime.errors import MissingDependencyError
from gantrain.data.source import ImageSource

COUNT = 1797
_MOST_INK = 16.0
_MARGIN = 1
_CONTRAST = 1.5


@lru_cache(maxsize=4)
def digits(size: int) -> ImageSource:
    """Images uint8 [1797, size, size, 1], white ink on black; labels {"digit": int64 [1797] in 0..9}.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            "the digits come with scikit-learn, which is not installed", remedy='pip install "ganexport[train]"'
        ) from error
    table = load_digits()
    ink = np.asarray(table.images, np.float32) / _MOST_INK  # [N, 8, 8] in [0, 1]
    ink = np.pad(ink, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))  # [N, 10, 10]
    images = np.empty((len(ink), size, size, 1), np.uint8)
    for image, drawn in zip(images, ink, strict=True):
        enlarged = np.asarray(Image.fromarray(drawn).resize((size, size), Image.Resampling.LANCZOS))
        # Contrast and Lanczos overshoot; what is darker than paper or brighter than ink is cut off.
        image[..., 0] = np.rint(255.0 * np.clip(0.5 + _CONTRAST * (enlarged - 0.5), 0.0, 1.0))
    images.flags.writeable = False
    return ImageSource(
        "digits",
        images,
        {"digit": np.asarray(table.target, np.int64)},
        classes={"digit": tuple(str(digit) for digit in range(10))},
    )
