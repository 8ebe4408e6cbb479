"""The manifest: pinned bytes, equal objects back, the JSON schema held against the reader."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from small_bundles import small_spec

import ganruntime.bundle
from ganruntime.bundle import (
    EngineRecord,
    FileRecord,
    GoldenRecord,
    Machine,
    Manifest,
    Pick,
    Tuning,
    Untuned,
    Variant,
    Verdict,
)
from ganruntime.bundle.manifest import file_name
from ganruntime.errors import BundleFormatError, SpecError
from ganruntime.spec import (
    GeneratorSpec,
    Image,
    Keypoints,
    Label,
    Latent,
    Noise,
    Provenance,
    Scalar,
    TensorSpec,
    Tokens,
)

HERE = Path(__file__).parent
SCHEMA = json.loads((Path(ganruntime.bundle.__file__).parent / "manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

VERDICT = Verdict(
    passed=True,
    backend="onnxruntime",
    device="cpu",
    versions={"onnxruntime": "1.31.1", "numpy": "2.4.6"},
    reference="golden samples of torch 2.13.0",
    latents=1024,
    batches=(1, 2, 3, 64, 257),
    bound=1e-05,
    errors={"max_abs": 4.5e-07, "mean_abs": 1.25e-08, "max_uint8": 0.0},
)
ENGINE = EngineRecord(
    tensorrt="10.13.2",
    compute_capability="9.0",
    gpu="NVIDIA H200",
    driver="570.86",
    cuda="12.8",
    batches=(1, 8, 64),
    largest_batch=64,
    build_seconds=93.25,
    hardware_compatibility="ampere+",
    version_compatible=False,
    refittable=True,
    stripped=True,
    graph_key="1" * 64,
    graph_sha256="",
)
MANIFEST = Manifest(
    spec=GeneratorSpec(
        "dcgan-digits",
        (
            TensorSpec("z", "float32", (100,), Latent()),
            TensorSpec("label", "int64", (), Label(("null", "eins", "zwei", "三"))),
        ),
        (TensorSpec("image", "float32", (1, 32, 32), Image()),),
        Provenance("dcgan", "digits", 2000, 7, {"confidence": 0.875}, {"torch": "2.13.0"}),
    ),
    files={
        "model.onnx": FileRecord("0" * 64, 1_234_567),
        "golden.npz": FileRecord("0123456789abcdef" * 4, 89),
        "preview.png": FileRecord("f" * 64, 0),
        "engines/sm90-fp32-trt10.13.plan": FileRecord("a" * 64, 2**33),
    },
    variants=(
        Variant("fp32", "fp32", "onnx", "model.onnx", (VERDICT,)),
        Variant("sm90-tf32", "tf32", "tensorrt", "engines/sm90-fp32-trt10.13.plan", (), ENGINE),
    ),
    golden=GoldenRecord("golden.npz", 0x676F6C64, 1024, "torch 2.13.0"),
    preview="preview.png",
    reports={"export": {"passes": ["fold_batchnorm"], "seconds": 1.5}},
)

PICK = Pick("openvino", "fp32", "0" * 64, 2, 2, 64, 17.25, Untuned("onnxruntime", "fp32", 34.5), 5)
TUNING = Tuning(
    Machine("cpu", "AMD EPYC", "x86_64", ("avx2", "fma"), 2),
    {"onnxruntime": "1.31.1", "openvino": "2026.4.1"},
    "2026-11-26T04:30:00+00:00",
    40.0,
    {"throughput": PICK, "latency": replace(PICK, backend="onnxruntime", streams=None, bucket=1, untuned=None)},
)
TUNED = replace(
    MANIFEST,
    tunings=(
        TUNING,
        replace(TUNING, machine=replace(TUNING.machine, device="cuda", gpu="NVIDIA H200", driver="580.65.06")),
    ),
)

EVERY_ROLE = GeneratorSpec(
    "every",
    (
        TensorSpec("z", "float32", (4,), Latent("ball", 0.5)),
        TensorSpec("eps", "float32", (2, 2), Noise()),
        TensorSpec("label", "int32", (), Label(("a", "b"))),
        TensorSpec("text", "int64", (7,), Tokens(100, 1)),
        TensorSpec("source", "uint8", (None, None, 3), Image("HWC", (0, 255))),
        TensorSpec("photo", "float32", (3, None, None), Image(multiple=8, minimum=16)),
        TensorSpec("psi", "float32", (), Scalar()),
        TensorSpec("points", "float32", (5, 2), Keypoints()),
    ),
    (
        TensorSpec("image", "float32", (3, 8, 8), Image()),
        TensorSpec("large", "float32", (3, None, None), Image(multiple=16, offset=-3)),
    ),
)


# Pinned bytes


def test_the_bytes_are_those_of_every_release() -> None:
    pinned = (HERE / "manifest.golden.json").read_bytes()
    assert MANIFEST.dumps().encode() == pinned
    assert Manifest.loads(pinned.decode()) == MANIFEST


def test_a_tuning_stands_behind_the_same_bytes() -> None:
    pinned = (HERE / "manifest.tuned.golden.json").read_bytes()
    assert TUNED.dumps().encode() == pinned
    assert Manifest.loads(pinned.decode()) == TUNED
    assert "tunings" not in json.loads(MANIFEST.dumps())
    assert json.loads(pinned) | {"tunings": 0} == json.loads(MANIFEST.dumps()) | {"tunings": 0}


def test_the_order_in_which_a_manifest_was_filled_does_not_show() -> None:
    backwards = Manifest(
        MANIFEST.spec,
        dict(reversed(MANIFEST.files.items())),  # type: ignore[call-overload]
        MANIFEST.variants,
        MANIFEST.golden,
        MANIFEST.preview,
        MANIFEST.reports,
    )
    assert backwards.dumps() == MANIFEST.dumps()


def test_lists_become_tuples_so_that_equal_is_equal() -> None:
    listed = Manifest(MANIFEST.spec, MANIFEST.files, list(MANIFEST.variants), MANIFEST.golden)  # type: ignore[arg-type]
    assert listed.variants == MANIFEST.variants
    assert Verdict(**(vars(VERDICT) | {"batches": [1, 2, 3, 64, 257]})) == VERDICT


def test_a_real_bundle_comes_back_equal(bundle_path: Path, conditional_path: Path) -> None:
    for path in (bundle_path, conditional_path):
        text = (path / "manifest.json").read_text()
        assert Manifest.loads(text).dumps() == text
        VALIDATOR.validate(json.loads(text))


# Variants and verdicts


def test_the_output_of_a_variant_stands_only_where_it_is_pixels() -> None:
    pixels = Variant("fp32-uint8", "fp32", "onnx", "model.onnx", (VERDICT,), output="uint8")
    manifest = Manifest(MANIFEST.spec, MANIFEST.files, (*MANIFEST.variants, pixels), MANIFEST.golden)
    entries = json.loads(manifest.dumps())["variants"]
    assert [entry.get("output") for entry in entries] == [None, None, "uint8"]
    assert Manifest.loads(manifest.dumps()) == manifest
    VALIDATOR.validate(json.loads(manifest.dumps()))
    assert MANIFEST.variants[0].output == "float"
    with pytest.raises(BundleFormatError, match="output"):
        Variant("fp32", "fp32", "onnx", "model.onnx", output="uint16")


def test_a_status_is_what_the_verdicts_say() -> None:
    failed = Verdict(**(vars(VERDICT) | {"passed": False, "device": "cuda:0"}))
    variant = Variant("fp32", "fp32", "onnx", "model.onnx")
    assert variant.status == "unverified"
    assert variant.with_verdict(VERDICT).status == "verified"
    both = variant.with_verdict(VERDICT).with_verdict(failed)
    assert both.status == "failed"
    again = Verdict(**(vars(failed) | {"passed": True}))
    assert both.with_verdict(again).verdicts == (VERDICT, again)
    assert both.with_verdict(again).status == "verified"


def test_a_reference_alone_verifies_nothing() -> None:
    reference = Verdict(**(vars(VERDICT) | {"backend": "reference"}))
    variant = Variant("bf16", "bf16", "onnx", "model.onnx", (reference,))
    assert variant.status == "reference"
    assert variant.with_verdict(VERDICT).status == "verified"
    assert variant.with_verdict(Verdict(**(vars(reference) | {"passed": False}))).status == "failed"


def test_a_variant_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    assert MANIFEST.variant("fp32").file == "model.onnx"
    with pytest.raises(BundleFormatError, match="'fp16'") as error:
        MANIFEST.variant("fp16")
    assert "fp32, sm90-tf32" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "a/../b", "a/..", "/etc/passwd", "//x", "a//b", "a/", "./a", "a/./b", ".hidden", "a/.b",
        "a\\b", "..\\b", "C:x", "a b", "a\0b", "a\n", "model.onnx\n", "é", "a%2e", "~", "-a", "manifest.json",
        "manifest.json/x", None, 3, ["a"], {"a": 1}, b"a",
    ],
)  # fmt: skip
def test_a_path_that_could_leave_the_bundle_is_refused(name: Any) -> None:
    with pytest.raises(BundleFormatError):
        file_name(name, "here")
    assert not VALIDATOR.evolve(schema=SCHEMA["$defs"]["file_name"]).is_valid(name)


@pytest.mark.parametrize(
    "name", ["a", "model.fp16.onnx", "engines/sm_90+x.plan", "a/b/c/d", "manifest.json2", "x/manifest.json"]
)
def test_a_plain_path_is_taken(name: str) -> None:
    assert file_name(name, "here") == name
    assert VALIDATOR.evolve(schema=SCHEMA["$defs"]["file_name"]).is_valid(name)


# The reader and the schema


def plain_manifest(spec: GeneratorSpec = MANIFEST.spec) -> dict[str, Any]:
    return json.loads(MANIFEST.dumps()) | {"spec": spec.to_json()}


def is_read(data: Any) -> str:
    """Empty if the reader takes it, else what it says."""
    try:
        manifest = Manifest.loads(json.dumps(data))
    except (BundleFormatError, SpecError) as error:
        return str(error)
    assert Manifest.loads(manifest.dumps()) == manifest
    return ""


# What the reader knows and JSON Schema cannot say.
BEYOND_SCHEMA = (
    "lacks a file that is named elsewhere",
    "has a name twice",
    "has a tensor name twice",
    "range: is empty",
    "is outside its range",
    "is not in the vocabulary",
    "is not of dtype",
    "does not fit 64 bits",
    "surrogate",
    "has a machine twice",
)


def held_together(data: Any) -> None:
    answer, valid = is_read(data), VALIDATOR.is_valid(data)
    if valid and answer:
        assert any(reason in answer for reason in BEYOND_SCHEMA), answer
    else:
        assert valid == (answer == ""), answer


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(data, (dict, list)):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def changed(data: Any, path: tuple[Any, ...], change: Any) -> Any:
    result = copy.deepcopy(data)
    if not path:
        return change(result)
    place = at(result, path[:-1])
    place[path[-1]] = change(place[path[-1]])
    return result


STRANGE: list[Any] = [None, False, -1, 2**64, "", [], {}, 1.5]
BASES = {"full": plain_manifest(), "roles": plain_manifest(EVERY_ROLE)}
BASES["sizes"] = changed(
    BASES["full"], ("variants", 0, "verdicts", 0), lambda old: old | {"sizes": [[64, 64], [8, 16]]}
)
BASES["tunings"] = json.loads(TUNED.dumps())
PLACES = [
    (base, path)
    for base, data in BASES.items()
    for path in places(data)
    if base == "full" or path[:1] == ("spec",) or "sizes" in path or "tunings" in path
]


def test_the_samples_are_read_and_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for data in BASES.values():
        assert is_read(data) == ""
        VALIDATOR.validate(data)


@pytest.mark.parametrize("part", sorted({str(p[1][:1]) for p in PLACES}))
def test_reader_and_schema_agree_on_strange_values(part: str) -> None:
    for base, path in PLACES:
        if str(path[:1]) == part:
            for value in STRANGE:
                held_together(changed(BASES[base], path, lambda old, value=value: value))


def test_reader_and_schema_agree_on_keys() -> None:
    free = ("files", "versions", "errors", "metrics", "reports")
    for base, path in PLACES:
        value = at(BASES[base], path)
        if isinstance(value, dict) and not any(name in path for name in free):
            extra = changed(BASES[base], path, lambda old: old | {"colour": 1})
            assert not VALIDATOR.is_valid(extra)
            assert "not known" in is_read(extra)
            for key in value:
                held_together(
                    changed(BASES[base], path, lambda old, key=key: {k: v for k, v in old.items() if k != key})
                )


def test_sizes_stand_in_a_verdict_only_where_there_are_any() -> None:
    text = json.dumps(BASES["sizes"])
    read = Manifest.loads(text)
    assert read.variants[0].verdicts[0].sizes == ((64, 64), (8, 16))
    assert json.loads(read.dumps()) == BASES["sizes"]
    assert "sizes" not in BASES["full"]["variants"][0]["verdicts"][0]


@pytest.mark.parametrize("sizes", [[[8]], [[8, 8, 8]], [[0, 8]], [[8, 65_537]], [8, 8], [["8", 8]]])
def test_sizes_that_are_none_are_refused(sizes: Any) -> None:
    data = changed(BASES["full"], ("variants", 0, "verdicts", 0), lambda old: old | {"sizes": sizes})
    assert not VALIDATOR.is_valid(data)
    assert "verdict.sizes" in is_read(data)


def set_in_tuning(*path: Any, to: Any) -> Any:
    return changed(BASES["tunings"], ("tunings", 0, *path), lambda _: to)


@pytest.mark.parametrize(
    "data",
    [
        BASES["full"] | {"tunings": []},
        BASES["full"] | {"tunings": None},
        set_in_tuning("machine", "device", to="cpu:0"),
        set_in_tuning("machine", "cores", to=0),
        set_in_tuning("machine", "cores", to=65_537),
        set_in_tuning("machine", "instruction_sets", to="avx2"),
        set_in_tuning("versions", "openvino", to=1),
        set_in_tuning("time_utc", to="yesterday"),
        set_in_tuning("time_utc", to="2026-11-26T04:30:00+00:00\n"),
        set_in_tuning("time_utc", to="2026-11-26T04:30:00+01:00"),
        set_in_tuning("floor_psnr_db", to="40"),
        set_in_tuning("picks", to={}),
        set_in_tuning("picks", "throughput", to=None),
        set_in_tuning("picks", "throughput", "file_sha256", to="0" * 63),
        set_in_tuning("picks", "throughput", "threads", to=0),
        set_in_tuning("picks", "throughput", "threads", to=10**9),
        set_in_tuning("picks", "throughput", "streams", to=1.5),
        set_in_tuning("picks", "throughput", "bucket", to=0),
        set_in_tuning("picks", "throughput", "milliseconds", to=0),
        set_in_tuning("picks", "throughput", "milliseconds", to=-1),
        set_in_tuning("picks", "throughput", "untuned", to={}),
        set_in_tuning("picks", "throughput", "untuned", "milliseconds", to=0),
        set_in_tuning("picks", "throughput", "configurations", to=0),
    ],
)  # fmt: skip
def test_tunings_that_both_refuse(data: Any) -> None:
    assert not VALIDATOR.is_valid(data)
    assert any(place in is_read(data) for place in ("tuning", "machine", "pick", "untuned"))


@pytest.mark.parametrize(
    "data",
    [
        set_in_tuning("floor_psnr_db", to=None),
        set_in_tuning("picks", "throughput", "threads", to=None),
        set_in_tuning("picks", "throughput", "untuned", to=None),
        set_in_tuning("picks", "throughput", "variant", to="no such variant"),  # of a time when there was one
        set_in_tuning("versions", to={}),
    ],
)
def test_tunings_that_both_take(data: Any) -> None:
    VALIDATOR.validate(data)
    assert is_read(data) == ""


def test_a_machine_is_tuned_once_for_the_same_versions() -> None:
    twice = copy.deepcopy(BASES["tunings"])
    twice["tunings"].append(twice["tunings"][0])
    assert "has a machine twice" in is_read(twice)
    twice["tunings"][-1] = twice["tunings"][-1] | {"versions": {"openvino": "2027.0.0"}}
    assert is_read(twice) == ""


def set_at(*path: Any, to: Any) -> Any:
    return changed(BASES["full"], path, lambda _: to)


def with_output(output: object) -> Any:
    return changed(BASES["full"], ("variants", 0), lambda old: old | {"output": output})


@pytest.mark.parametrize(
    "data",
    [
        set_at("variants", 0, "format", to="tensorrt"),
        set_at("variants", 1, "format", to="onnx"),
        set_at("variants", 1, "engine", to=None),
        set_at("variants", 1, "engine", "hardware_compatibility", to="all"),
        set_at("variants", 1, "engine", "refittable", to=False),
        set_at("variants", 1, "engine", "graph_key", to="1" * 63),
        set_at("variants", to=[]),
        set_at("variants", 0, "name", to="a b"),
        set_at("variants", 0, "name", to="a" * 129),
        set_at("variants", 0, "precision", to="fp8"),
        set_at("variants", 0, "file", to="../model.onnx"),
        with_output("float"),
        with_output("uint16"),
        with_output(None),
        set_at("files", "model.onnx", "sha256", to="0" * 63),
        set_at("files", "model.onnx", "sha256", to="A" * 64),
        set_at("files", "model.onnx", "sha256", to="0" * 64 + "\n"),
        set_at("files", "model.onnx", "size_bytes", to=2**63),
        set_at("files", to=BASES["full"]["files"] | {"/etc/passwd": {"sha256": "0" * 64, "size_bytes": 0}}),
        set_at("files", to=BASES["full"]["files"] | {"manifest.json": {"sha256": "0" * 64, "size_bytes": 0}}),
        set_at("golden", "seed", to=2**64),
        set_at("golden", "latents", to=0),
        set_at("preview", to="../preview.png"),
        set_at("format", to="zip"),
        set_at("schema_version", to=2),
        set_at("schema_version", to=0),
        set_at("schema_version", to="1"),
        set_at("spec", "schema_version", to=2),
        set_at("spec", "inputs", 0, "shape", to=[None]),
        set_at("spec", "inputs", 0, "dtype", to="float16"),
        set_at("spec", "inputs", 1, "dtype", to="float32"),
        set_at("spec", "outputs", 0, "shape", to=[32, 32]),
        set_at("spec", "outputs", 0, "shape", to=[None, 32, 32]),
        set_at("spec", "outputs", 0, "role", to={"kind": "image", "layout": "HWC", "range": [0, 1]} | {"colour": 1}),
        set_at("spec", "outputs", 0, "role", to={"kind": "latent"}),
        set_at("spec", "inputs", 0, "role", to={"kind": "mask"}),
        set_at("spec", "inputs", 0, "role", "scale", to=0),
        set_at("spec", "inputs", 0, "name", to="z\n"),
    ],
)  # fmt: skip
def test_what_both_refuse(data: Any) -> None:
    assert not VALIDATOR.is_valid(data)
    assert is_read(data) != ""


@pytest.mark.parametrize(
    "data",
    [
        set_at("preview", to=None),
        with_output("uint8"),
        set_at("reports", to={"anything": [1, {"goes": None}]}),
        set_at("variants", 0, "verdicts", to=[]),
        set_at("spec", "outputs", 0, to=BASES["roles"]["spec"]["inputs"][4]),
        set_at("spec", "outputs", 0, "role", to={"kind": "image"}),
        set_at("spec", "inputs", 0, "role", to={"kind": "latent"}),
        set_at("golden", "seed", to=2**64 - 1),
    ],
)  # fmt: skip
def test_what_both_take(data: Any) -> None:
    VALIDATOR.validate(data)
    assert is_read(data) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (set_at("golden", "file", to="other.npz"), "lacks a file"),
        (set_at("preview", to="other.png"), "lacks a file"),
        (set_at("variants", 0, "file", to="other.onnx"), "lacks a file"),
        (set_at("variants", 1, "name", to="fp32"), "name twice"),
        (set_at("spec", "inputs", 1, "name", to="z"), "name twice"),
        (set_at("schema_version", to=True), "integer"),
    ],
)
def test_what_only_the_reader_can_know(data: Any, reason: str) -> None:
    assert reason in is_read(data)


def test_a_newer_version_is_named_before_anything_else_in_it_is_judged() -> None:
    newer = plain_manifest() | {"schema_version": 2, "surprise": 1, "spec": "elsewhere"}
    assert "newer" in is_read(newer)
    assert "pip install --upgrade ganexport" in is_read(newer)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, True, "1"])
def test_a_number_that_is_none_is_refused_on_construction(number: Any) -> None:
    with pytest.raises(BundleFormatError, match=r"verdict\.bound"):
        Verdict(**(vars(VERDICT) | {"bound": number}))
    with pytest.raises(BundleFormatError, match="max_abs"):
        Verdict(**(vars(VERDICT) | {"errors": {"max_abs": number}}))


def test_versions_agree() -> None:
    assert small_spec().to_json()["schema_version"] == SCHEMA["$defs"]["spec"]["properties"]["schema_version"]["const"]
    assert SCHEMA["properties"]["schema_version"]["const"] == ganruntime.bundle.SCHEMA_VERSION


def test_every_key_and_every_choice_of_the_schema_stands_in_the_prose() -> None:
    prose = (HERE.parents[2] / "docs/bundle-format.md").read_text()
    words: set[str] = set()

    def gather(schema: Any) -> None:
        if isinstance(schema, dict):
            words.update(schema.get("properties", {}))
            words.update(v for v in [schema.get("const"), *schema.get("enum", [])] if isinstance(v, str))
            for value in schema.values():
                gather(value)
        elif isinstance(schema, list):
            for value in schema:
                gather(value)

    gather(SCHEMA)
    assert len(words) > 60
    assert [w for w in sorted(words) if f"`{w}`" not in prose and f'"{w}"' not in prose] == []
