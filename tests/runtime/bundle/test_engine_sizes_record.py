"""The sizes of an engine's record: optional keys that reader, writer and schema agree on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ganruntime.bundle
from ganruntime.bundle import EngineRecord, FileRecord, GoldenRecord, Variant
from ganruntime.bundle.manifest import Manifest
from ganruntime.errors import BundleFormatError
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

SCHEMA = json.loads((Path(ganruntime.bundle.__file__).parent / "manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PHOTO = TensorSpec("photo", "float32", (3, None, None), Image(multiple=8, minimum=16))
SPEC = GeneratorSpec("p2p", (PHOTO,), (TensorSpec("image", "float32", (3, None, None), Image(multiple=8)),))
RECORD = EngineRecord("11.4.0.106", "9.0", "NVIDIA H200", "580.1", "13.0", (1, 4), 4, 60.0)
SIZED = replace(RECORD, sizes=((64, 64), (256, 512)), size_range=((16, 16), (256, 512)))
# The bytes of these keys in every release.
PINNED = '"size_range": [[16, 16], [256, 512]], "sizes": [[64, 64], [256, 512]]'


def manifest_of(record: EngineRecord) -> Manifest:
    files = {name: FileRecord("0" * 64, 1) for name in ("a.plan", "golden.npz")}
    engine = Variant("engine", "fp32", "tensorrt", "a.plan", (), record)
    return Manifest(SPEC, files, (engine,), GoldenRecord("golden.npz", 1, 1, "torch"))


def with_keys(**keys: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(manifest_of(RECORD).dumps())
    data["variants"][0]["engine"] |= keys
    return data


def test_they_are_written_read_and_valid() -> None:
    manifest = manifest_of(SIZED)
    text = manifest.dumps()
    assert PINNED in " ".join(text.split()).replace("[ ", "[").replace(" ]", "]")
    assert Manifest.loads(text) == manifest
    VALIDATOR.validate(json.loads(text))
    listed = replace(SIZED, sizes=[[64, 64], [256, 512]])  # type: ignore[arg-type]
    assert listed == SIZED


def test_they_stand_only_where_there_are_any() -> None:
    text = manifest_of(RECORD).dumps()
    assert not {"sizes", "size_range"} & set(json.loads(text)["variants"][0]["engine"])
    assert Manifest.loads(text).variants[0].engine == RECORD
    VALIDATOR.validate(json.loads(text))


@pytest.mark.parametrize(
    "keys",
    [
        {"sizes": []},
        {"sizes": [], "size_range": []},
        {"sizes": [[64, 64]]},
        {"size_range": [[64, 64], [64, 64]]},
        {"sizes": [[64, 64]], "size_range": [[64, 64]]},
        {"sizes": [[64, 64]], "size_range": [[8, 8], [64, 64], [64, 64]]},
        {"sizes": [[64]], "size_range": [[8, 8], [64, 64]]},
        {"sizes": [[0, 64]], "size_range": [[8, 8], [64, 64]]},
        {"sizes": [[64, 65537]], "size_range": [[8, 8], [64, 64]]},
        {"sizes": [["64", 64]], "size_range": [[8, 8], [64, 64]]},
        {"sizes": "64x64", "size_range": [[8, 8], [64, 64]]},
        {"sizes": None, "size_range": None},
        {"sizes": [[64, 64]], "size_range": [[8, 8], 64]},
    ],
)
def test_what_is_no_size_is_refused_by_reader_and_schema(keys: dict[str, Any]) -> None:
    data = with_keys(**keys)
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(BundleFormatError, match=r"engine\.size"):
        Manifest.loads(json.dumps(data))
