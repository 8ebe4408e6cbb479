"""The settings of a benchmark: what is measured, for how long, and on what."""

from __future__ import annotations

from dataclasses import dataclass

from ganruntime.buckets import checked_buckets
from ganruntime.cores import usable_cores
from ganruntime.errors import InputError

BATCHES = (1, 16, 64)
POOL_IMAGES = 512
LEAST_QUERIES = 100  # below, a 99th percentile is a guess
# All of 300 in time would say with 95 % confidence that at most 1 % of all are late; of 1,000, four may be late.
SERVER_REQUESTS = 1000


@dataclass(frozen=True)
class Settings:
    """How to measure.

    batches: sizes for the offline scenario.
    seconds: how long each contender runs at each batch size, over all rounds.
    rounds: into how many turns that is cut.
    threads: compute threads of every contender on the CPU; None for as many as the process may use.
    device: `cpu`, `cuda` or `cuda:N`.
    backend: what the runtime runs on: `onnxruntime` or `openvino`.
    contenders: names of more contenders (`ganexport.benchmark.lineup`); only: without the defaults, but for what ratios
        are taken to.
    slo_ms: the limit on the server scenario's 99th percentile; None leaves that scenario out.
    server_requests: requests of a trial, at least; it also takes `seconds`, at least.
    max_delay_ms: of the batcher.
    usual_buckets: whether the runtime is loaded with its usual batch buckets beside the measured sizes, as a server
        would load it. Without them there is less to warm and to keep; a measured size is a bucket either way.
    pool_images: of how many different images the batches to go round in are made, about; every contender draws them all
        once, to be checked.
    queries: of the single stream, at least. Below 100 its 99th percentile is no more than the slowest call.

    Raises:
        InputError: one of them is out of range.
    """

    batches: tuple[int, ...] = BATCHES
    seconds: float = 5.0
    rounds: int = 7
    threads: int | None = None
    device: str = "cpu"
    backend: str = "onnxruntime"
    contenders: tuple[str, ...] = ()
    only: bool = False
    slo_ms: float | None = None
    server_requests: int = SERVER_REQUESTS
    max_delay_ms: float = 2.0
    queries: int = LEAST_QUERIES
    usual_buckets: bool = True
    pool_images: int = POOL_IMAGES

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", checked_buckets(self.batches))
        if not 0 < self.seconds <= 86_400:
            raise InputError("seconds is out of range", got=self.seconds, expected="above 0, at most 86400")
        if self.rounds < 1:
            raise InputError("rounds is out of range", got=self.rounds, expected="at least 1")
        if self.threads is not None and self.threads < 1:
            raise InputError("threads is out of range", got=self.threads, expected="at least 1")
        if self.backend not in ("onnxruntime", "openvino"):
            raise InputError(f"{self.backend!r} is not measured", expected="onnxruntime or openvino")
        if self.only and not self.contenders:
            raise InputError("there is nobody to measure", expected="a contender, beside only")
        if self.slo_ms is not None and not 0 < self.slo_ms <= 60_000:
            raise InputError("slo_ms is out of range", got=self.slo_ms, expected="above 0, at most 60000")
        if self.server_requests < LEAST_QUERIES:
            expected = f"at least {LEAST_QUERIES}, below which a 99th percentile is a guess"
            raise InputError("server_requests is out of range", got=self.server_requests, expected=expected)
        if self.queries < 1:
            raise InputError("queries is out of range", got=self.queries, expected="at least 1")
        if self.pool_images < 1:
            raise InputError("pool_images is out of range", got=self.pool_images, expected="at least 1")
        if not 0 <= self.max_delay_ms <= 60_000:
            raise InputError("max_delay_ms is out of range", got=self.max_delay_ms, expected="0 to 60000")

    @property
    def compute_threads(self) -> int:
        return self.threads or usable_cores()
