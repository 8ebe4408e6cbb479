#!/usr/bin/env python3
"""A plain script that embeds the runtime: open a bundle once, draw, close.

python examples/draw.py digits.gan --seed 7 -n 12 -o sheet.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ganruntime
from ganruntime.errors import GanError
from ganruntime.images import pil_from_image, sheet_from_images


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bundle", type=Path, metavar="NAME.gan")
    options.add_argument("-n", "--count", type=int, default=12)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("-o", "--output", type=Path, required=True, help="a PNG file")
    chosen = options.parse_args()
    if chosen.count < 1 or chosen.output.suffix != ".png":
        options.error("-n is a count from 1 on, and -o the name of a .png")
    with ganruntime.load(chosen.bundle) as generator:
        images = generator.generate(chosen.count, seed=chosen.seed)  # uint8 [n, H, W, C]
        # Image 3 of this seed, alone: to draw one again, its seed and its index are enough.
        pil_from_image(generator.generate(1, seed=chosen.seed, first=3)[0]).save(chosen.output.with_suffix(".3.png"))
        sheet_from_images(images).save(chosen.output)
        about = generator.describe()
    print(f"{len(images)} images on {about['backend']} {about['device']}: {about['backend_chosen_because']}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (GanError, OSError) as error:  # what the runtime raises on purpose says what to do; the disk may say no too
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
