"""MLPerf's offline, single-stream and server scenarios, and its TEST04, over contenders on the same latents.

Reddi et al., "MLPerf Inference Benchmark", 2020 (arXiv:1911.02549), section 4. What is taken over: the scenarios'
meaning, the percentiles, and the test for hidden caches. What is not: their minimum durations and sample counts, so a
result here is no MLPerf result.

    offline         everything is there at once; images a second, in batches of a given size
    single stream   one image, and the next when it is done; the latency's percentiles
    server          Poisson arrivals; the highest rate that keeps a limit (`ganexport.benchmark.server_scenario`)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ganexport.benchmark.agreement import check_outputs
from ganexport.benchmark.contender import Arrays, Contender, close_all
from ganexport.benchmark.environment import environment
from ganexport.benchmark.lineup import Absent, Lineup, Pick, lineup_for, picks_for, why_from_error
from ganexport.benchmark.neighbours import NeighbourWatch
from ganexport.benchmark.repeat_check import repeat_checks
from ganexport.benchmark.result import BenchResult, Latency, Served, Throughput
from ganexport.benchmark.rounds import Progress, Spread, Timing, percentile, ratios
from ganexport.benchmark.server_scenario import serve_all
from ganexport.benchmark.servers import servers_for
from ganexport.benchmark.settings import Settings
from ganexport.benchmark.turns import SEED, calls_of, pool_of, timings_of
from ganexport.source import Source, require_origin
from ganruntime.bundle import Bundle
from ganruntime.errors import InputError
from ganruntime.generator import candidates


def bench_bundle(
    bundle: Bundle,
    source: Source,
    checkpoint: Path | str,
    settings: Settings | None = None,
    *,
    extras: Mapping[str, Callable[[], Contender]] | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measures everything.

    Args:
        source: the network of the checkpoint that the bundle was exported from.
        checkpoint: its path, for the record.
        extras: {label: what makes a contender} that the line-up has no name for; one that cannot be made is absent.
        say: told what is being done.
        progress: called with 1 after each slice; `slices` says how many there are.

    Raises:
        CheckpointError: the checkpoint is another one.
        MissingDependencyError, DeviceError, BackendError: a default contender cannot run here. One that was asked for
            is absent from the result, with the reason, as is one that draws something else or fails.
        InputError: a contender's name is none, or the server scenario does not suit the generator.
    """
    settings = settings or Settings()
    require_origin(bundle, source, checkpoint)
    variant = candidates(bundle, "onnx", "auto")[0]
    spec = bundle.spec
    picks = _picks(bundle, settings)
    if settings.slo_ms is not None and (spec.latent is None or spec.image is None):
        raise InputError("the server scenario draws images of latents", got=spec.name, remedy="leave out --slo-ms")
    before = environment()  # the load average is to be that of the others
    lineup = lineup_for(
        bundle,
        variant,
        source.module,
        picks,
        device=settings.device,
        threads=settings.compute_threads,
        batches=settings.batches,
        backend=settings.backend,
        usual_buckets=settings.usual_buckets,
        say=say,
    )
    try:
        _add(lineup, extras or {}, say)
        built = list(lineup.contenders)
        watch = NeighbourWatch()
        pools = {batch: pool_of(bundle, batch, settings.pool_images) for batch in {1, *settings.batches}}
        agreement = _agreement(lineup, bundle, pools, settings, say)
        if progress is not None:  # those who are absent take no time
            progress(_slices_of(settings) * (len(picks) + len(extras or {}) - len(lineup.contenders)))
        offline = {}
        for batch in settings.batches:
            say(f"offline, batch {batch}")
            offline[batch] = _offline(lineup, pools[batch], batch, settings, progress)
        say("single stream")
        stream = _single_stream(lineup, pools[1], settings, progress)
        say("one sample over and over")
        repeats = repeat_checks(lineup, pools[1], settings, progress)
        served = _served(lineup, bundle, pools[1], stream, settings, say)
        neighbours = watch.found()
    finally:
        close_all(lineup.contenders)
    return BenchResult(
        generator=spec.name,
        bundle=str(bundle.path),
        bundle_manifest_sha256=bundle.manifest_sha256,
        checkpoint=str(checkpoint),
        variant=variant.name,
        device=settings.device,
        threads=settings.compute_threads,
        seconds=settings.seconds,
        rounds=settings.rounds,
        contenders={c.name: _about(c) for c in built if c.name in stream},
        absent=lineup.absent,
        agreement=agreement,
        offline=offline,
        single_stream=stream,
        repeats=repeats,
        slo_ms=settings.slo_ms,
        server=served,
        neighbours=neighbours,
        environment=before,
    )


