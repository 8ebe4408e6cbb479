"""What a benchmark found: frozen, to and from JSON, and the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from ganexport.benchmark.lineup import Absent
from ganexport.benchmark.neighbours import Neighbours
from ganexport.benchmark.rounds import Spread, ratios
from ganexport.benchmark.trial import Trial
from ganruntime.errors import InputError

SCHEMA_VERSION = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Throughput:
    """Offline, at one batch size. Spreads are over the rounds.

    ratio: eager PyTorch's time over this one's, round by round: 2 is twice as fast. Where eager PyTorch ran with
        several threads and with one, the faster of the two counts.
    images: how many were made in the time that counts.
    rounds_ms: milliseconds a batch in each round; empty in records of before they were kept.
    """

    images_per_second: Spread
    batch_ms: Spread
    ratio: Spread
    images: int
    rounds_ms: tuple[float, ...] = ()

    def times_as_fast(self, other: Throughput) -> float:
        """How many times as fast as another of the same run this is: round by round, the median. A machine that is at
        times slower slows both in a round, and one median more than the other."""
        if self.rounds_ms and other.rounds_ms:
            return ratios(other.rounds_ms, self.rounds_ms).median
        return other.batch_ms.median / self.batch_ms.median


@dataclass(frozen=True)
class Latency:
    """Single stream: percentiles over all queries of all rounds; `ratio` as above, of the rounds' medians."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    ratio: Spread
    queries: int


@dataclass(frozen=True)
class RepeatCheck:
    """MLPerf's TEST04.

    gain: the time of different samples over that of one repeated, of the fastest tenth of the calls; 1 where nothing is
        cached. What disturbs a call makes it slower, so those calls show what the contender does, and not what its
        neighbours did.
    looks: 1; or 2 where the first was over the limit, and was repeated with more rounds: chance passes, a cache stays.
    """

    gain: float
    limit: float
    looks: int = 1

    @property
    def passed(self) -> bool:
        return self.gain <= self.limit


