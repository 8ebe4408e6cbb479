"""MLPerf's TEST04: whether one sample over and over is faster than different ones, the mark of a hidden cache."""

from __future__ import annotations

from collections.abc import Sequence

from ganexport.benchmark.contender import Arrays, Contender
from ganexport.benchmark.lineup import Lineup
from ganexport.benchmark.result import RepeatCheck
from ganexport.benchmark.rounds import Progress, percentile
from ganexport.benchmark.settings import Settings
from ganexport.benchmark.turns import calls_of, timings_of

_REPEAT_LIMIT = 1.10  # one sample over and over may not be more than 10 % faster
_FASTEST_PERCENT = 10
_DIFFERENT, _SAME = "different ", "same "


def repeat_checks(
    lineup: Lineup, pool: Sequence[Arrays], settings: Settings, progress: Progress | None
) -> dict[str, RepeatCheck]:
    """{contender: what was found}.

    Who is over the limit is looked at again, alone and with twice the rounds and the time, and that counts: a
    neighbour's burst is gone by then, and a cache is not.
    """
    seconds = settings.seconds / settings.rounds / 2
    gains = _gains(lineup, lineup.contenders, pool, settings.rounds, seconds, progress)
    checks = {name: RepeatCheck(gain, _REPEAT_LIMIT) for name, gain in gains.items()}
    for contender in list(lineup.contenders):
        if not checks[contender.name].passed:
            again = _gains(lineup, [contender], pool, 2 * settings.rounds, 2 * seconds, None)
            for name, gain in again.items():
                checks[name] = RepeatCheck(gain, _REPEAT_LIMIT, looks=2)
    return checks


def _gains(
    lineup: Lineup,
    contenders: Sequence[Contender],
    pool: Sequence[Arrays],
    rounds: int,
    slice_seconds: float,
    progress: Progress | None,
) -> dict[str, float]:
    different, same = calls_of(contenders, pool), calls_of(contenders, pool[:1])
    names = list(different)
    timings = timings_of(
        lineup,
        {_DIFFERENT + name: call for name, call in different.items()}
        | {_SAME + name: call for name, call in same.items()},
        name_of=lambda key: key.removeprefix(_DIFFERENT).removeprefix(_SAME),
        rounds=rounds,
        slice_seconds=slice_seconds,
        progress=progress,
    )
    return {
        name: percentile(timings[_DIFFERENT + name].all_calls, _FASTEST_PERCENT)
        / percentile(timings[_SAME + name].all_calls, _FASTEST_PERCENT)
        for name in names
        if name not in lineup.absent
    }
