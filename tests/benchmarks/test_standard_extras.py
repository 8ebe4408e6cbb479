"""What the standard set measures beside `ganexport bench`: plain backends told other things, and who is left out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "export" / "precision"))

import standard_extras
from small_graphs import latents, write_bundle
from standard_cases import CASES
from standard_extras import HintedOpenVino, QuantisedOnnxRuntime, QuantisedOpenVino, extras_for, require_untuned

from ganexport.benchmark.contender import Contender
from ganexport.benchmark.plain_contenders import PlainOnnxRuntime, PlainOpenVino
from ganruntime.bundle import Bundle, bundle_changed, read_bundle
from ganruntime.errors import BackendError


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_bundle(tmp_path_factory.mktemp("bundles") / "plain.gan"))


def psnr_db(contender: Contender, bundle: Bundle) -> float:
    inputs = latents(8)
    expected = PlainOnnxRuntime(bundle, bundle.variant("fp32"), "cpu", 1).run(inputs)["image"]
    noise = np.square(contender.run(inputs)["image"].astype(np.float64) - expected).mean(axis=(1, 2, 3)).max()
    return float(10 * np.log10(4 / noise))


def test_plain_openvino_computes_in_what_it_is_told(plain: Bundle) -> None:
    pytest.importorskip("openvino")
    exact = PlainOpenVino(plain, plain.variant("fp32"), "cpu", 1)
    assert psnr_db(exact, plain) > 110
    hinted = HintedOpenVino(plain, 1)
    assert (hinted.label, hinted.precision) == ("plain OpenVINO, bf16 hint", "bf16")
    assert hinted.setting().endswith("inference precision bf16")
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert 35 < psnr_db(hinted, plain) < 90


@pytest.mark.parametrize("kind", [QuantisedOpenVino, QuantisedOnnxRuntime])
def test_plain_int8_runs_the_graph_of_the_static_quantizer_made_once(
    plain: Bundle, kind: type[QuantisedOpenVino | QuantisedOnnxRuntime]
) -> None:
    if kind is QuantisedOpenVino:
        pytest.importorskip("openvino")
    contender = kind(plain, 1)
    assert (contender.precision, contender.family) == ("int8", "plain")
    assert 15 < psnr_db(contender, plain) < 60  # rounded, and still a picture
    path = standard_extras.quantised_graph(plain)
    assert path == plain.path.parent / "plain.int8.onnx"
    made = path.stat().st_mtime_ns
    kind(plain, 1)
    assert path.stat().st_mtime_ns == made
    assert not path.with_suffix(".fp32.onnx").exists()


def test_a_slow_one_has_no_plain_int8_and_no_tuning(plain: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_extras, "require_untuned", lambda bundle: None)
    case = replace(CASES["stylegan2-64"], name="plain")
    usual = extras_for(case, plain, 1)
    slow = extras_for(replace(case, is_slow=True), plain, 1)
    assert set(usual) - set(slow) == {
        "plain OpenVINO, int8",
        "plain ONNX Runtime, int8",
        "ganruntime, tuned for throughput",
        "ganruntime, tuned for latency",
    }
    assert set(slow) == {
        "plain ONNX Runtime",
        "plain OpenVINO",
        "plain OpenVINO, bf16 hint",
        "torch.compile, scaled form",
    }


def test_what_tunings_are_held_against_is_what_a_load_without_one_runs(plain: Bundle, tmp_path: Path) -> None:
    require_untuned(plain)
    path = write_bundle(tmp_path / "other.gan")
    with bundle_changed(path) as draft:
        (fp32,) = draft.variants
        draft.put_variant(replace(fp32, verdicts=(replace(fp32.verdicts[0], backend="openvino"),)))
    pytest.importorskip("openvino")
    with pytest.raises(BackendError, match="an untuned load runs fp32 on openvino"):
        require_untuned(read_bundle(path))