@dataclass(frozen=True)
class Served:
    """The server scenario of one server.

    label, includes: what it is, and what its latencies include.
    rate_per_second: the highest that kept the 99th percentile within the limit; 0 where none did.
    trial: the one that confirmed it; None where none did. trials: all, in their order.
    confidence: of that trial (`Trial.confidence`); 0 where there is none.
    images_per_batch: in that trial; 1 for servers that do not batch.
    """

    label: str
    includes: str
    rate_per_second: float
    trial: Trial | None
    confidence: float
    images_per_batch: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured, and on what.

    contenders: name -> label, what its times include, what it ran with, family, precision; the reference first.
    absent: name -> those that were to be measured and have no figures, or not all, with the reason.
    agreement: batch -> contender -> largest errors against the reference.
    slo_ms: the limit of the server scenario; None where it was not measured, and `server` is empty.
    """

    generator: str
    bundle: str
    bundle_manifest_sha256: str
    checkpoint: str
    variant: str
    device: str
    threads: int
    seconds: float
    rounds: int
    contenders: Mapping[str, Mapping[str, str]]
    absent: Mapping[str, Absent]
    agreement: Mapping[int, Mapping[str, Mapping[str, float]]]
    offline: Mapping[int, Mapping[str, Throughput]]
    single_stream: Mapping[str, Latency]
    repeats: Mapping[str, RepeatCheck]
    slo_ms: float | None
    server: Mapping[str, Served]
    neighbours: Neighbours
    environment: Mapping[str, Any]

    @property
    def largest_error(self) -> float:
        """Over all fp32 contenders and batches, in the outputs' own units."""
        return max(
            (
                errors["max_abs"]
                for by_name in self.agreement.values()
                for name, errors in by_name.items()
                if "max_abs" in errors and self.contenders.get(name, {}).get("precision") == "fp32"
            ),
            default=0.0,
        )

    @property
    def flags(self) -> list[str]:
        """What is wrong with this run, one sentence each: contenders that went wrong, and caches."""
        flags = [f"{found.label} failed: {found.why}" for found in self.absent.values() if found.failed]
        return flags + [
            f"{self.label(name)} is {ratio_text(check.gain)} as fast over one latent as over different ones "
            f"(at most {check.limit:g}× is right): something is cached, and its figures are of the cache"
            for name, check in self.repeats.items()
            if not check.passed
        ]

    @property
    def exit_code(self) -> int:
        """0; 1 where a contender failed; 3 where all ran, and one of them has a hidden cache."""
        if any(found.failed for found in self.absent.values()):
            return 1
        return 0 if all(check.passed for check in self.repeats.values()) else 3

    def psnr_db(self, contender: str) -> float | None:
        """Of the worst sample over all batches, against the reference; None for the reference itself."""
        found = [by_name[contender]["psnr_db"] for by_name in self.agreement.values() if contender in by_name]
        return min(found, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema version inside; batch sizes are keys, as text."""
        data = {"schema_version": SCHEMA_VERSION} | {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        for name, check in self.repeats.items():
            data["repeats"][name]["passed"] = check.passed
        data["neighbours"]["quiet"] = self.neighbours.quiet
        data["flags"] = self.flags
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BenchResult:
        """Reads `to_json`'s form.

        Raises:
            InputError: it is none, or of another schema version.
        """
        try:
            if data["schema_version"] != SCHEMA_VERSION:
                raise InputError(
                    "bench.json: schema version is not one that this release reads",
                    got=data["schema_version"],
                    expected=SCHEMA_VERSION,
                    remedy="measure again with ganexport bench",
                )
            values = {f.name: data[f.name] for f in fields(cls)}
            values["agreement"] = {int(batch): errors for batch, errors in data["agreement"].items()}
            values["offline"] = {
                int(batch): {name: _from_plain(Throughput, found) for name, found in by_name.items()}
                for batch, by_name in data["offline"].items()
            }
            values["single_stream"] = {k: _from_plain(Latency, v) for k, v in data["single_stream"].items()}
            values["repeats"] = {k: _from_plain(RepeatCheck, v) for k, v in data["repeats"].items()}
            values["absent"] = {k: _from_plain(Absent, v) for k, v in data["absent"].items()}
            values["server"] = {k: _served(v) for k, v in data["server"].items()}
            values["neighbours"] = _from_plain(Neighbours, data["neighbours"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("bench.json is not what ganexport bench writes", got=repr(error)[:200]) from error
        return cls(**values)

    def label(self, contender: str) -> str:
        return self.contenders[contender]["label"]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _from_plain(kind: type[T], data: Mapping[str, Any]) -> T:
    """A flat dataclass of numbers, rows of them and spreads. Keys that it does not have are left out, and what has a
    default may be missing."""
    wanted = [f for f in fields(kind) if f.name in data or f.default is MISSING]  # type: ignore[arg-type]
    return kind(**{f.name: _from_json_value(data[f.name]) for f in wanted})


def _from_json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Spread(**value)
    return tuple(value) if isinstance(value, list) else value


def _served(data: Mapping[str, Any]) -> Served:
    trials = tuple(_from_plain(Trial, trial) for trial in data["trials"])
    trial = None if data["trial"] is None else _from_plain(Trial, data["trial"])
    return Served(**{f.name: data[f.name] for f in fields(Served)} | {"trials": trials, "trial": trial})


def offline_rows(result: BenchResult) -> list[list[str]]:
    """batch, contender, images/s, quartiles, ms a batch, ratio."""
    rows = []
    for batch, by_name in result.offline.items():
        for i, (name, found) in enumerate(by_name.items()):
            rate = found.images_per_second
            rows.append(
                [
                    str(batch) if i == 0 else "",
                    result.label(name),
                    figure_text(rate.median),
                    f"{figure_text(rate.low)} – {figure_text(rate.high)}",
                    milliseconds_text(found.batch_ms.median),
                    ratio_text(found.ratio.median),
                ]
            )
    return rows


OFFLINE_HEADER = ["batch", "offline", "images/s", "quartiles", "ms a batch", "ratio"]
STREAM_HEADER = ["single stream", "p50 ms", "p90 ms", "p99 ms", "queries", "ratio"]


SERVER_HEADER = ["server", "requests/s", "p50 ms", "p90 ms", "p99 ms", "requests", "late", "confidence", "a batch"]


def server_rows(result: BenchResult) -> list[list[str]]:
    """server, the highest rate, p50, p90, p99, requests, late ones, confidence, images a batch."""
    rows = []
    for found in result.server.values():
        trial = found.trial
        if trial is None:
            tried = min((t.rate_per_second for t in found.trials), default=0.0)
            rows.append([found.label, f"none, down to {figure_text(tried)}", *["–"] * 7])
            continue
        figures = [f for f in (trial.p50_ms, trial.p90_ms, trial.p99_ms) if f is not None]
        rows.append(
            [
                found.label,
                figure_text(found.rate_per_second),
                *map(milliseconds_text, figures),
                f"{trial.requests:,}",
                f"{trial.late:,}",
                "> 99.9%" if found.confidence > 0.999 else f"{found.confidence:.1%}",
                f"{found.images_per_batch:.1f}",
            ]
        )
    return rows


def stream_rows(result: BenchResult) -> list[list[str]]:
    """contender, p50, p90, p99, queries, ratio."""
    return [
        [
            result.label(name),
            milliseconds_text(found.p50_ms),
            milliseconds_text(found.p90_ms),
            milliseconds_text(found.p99_ms),
            f"{found.queries:,}",
            ratio_text(found.ratio.median),
        ]
        for name, found in result.single_stream.items()
    ]


def figure_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds_text(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def ratio_text(ratio: float) -> str:
    """1.234 as `1.23×`, 31.57 as `31.6×`."""
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×" if ratio < 100 else f"{ratio:,.0f}×"
