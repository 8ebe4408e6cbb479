#!/usr/bin/env python3
"""The runtime's own work, over a bare `InferenceSession.run` loop at batch 64. Target: at most 5 %.

Four contenders make the same 256 images in four batches of 64, with the same latents, graph and threads:

    bare        for z in batches: session.run(None, {"z": z})         latents -> float outputs, left where they are
    outputs     generator.outputs({"z": latents})                     and checked, bound, gathered into one array
    pixels      generator(latents)                                    to uint8 [N, H, W, C]
    generate    generator.generate(256, seed=…)                       and the noise drawn, too

With --cpu-time, seconds are this process's CPU time on one thread: deaf to whatever else runs on the machine, and blind
to what threads win. Without NAME.gan a DCGAN of 64 px with random weights is exported for the purpose, which needs the
extra `export`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from report import Report, parser, run

from ganexport.benchmark.rounds import interleaved, ratios
from ganexport.tables import table
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.cores import usable_cores
from ganruntime.generator import Generator, candidates, load
from ganruntime.images import uint8_from_output
from ganruntime.sessions.onnxruntime import import_onnxruntime

BATCH, BATCHES, SEED = 64, 4, 11
LIMIT_PERCENT = 5.0


def main() -> int:
    options = parser(__doc__, rounds=15, seconds=30.0)
    options.add_argument("bundle", nargs="?", type=Path, metavar="NAME.gan")
    options.add_argument("--size", type=int, default=64, choices=(16, 32, 64, 128), help="of the random DCGAN")
    options.add_argument("--threads", type=int, default=usable_cores(), help="compute threads (default %(default)s)")
    options.add_argument("--cpu-time", action="store_true", help="count CPU time, on one thread")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.bundle or random_bundle(Path(folder) / "random.gan", chosen.size)
        return measure(read_bundle(path), chosen)


def measure(bundle: Bundle, chosen: argparse.Namespace) -> int:
    rounds, threads = chosen.rounds, 1 if chosen.cpu_time else chosen.threads
    spec = bundle.spec
    if spec.latent is None or spec.image is None or len(spec.inputs) > 1:
        raise SystemExit(f"{bundle.path}: this measures generators that take a latent alone and draw an image")
    name = spec.latent.name
    session = bare_session(bundle, threads)
    generator = load(bundle, "cpu", "onnxruntime", threads=threads, buckets=[BATCH])
    latents = generator.latents(BATCH * BATCHES, seed=SEED)
    batches = [{name: latents[i : i + BATCH]} for i in range(0, len(latents), BATCH)]
    check_outputs(session, generator, batches, latents)

    def bare(_: int) -> None:
        for inputs in batches:
            session.run(None, inputs)

    report = Report("runtime_overhead_cpu_time" if chosen.cpu_time else "runtime_overhead", chosen.output)
    timings = interleaved(
        {
            "bare": bare,
            "outputs": lambda _: generator.outputs({name: latents}),
            "pixels": lambda _: generator(latents),
            "generate": lambda _: generator.generate(len(latents), seed=SEED),
        },
        rounds=rounds,
        slice_seconds=chosen.seconds / rounds,
        least_calls=3,
        clock=time.process_time if chosen.cpu_time else time.perf_counter,
    )
    rows, figures = [], {}
    for contender, timing in timings.items():
        ratio = ratios(timing.medians(), timings["bare"].medians())
        milliseconds = 1e3 * float(np.median(timing.medians())) / BATCHES
        figures[contender] = {"ms_a_batch": milliseconds, "over_bare": ratio.to_json(), "calls": timing.call_count}
        quartiles = f"{ratio.low:.3f} – {ratio.high:.3f}"
        rows.append([contender, f"{milliseconds:.2f}", f"{ratio.median:.3f}", quartiles])
    print(f"{spec.name} {list(spec.image.shape)}, batch {BATCH}, {threads} thread(s), {rounds} interleaved rounds")
    print(table(rows, ["", "ms a batch", "over bare", "quartiles"], frozenset({1, 2, 3})))
    for contender in ("outputs", "pixels", "generate"):
        percent = 100 * (figures[contender]["over_bare"]["median"] - 1)
        report.limit(f"{contender}, over the bare loop", percent, LIMIT_PERCENT, " %")
    report.put("clock", "process_time" if chosen.cpu_time else "perf_counter")
    report.put("generator", {"name": spec.name, "image": list(spec.image.shape), "batch": BATCH, "threads": threads})
    report.put("contenders", figures)
    return report.finish()


def bare_session(bundle: Bundle, threads: int):  # type: ignore[no-untyped-def]
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    graph = bundle.graph(candidates(bundle, "onnx", "auto")[0])
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def check_outputs(session, generator: Generator, batches: list[dict[str, np.ndarray]], latents: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """The same graph in the same batches on the same threads: equal, bit for bit."""
    image = generator.spec.image
    assert image is not None
    floats = np.concatenate([session.run([image.name], inputs)[0] for inputs in batches])
    pixels = uint8_from_output(floats, image)
    assert np.array_equal(generator.outputs({generator.spec.inputs[0].name: latents})[image.name], floats)
    assert np.array_equal(generator(latents), pixels)
    assert np.array_equal(generator.generate(len(latents), seed=SEED), pixels)


def random_bundle(path: Path, size: int) -> Path:
    """A bundle of a DCGAN with random weights: a time does not depend on what is drawn."""
    import torch

    from ganexport.bundling import bundle_from_source
    from ganexport.source import Source
    from gantrain.checkpoint import spec_from_generator
    from gantrain.networks import NetworkRecord, network_from_record

    torch.manual_seed(0)
    settings = {"z_size": 100, "size": size, "channels": 3, "width": 64, "max_width": 512}
    module = network_from_record(NetworkRecord("dcgan_generator", settings)).eval()
    bundle_from_source(Source(module, spec_from_generator(module, f"dcgan-{size}"), "random weights"), path, latents=64)
    return path


if __name__ == "__main__":
    run(main)
