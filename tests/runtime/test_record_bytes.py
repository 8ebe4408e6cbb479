"""Pinned bytes: replay records as this release and those before it write them, and what each release's reader gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ganruntime.errors import InputError
from ganruntime.replay_record import ReplayRecord
from ganruntime.runs import BundleRecord, Request, RunFolder, read_run

HEAD = (
    '{"backend": "onnxruntime", "bucket": 16, "bundle_sha256": "' + "1" * 64 + '", "classes": {"label": "one"}, '
    '"device": "cpu", "format": "ganexport-replay", "generator": "digits", "graph_sha256": "' + "2" * 64 + '", '
    '"image_format": "png", "index": 90, "inputs": {"label": 1, "truncation": 0.7}, "pixels_sha256": "'
    + "3"
    * 64
    + '", '
    '"precision": "fp32", "quality": null, '
)
TAIL = '"variant": "fp32", "versions": {"cpu": "x86_64 avx2 fma", "onnxruntime": "1.31.1", "pillow": "12.0.0"}}\n'
BY_VERSION = {
    1: HEAD + '"schema_version": 1, "seed": 7, ' + TAIL,
    2: HEAD + '"schema_version": 2, "seed": 7, "streams": null, "threads": 2, ' + TAIL,
}
RECORD = ReplayRecord(
    generator="digits",
    bundle_sha256="1" * 64,
    graph_sha256="2" * 64,
    variant="fp32",
    precision="fp32",
    backend="onnxruntime",
    device="cpu",
    bucket=16,
    versions={"onnxruntime": "1.31.1", "cpu": "x86_64 avx2 fma", "pillow": "12.0.0"},
    seed=7,
    index=90,
    inputs={"label": 1, "truncation": 0.7},
    classes={"label": "one"},
    pixels_sha256="3" * 64,
)

# A run of before threads were kept, as it was written then.
RUN = """{{
  "bundle": {{
    "manifest_sha256": "{}",
    "path": "/bundles/digits.gan"
  }},
  "format": "ganexport-run",
  "request": {{
    "backend": "onnxruntime",
    "buckets": [
      1,
      64
    ],
    "count": 4,
    "device": "cpu",
    "first": 0,
    "format": "tar",
    "generator": "digits",
    "graph_sha256": "{}",
    "image_format": "png",
    "inputs": {{}},
    "precision": "fp32",
    "quality": null,
    "seed": 7,
    "shard_images": 2,
    "spec_sha256": "{}",
    "streams": null,
    "variant": "fp32",
    "versions": {{
      "onnxruntime": "1.31.1"
    }}
  }},
  "schema_version": 1
}}
""".format("1" * 64, "2" * 64, "4" * 64)
REQUEST = Request(
    generator="digits",
    spec_sha256="4" * 64,
    graph_sha256="2" * 64,
    variant="fp32",
    precision="fp32",
    backend="onnxruntime",
    device="cpu",
    buckets=(1, 64),
    streams=None,
    versions={"onnxruntime": "1.31.1"},
    seed=7,
    first=0,
    count=4,
    format="tar",
    shard_images=2,
)


@pytest.mark.parametrize(("version", "threads"), [(1, None), (2, 2)])
def test_replay_records_have_the_bytes_that_they_had(version: int, threads: int | None) -> None:
    record, data = replace(RECORD, threads=threads), BY_VERSION[version].encode()
    assert record.dumps() == data
    assert ReplayRecord.loads(data, "it") == record


def test_a_record_of_a_later_release_says_which_are_read() -> None:
    later = BY_VERSION[2].replace('"schema_version": 2', '"schema_version": 3')
    with pytest.raises(InputError) as caught:
        ReplayRecord.loads(later.encode(), "it")
    assert caught.value.got == "schema version 3, and this release reads 1 and 2"


def test_run_records_have_the_bytes_that_they_had(tmp_path: Path) -> None:
    bundle = BundleRecord("/bundles/digits.gan", "1" * 64)
    RunFolder(tmp_path / "old", REQUEST, bundle, str, 2).close()
    assert (tmp_path / "old" / "run.json").read_text() == RUN
    assert read_run(tmp_path / "old") == (REQUEST, bundle)
    RunFolder(tmp_path / "new", replace(REQUEST, threads=2), bundle, str, 2).close()
    expected = json.loads(RUN) | {"schema_version": 2}
    expected["request"] |= {"threads": 2}
    assert json.loads((tmp_path / "new" / "run.json").read_text()) == expected
