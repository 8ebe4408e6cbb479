"""`ganexport verify`: the exit code, the report, and what is remembered in the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import altered_graphs
import odd_networks as odd
import pytest
from command_line import Ganexport

from ganexport.bundling import Exported
from ganruntime.bundle import read_bundle
from ganruntime.errors import BackendError
from ganruntime.generator import load
from gantrain.checkpoint import save_generator


def bytes_of(bundle: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(bundle.iterdir())}


def test_a_sound_bundle_holds_and_remembers_where(ganexport: Ganexport, lively_bundle: Path) -> None:
    before = read_bundle(lively_bundle).manifest
    answer = ganexport("verify", lively_bundle)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    row = lines[2].split()
    assert row[:4] == ["fp32", "onnxruntime", "cpu", "1,024"]
    assert float(row[4]) < float(row[5]) == 1e-5
    assert row[-1] == "holds"
    assert "batches 1, 2, 3, 64, 257" in lines[3]
    assert lines[-1] == f"{lively_bundle}: everything holds"
    (verdict,) = read_bundle(lively_bundle).variant("fp32").verdicts  # in place of the export's, not beside it
    assert verdict.reference == before.golden.reference
    assert read_bundle(lively_bundle).manifest.files == before.files


def test_each_backend_has_a_verdict_of_its_own(ganexport: Ganexport, lively_bundle: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra: openvino)")
    before = read_bundle(lively_bundle).variant("fp32").verdicts
    answer = ganexport("verify", lively_bundle, "--backend", "openvino")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[2].split()[:3] == ["fp32", "openvino", "cpu"]
    kept, added = read_bundle(lively_bundle).variant("fp32").verdicts
    assert (kept,) == before
    assert (added.backend, added.device, added.passed) == ("openvino", "cpu", True)
    assert "openvino" in added.versions
    assert "openvino" in ganexport("inspect", lively_bundle).out


@pytest.mark.parametrize("name", ["one weight", "rarely NaN"])
def test_an_exchanged_graph_is_refused_for_good(ganexport: Ganexport, lively_bundle: Path, name: str) -> None:
    altered_graphs.with_other_graph(lively_bundle, altered_graphs.ALTERATIONS[name])
    load(lively_bundle, "cpu").close()  # what the manifest says is believed until somebody verifies
    answer = ganexport("verify", lively_bundle)
    assert (answer.code, answer.err) == (1, "")
    assert " FAILS" in answer.out
    assert answer.out.splitlines()[-1] == f"{lively_bundle}: NOT proven"
    assert any(line.startswith("fp32: image: ") for line in answer.out.splitlines())
    variant = read_bundle(lively_bundle).variant("fp32")
    assert variant.status == "failed"
    assert not variant.verdicts[0].passed
    with pytest.raises(BackendError, match="no verified onnx variant"):
        load(lively_bundle, "cpu")
    drawn = ganexport("generate", lively_bundle, "-o", lively_bundle.parent / "images")
    assert drawn.code == 1
    assert f"remedy:   ganexport verify {lively_bundle}" in drawn.err
    assert not (lively_bundle.parent / "images").exists()
    assert "failed" in ganexport("inspect", lively_bundle).out


def test_a_graph_that_fails_while_running_is_remembered_too(ganexport: Ganexport, lively_bundle: Path) -> None:
    altered_graphs.with_other_graph(lively_bundle, altered_graphs.bake_batch)
    answer = ganexport("verify", lively_bundle)
    assert answer.code == 1
    assert "fp32: ONNX Runtime failed on cpu: " in answer.out
    assert read_bundle(lively_bundle).variant("fp32").status == "failed"


def test_without_record_the_bundle_keeps_its_bytes(ganexport: Ganexport, lively_bundle: Path) -> None:
    altered_graphs.with_other_graph(lively_bundle, altered_graphs.perturb_one_weight)
    before = bytes_of(lively_bundle)
    assert ganexport("verify", lively_bundle, "--no-record").code == 1
    assert bytes_of(lively_bundle) == before


def test_json_is_json_and_nothing_else(ganexport: Ganexport, lively_bundle: Path) -> None:
    altered_graphs.with_other_graph(lively_bundle, altered_graphs.not_a_number_for_rare_latents)
    answer = ganexport("verify", lively_bundle, "--json")
    assert (answer.code, answer.err) == (1, "")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report = json.loads(answer.out, parse_constant=refuse)
    assert report["passed"] is False
    fp32 = report["variants"]["fp32"]
    assert fp32["passed"] is False
    assert fp32["problems"]
    assert fp32["batches"] == [1, 2, 3, 64, 257]
    assert fp32["errors"]["finite"] == 0.0
    assert set(report["checks"]) == {"noise gives the golden latents", "the runtime draws the golden images"}


def test_against_its_checkpoint_a_sound_bundle_holds(
    ganexport: Ganexport, lively_bundle: Path, checkpoint_once: Path
) -> None:
    answer = ganexport("verify", lively_bundle, "--against", checkpoint_once, "--latents", 100, "--seed", 9, "--json")
    assert (answer.code, answer.err) == (0, "")
    fp32 = json.loads(answer.out)["variants"]["fp32"]
    assert fp32["latents"] == 100
    assert fp32["reference"] == "PyTorch eager fp32 on the CPU, checkpoint lively"


def test_against_its_checkpoint_an_exchanged_graph_fails(
    ganexport: Ganexport, lively_bundle: Path, checkpoint_once: Path
) -> None:
    altered_graphs.with_other_graph(lively_bundle, altered_graphs.round_weights_to_half)
    answer = ganexport("verify", lively_bundle, "--against", checkpoint_once, "--latents", 100)
    assert answer.code == 1
    assert "FAILS" in answer.out


@pytest.mark.parametrize("other", ["weights", "size"])
def test_against_another_checkpoint_nothing_is_held_against_the_bundle(
    ganexport: Ganexport, lively_bundle: Path, tmp_path: Path, other: str
) -> None:
    """A wrong path is the fault of whoever typed it: the bundle must not be marked as failed."""
    size = 32 if other == "size" else 16
    module, spec, record = odd.lively_with_spec("dcgan_generator", 5, z_size=16, size=size, channels=1, width=8)
    save_generator(tmp_path / "another", module, record, spec)
    before = bytes_of(lively_bundle)
    answer = ganexport("verify", lively_bundle, "--against", tmp_path / "another", "--latents", 20)
    assert (answer.code, answer.out) == (1, "")
    assert f"{tmp_path / 'another'} is not the checkpoint of {lively_bundle}" in answer.err
    assert "remedy:" in answer.err
    assert bytes_of(lively_bundle) == before


def test_a_variant_that_is_not_there_is_an_error(ganexport: Ganexport, exported_once: Exported) -> None:
    answer = ganexport("verify", exported_once.path, "--variant", "int8")
    assert (answer.code, answer.out) == (1, "")
    assert "no variant 'int8'" in answer.err
    assert "expected: fp32" in answer.err


def test_a_device_that_is_not_there_is_an_error(ganexport: Ganexport, lively_bundle: Path) -> None:
    before = bytes_of(lively_bundle)
    answer = ganexport("verify", lively_bundle, "--device", "cuda:99")
    assert (answer.code, answer.out) == (1, "")
    assert "cuda" in answer.err
    assert bytes_of(lively_bundle) == before


def test_a_damaged_bundle_is_an_error_before_anything_runs(ganexport: Ganexport, lively_bundle: Path) -> None:
    (lively_bundle / "golden.npz").write_bytes((lively_bundle / "golden.npz").read_bytes()[:-100])
    answer = ganexport("verify", lively_bundle)
    assert (answer.code, answer.out) == (1, "")
    assert "golden.npz is truncated" in answer.err


def test_where_the_verdict_cannot_be_written_the_report_is_printed_all_the_same(
    ganexport: Ganexport, full_disk: Path, lively_bundle: Path
) -> None:
    path = Path(shutil.copytree(lively_bundle, full_disk / "lively.gan"))
    with (full_disk / "filling").open("wb", buffering=0) as file:
        while shutil.disk_usage(full_disk).free:
            file.write(b"\0" * 4096)
    answer = ganexport("verify", path)
    assert answer.code == 1
    assert answer.out.splitlines()[-1] == f"{path}: everything holds"
    assert f"error: cannot write {path}" in answer.err
    assert "remedy:   free some space" in answer.err


def test_a_bundle_that_changes_meanwhile_gets_no_verdict_of_another_graph(
    ganexport: Ganexport, lively_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganexport import verification

    real = verification.verify_bundle

    def verify_while_exported_anew(*arguments, **options):  # type: ignore[no-untyped-def]
        report = real(*arguments, **options)
        altered_graphs.with_other_graph(lively_bundle, altered_graphs.perturb_one_weight)
        return report

    monkeypatch.setattr(verification, "verify_bundle", verify_while_exported_anew)
    before = read_bundle(lively_bundle).variant("fp32").verdicts
    answer = ganexport("verify", lively_bundle)
    assert answer.code == 1
    assert "model.onnx was changed while it was verified" in answer.err
    assert read_bundle(lively_bundle).variant("fp32").verdicts == before
