"""`ganexport tune`: what it measures and leaves out, what it writes, and what a load makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import altered_graphs
import numpy as np
import pytest
from command_line import Ganexport

from ganexport.commands.tune import floor_from_text, milliseconds_text
from ganexport.tuning import tune as module
from ganruntime.bundle import Variant, bundle_changed, read_bundle
from ganruntime.choice import Choice
from ganruntime.errors import BundleIntegrityError, InputError
from ganruntime.generator import load
from ganruntime.sessions.base import Arrays, Session

pytest.importorskip("openvino", reason="OpenVINO is not installed (extra: openvino)")

QUICK = ("--batch", "1,4", "--seconds", "0.2")


@pytest.fixture
def two_rungs(lively_bundle: Path) -> Path:
    """With a variant that is said to be int8, and verified at 44 dB by both backends: the same graph."""
    with bundle_changed(lively_bundle) as draft:
        draft.variants = [with_openvino(v) for v in draft.variants]
        fp32 = draft.variants[0]
        verdicts = tuple(replace(v, errors=dict(v.errors) | {"psnr_db": 44.0}) for v in fp32.verdicts)
        draft.put_variant(Variant("int8", "int8", "onnx", fp32.file, verdicts))
    return lively_bundle


def with_openvino(variant: Variant) -> Variant:
    """Verified by OpenVINO too, in the version that is here, without running it."""
    from ganruntime.machine import backend_version

    (own,) = variant.verdicts
    versions = {"openvino": backend_version("openvino")}
    return variant.with_verdict(replace(own, backend="openvino", versions=versions))


def bytes_of(bundle: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(bundle.iterdir())}


def test_what_is_fastest_is_recorded_and_taken(ganexport: Ganexport, lively_bundle: Path) -> None:
    before, files = read_bundle(lively_bundle).manifest, bytes_of(lively_bundle)
    dry = ganexport("tune", lively_bundle, *QUICK, "--dry-run", "--no-verify")
    assert (dry.code, dry.err) == (0, "")
    assert "nothing was recorded" in dry.out
    assert "left out: fp32@openvino: never verified by openvino on cpu, and --no-verify was given" in dry.out
    assert bytes_of(lively_bundle) == files

    answer = ganexport("tune", lively_bundle, *QUICK, "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert found["verified_on_the_spot"] == ["fp32@openvino"]
    assert {c["backend"] for c in found["configurations"]} == {"onnxruntime", "openvino"}
    assert [c["name"] for c in found["configurations"] if c["untuned"]] == [found["configurations"][0]["name"]]
    for configuration in found["configurations"]:
        assert list(configuration["batches"]) == ["1", "4"]
        assert all(time["milliseconds"] > 0 for time in configuration["batches"].values())

    after = read_bundle(lively_bundle).manifest
    assert after.files == before.files
    assert [v.backend for v in after.variant("fp32").verdicts] == ["onnxruntime", "openvino"]
    (tuning,) = after.tunings
    assert tuning.to_json() == found["tuning"]
    assert (tuning.picks["throughput"].bucket, tuning.picks["latency"].bucket) == (4, 1)
    for objective, pick in tuning.picks.items():
        with load(lively_bundle, "cpu", buckets=[4], tuning=objective) as generator:
            about = generator.describe()
            assert about["tuning"]["used"]
            assert about["tuning"]["time_utc"] == tuning.time_utc
            assert (about["backend"], about["threads"]) == (pick.backend, pick.threads)
            tuned = generator.outputs({"z": generator.latents(8, seed=1)})["image"]
        with load(lively_bundle, "cpu", pick.backend, pick.variant, buckets=[4]) as generator:
            plain = generator.outputs({"z": generator.latents(8, seed=1)})["image"]
        assert np.array_equal(tuned, plain)

    drawing = ganexport("generate", lively_bundle, "-n", 3, "-o", lively_bundle.parent / "a.npy", "--device", "cpu")
    assert drawing.out.strip().endswith("as tuned")
    drawing = ganexport("generate", lively_bundle, "-n", 3, "-o", lively_bundle.parent / "b.npy", "--tuning", "off")
    assert "as tuned" not in drawing.out
    shown = ganexport("inspect", lively_bundle).out.splitlines()
    assert [line.split()[0] for line in shown if tuning.time_utc in line] == ["latency", "throughput"]

    again = ganexport("tune", lively_bundle, *QUICK, "--backend", "onnxruntime")
    assert again.code == 0
    assert "openvino," not in again.out.partition("\n\n")[2]
    assert len(read_bundle(lively_bundle).manifest.tunings) == 1
    assert ganexport("tune", lively_bundle, "--forget").out.strip().endswith("1 tuning(s) of this machine removed")
    assert read_bundle(lively_bundle).manifest.tunings == ()


@pytest.mark.parametrize(
    ("floor", "measured", "left_out"),
    [
        ([], {"fp32"}, "int8 is below fp32, and no --floor was given"),
        (["--floor", "psnr=44"], {"fp32", "int8"}, None),
        (["--floor", "psnr=44.1"], {"fp32"}, "the worst sample of its verdict, 44.0 dB, is under the floor of 44.1 dB"),
        (["--floor", "psnr=0", "--precision", "int8"], {"int8"}, None),
    ],
)
def test_below_fp32_needs_a_floor(
    ganexport: Ganexport, two_rungs: Path, floor: list[str], measured: set[str], left_out: str | None
) -> None:
    answer = ganexport("tune", two_rungs, *QUICK, "--dry-run", "--json", "--backend", "onnxruntime", *floor)
    found = json.loads(answer.out)
    assert {c["variant"] for c in found["configurations"]} == measured
    assert {pick["variant"] for pick in found["tuning"]["picks"].values()} <= measured
    assert [item["why"] for item in found["left_out"]] == ([left_out] if left_out else [])


class Altered(Session):
    """A session whose outputs are changed."""

    def __init__(self, inner: Session, change: Callable[[np.ndarray], None]) -> None:
        super().__init__(inner.contract, inner.variant, inner.device, inner.buckets)
        self.inner, self.change = inner, change

    def run(self, inputs: Arrays, out: Arrays) -> None:
        self.inner.run(inputs, out)
        for array in out.values():
            self.change(array)  # type: ignore[arg-type]

    def versions(self) -> dict[str, str]:
        return self.inner.versions()

    def close(self) -> None:
        self.inner.close()


def altered(monkeypatch: pytest.MonkeyPatch, which: Callable[[Choice], bool], change: Callable[[Any], None]) -> None:
    opened = module.opened_session

    def opened_session(bundle: Any, choice: Choice, **options: Any) -> Session:
        session = opened(bundle, choice, **options)
        return Altered(session, change) if which(choice) else session

    monkeypatch.setattr(module, "opened_session", opened_session)


def one_ulp(array: Any) -> None:
    array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))


def wrong(array: Any) -> None:
    array.flat[0] += 0.01


def test_settings_that_change_a_bit_are_left_out(
    ganexport: Ganexport, two_rungs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, lambda c: c.backend == "openvino" and (c.threads, c.streams) == (1, 1), one_ulp)
    monkeypatch.setattr("ganruntime.machine.usable_cores", lambda: 2)
    answer = ganexport("tune", two_rungs, *QUICK, "--dry-run", "--json", "--backend", "openvino")
    found = json.loads(answer.out)
    (left,) = [item for item in found["left_out"] if not item["name"].startswith("int8")]
    assert left == {
        "name": "fp32@openvino, 1 thread, 1 stream",
        "why": "other bits than fp32@openvino, 2 threads, 1 stream in batches of 1, 4",
    }
    assert left["name"] not in [c["name"] for c in found["configurations"]]


def test_what_draws_something_else_has_no_time(
    ganexport: Ganexport, two_rungs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, lambda c: c.backend == "openvino", wrong)
    found = json.loads(ganexport("tune", two_rungs, *QUICK, "--dry-run", "--json").out)
    assert {c["backend"] for c in found["configurations"]} == {"onnxruntime"}
    (why,) = [item["why"] for item in found["left_out"] if "openvino" in item["name"] and "int8" not in item["name"]]
    assert "over the bound" in why


def test_a_graph_that_is_wrong_everywhere_is_not_tuned(ganexport: Ganexport, lively_bundle: Path) -> None:
    altered_graphs.with_other_graph(lively_bundle, altered_graphs.ALTERATIONS["one weight"])
    answer = ganexport("tune", lively_bundle, *QUICK)
    assert answer.code != 0
    assert "nothing may be picked on cpu" in answer.err
    assert "Traceback" not in answer.err
    assert read_bundle(lively_bundle).manifest.tunings == ()


def test_a_file_that_changes_meanwhile_is_not_vouched_for(two_rungs: Path) -> None:
    bundle = read_bundle(two_rungs)
    result = module.tune_bundle(bundle, module.Settings(backends=["onnxruntime"], buckets=[1], seconds=0.1))
    with bundle_changed(two_rungs) as draft:
        draft.add("model.onnx", bundle.read("model.onnx") + b"")
        draft.add("model.onnx", b"other")
    with pytest.raises(BundleIntegrityError, match="was changed while it was measured"):
        module.record(bundle, result)
    assert read_bundle(two_rungs).manifest.tunings == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--floor", "40"], "--floor is not one"),
        (["--floor", "ssim=0.9"], "--floor is not one"),
        (["--seconds", "0"], "--seconds is too short"),
        (["--seconds", "nan"], "--seconds is too short"),
        (["--batch", "0"], "batch bucket is not a batch size"),
        (["--batch", "x"], "not a list of batch sizes"),
        (["--backend", "torch"], "torch does not run on cpu"),
        (["--backend", "tensorrt"], "tensorrt does not run on cpu"),
        (["--precision", "fp8"], "no variant 'fp8'"),
        (["--device", "gpu"], "is not a device"),
        (["--precision", "fp32", "--backend", "openvino", "--no-verify"], "nothing may be picked on cpu"),
    ],
)
def test_wrong_arguments_are_errors_with_a_word(
    ganexport: Ganexport, lively_bundle: Path, arguments: list[str], words: str
) -> None:
    answer = ganexport("tune", lively_bundle, *arguments)
    assert answer.code not in (0, None)
    assert words in answer.err
    assert "Traceback" not in answer.err


def test_times_have_three_digits_or_all_before_the_point() -> None:
    found = [milliseconds_text(ms) for ms in (0.12345, 45.67, 99.9, 123.4, 1770.2)]
    assert found == ["0.123", "45.7", "99.9", "123", "1,770"]


@pytest.mark.parametrize("text", ["psnr", "psnr=", "psnr=x", "psnr=-1", "psnr=inf", "psnr=nan", "levels=3", ""])
def test_what_is_no_floor(text: str) -> None:
    with pytest.raises(InputError, match="--floor"):
        floor_from_text(text)
    assert (floor_from_text("psnr=40"), floor_from_text(None)) == (40.0, None)
