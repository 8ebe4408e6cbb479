"""Tunings in use: taken on the machine that they were made on, whole, or not at all and with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundles import verdict, write_small_bundle

import ganruntime
from ganruntime import tuning as module
from ganruntime.bundle import Bundle, Machine, Pick, Tuning, Untuned, Variant, bundle_changed, read_bundle
from ganruntime.choice import Choice, choose
from ganruntime.errors import InputError

HERE = Machine("cpu", "EPYC", "x86_64", ("avx2", "fma"), 2)
VERSIONS = {"onnxruntime": "1.31.1", "openvino": "2026.4.1"}
WHEN = "2026-11-26T04:30:00+00:00"
BY_OPENVINO = replace(verdict(), backend="openvino", errors={"psnr_db": 44.0})

Change = Callable[[Tuning], Tuning]
Tuned = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_machine", lambda device: replace(HERE, device=device.partition(":")[0]))
    monkeypatch.setattr(module, "backend_version", VERSIONS.__getitem__)


@pytest.fixture
def tuned(tmp_path: Path) -> Tuned:
    """A bundle with fp32 and int8 (the same graph), tuned to int8 on OpenVINO for throughput, to fp32 for latency."""

    def made(change: Change = lambda tuning: tuning, *, int8: Any = BY_OPENVINO) -> Bundle:
        path = write_small_bundle(tmp_path / "a.gan")
        with bundle_changed(path) as draft:
            digest = draft.files["model.onnx"].sha256
            fp32 = replace(draft.variants[0], verdicts=(verdict(), replace(verdict(), backend="openvino")))
            draft.variants = [fp32, Variant("int8", "int8", "onnx", "model.onnx", (int8,))]
            fast = Pick("openvino", "int8", digest, 2, 2, 64, 8.0, Untuned("onnxruntime", "fp32", 16.0), 9)
            quick = Pick("onnxruntime", "fp32", digest, 1, None, 1, 0.5, None, 9)
            draft.put_tuning(change(Tuning(HERE, VERSIONS, WHEN, 40.0, {"throughput": fast, "latency": quick})))
        return read_bundle(path)

    return made


def load_choice(
    bundle: Bundle, device: str = "cpu", backend: str = "auto", precision: str = "auto", **a: Any
) -> Choice:
    return choose(bundle, device, backend, precision, **a)


def of(choice: Choice) -> tuple[str, str, int | None, int | None]:
    return choice.backend, choice.variant.name, choice.threads, choice.streams


UNTUNED = ("onnxruntime", "fp32", None, None)
FAST = ("openvino", "int8", 2, 2)


def test_what_was_left_to_auto_is_what_was_measured(tuned: Tuned) -> None:
    bundle = tuned()
    found = load_choice(bundle)
    assert of(found) == FAST
    assert "fastest of 9 configurations on this machine for throughput" in found.backend_why
    assert found.tuning == {
        "used": True,
        "because": found.backend_why,
        "objective": "throughput",
        "time_utc": WHEN,
        "floor_psnr_db": 40.0,
        "measured": {
            "batch": 64,
            "milliseconds": 8.0,
            "images_per_second": 8000.0,
            "configurations": 9,
            "untuned_milliseconds": 16.0,
        },
    }
    assert of(load_choice(bundle, tuning="latency")) == ("onnxruntime", "fp32", 1, None)
    assert "untuned_milliseconds" not in load_choice(bundle, tuning="latency").tuning["measured"]


@pytest.mark.parametrize(
    ("arguments", "taken", "why"),
    [
        ({"tuning": "off"}, UNTUNED, "was asked for"),
        # The other half is named as well, and is what the record says: then it is taken.
        ({"backend": "openvino"}, FAST, "fastest"),
        ({"precision": "int8"}, FAST, "fastest"),
        ({"threads": 2}, FAST, "fastest"),
        ({"threads": 2, "streams": 2}, FAST, "fastest"),
        # It is another: then nothing of the record is.
        ({"backend": "onnxruntime"}, UNTUNED, "tuned to backend openvino, and backend onnxruntime was asked for"),
        ({"precision": "fp32"}, UNTUNED, "tuned to int8, and fp32 was asked for"),
        ({"threads": 1}, ("onnxruntime", "fp32", 1, None), "tuned to threads 2, and threads 1 was asked for"),
        ({"backend": "openvino", "streams": 1}, ("openvino", "fp32", None, 1), "streams 1 was asked for"),
        # Nothing was left to it.
        ({"backend": "openvino", "precision": "int8"}, ("openvino", "int8", None, None), "were asked for"),
    ],
)
def test_a_pick_is_taken_whole_or_not_at_all(tuned: Tuned, arguments: Any, taken: Any, why: str) -> None:
    found = load_choice(tuned(), **arguments)
    assert of(found) == taken
    assert why in found.tuning["because"]
    assert found.tuning["used"] == (taken == FAST and why == "fastest")


def test_a_name_is_that_variant_and_no_other(tuned: Tuned) -> None:
    """ "int8" is the name of one variant and the precision of two."""
    bundle = tuned(with_pick(variant="int8-other"))
    with bundle_changed(bundle.path) as draft:
        draft.put_variant(replace(bundle.variant("int8"), name="int8-other"))
    both = read_bundle(bundle.path)
    assert of(load_choice(both)) == ("openvino", "int8-other", 2, 2)
    assert of(load_choice(both, precision="int8-other")) == ("openvino", "int8-other", 2, 2)
    found = load_choice(both, precision="int8", backend="openvino", tuning="throughput")
    assert found.variant.name == "int8"
    found = load_choice(both, precision="int8")
    assert (found.variant.name, found.tuning["used"]) == ("int8", False)
    with bundle_changed(bundle.path) as draft:
        draft.variants = [v for v in draft.variants if v.name != "int8"]
    assert of(load_choice(read_bundle(bundle.path), precision="int8")) == ("openvino", "int8-other", 2, 2)


def test_a_named_backend_was_asked_for_and_its_settings_were_tuned(tuned: Tuned) -> None:
    found = load_choice(tuned(), backend="openvino")
    assert (found.backend_why, found.tuning["used"]) == ("asked for", True)


def on_machine(**changes: Any) -> Change:
    return lambda tuning: replace(tuning, machine=replace(tuning.machine, **changes))


def with_pick(**changes: Any) -> Change:
    return lambda t: replace(t, picks={**t.picks, "throughput": replace(t.picks["throughput"], **changes)})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (on_machine(cores=8), "another machine: cores 8 then, 2 here"),
        (on_machine(cpu="Xeon"), "another machine: cpu Xeon then, EPYC here"),
        (on_machine(instruction_sets=("avx2", "avx512f", "fma")), "without avx512f here"),
        (on_machine(device="cuda", gpu="H200"), "was tuned on cuda, not on cpu"),
        (lambda t: replace(t, versions=VERSIONS | {"openvino": "2025.1.0"}), "openvino 2025.1.0 then, 2026.4.1 here"),
        (lambda t: replace(t, versions={"onnxruntime": "1.31.1"}), "openvino not installed then, 2026.4.1 here"),
        (with_pick(file_sha256="0" * 64), "int8 was made anew since it was tuned"),
        (with_pick(variant="fp16"), "fp16, which is not there"),
        # What no tuning of ours writes: a record of another hand may not lower the precision or ask for the impossible.
        (lambda t: replace(t, floor_psnr_db=None), "no floor was given"),
        (lambda t: replace(t, floor_psnr_db=50.0), "44.0 dB on openvino now, under the floor 50 dB"),
        (with_pick(threads=64, streams=64), "more than this machine has"),
        (with_pick(backend="tensorrt"), "is not verified by tensorrt now"),
        (with_pick(backend="no such thing"), "is not verified by no such thing now"),
    ],
)
def test_elsewhere_and_later_it_is_ignored_and_that_is_said(tuned: Tuned, change: Change, why: str) -> None:
    found = load_choice(tuned(change))
    assert of(found) == UNTUNED
    assert found.tuning["used"] is False
    assert why in found.tuning["because"]


@pytest.mark.parametrize(
    ("int8", "why"),
    [
        (replace(BY_OPENVINO, passed=False), "is not verified by openvino now"),
        (replace(BY_OPENVINO, errors={}), "has no figure on openvino now"),
        (replace(BY_OPENVINO, device="cuda:0"), "is not verified by openvino now"),
    ],
)
def test_a_pick_needs_a_verdict_that_holds_now(tuned: Tuned, int8: Any, why: str) -> None:
    found = load_choice(tuned(int8=int8))
    assert of(found) == UNTUNED
    assert why in found.tuning["because"]


def test_of_several_tunings_the_one_of_this_machine_counts(tuned: Tuned) -> None:
    bundle = tuned()
    with bundle_changed(bundle.path) as draft:
        mine = draft.tunings[0]
        for other in (on_machine(cores=64)(mine), replace(mine, versions={"openvino": "1"})):
            draft.put_tuning(with_pick(threads=1, streams=1)(other))
        assert len(draft.tunings) == 3
        draft.put_tuning(with_pick(streams=1)(mine))
        assert len(draft.tunings) == 3
    assert of(load_choice(read_bundle(bundle.path))) == ("openvino", "int8", 2, 1)


def test_an_untuned_bundle_asks_for_no_machine(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_machine", None)
    found = load_choice(read_bundle(bundle_path))
    assert found.tuning == {"used": False, "because": "the bundle was not tuned"}
    with pytest.raises(InputError, match="'speed' is not a tuning"):
        load_choice(read_bundle(bundle_path), tuning="speed")


def test_a_loaded_generator_says_so_and_draws_the_same_bits(tuned: Tuned) -> None:
    bundle = tuned()
    with (
        ganruntime.load(bundle, "cpu", buckets=[16]) as fast,
        ganruntime.load(bundle, "cpu", "openvino", "int8", buckets=[16]) as plain,
        ganruntime.load(bundle, "cpu", buckets=[16], tuning="off") as off,
    ):
        about = fast.describe()
        assert about["tuning"]["used"]
        assert (about["backend"], about["variant"], about["threads"], about["streams"]) == ("openvino", "int8", 2, 2)
        inputs = {"z": fast.latents(40, seed=3)}
        assert np.array_equal(fast.outputs(inputs)["image"], plain.outputs(inputs)["image"])
        assert not off.describe()["tuning"]["used"]
        assert off.describe()["backend"] == "onnxruntime"
