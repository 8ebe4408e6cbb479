"""The standard set: DCGAN 64, StyleGAN2 64 and 256 and the demo's digits and faces, against everything that is measured
without this project, in interleaved rounds, outputs checked first.

Bundles are made by the commands that a user would give (`standard_cases`), and kept in runs/standard; --fresh makes
them anew. Writes results/standard-NAME.json, .md and .png for each generator, and standard.json and standard.md with
the aims. Exits with 1 where an aim is missed or a contender failed, and with 2
where nothing could be measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from peaks import measured_peaks
from report import RESULTS, run
from standard_cases import CASES, Case, contenders
from standard_extras import extras_for
from standard_summary import gigaflops, markdown_from_records, record_from_result, tuning_rows

from ganexport.benchmark.contender import import_torch
from ganexport.benchmark.environment import gpus
from ganexport.benchmark.pictures import pictures_from_result
from ganexport.benchmark.result import BenchResult
from ganexport.benchmark.result_text import markdown_from_result, text_from_result
from ganexport.benchmark.scenarios import bench_bundle
from ganexport.benchmark.settings import Settings
from ganexport.source import Source, generator_from_checkpoint
from ganruntime.bundle import read_bundle
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, DeviceError, InputError
from ganruntime.files import write_atomically

_ROOT = Path(__file__).parent.parent
_KEPT = _ROOT / "runs" / "standard"


def main() -> int:
    options = _options()
    if options.redraw:
        return redraw(options)
    if options.gpu:
        require_gpu()
    usual = [name for name, case in CASES.items() if options.all or not case.is_slow]
    cases = [CASES[name] for name in options.generators or usual]
    for case in cases:
        prepare(case, fresh=options.fresh, gpu=options.gpu)
        if options.tune:
            tune(case)
    if options.prepare_only:
        return 0
    return measure(cases, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="*", metavar="GENERATOR", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--gpu", action="store_true", help="measure on the first GPU, with CUDA")
    parser.add_argument("--all", action="store_true", help="also those that are only measured when they are named")
    parser.add_argument("--fresh", action="store_true", help="make the bundles anew")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="tune the bundles once more, for the machine as it is now; proves nothing anew",
    )
    parser.add_argument("--prepare-only", action="store_true", help="make the bundles, and measure nothing")
    parser.add_argument(
        "--redraw", action="store_true", help="make pages and pictures anew of the results that are there, and no more"
    )
    parser.add_argument("--quick", type=float, default=1.0, metavar="SHARE", help="of the usual time, for a look")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder (default benchmarks/results)")
    options = parser.parse_args()
    for name in options.generators:
        if name not in CASES:
            parser.error(f"no generator is called {name!r}; there are {', '.join(CASES)}")
    if options.gpu and options.tune:
        parser.error("--tune is of the CPU's bundles: those for a GPU are not tuned")
    if not 0 < options.quick <= 1:
        parser.error("--quick is a share of the usual time, above 0 and at most 1")
    return options


def require_gpu() -> None:
    """Raises `DeviceError` where there is no GPU that PyTorch and ONNX Runtime can use: nothing is measured instead."""
    torch = import_torch()
    if not gpus() or not torch.cuda.is_available():
        raise DeviceError(
            "--gpu: there is no GPU to measure on",
            got=f"{len(gpus())} GPU(s) by nvidia-smi; torch {torch.__version__} sees {torch.cuda.device_count()}",
            expected="an NVIDIA GPU, a CUDA build of torch, and onnxruntime-gpu",
            remedy="leave out --gpu to measure on the CPU",
        )


def folder_of(case: Case, *, gpu: bool = False) -> Path:
    return (_KEPT.with_name("standard-gpu") if gpu else _KEPT) / case.name


def prepare(case: Case, *, fresh: bool = False, gpu: bool = False) -> None:
    """Makes a case's bundles by its commands, but for those that were given before, in the same words and order.

    Raises:
        BackendError: a command failed.
    """
    folder = folder_of(case, gpu=gpu)
    commands = case.commands(folder, gpu=gpu)
    record = folder / "prepared.json"
    done = json.loads(record.read_text(encoding="utf-8")) if record.exists() and not fresh else []
    given = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(done, commands, strict=False)))
    if given == len(commands):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if case.make is not None:
        spec = case.make()[1]
        write_atomically(folder / f"{case.name}.json", json.dumps(spec.to_json(), indent=2).encode())
    for number, command in enumerate(commands[given:], given + 1):
        run_command(case, command)
        write_atomically(record, json.dumps(commands[:number]).encode())


def tune(case: Case) -> None:
    """Gives the command that tunes a case's bundle once more: what it picks is of the machine as it was then.

    Raises:
        InputError: this one is not tuned.
        BackendError: the command failed.
    """
    if case.is_slow:
        raise InputError(f"{case.name} is not tuned", remedy="leave --tune out")
    run_command(case, case.tuning(folder_of(case)))


def run_command(case: Case, command: list[str]) -> None:
    """Runs a command of `ganexport`. Raises `BackendError` where it fails."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    start = time.perf_counter()
    print(f"$ ganexport {shlex.join(command)}", flush=True)
    found = subprocess.run([sys.executable, "-m", "ganexport", *command], env=environment, check=False)
    if found.returncode:
        raise BackendError(
            f"{case.name}: a command that makes its bundle failed",
            got=f"exit code {found.returncode} of ganexport {shlex.join(command)}",
        )
    print(f"  {time.perf_counter() - start:.0f} s", flush=True)


