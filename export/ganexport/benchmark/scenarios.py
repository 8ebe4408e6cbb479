"""MLPerf's offline and single-stream scenarios, and its TEST04, over contenders on the same latents.

Reddi et al., "MLPerf Inference Benchmark", 2020 (arXiv:1911.02549), section 4. What is taken over: the scenarios'
meaning, the percentiles, and the test for hidden caches. What is not: their minimum durations and sample counts, so a
result here is no MLPerf result.

    offline         everything is there at once; images a second, in batches of a given size
    single stream   one image, and the next when it is done; the latency's percentiles
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganexport.benchmark.agreement import check_outputs, require_origin
from ganexport.benchmark.contender import Arrays, Contender, close_all, contenders_for
from ganexport.benchmark.environment import environment
from ganexport.benchmark.neighbours import NeighbourWatch
from ganexport.benchmark.result import BenchResult, Latency, RepeatCheck, Throughput
from ganexport.benchmark.rounds import Progress, Spread, Timing, interleaved, percentile, ratios
from ganexport.probes import probe_inputs
from ganexport.source import Source
from ganruntime.buckets import checked_buckets
from ganruntime.bundle import Bundle
from ganruntime.cores import usable_cores
from ganruntime.errors import InputError
from ganruntime.generator import candidates

SEED = 0x62656E63  # "benc": apart from the golden and the proving latents
BATCHES = (1, 16, 64)
_REPEAT_LIMIT = 1.10  # TEST04: one sample over and over may not be more than 10 % faster
_POOL_IMAGES, _POOL_BATCHES, _POOL_BYTES = 512, 64, 256 << 20
_LEAST_QUERIES = 100  # below, a 99th percentile is a guess


@dataclass(frozen=True)
class Settings:
    """How to measure.

    batches: sizes for the offline scenario.
    seconds: how long each contender runs at each batch size, over all rounds.
    rounds: into how many turns that is cut.
    threads: compute threads of every contender on the CPU; None for as many as the process may use.
    device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        InputError: one of them is out of range.
    """

    batches: tuple[int, ...] = BATCHES
    seconds: float = 5.0
    rounds: int = 7
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", checked_buckets(self.batches))
        if not 0 < self.seconds <= 86_400:
            raise InputError("seconds is out of range", got=self.seconds, expected="above 0, at most 86400")
        if self.rounds < 1:
            raise InputError("rounds is out of range", got=self.rounds, expected="at least 1")
        if self.threads is not None and self.threads < 1:
            raise InputError("threads is out of range", got=self.threads, expected="at least 1")


def bench_bundle(
    bundle: Bundle,
    source: Source,
    checkpoint: Path | str,
    settings: Settings | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measures everything.

    Args:
        source: the network of the checkpoint that the bundle was exported from.
        checkpoint: its path, for the record.
        say: told what is being done.
        progress: called with 1 after each slice; `slices` says how many there are.

    Raises:
        CheckpointError: the checkpoint is another one.
        ParityError: a contender draws something else. There are no times then.
        MissingDependencyError, DeviceError, BackendError: a contender cannot run here.
    """
    settings = settings or Settings()
    require_origin(bundle, source, checkpoint)
    variant = candidates(bundle, "onnx", "auto")[0]
    threads = settings.threads or usable_cores()
    spec = bundle.spec
    before = environment()  # the load average is to be that of the others
    contenders = contenders_for(
        bundle, variant, source.module, device=settings.device, threads=threads, batches=settings.batches
    )
    try:
        pools = {batch: pool_of(bundle, batch) for batch in {1, *settings.batches}}
        agreement = {}
        watch = NeighbourWatch()
        for batch in sorted(pools):
            say(f"checking outputs at batch {batch}")
            errors = check_outputs(contenders, spec, pools[batch], variant, settings.device)
            agreement[batch] = errors
        offline = {}
        for batch in settings.batches:
            say(f"offline, batch {batch}")
            offline[batch] = _offline(contenders, pools[batch], batch, settings, progress)
        say("single stream")
        stream = _single_stream(contenders, pools[1], settings, progress)
        say("one sample over and over")
        repeats = _repeats(contenders, pools[1], settings, progress)
        neighbours = watch.found()
    finally:
        close_all(contenders)
    return BenchResult(
        generator=spec.name,
        bundle=str(bundle.path),
        bundle_manifest_sha256=bundle.manifest_sha256,
        checkpoint=str(checkpoint),
        variant=variant.name,
        device=settings.device,
        threads=threads,
        seconds=settings.seconds,
        rounds=settings.rounds,
        contenders={c.name: {"label": c.label, "includes": c.includes, "setting": c.setting()} for c in contenders},
        agreement=agreement,
        offline=offline,
        single_stream=stream,
        repeats=repeats,
        neighbours=neighbours,
        environment=before,
    )


