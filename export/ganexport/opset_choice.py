"""The operator set for what will run the graph: the exporter's own where the target takes it, which all do today.

18 is the oldest that torch's exporter writes natively; every later one is converted from it, and none brings an
operator that a generator needs. It is also before 20, where GridSample changed and TensorRT computes another one
(NVIDIA/TensorRT#4646). So a target decides when `--opset` asks for more: what it does not take is refused here, and not
by its parser on another machine.
"""

from __future__ import annotations

from ganexport.tensorrt.operator_support import support_table, version_from_text
from ganruntime.errors import InputError

NATIVE = 18
WRITTEN = (18, 23)  # what to-onnx writes
# ONNX Runtime: the oldest release that our extras install, 1.20, implements 21 (its compatibility table). OpenVINO:
# 2026.4 was seen to read graphs that are stamped 17 to 26; it documents operators, and no limit.
_RANGES = {"onnxruntime": (7, 21), "openvino": (17, 26)}
_RELEASES = {"tensorrt10": "10.12", "tensorrt11": "11.0"}  # the oldest of the major that engines are built for


def opset_for(target: str | None, asked: int | None = None) -> int:
    """The operator set to write.

    Args:
        target: `onnxruntime`, `openvino`, `tensorrt10`, `tensorrt11`, or a TensorRT release such as `11.4`; None for no
            one in particular.
        asked: the operator set that was asked for.

    Raises:
        InputError: the target is not known, or does not take what was asked for.
    """
    if target is None:
        return NATIVE if asked is None else asked
    lowest, highest = _range_of(target)
    if asked is not None and not lowest <= asked <= highest:
        raise InputError(
            f"{target} does not take operator set {asked}",
            expected=f"{lowest} to {highest}",
            remedy="leave out --opset",
        )
    return asked if asked is not None else min(max(NATIVE, lowest), highest)


def _range_of(target: str) -> tuple[int, int]:
    if target in _RANGES:
        return _RANGES[target]
    try:
        return support_table(version_from_text(_RELEASES.get(target, target))).opsets
    except InputError as error:
        known = ", ".join((*_RANGES, *_RELEASES))
        raise InputError(
            f"{target!r} is not a target", expected=f"{known}, or a TensorRT release from 10.12 on, below 12: 11.4, say"
        ) from error
