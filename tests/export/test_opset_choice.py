"""The operator set by target: held against the table of operator support, and against what is written."""

from __future__ import annotations

import pytest

from ganexport.graph import OPSET
from ganexport.opset_choice import NATIVE, opset_for
from ganexport.tensorrt.operator_support import support_table
from ganruntime.errors import InputError

TARGETS = ("onnxruntime", "openvino", "tensorrt10", "tensorrt11", "10.12", "10.16", "11.2.1", "11.4")


def test_without_a_target_it_is_the_exporters_own() -> None:
    assert opset_for(None) == NATIVE == OPSET
    assert opset_for(None, 23) == 23


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_takes_what_is_chosen_and_it_is_before_another_grid_sample(target: str) -> None:
    chosen = opset_for(target)
    assert chosen < 20
    assert opset_for(target, chosen) == chosen


@pytest.mark.parametrize(("target", "release"), [("tensorrt10", (10, 12)), ("tensorrt11", (11, 0)), ("11.4", (11, 4))])
def test_what_tensorrt_takes_is_the_tables_answer(target: str, release: tuple[int, ...]) -> None:
    lowest, highest = support_table(release).opsets
    assert opset_for(target, highest) == highest
    for asked in (lowest - 1, highest + 1):
        with pytest.raises(InputError, match=f"does not take operator set {asked}") as caught:
            opset_for(target, asked)
        assert caught.value.expected == f"{lowest} to {highest}"


@pytest.mark.parametrize("target", ["tensorrt", "9.3", "12.0", "cuda", ""])
def test_what_is_no_target_is_an_error_with_those_that_are(target: str) -> None:
    with pytest.raises(InputError, match="is not a target") as caught:
        opset_for(target)
    assert "onnxruntime, openvino, tensorrt10, tensorrt11" in str(caught.value.expected)