def slices(bundle: Bundle, settings: Settings) -> int:
    """How many slices `bench_bundle` runs, for a progress bar."""
    several = settings.device == "cpu" and (settings.threads or usable_cores()) > 1
    pixels = bundle.spec.latent is not None and bundle.spec.image is not None
    return (3 + several + pixels) * settings.rounds * (len(settings.batches) + 1 + 2)


def pool_of(bundle: Bundle, batch: int) -> list[Arrays]:
    """Different batches to go round in, the same for everybody: at least two, so that no call repeats the last one."""
    row_bytes = sum(8 * t.size for t in bundle.spec.inputs) + sum(8 * t.size for t in bundle.spec.outputs)
    count = min(_POOL_BATCHES, max(2, _POOL_IMAGES // batch), max(2, _POOL_BYTES // (row_bytes * batch)))
    return [probe_inputs(bundle.spec, SEED, i * batch, batch) for i in range(count)]


def _calls(contenders: Sequence[Contender], pool: Sequence[Arrays]) -> dict[str, Callable[[int], object]]:
    def call_of(contender: Contender) -> Callable[[int], object]:
        run, count = contender.run, len(pool)
        return lambda number: run(pool[number % count])

    return {contender.name: call_of(contender) for contender in contenders}


def _reference(contenders: Sequence[Contender], timings: Mapping[str, Timing]) -> Timing:
    """The fastest contender that ratios may be taken to."""
    references = [timings[c.name] for c in contenders if c.is_reference]
    return min(references, key=lambda timing: statistics.median(timing.medians()))


def _offline(
    contenders: Sequence[Contender], pool: Sequence[Arrays], batch: int, settings: Settings, progress: Progress | None
) -> dict[str, Throughput]:
    timings = interleaved(
        _calls(contenders, pool),
        rounds=settings.rounds,
        slice_seconds=settings.seconds / settings.rounds,
        progress=progress,
    )
    reference = _reference(contenders, timings).means()
    return {
        name: Throughput(
            images_per_second=Spread.of([batch / seconds for seconds in timing.means()]),
            batch_ms=Spread.of([1e3 * seconds for seconds in timing.means()]),
            ratio=ratios(reference, timing.means()),
            images=timing.call_count * batch,
        )
        for name, timing in timings.items()
    }


def _single_stream(
    contenders: Sequence[Contender], pool: Sequence[Arrays], settings: Settings, progress: Progress | None
) -> dict[str, Latency]:
    timings = interleaved(
        _calls(contenders, pool),
        rounds=settings.rounds,
        slice_seconds=settings.seconds / settings.rounds,
        least_calls=-(-_LEAST_QUERIES // settings.rounds),
        progress=progress,
    )
    reference = _reference(contenders, timings).medians()
    return {
        name: Latency(
            p50_ms=1e3 * percentile(timing.all_calls, 50),
            p90_ms=1e3 * percentile(timing.all_calls, 90),
            p99_ms=1e3 * percentile(timing.all_calls, 99),
            ratio=ratios(reference, timing.medians()),
            queries=timing.call_count,
        )
        for name, timing in timings.items()
    }


def _repeats(
    contenders: Sequence[Contender], pool: Sequence[Arrays], settings: Settings, progress: Progress | None
) -> dict[str, RepeatCheck]:
    """TEST04: whether one sample over and over is faster than different ones, which would be the work of a cache."""
    different = _calls(contenders, pool)
    same = _calls(contenders, pool[:1])
    timings: Mapping[str, Timing] = interleaved(
        {f"different {name}": call for name, call in different.items()}
        | {f"same {name}": call for name, call in same.items()},
        rounds=settings.rounds,
        slice_seconds=settings.seconds / settings.rounds / 2,
        progress=progress,
    )
    checks = {}
    for contender in contenders:
        gain = ratios(timings[f"different {contender.name}"].medians(), timings[f"same {contender.name}"].medians())
        checks[contender.name] = RepeatCheck(gain=gain, limit=_REPEAT_LIMIT)
    return checks
