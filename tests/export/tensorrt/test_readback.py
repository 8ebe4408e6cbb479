"""The inspector's words: which precision a layer got, in every form in which TensorRT says it."""

from __future__ import annotations

import json

import pytest

from ganexport.tensorrt.readback import Layer, check_precisions, layer_from_text
from ganruntime.errors import EngineError


def text(kernel: str = "", outputs: str = "Float", inputs: str = "N/A due to dynamic shapes", weights: str = "") -> str:
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [-1, 3, 8, 8], "Format/Datatype": inputs}],
        "Outputs": [{"Name": "y", "Location": "Device", "Dimensions": [-1, 3, 8, 8], "Format/Datatype": outputs}],
        "TacticName": kernel,
        "TacticValue": "0x56aa8de2c5e7b1c3",
    }
    return json.dumps(layer | ({"Weights": {"Type": weights, "Count": 9}} if weights else {}))


@pytest.mark.parametrize(
    ("said", "precisions"),
    [
        (text(outputs="Row major linear FP32"), {"fp32"}),
        (text(outputs="Float"), {"fp32"}),
        (text(outputs="Row major linear FP16 format"), {"fp16"}),
        (text(outputs="Channel major FP16 format where channel % 4 == 0"), {"fp16"}),
        (text(outputs="Half"), {"fp16"}),
        (text(outputs="BF16"), {"bf16"}),
        (text(outputs="Thirty-two wide channel vectorized row major Int8 format"), {"int8"}),
        (text(outputs="Float", weights="Half"), {"fp32", "fp16"}),
        (text(outputs="FP8E4M3"), {"fp8"}),
        (text(outputs="Int64", inputs="Int32"), set()),
        (text(outputs="UInt8"), set()),
        (text(outputs="N/A due to dynamic shapes"), set()),
        (text("ampere_sgemm_32x128_nn"), {"fp32"}),
        (text("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nchw_tilesize128x128x8"), {"fp32"}),
        (text("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x128x16"), {"tf32"}),
        (text("sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32"), {"tf32"}),
        (text("cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4"), {"tf32"}),
        (text("turing_s1688gemm_f16_128x128_nn", outputs="Half"), {"fp16"}),
    ],
)
def test_what_a_layer_computes_in(said: str, precisions: set[str]) -> None:
    layer = layer_from_text(said)
    assert (layer.name, layer.precisions) == ("conv", frozenset(precisions))


def test_a_layer_with_its_name_only() -> None:
    assert layer_from_text('"shape arithmetic"') == Layer("shape arithmetic", frozenset(), "")
    assert layer_from_text("shape arithmetic\n") == Layer("shape arithmetic", frozenset(), "")


def test_quotes_that_tensorrt_does_not_escape() -> None:
    broken = (
        '{"Name": "conv", "Outputs": [{"Format/Datatype": "Half"}], '
        '"TacticName": "sm80_h16816", "Metadata": "{"tag": "x"}"}'
    )
    with pytest.raises(ValueError):
        json.loads(broken)
    assert layer_from_text(broken) == Layer("conv", frozenset({"fp16"}), "sm80_h16816")


def layer(name: str, *precisions: str, kernel: str = "", asked: tuple[str, ...] = ("fp32",)) -> Layer:
    return Layer(name, frozenset(precisions), kernel, asked=frozenset(asked))


def test_fp32_allows_nothing_less_and_tf32_allows_both() -> None:
    plain = (layer("a", "fp32"), layer("b"))
    rounded = (*plain, layer("c", "tf32", kernel="sm80_tf32"))
    check_precisions(plain, "fp32")
    check_precisions(plain, "tf32")
    check_precisions(rounded, "tf32")
    with pytest.raises(EngineError, match="1 of 3 layers in another precision than fp32") as caught:
        check_precisions(rounded, "fp32")
    assert "c: tf32, asked fp32 sm80_tf32" in str(caught.value)
    assert "--precision tf32" in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("found", ["fp16", "bf16", "int8", "fp8"])
def test_less_than_tf32_is_never_kept(precision: str, found: str) -> None:
    layers = tuple(layer(f"layer {i}", "fp32", found) for i in range(7))
    with pytest.raises(EngineError, match="7 of 7 layers") as caught:
        check_precisions(layers, precision)
    assert "and 2 more" in str(caught.value)
    assert "--precision tf32" not in str(caught.value)