def source_of(case: Case, *, gpu: bool = False) -> tuple[Source, Path | str]:
    """The network that the bundle was exported from, and what to call it."""
    if case.make is None:
        run = folder_of(case, gpu=gpu) / "run"
        return generator_from_checkpoint(run), run.relative_to(_ROOT)
    module, spec = case.make()
    return Source(module, spec, f"factory standard_cases:{case.name}"), f"benchmarks/standard_cases.py:{case.name}"


def bench(case: Case, *, gpu: bool, share: float) -> BenchResult:
    """Measures one generator."""
    bundle = read_bundle(case.bundle(folder_of(case, gpu=gpu)))
    source, origin = source_of(case, gpu=gpu)
    settings = Settings(
        batches=case.batches,
        seconds=case.seconds * share,
        rounds=max(1, round(case.rounds * share)),
        device="cuda" if gpu else "cpu",
        contenders=contenders(case, gpu),
        only=True,
        queries=case.queries,
        usual_buckets=False,
        pool_images=case.pool_images,
    )
    extras = {} if gpu else extras_for(case, bundle, usable_cores())
    result = bench_bundle(
        bundle, source, origin, settings, extras=extras, say=lambda line: print(f"  {line}", flush=True)
    )
    return replace(result, bundle=str(bundle.path.relative_to(_ROOT)))  # the same in every checkout


def measure(cases: list[Case], options: argparse.Namespace) -> int:
    """Measures one after the other and keeps each as soon as it is there; results of an earlier run of the others stay,
    with their time beside them."""
    options.output.mkdir(parents=True, exist_ok=True)
    suffix = "-gpu" if options.gpu else ""
    summary = options.output / f"standard{suffix}.json"
    records = _earlier(summary)
    peaks = measured_peaks("cuda" if options.gpu else "cpu")
    for case in cases:
        start = time.perf_counter()
        print(f"{case.name}:", flush=True)
        result = bench(case, gpu=options.gpu, share=options.quick)
        write_atomically(options.output / f"standard-{case.name}{suffix}.json", json_bytes(result.to_json()))
        print(text_from_result(result))
        kept = folder_of(case, gpu=options.gpu).relative_to(_ROOT)
        commands = [f"ganexport {shlex.join(command)}" for command in case.commands(kept, gpu=options.gpu)]
        judged = replace(case, aims=()) if options.gpu else case  # what is aimed for over eager is of CPUs
        flops = gigaflops(source_of(case, gpu=options.gpu)[0])
        records[case.name] = record_from_result(judged, result, peaks, commands, flops)
        _write(case, result, records, options.output, suffix)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    print((options.output / f"standard{suffix}.md").read_text(encoding="utf-8"))
    new = [records[case.name] for case in cases]
    return 0 if all(aim["met"] for record in new for aim in record["aims"]) and not any(r["failed"] for r in new) else 1


def redraw(options: argparse.Namespace) -> int:
    """Makes the pages and pictures of earlier results anew; what was measured stays as it was written then."""
    suffix = "-gpu" if options.gpu else ""
    records = _earlier(options.output / f"standard{suffix}.json")
    for name in options.generators or records:
        if name not in records:
            raise InputError(f"{name} was not measured", got=", ".join(records) or "no results", expected=name)
        file = options.output / f"standard-{name}{suffix}.json"
        result = BenchResult.from_json(json.loads(file.read_text(encoding="utf-8")))
        records[name] |= {"tuning": tuning_rows(result)}
        _write(CASES[name], result, records, options.output, suffix)
    return 0


def _write(case: Case, result: BenchResult, records: dict[str, dict[str, Any]], output: Path, suffix: str) -> None:
    kept = [records[name] for name in CASES if name in records]
    name = f"standard-{case.name}{suffix}"
    pictures = {f"{name}{file.removeprefix('bench')}": data for file, data in pictures_from_result(result).items()}
    written = {
        f"{name}.md": markdown_from_result(result, list(pictures)).encode(),
        **pictures,
        f"standard{suffix}.json": json_bytes({"schema_version": 1, "generators": kept}),
        f"standard{suffix}.md": markdown_from_records(kept, suffix).encode(),
    }
    for file, content in written.items():
        write_atomically(output / file, content)


def _earlier(summary: Path) -> dict[str, dict[str, Any]]:
    if not summary.exists():
        return {}
    return {record["generator"]: record for record in json.loads(summary.read_text(encoding="utf-8"))["generators"]}


def json_bytes(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    run(main)
