"""`ganexport to-onnx` over a bundle that holds more than an export makes."""

from __future__ import annotations

from pathlib import Path

from command_line import Ganexport

from ganruntime.bundle import Variant, bundle_changed, read_bundle


def with_half(bundle: Path) -> Path:
    with bundle_changed(bundle) as draft:
        draft.add("model.fp16.onnx", read_bundle(bundle).read("model.onnx"))
        draft.put_variant(Variant("fp16", "fp16", "onnx", "model.fp16.onnx"))
    return bundle


def test_what_is_dropped_is_named_before_it_begins(
    ganexport: Ganexport, checkpoint_once: Path, lively_bundle: Path
) -> None:
    with_half(lively_bundle)
    answer = ganexport("to-onnx", checkpoint_once, "-o", lively_bundle, "--latents", 8)
    assert answer.code == 0, answer.err
    lines = [line.partition(": ")[2] for line in answer.err.splitlines()]
    assert lines[0] == f"{lively_bundle} is replaced; these were made of its old weights:"
    assert lines[1].strip().startswith("fp16 (fp16 graph, ")
    assert lines[1].endswith(f"is dropped: ganexport precision {lively_bundle} fp16")
    assert lines[2] == "checking the network"
    assert all(v.precision == "fp32" for v in read_bundle(lively_bundle).manifest.variants)


def test_over_a_plain_bundle_nothing_is_said(ganexport: Ganexport, checkpoint_once: Path, lively_bundle: Path) -> None:
    answer = ganexport("to-onnx", checkpoint_once, "-o", lively_bundle, "--latents", 8)
    assert answer.code == 0, answer.err
    assert "replaced" not in answer.err


def test_keep_engines_needs_engines(ganexport: Ganexport, checkpoint_once: Path, lively_bundle: Path) -> None:
    before = (lively_bundle / "manifest.json").read_bytes()
    answer = ganexport("to-onnx", checkpoint_once, "-o", lively_bundle, "--keep-engines")
    assert answer.code == 1
    assert answer.err.startswith(f"error: --keep-engines: {lively_bundle} has no engine that can be carried over")
    assert (lively_bundle / "manifest.json").read_bytes() == before
