"""`ganexport inspect`: what a bundle is, to read and as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Ganexport

from ganexport.bundling import Exported
from ganruntime.bundle import EngineRecord, Variant, Verdict, bundle_changed, read_bundle
from ganruntime.spec import GeneratorSpec


def test_it_says_what_goes_in_what_comes_out_and_how_it_was_proven(
    ganexport: Ganexport, exported_once: Exported
) -> None:
    answer = ganexport("inspect", exported_once.path)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == f"{exported_once.path}: dcgan-generator"
    assert "  takes z: float32 [N, 16], latent (distribution normal, scale 1.0)" in lines
    assert "  gives image: float32 [N, 1, 16, 16], image (layout CHW, range [-1.0, 1.0])" in lines
    assert any(line.startswith("  golden: 1,024 latents of seed ") for line in lines)
    row, verdict = [line for line in lines if line.startswith("fp32 ")]
    for word in ("onnx", "values", "KiB", "verified"):
        assert word in row
    worst_db = exported_once.finding.verdict.errors["psnr_db"]
    for word in ("onnxruntime on cpu", "1,024", f"{worst_db:.1f}", "numpy", "holds"):
        assert word in verdict


def test_json_is_the_manifest_with_status_and_size(ganexport: Ganexport, exported_once: Exported) -> None:
    answer = ganexport("inspect", exported_once.path, "--json")
    assert (answer.code, answer.err) == (0, "")
    data = json.loads(answer.out)
    manifest = (exported_once.path / "manifest.json").read_bytes()
    assert data["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert data["path"] == str(exported_once.path)
    (variant,) = data["variants"]
    assert (variant["status"], variant["size_bytes"]) == ("verified", exported_once.graph_bytes)
    assert GeneratorSpec.from_json(data["spec"]) == read_bundle(exported_once.path).spec
    for key, value in json.loads(manifest).items():
        assert key == "variants" or data[key] == value


def test_variants_that_never_ran_and_that_failed_are_told_apart(ganexport: Ganexport, lively_bundle: Path) -> None:
    record = EngineRecord("10.12.0.36", "9.0", "NVIDIA H100", "570.1", "12.8", (1, 8), 64, 100.0)
    failed = Verdict(False, "onnxruntime", "cpu", {"onnxruntime": "1"}, "PyTorch", 1024, (1, 2), 0.0, {})
    with bundle_changed(lively_bundle) as draft:
        draft.add("engines/new.plan", b"x" * 2048)
        draft.put_variant(Variant("h100", "fp32", "tensorrt", "engines/new.plan", (), record))
        draft.put_variant(draft.variants[0].with_verdict(failed))
    lines = ganexport("inspect", lively_bundle).out.splitlines()
    engine, never = [line for line in lines if line.startswith("h100 ")]
    assert engine.endswith("unverified")
    assert "2.0 KiB" in engine
    assert never.endswith("never ran anywhere; used only if asked for by name")
    graph, verdict = [line for line in lines if line.startswith("fp32 ")]
    assert graph.endswith("failed")
    assert "onnxruntime on cpu" in verdict
    assert "no figures" in verdict
    assert verdict.endswith("FAILS")


def test_passes_say_what_each_did_and_refused(ganexport: Ganexport, exported_once: Exported) -> None:
    answer = ganexport("inspect", exported_once.path, "--passes")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("passes of fp32"))) :]
    assert table[0].split() == ["passes", "of", "fp32", "nodes", "largest", "change", "did", "refused"]
    (norm,) = [line for line in table if line.startswith("fold_batchnorm ")]
    reports = read_bundle(exported_once.path).manifest.reports["passes"]["fp32"]
    (report,) = [r for r in reports if r["name"] == "fold_batchnorm"]
    assert report["nodes_before"] - report["nodes_after"] == len(report["changed"]) == 2
    assert f"{report['nodes_before']} -> {report['nodes_after']}" in norm
    assert norm.split()[-2:] == ["2", "0"]
    assert [f"  fold_batchnorm: {line}" for line in report["changed"]] == [
        line for line in table if line.startswith("  fold_batchnorm: ")
    ]
    data = json.loads(ganexport("inspect", exported_once.path, "--passes", "--json").out)
    assert data["reports"]["passes"]["fp32"] == reports


def test_refusals_are_listed_with_their_reasons(ganexport: Ganexport, lively_bundle: Path) -> None:
    refused = {"node": "norm_3", "reason": "it follows Add, not one of Conv"}
    entry = {"name": "fold_batchnorm", "changed": [], "refused": [refused], "nodes_before": 4, "nodes_after": 4}
    with bundle_changed(lively_bundle) as draft:
        draft.reports["passes"] = {"fp32": [entry | {"max_abs_change": 0.0}]}
    out = ganexport("inspect", lively_bundle, "--passes").out
    assert "  fold_batchnorm left norm_3: it follows Add, not one of Conv" in out.splitlines()


@pytest.mark.parametrize("reports", [None, "text", [], {"fp32": "text"}, {"fp32": [1, {"name": 2, "changed": 3}]}])
def test_reports_of_another_hand_are_no_traceback(ganexport: Ganexport, lively_bundle: Path, reports: Any) -> None:
    with bundle_changed(lively_bundle) as draft:
        draft.reports["passes"] = reports
    answer = ganexport("inspect", lively_bundle, "--passes")
    assert (answer.code, answer.err) == (0, "")
    assert "passes" in answer.out


def test_a_variant_that_gives_pixels_says_so(ganexport: Ganexport, exported_with_pixels_once: Exported) -> None:
    lines = ganexport("inspect", exported_with_pixels_once.path, "--passes").out.splitlines()
    values, pixels = [line for line in lines if " onnx " in line]
    assert "values" in values
    assert pixels.startswith("fp32-uint8")
    assert "uint8 pixels" in pixels
    assert any(line.startswith("uint8_head") for line in lines)


def test_a_damaged_file_is_an_error_that_names_it(ganexport: Ganexport, lively_bundle: Path) -> None:
    with (lively_bundle / "preview.png").open("ab") as file:
        file.write(b"more")
    answer = ganexport("inspect", lively_bundle)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"error: {lively_bundle}: preview.png is longer than it was\n")
    assert "remedy:" in answer.err


def test_what_is_no_bundle_is_an_error(ganexport: Ganexport, tmp_path: Path) -> None:
    (tmp_path / "file.gan").write_text("x")
    (tmp_path / "folder.gan").mkdir()
    for name, problem in (("file.gan", "is a file, and a bundle is a folder"), ("folder.gan", "is not a bundle")):
        answer = ganexport("inspect", tmp_path / name)
        assert (answer.code, answer.out) == (1, "")
        assert problem in answer.err
