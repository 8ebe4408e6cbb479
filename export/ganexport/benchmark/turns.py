"""The turns of a line-up: everybody over the same different batches, and who fails is out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.benchmark.lineup import Lineup
from ganexport.benchmark.rounds import Call, Timing, interleaved
from ganexport.benchmark.settings import POOL_IMAGES
from ganexport.probes import probe_inputs
from ganruntime.bundle import Bundle

SEED = 0x62656E63  # "benc": apart from the golden and the proving latents
_POOL_BATCHES, _POOL_BYTES = 64, 256 << 20


def pool_of(bundle: Bundle, batch: int, images: int = POOL_IMAGES) -> list[Arrays]:
    """Different batches to go round in, the same for everybody: at least two, so that no call repeats the last one."""
    row_bytes = sum(8 * t.size for t in bundle.spec.inputs) + sum(8 * t.size for t in bundle.spec.outputs)
    count = min(_POOL_BATCHES, max(2, images // batch), max(2, _POOL_BYTES // (row_bytes * batch)))
    return [probe_inputs(bundle.spec, SEED, i * batch, batch) for i in range(count)]


def calls_of(contenders: Sequence[Contender], pool: Sequence[Arrays]) -> dict[str, Callable[[int], object]]:
    def call_of(contender: Contender) -> Callable[[int], object]:
        run, count = contender.run, len(pool)
        return lambda number: run(pool[number % count])

    return {contender.name: call_of(contender) for contender in contenders}


def timings_of(
    lineup: Lineup, calls: Mapping[str, Call], *, name_of: Callable[[str], str] = lambda key: key, **options: Any
) -> dict[str, Timing]:
    """Interleaved rounds; who fails is out of the line-up. The reference may not: there is nothing to compare with.

    Args:
        calls: {key: what is called}. name_of: the contender's name of a key.
        options: of `interleaved`.
    """
    failures: dict[str, Exception] = {}
    timings = interleaved(calls, failures=failures, **options)
    for key, error in failures.items():
        name = name_of(key)
        if name == lineup.contenders[0].name:
            raise error
        if name not in lineup.absent:
            lineup.drop(name, error)
    return timings
