#!/usr/bin/env python3
"""`ganruntime.noise.normal`, 10,000 × 512 float32, against NumPy's own. Limit: 1.5 times NumPy's time.

Contenders:

    ours          noise.normal(seed, 0, 10_000, 512): image i of a seed is a pure function of (seed, i)
    numpy         default_rng(seed).standard_normal((10_000, 512), dtype=float32): PCG64 and the ziggurat, in C
    numpy philox  the same over Philox, whose raw bits ours are made of
    box-muller    Philox bits to normal numbers by Box and Muller (1958), over whole arrays: what one writes first

All are checked before a time counts: mean, variance, skewness and kurtosis, and the Kolmogorov-Smirnov distance to
N(0, 1), each against a bound that a right generator exceeds once in thousands of runs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from report import Report, parser, run

from ganexport.benchmark.rounds import interleaved, ratios
from ganexport.tables import table
from ganruntime import noise

ROWS, SIZE = 10_000, 512
LIMIT = 1.5


def ours(seed: int) -> NDArray[np.float32]:
    return noise.normal(seed, 0, ROWS, SIZE)


def numpy_default(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((ROWS, SIZE), dtype=np.float32)


def numpy_philox(seed: int) -> NDArray[np.float32]:
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal((ROWS, SIZE), dtype=np.float32)


def box_muller(seed: int) -> NDArray[np.float32]:
    words = np.random.Philox(key=seed).random_raw(ROWS * SIZE // 2).view(np.uint32).reshape(2, -1)
    u = (words + 0.5) * 2.0**-32  # float64 [2, P] in (0, 1)
    radius, angle = np.sqrt(-2.0 * np.log(u[0])), 2.0 * math.pi * u[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32).reshape(ROWS, SIZE)


CONTENDERS = {"ours": ours, "numpy": numpy_default, "numpy philox": numpy_philox, "box-muller": box_muller}


def check(name: str, x: NDArray[np.float32]) -> dict[str, float]:
    """The figures of a sample, each within 4.5 standard errors of N(0, 1)'s; raises `SystemExit` otherwise."""
    if x.shape != (ROWS, SIZE) or x.dtype != np.float32:
        raise SystemExit(f"{name}: not float32 [{ROWS}, {SIZE}]")
    values = x.ravel().astype(np.float64)
    n = len(values)
    figures = {
        "mean": values.mean(),
        "variance": values.var() - 1.0,
        "skewness": (values**3).mean(),
        "kurtosis": (values**4).mean() - 3.0,
    }
    # Standard errors of the first four raw moments of N(0, 1).
    errors = {"mean": 1.0, "variance": math.sqrt(2), "skewness": math.sqrt(15), "kurtosis": math.sqrt(96)}
    ordered = np.sort(values[:: n // 200_000])
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in ordered])
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(np.abs(cdf - steps[:-1]).max(), np.abs(cdf - steps[1:]).max())
    wrong = [key for key, value in figures.items() if abs(value) > 4.5 * errors[key] / math.sqrt(n)]
    if distance > 2.23 / math.sqrt(len(ordered)):  # exceeded by chance once in 10,000
        wrong.append("distribution")
    if wrong:
        raise SystemExit(f"{name} is not N(0, 1): {', '.join(wrong)} ({figures}, KS {distance:.2e})")
    return {key: float(value) for key, value in figures.items()} | {"ks_distance": float(distance)}


def main() -> int:
    chosen = parser(__doc__, rounds=15, seconds=6.0).parse_args()
    checks = {name: check(name, draw(3)) for name, draw in CONTENDERS.items()}
    report = Report("noise", chosen.output)
    timings = interleaved(CONTENDERS, rounds=chosen.rounds, slice_seconds=chosen.seconds / chosen.rounds, least_calls=2)
    rows, figures = [], {}
    for name, timing in timings.items():
        ratio = ratios(timing.medians(), timings["numpy"].medians())
        milliseconds = 1e3 * float(np.median(timing.medians()))
        figures[name] = {"ms": milliseconds, "over_numpy": ratio.to_json(), "calls": timing.call_count} | checks[name]
        rows.append([name, f"{milliseconds:.1f}", f"{ratio.median:.2f}", f"{ratio.low:.2f} – {ratio.high:.2f}"])
    print(f"normal numbers, float32 [{ROWS:,}, {SIZE}], one thread, {chosen.rounds} interleaved rounds")
    print(table(rows, ["", "ms", "over numpy", "quartiles"], frozenset({1, 2, 3})))
    report.put("shape", [ROWS, SIZE])
    report.put("contenders", figures)
    report.limit("noise.normal, over numpy's standard_normal", figures["ours"]["over_numpy"]["median"], LIMIT, "×")
    return report.finish()


if __name__ == "__main__":
    run(main)