def _add(lineup: Lineup, extras: Mapping[str, Callable[[], Contender]], say: Callable[[str], None]) -> None:
    for label, made in extras.items():
        say(f"preparing {label}")
        try:
            lineup.contenders.append(made())
        except Exception as error:
            lineup.absent[label] = Absent(label, why_from_error(error), failed=False)


def slices(bundle: Bundle, settings: Settings, extras: int = 0) -> int:
    """How many slices `bench_bundle` runs, for a progress bar; the server scenario has none."""
    return (len(_picks(bundle, settings)) + extras) * _slices_of(settings)


def _slices_of(settings: Settings) -> int:
    """Of one contender."""
    return settings.rounds * (len(settings.batches) + 1 + 2)


def _picks(bundle: Bundle, settings: Settings) -> list[Pick]:
    return picks_for(
        bundle,
        settings.device,
        settings.compute_threads,
        settings.backend,
        settings.contenders,
        only=settings.only,
    )


def _about(contender: Contender) -> dict[str, str]:
    return {
        "label": contender.label,
        "includes": contender.includes,
        "setting": contender.setting(),
        "family": contender.family,
        "precision": contender.precision,
    }


def _agreement(
    lineup: Lineup,
    bundle: Bundle,
    pools: Mapping[int, Sequence[Arrays]],
    settings: Settings,
    say: Callable[[str], None],
) -> dict[int, dict[str, dict[str, float]]]:
    """Checks everybody at every batch size; who departs at one of them is out of the line-up."""
    agreement = {}
    for batch in sorted(pools):
        say(f"checking outputs at batch {batch}")
        agreement[batch], failures = check_outputs(lineup.contenders, bundle.spec, pools[batch], settings.device)
        for name, error in failures.items():
            lineup.drop(name, error)
    return {
        batch: {name: errors for name, errors in by_name.items() if name not in lineup.absent}
        for batch, by_name in agreement.items()
    }


def _served(
    lineup: Lineup,
    bundle: Bundle,
    pool: Sequence[Arrays],
    stream: Mapping[str, Latency],
    settings: Settings,
    say: Callable[[str], None],
) -> dict[str, Served]:
    if settings.slo_ms is None:
        return {}
    expected = [lineup.contenders[0].run(inputs) for inputs in pool]
    servers = servers_for(lineup.contenders, bundle.spec, settings.max_delay_ms)
    try:
        served, absent = serve_all(
            servers,
            bundle.spec,
            pool,
            expected,
            slo_ms=settings.slo_ms,
            least_requests=settings.server_requests,
            least_seconds=settings.seconds,
            # Half of what one call after another gives: the first trial holds as a rule, and the second may not.
            start_rates={s.name: 500 / stream[s.name].p50_ms for s in servers},
            seed=SEED,
            say=say,
        )
    finally:
        for server in servers:
            server.close()
    lineup.absent |= absent
    return served


def _reference(contenders: Sequence[Contender], timings: Mapping[str, Timing]) -> Timing:
    """The fastest contender that ratios may be taken to."""
    references = [timings[c.name] for c in contenders if c.is_reference and c.name in timings]
    return min(references, key=lambda timing: statistics.median(timing.medians()))


def _offline(
    lineup: Lineup, pool: Sequence[Arrays], batch: int, settings: Settings, progress: Progress | None
) -> dict[str, Throughput]:
    timings = timings_of(
        lineup,
        calls_of(lineup.contenders, pool),
        rounds=settings.rounds,
        slice_seconds=settings.seconds / settings.rounds,
        progress=progress,
    )
    reference = _reference(lineup.contenders, timings).means()
    return {
        name: Throughput(
            images_per_second=Spread.of([batch / seconds for seconds in timing.means()]),
            batch_ms=Spread.of([1e3 * seconds for seconds in timing.means()]),
            ratio=ratios(reference, timing.means()),
            images=timing.call_count * batch,
            rounds_ms=tuple(1e3 * seconds for seconds in timing.means()),
        )
        for name, timing in timings.items()
    }


def _single_stream(
    lineup: Lineup, pool: Sequence[Arrays], settings: Settings, progress: Progress | None
) -> dict[str, Latency]:
    timings = timings_of(
        lineup,
        calls_of(lineup.contenders, pool),
        rounds=settings.rounds,
        slice_seconds=settings.seconds / settings.rounds,
        least_calls=-(-settings.queries // settings.rounds),
        progress=progress,
    )
    reference = _reference(lineup.contenders, timings).medians()
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
