#!/usr/bin/env python3
"""What each graph pass gives: nodes, size, and latency at batches 1, 16 and 64 on every backend that is installed.

    python benchmarks/passes.py                      every generator
    python benchmarks/passes.py dcgan-64             one

Passes are added one after another, in the order in which `to-onnx` runs them; a row is the graph after that pass, and a
pass that changed nothing has no row. Times are of whole sessions as the runtime runs them, medians of interleaved
rounds, the ratio to the graph as torch's exporter wrote it, taken within a round: above 1 is faster. The last two rows
draw pixels: once by the runtime from the values of the optimised graph, once by the graph's own uint8 head; the ratio
of the second is to the first. Before a time counts, each graph's outputs are held against the unpassed graph's in the
same backend, and the two kinds of pixels are equal on ONNX Runtime.

Writes results/passes-NAME.json, and results/passes.md from all of those that are there.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from generators import GENERATORS, generator_of
from numpy.typing import NDArray
from report import RESULTS, Report, parser, run

from ganexport.benchmark.rounds import Spread, interleaved, ratios
from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.optimisation import optimised_from_exported
from ganexport.passes.pipeline import DEFAULT_PASSES
from ganexport.passes.report import PassReport
from ganexport.pixel_graph import pixel_graph_from_float
from ganexport.probes import probe_inputs
from ganexport.tables import size_text
from ganruntime.bundle import Variant
from ganruntime.choice import installed
from ganruntime.cores import usable_cores
from ganruntime.files import write_atomically
from ganruntime.images import uint8_from_output
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.spec import GeneratorSpec

BATCHES, SEED = (1, 16, 64), 0x62656E63
EXPORTED, BY_RUNTIME, BY_GRAPH = "as exported", "pixels by the runtime", "pixels by uint8_head"
SUBPIXEL = "convtranspose_to_subpixel"
BOUND = 1e-4  # of the largest output: two backends' kernels of the same float32 products
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Contender:
    """A graph, and what it is compared with. pixels: whether pixels are what counts. base: the row of the ratio."""

    name: str
    graph: bytes
    nodes: int
    base: str = EXPORTED
    output: str = "float"
    pixels: bool = False


def contenders_of(name: str) -> tuple[GeneratorSpec, list[Contender]]:
    import onnx

    module, spec = generator_of(name)
    exported = onnx_from_generator(inference_copy(module, spec), spec, passes=())
    model = onnx.load_from_string(exported)
    found = [Contender(EXPORTED, exported, _node_count(model))]
    order = [*dict.fromkeys(DEFAULT_PASSES), SUBPIXEL]
    for i, last in enumerate(order):
        reports: list[PassReport] = []
        # Pruned each time: what a pass replaced is not to be carried along.
        passed = optimised_from_exported(model, spec, (*order[: i + 1], "prune"), reports.append)
        if reports[i].changed:
            data = passed.SerializeToString(deterministic=True)
            found.append(Contender(last, data, _node_count(passed)))
    best = next(c for c in reversed(found) if c.name != SUBPIXEL)
    head = pixel_graph_from_float(best.graph, spec)
    assert head is not None
    found.append(Contender(BY_RUNTIME, best.graph, best.nodes, BY_RUNTIME, pixels=True))
    nodes = _node_count(onnx.load_from_string(head[0]))
    found.append(Contender(BY_GRAPH, head[0], nodes, BY_RUNTIME, output="uint8", pixels=True))
    return spec, found


def _node_count(model: Any) -> int:
    return sum(node.op_type != "Constant" for node in model.graph.node)


def open_onnxruntime(spec: GeneratorSpec, contender: Contender, threads: int) -> Session:
    from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(spec, _variant(contender), contender.graph, buckets=BATCHES, threads=threads)


def open_openvino(spec: GeneratorSpec, contender: Contender, threads: int) -> Session:
    from ganruntime.sessions.openvino import OpenVinoSession

    return OpenVinoSession(spec, _variant(contender), contender.graph, buckets=BATCHES, threads=threads)


def _variant(contender: Contender) -> Variant:
    return Variant("contender", "fp32", "onnx", "model.onnx", output=contender.output)


BACKENDS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def measured(spec: GeneratorSpec, backend: str, contenders: list[Contender], options: Namespace) -> dict[str, Any]:
    """{contender: {batch: {"ms": …, "ratio": …}}} in one backend, and its versions."""
    sessions = {c.name: BACKENDS[backend](spec, c, options.threads) for c in contenders}
    try:
        check_outputs(spec, backend, contenders, sessions)
        times: dict[str, dict[str, Any]] = {c.name: {} for c in contenders}
        for batch in BATCHES:
            inputs = [probe_inputs(spec, SEED, batch * i, batch) for i in range(4)]
            calls = {c.name: _call(spec, c, sessions[c.name], inputs) for c in contenders}
            slice_seconds = options.seconds / options.rounds
            timings = interleaved(calls, rounds=options.rounds, slice_seconds=slice_seconds, least_calls=2)
            for c in contenders:
                own, base = timings[c.name].medians(), timings[c.base].medians()
                spread = Spread.of(own)
                times[c.name][str(batch)] = {"ms": 1e3 * spread.median, "ratio": ratios(base, own).to_json()}
        return {"versions": next(iter(sessions.values())).versions(), "times": times}
    finally:
        for session in sessions.values():
            session.close()


def _call(spec: GeneratorSpec, contender: Contender, session: Session, inputs: list[Arrays]) -> Callable[[int], object]:
    batch = len(next(iter(inputs[0].values())))
    out = empty_outputs(session.spec, batch)
    image = session.spec.image
    assert image is not None
    if not contender.pixels:
        return lambda i: session.run(inputs[i % 4], out)
    pixels = uint8_from_output(out[image.name], image)

    def run(i: int) -> None:
        session.run(inputs[i % 4], out)
        uint8_from_output(out[image.name], image, out=pixels)  # what `Generator` does; of pixels, a copy

    return run


def check_outputs(spec: GeneratorSpec, backend: str, contenders: list[Contender], sessions: dict[str, Session]) -> None:
    """Raises `SystemExit`: there are no times for other images."""
    image = spec.image
    assert image is not None
    inputs = probe_inputs(spec, SEED, 0, BATCHES[-1])

    def outputs_of(name: str) -> NDArray[Any]:
        out = empty_outputs(sessions[name].spec, BATCHES[-1])
        sessions[name].run(inputs, out)
        return out[image.name]

    expected = outputs_of(EXPORTED)
    peak = float(np.abs(expected).max())
    for c in contenders:
        if c.output == "uint8":
            gap = np.abs(outputs_of(c.name).astype(int) - uint8_from_output(outputs_of(BY_RUNTIME), image)).max()
            holds = gap <= (0 if backend == "onnxruntime" else 1)
        else:
            gap = np.abs(outputs_of(c.name) - expected).max()
            holds = gap <= BOUND * max(peak, 1.0)
        if not holds:
            raise SystemExit(f"{c.name} on {backend}: outputs differ by {gap:.3g}; there are no times for it")


def measure_generator(name: str, options: Namespace) -> int:
    report = Report(f"passes-{name}", None)
    spec, contenders = contenders_of(name)
    backends = {b: measured(spec, b, contenders, options) for b in BACKENDS if installed(b)}
    rows = [
        {
            "name": c.name,
            "nodes": c.nodes,
            "size_bytes": len(c.graph),
            "ratio_to": c.base,
            "backends": {b: found["times"][c.name] for b, found in backends.items()},
        }
        for c in contenders
    ]
    report.put("generator", name)
    report.put("threads", options.threads)
    report.put("rounds", options.rounds)
    report.put("versions", {b: found["versions"] for b, found in backends.items()})
    report.put("rows", rows)
    code = report.finish()
    print(table_of(json.loads((RESULTS / f"passes-{name}.json").read_text())))
    return code


def table_of(data: dict[str, Any]) -> str:
    """One generator's figures as a Markdown table."""
    backends = list(data["versions"])
    heads = [f"{b}, batch {n}" for b in backends for n in BATCHES]
    quiet = data["neighbours"]["quiet"]
    noise = "" if quiet else f"; other processes took {data['neighbours']['share']:.0%} of the cores meanwhile"
    lines = [
        f"### {data['generator']}, {data['threads']} thread(s){noise}",
        "",
        "| graph after | nodes | size | " + " | ".join(heads) + " |",
        "|---|---:|---:|" + "---:|" * len(heads),
    ]
    for row in data["rows"]:
        cells = []
        for b in backends:
            for n in BATCHES:
                found = row["backends"][b][str(n)]
                ratio = found["ratio"]
                times = "" if row["name"] == row["ratio_to"] else f" ({ratio['median']:.2f}×)"
                cells.append(f"{found['ms']:.2f}{times}")
        lines.append(f"| {row['name']} | {row['nodes']} | {size_text(row['size_bytes'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_tables() -> None:
    found = [RESULTS / f"passes-{name}.json" for name in GENERATORS]
    parts = [json.loads(path.read_text()) for path in found if path.is_file()]
    about = (
        "Milliseconds a batch, and in brackets how many times as fast as the graph that the exporter wrote (pixels by "
        "uint8_head: as pixels by the runtime). Made by `benchmarks/passes.py`; the environment is in the JSON files."
    )
    text = "\n\n".join(["# What graph passes give", about, *(table_of(data) for data in parts)]) + "\n"
    write_atomically(RESULTS / "passes.md", text.encode())
    print(f"written: {RESULTS / 'passes.md'}")


def main() -> int:
    options = parser(__doc__, rounds=7, seconds=1.4)
    options.add_argument("generators", nargs="*", metavar="NAME", help=f"of {', '.join(GENERATORS)} (default: all)")
    options.add_argument("--threads", type=int, default=usable_cores(), help="compute threads (default %(default)s)")
    chosen = options.parse_args()
    unknown = sorted(set(chosen.generators) - set(GENERATORS))
    if unknown:
        raise SystemExit(f"no generator is called {unknown[0]!r}: {', '.join(GENERATORS)}")
    if chosen.output is not None:
        raise SystemExit("this benchmark writes a file per generator: leave out --output")
    code = max(measure_generator(name, chosen) for name in chosen.generators or list(GENERATORS))
    write_tables()
    return code


if __name__ == "__main__":
    run(main)
