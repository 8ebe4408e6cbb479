"""The table of `ganexport verify` where there are several outputs: each has its own figures and its own bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ganexport.commands.verify import _as_text
from ganexport.gate import Finding
from ganexport.parity import ParityMeter, verdict_from
from ganexport.verification import Report
from ganruntime.spec import Image, TensorSpec, Vector

IMAGE = TensorSpec("image", "float32", (1, 4, 4), Image())
CODE = TensorSpec("code", "float32", (8,), Vector())


def report_of(precision: str) -> Report:
    meters = {t.name: ParityMeter(t) for t in (IMAGE, CODE)}
    random = np.random.default_rng(0)
    for meter, scale in zip(meters.values(), (1.0, 300.0), strict=True):
        values = (random.uniform(-1, 1, (6, *(d or 0 for d in meter.tensor.shape))) * scale).astype(np.float32)
        meter.add(values, values + np.float32(1e-7 * scale))
    verdict, problems = verdict_from(
        meters,
        precision=precision,
        backend="onnxruntime",
        device="cpu",
        versions={},
        reference="PyTorch",
        latents=6,
        batches=(1,),
    )
    report = Report()
    report.findings[precision] = Finding(verdict, problems)
    return report


@pytest.mark.parametrize(("precision", "bounds"), [("fp32", ("1e-05", "3e-03")), ("int8", ("1e+00", "3e+02"))])
def test_each_output_has_its_own_bound(precision: str, bounds: tuple[str, str]) -> None:
    lines = _as_text(Path("a.gan"), report_of(precision)).splitlines()
    rows = [line.split() for line in lines[2:4]]
    assert [row[1] for row in rows] == ["image", "code"]
    assert tuple(row[6] for row in rows) == bounds
    assert lines[4].startswith("against PyTorch")
