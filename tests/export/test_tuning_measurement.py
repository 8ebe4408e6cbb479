"""`ganexport tune`, its parts: what is tried, what may be picked, how times are taken, and what wins."""

from __future__ import annotations

from typing import Any

import numpy as np

from ganexport.tuning.configurations import Configuration, base_of, configurations_of
from ganexport.tuning.picking import bucket_for, cost, fastest
from ganexport.tuning.proof import differing_buckets
from ganexport.tuning.turns import ROUNDS, times
from ganruntime.bundle import Variant

FP32 = Variant("fp32", "fp32", "onnx", "model.onnx")


def settings(backend: str, kind: str, cores: int) -> list[tuple[int | None, int | None]]:
    return [(c.threads, c.streams) for c in configurations_of(FP32, backend, kind, cores)]


def test_what_is_tried() -> None:
    assert settings("onnxruntime", "cpu", 2) == [(2, None), (1, None)]
    assert settings("onnxruntime", "cpu", 8) == [(8, None), (4, None), (1, None)]
    assert settings("openvino", "cpu", 1) == [(1, 1)]
    assert settings("openvino", "cpu", 2) == [(2, 1), (2, 2), (1, 1)]
    assert settings("openvino", "cpu", 8) == [(8, 1), (8, 2), (8, 4), (8, 8), (4, 1), (1, 1)]
    for backend in ("onnxruntime", "tensorrt"):
        assert settings(backend, "cuda", 8) == [(None, None)]


def test_the_first_is_what_runs_without_settings() -> None:
    tried = [*configurations_of(FP32, "onnxruntime", "cpu", 4), *configurations_of(FP32, "openvino", "cpu", 4)]
    assert {base_of(tried, c).name for c in tried} == {
        "fp32@onnxruntime, 4 threads",
        "fp32@openvino, 4 threads, 1 stream",
    }
    assert len({c.name for c in tried}) == len(tried)


class Machine:
    """A clock, and calls that take their time on it; `burst` makes the nth call of a name slower."""

    def __init__(self, **milliseconds: float) -> None:
        self.now = 0.0
        self.milliseconds = milliseconds
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str) -> Any:
        def run(number: int) -> None:
            self.order.append(name)
            self.now += self.milliseconds[name] / 1000

        return run

    def times(self, seconds: float = 10.0, **options: Any) -> Any:
        calls = {name: self.call(name) for name in self.milliseconds}
        return times(calls, seconds, clock=self.clock, failures=options.pop("failures", {}), **options)


def test_most_of_the_time_goes_to_those_that_are_close() -> None:
    machine = Machine(fast=10.0, near=12.0, far=40.0)
    found = machine.times(seconds=10.0)
    assert {name: (round(t.seconds * 1000, 6), t.rounds) for name, t in found.items()} == {
        "fast": (10.0, ROUNDS),
        "near": (12.0, ROUNDS),
        "far": (40.0, 1),
    }
    assert [t.counts for t in found.values()] == [True, True, False]
    assert 9.5 < machine.now < 12
    spent = {name: machine.order.count(name) * ms for name, ms in machine.milliseconds.items()}
    assert spent["far"] < spent["near"] / 3
    # In turns: neither is measured whole before the other.
    turns = [a for a, b in zip(machine.order, [*machine.order[1:], ""], strict=True) if a != b and a != "far"]
    assert len(turns) >= 2 * ROUNDS


def test_one_that_others_are_compared_with_stays_to_the_end() -> None:
    assert Machine(fast=1.0, far=40.0).times(always=frozenset({"far"}))["far"].rounds == ROUNDS


def test_one_that_fails_takes_no_more_turns() -> None:
    machine = Machine(good=1.0, bad=1.0)

    def bad(number: int) -> None:
        raise ValueError("no")

    failures: dict[str, Exception] = {}
    found = times({"good": machine.call("good"), "bad": bad}, 1.0, failures=failures, clock=machine.clock)
    assert list(found) == ["good"]
    assert list(failures) == ["bad"]
    assert times({"bad": bad}, 1.0, failures=failures, clock=machine.clock) == {}


A, B, C = (Configuration("onnxruntime", name, 2) for name in "abc")


def test_the_fastest_wins_and_of_equals_the_first() -> None:
    assert fastest({A: 2.0, B: 1.0, C: 1.5}, [A, B, C]) == B
    assert fastest({A: 1.02, B: 1.0, C: 1.01}, [A, B, C]) == A
    assert fastest({A: 1.04, B: 1.02, C: 1.0}, [A, B, C]) == B
    assert fastest({B: 1.0}, [A, B]) == B


def test_what_an_objective_wants() -> None:
    assert (bucket_for("throughput", [1, 4, 64]), bucket_for("latency", [4, 64])) == (64, 4)
    assert (cost("throughput", 64, 8.0), cost("latency", 4, 8.0)) == (0.125, 8.0)


def test_a_bit_is_a_difference() -> None:
    one = {bucket: {"image": np.zeros((bucket, 3), np.float32)} for bucket in (1, 4)}
    other = {bucket: {"image": outputs["image"].copy()} for bucket, outputs in one.items()}
    assert differing_buckets(one, other) == []
    other[4]["image"][3, 2] = np.finfo(np.float32).tiny
    assert differing_buckets(one, other) == [4]
    other[4]["image"][3, 2] = -0.0
    assert differing_buckets(one, other) == [4]
    one[1]["image"][:] = np.nan
    assert differing_buckets(one, replace_all(one)) == []


def replace_all(outputs: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {bucket: {name: array.copy() for name, array in arrays.items()} for bucket, arrays in outputs.items()}
