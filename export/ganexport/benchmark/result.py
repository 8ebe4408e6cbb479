"""What a benchmark found: frozen, to JSON, and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from ganexport.benchmark.environment import lines_from_environment
from ganexport.benchmark.neighbours import Neighbours
from ganexport.benchmark.rounds import Spread
from ganexport.tables import table
from ganruntime.errors import InputError

SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Throughput:
    """Offline, at one batch size. Spreads are over the rounds.

    ratio: eager PyTorch's time over this one's, round by round: 2 is twice as fast. Where eager PyTorch ran with
        several threads and with one, the faster of the two counts.
    images: how many were made in the time that counts.
    """

    images_per_second: Spread
    batch_ms: Spread
    ratio: Spread
    images: int


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
    """MLPerf's TEST04. gain: the time of different samples over that of one repeated; 1 where nothing is cached."""

    gain: Spread
    limit: float

    @property
    def passed(self) -> bool:
        return self.gain.median <= self.limit


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured, and on what.

    contenders: name -> label, what its times include, what it ran with; the reference first.
    agreement: batch -> contender -> largest errors against the reference.
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
    agreement: Mapping[int, Mapping[str, Mapping[str, float]]]
    offline: Mapping[int, Mapping[str, Throughput]]
    single_stream: Mapping[str, Latency]
    repeats: Mapping[str, RepeatCheck]
    neighbours: Neighbours
    environment: Mapping[str, Any]

    @property
    def largest_error(self) -> float:
        """Over all contenders and batches, in the outputs' own units."""
        return max(e["max_abs"] for batch in self.agreement.values() for e in batch.values() if "max_abs" in e)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema version inside; batch sizes are keys, as text."""
        data = {"schema_version": SCHEMA_VERSION} | {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        for name, check in self.repeats.items():
            data["repeats"][name]["passed"] = check.passed
        data["neighbours"]["quiet"] = self.neighbours.quiet
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
    """A flat dataclass of numbers and spreads; keys that it does not have are left out."""
    known = {f.name: data[f.name] for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: Spread(**v) if isinstance(v, Mapping) else v for k, v in known.items()})


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
                    _figure(rate.median),
                    f"{_figure(rate.low)} – {_figure(rate.high)}",
                    _milliseconds(found.batch_ms.median),
                    ratio_text(found.ratio.median),
                ]
            )
    return rows


OFFLINE_HEADER = ["batch", "offline", "images/s", "quartiles", "ms a batch", "ratio"]
STREAM_HEADER = ["single stream", "p50 ms", "p90 ms", "p99 ms", "queries", "ratio"]


def stream_rows(result: BenchResult) -> list[list[str]]:
    """contender, p50, p90, p99, queries, ratio."""
    return [
        [
            result.label(name),
            _milliseconds(found.p50_ms),
            _milliseconds(found.p90_ms),
            _milliseconds(found.p99_ms),
            f"{found.queries:,}",
            ratio_text(found.ratio.median),
        ]
        for name, found in result.single_stream.items()
    ]


def notes(result: BenchResult) -> list[str]:
    """What one has to know to read the tables."""
    lines = [
        f"ratio: how many times as fast as eager PyTorch (with its faster number of threads), round by round, median "
        f"of {result.rounds} interleaved rounds; quartiles are over the rounds",
        *(f"{c['label']}: {c['includes']} ({c['setting']})" for c in result.contenders.values()),
        f"outputs: at most {result.largest_error:.1e} apart, checked before anything was timed",
    ]
    slow = [result.label(name) for name, check in result.repeats.items() if not check.passed]
    gains = ", ".join(f"{result.label(name)} {ratio_text(check.gain.median)}" for name, check in result.repeats.items())
    verdict = f"NOT within 10 %: {', '.join(slow)}" if slow else "within 10 % of different ones, so nothing is cached"
    return [*lines, f"one latent over and over (MLPerf TEST04): {verdict} ({gains})"]


def text_from_result(result: BenchResult) -> str:
    """Two tables and what they mean, for a terminal."""
    return "\n".join(
        [
            table(offline_rows(result), OFFLINE_HEADER, frozenset({0, 2, 3, 4, 5})),
            "",
            table(stream_rows(result), STREAM_HEADER, frozenset({1, 2, 3, 4, 5})),
            "",
            *notes(result),
            *lines_from_environment(dict(result.environment)),
            result.neighbours.sentence(),
        ]
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def ratio_text(ratio: float) -> str:
    """1.234 as `1.23×`, 31.57 as `31.6×`."""
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×" if ratio < 100 else f"{ratio:,.0f}×"
