"""`ganexport inspect`: what a bundle is, to read and as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

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
    (row,) = [line for line in lines if line.startswith("fp32 ")]
    for word in ("onnx", "KiB", "verified", "holds on cpu, 1,024 latents, max error", "onnxruntime"):
        assert word in row


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
    rows = {line.split()[0]: line for line in ganexport("inspect", lively_bundle).out.splitlines() if line}
    assert "unverified  never ran anywhere; used only if asked for by name" in rows["h100"]
    assert "2.0 KiB" in rows["h100"]
    assert "failed " in rows["fp32"]
    assert "FAILS on cpu, 1,024 latents, no figures" in rows["fp32"]


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
