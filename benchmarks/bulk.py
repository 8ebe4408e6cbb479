#!/usr/bin/env python3
"""Images a second of `ganexport generate --format tar`, and what overlapping its stages wins.

Three contenders write the same images into PNG shards, into a fresh folder each time:

    one after the other   noise, inference, encoding, writing, all in one thread (the backend has its own threads)
    pool                  encoding in a pool of threads; noise and inference in the caller's
    overlapped            noise, inference and encoding each in threads of their own: what the command does

What is timed is the command's work without loading: drawing, encoding, records, hashes, tar files, fsync. Before a time
counts, the shards of all three are compared, byte for byte.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import Report, parser, run

from ganexport.benchmark.rounds import interleaved, ratios
from ganexport.tables import table
from ganruntime.bundle import read_bundle
from ganruntime.cores import usable_cores
from ganruntime.encoding import Encoding
from ganruntime.generator import Generator, load
from ganruntime.pipeline import write_images
from ganruntime.runs import BundleRecord, request_from
from ganruntime.writers import Destination, writer_for

SEED = 11
CONTENDERS = {"one after the other": (False, 0), "pool": (False, None), "overlapped": (True, None)}


def main() -> int:
    options = parser(__doc__, rounds=9, seconds=30.0)
    options.add_argument("bundle", type=Path, metavar="NAME.gan")
    options.add_argument("-n", "--count", type=int, default=512, help="images of a call (default %(default)s)")
    options.add_argument("--shard-images", type=int, default=256, help="in a shard (default %(default)s)")
    options.add_argument("--image-format", default="png", choices=("png", "jpeg", "webp"))
    options.add_argument("--threads", type=int, default=usable_cores(), help="compute threads (default %(default)s)")
    chosen = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        load(chosen.bundle, "cpu", "onnxruntime", threads=chosen.threads) as generator,
    ):
        return measure(generator, chosen, Path(folder))


def measure(generator: Generator, chosen: argparse.Namespace, folder: Path) -> int:
    bundle = read_bundle(chosen.bundle)
    request = request_from(
        generator.describe(),
        bundle.spec,
        bundle,
        seed=SEED,
        first=0,
        count=chosen.count,
        format="tar",
        encoding=Encoding(chosen.image_format),
        shard_images=chosen.shard_images,
    )
    record = BundleRecord(str(bundle.path), bundle.manifest_sha256)

    def writes(overlapped: bool, workers: int | None, path: Path) -> Callable[[int], None]:
        def write(_: int) -> None:
            shutil.rmtree(path, ignore_errors=True)
            writer = writer_for(Destination(path, "tar"), generator.spec, request, record, workers=workers)
            write_images(generator, writer, seed=SEED, first=0, overlapped=overlapped)

        return write

    paths = {name: folder / name.replace(" ", "-") for name in CONTENDERS}
    calls = {name: writes(*how, paths[name]) for name, how in CONTENDERS.items()}
    for call in calls.values():
        call(0)
    first, *others = ({p.name: p.read_bytes() for p in path.iterdir()} for path in paths.values())
    assert all(other == first for other in others)
    size_bytes = sum(len(data) for name, data in first.items() if name.endswith(".tar"))
    del first, others

    report = Report("bulk", chosen.output)
    timings = interleaved(
        calls, rounds=chosen.rounds, slice_seconds=chosen.seconds / chosen.rounds / len(calls), least_calls=1
    )
    rows, figures = [], {}
    for name, timing in timings.items():
        ratio = ratios(timings["one after the other"].medians(), timing.medians())
        rate = chosen.count / float(np.median(timing.medians()))
        figures[name] = {"images_a_second": rate, "speedup": ratio.to_json(), "calls": timing.call_count}
        rows.append([name, f"{rate:,.0f}", f"{ratio.median:.2f}", f"{ratio.low:.2f} – {ratio.high:.2f}"])
    image = generator.spec.image
    assert image is not None
    print(
        f"{generator.spec.name} {list(image.shape)}, {chosen.count} images a call in shards of {chosen.shard_images}, "
        f"{chosen.image_format}, {chosen.threads} compute thread(s), {chosen.rounds} interleaved rounds"
    )
    print(table(rows, ["", "images/s", "speedup", "quartiles"], frozenset({1, 2, 3})))
    report.limit("overlapped, time over one after the other", 1 / figures["overlapped"]["speedup"]["median"], 1.0)
    report.put(
        "run",
        {
            "generator": generator.spec.name,
            "image": list(image.shape),
            "image_format": chosen.image_format,
            "images": chosen.count,
            "shard_images": chosen.shard_images,
            "bytes_an_image": size_bytes / chosen.count,
            "compute_threads": chosen.threads,
            "encoding_threads": usable_cores(),
        },
    )
    report.put("contenders", figures)
    return report.finish()


if __name__ == "__main__":
    run(main)
