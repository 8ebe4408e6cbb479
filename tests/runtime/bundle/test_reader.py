"""Reading bundles: what is whole is read, and every hostile sample is refused before a native library sees a byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from small_bundles import GOLDEN_LATENTS, npz_bytes, small_model, small_spec, with_file

import ganruntime
from ganruntime.bundle import read_bundle
from ganruntime.bundle.manifest import MANIFEST_LIMIT_BYTES
from ganruntime.errors import BundleError, BundleFormatError, BundleIntegrityError, GanError, SpecError


@pytest.fixture
def no_native(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the bundle is written, whatever parses natively, or unpickles, fails the test when it is reached."""

    def reached(*_: object, **__: object) -> None:
        pytest.fail("a native parser was reached")

    monkeypatch.setattr(onnxruntime, "InferenceSession", reached)
    monkeypatch.setattr(np, "load", reached)
    monkeypatch.setattr(onnx, "load_from_string", reached)
    monkeypatch.setattr("pickle.loads", reached)
    monkeypatch.setattr("pickle.load", reached)


def refused(path: Path, *, subject: str, problem: str, error: type[GanError] = BundleIntegrityError) -> None:
    """Loading fails with this class, and the message names the bundle and the file in it."""
    with pytest.raises(error, match=problem) as caught:
        ganruntime.load(path, device="cpu")
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    assert subject in str(caught.value)


# What is whole


def test_a_bundle_gives_what_was_put_in(bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    assert bundle.path == bundle_path
    assert bundle.spec == small_spec()
    model = (bundle_path / "model.onnx").read_bytes()
    assert bundle.read("model.onnx") == model
    assert bundle.graph(bundle.variant("fp32")) == model
    assert bundle.file("model.onnx") == bundle_path / "model.onnx"
    assert bundle.manifest_sha256 == hashlib.sha256((bundle_path / "manifest.json").read_bytes()).hexdigest()
    golden = bundle.golden()
    assert {name: (a.dtype.name, a.shape) for name, a in golden.items()} == {
        "input.z": ("float32", (GOLDEN_LATENTS, 8)),
        "output.image": ("float32", (GOLDEN_LATENTS, 1, 8, 8)),
        "elements.image": ("float32", (GOLDEN_LATENTS, 64)),
        "positions.image": ("int64", (64,)),
    }
    assert read_bundle(str(bundle_path)) == bundle


def test_a_bundle_may_be_reached_through_a_link_to_it(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "latest.gan").symlink_to(bundle_path)
    assert ganruntime.load(tmp_path / "latest.gan", device="cpu").generate(2).shape == (2, 8, 8, 1)


def test_opening_reads_the_manifest_and_nothing_else(bundle_path: Path) -> None:
    for name in ("model.onnx", "golden.npz"):
        (bundle_path / name).unlink()
    assert read_bundle(bundle_path).spec == small_spec()


def test_a_graph_without_a_spec_in_it_is_taken(bundle_path: Path) -> None:
    with_file(bundle_path, "model.onnx", small_model(small_spec(), with_spec=False).SerializeToString())
    assert ganruntime.load(bundle_path, device="cpu").generate(1).shape == (1, 8, 8, 1)


def test_files_that_are_not_listed_do_not_matter_and_are_not_read(bundle_path: Path) -> None:
    (bundle_path / "notes.txt").write_text("hello")
    bundle = read_bundle(bundle_path)
    with pytest.raises(BundleIntegrityError, match=r"notes\.txt is not a file of this bundle") as error:
        bundle.read("notes.txt")
    assert "golden.npz, model.onnx" in str(error.value)


# No bundle


@pytest.mark.parametrize("name", ["missing.gan", "file/inside.gan", "n" * 300, "a\0b"])
def test_where_nothing_is_there_is_no_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="bundle at"):
        read_bundle(tmp_path / name)


def test_a_file_and_an_empty_folder_are_no_bundles(tmp_path: Path) -> None:
    (tmp_path / "file.gan").write_text("")
    with pytest.raises(BundleError, match="is a file"):
        read_bundle(tmp_path / "file.gan")
    (tmp_path / "empty.gan").mkdir()
    with pytest.raises(BundleError, match="is not a bundle"):
        read_bundle(tmp_path / "empty.gan")


def test_a_loop_of_links_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.gan").symlink_to("b.gan")
    (tmp_path / "b.gan").symlink_to("a.gan")
    with pytest.raises(BundleError, match=r"a\.gan"):
        read_bundle(tmp_path / "a.gan")


# The manifest


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize(
    ("text", "problem", "error"),
    [
        (b"", "not JSON", BundleFormatError),
        (b"\0" * 100, "not JSON", BundleFormatError),
        (b"\xff\xfe{\0}\0", "not UTF-8", BundleFormatError),
        ('{"format": "ganexport-bundlé"}'.encode("latin-1"), "not UTF-8", BundleFormatError),
        (b"\xef\xbb\xbf{}", "not JSON", BundleFormatError),
        (b"[]", "not a JSON object", BundleFormatError),
        (b"{}", "format", BundleFormatError),
        (b'{"format": "ganexport-bundle"}', "schema_version", BundleFormatError),
        (b'{"format": "ganexport-bundle", "schema_version": 2}', "newer", BundleFormatError),
        (b'{"format": "ganexport-bundle", "schema_version": 1e9}', "schema_version", BundleFormatError),
        (b'{"format": "ganexport-bundle", "schema_version": 1}', "lacks a key", BundleFormatError),
        (b"[" * 1_000_000, "deep", BundleFormatError),
        (b'{"a":' * 200_000, "deep", BundleFormatError),
        (b'{"a": NaN}', "NaN", BundleFormatError),
        (b'{"a": -Infinity}', "Infinity", BundleFormatError),
        (b'{"a": 1e999}', "too large", BundleFormatError),
        (b'{"a": ' + b"9" * 100_000 + b"}", "64 bits", BundleFormatError),
        (b'{"a": 1, "a": 2}', "twice", BundleFormatError),
        (b'{"a": "\\ud800"}', "surrogate", BundleFormatError),
        (b" " * (MANIFEST_LIMIT_BYTES + 1), "too large", BundleFormatError),
    ],
)
def test_text_that_is_no_manifest(bundle_path: Path, text: bytes, problem: str, error: type[GanError]) -> None:
    (bundle_path / "manifest.json").write_bytes(text)
    refused(bundle_path, subject="manifest.json", problem=problem, error=error)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize(
    ("change", "problem", "error"),
    [
        (lambda m: m.update(schema_version=2, later=[1]), "newer", BundleFormatError),
        (lambda m: m.update(colour="red"), "not known", BundleFormatError),
        (lambda m: m["golden"].update(colour="red"), "not known", BundleFormatError),
        (lambda m: m["variants"][0].update(colour="red"), "not known", BundleFormatError),
        (lambda m: m["variants"][0]["verdicts"][0].pop("bound"), "lacks a key", BundleFormatError),
        (lambda m: m["variants"].append(m["variants"][0]), "twice", BundleFormatError),
        (lambda m: m["variants"].clear(), "empty", BundleFormatError),
        (lambda m: m["variants"][0].update(file="../model.onnx"), "inside the bundle", BundleFormatError),
        (lambda m: m["variants"][0].update(file="/etc/passwd"), "inside the bundle", BundleFormatError),
        (lambda m: m["files"].update({"../../x": m["files"]["model.onnx"]}), "inside the bundle", BundleFormatError),
        (lambda m: m["files"].update({"manifest.json": m["files"]["model.onnx"]}), "itself", BundleFormatError),
        (lambda m: m["files"].pop("model.onnx"), "named elsewhere", BundleFormatError),
        (lambda m: m["files"]["model.onnx"].update(size_bytes=-1), "integer", BundleFormatError),
        (lambda m: m["files"]["model.onnx"].update(size_bytes=2**63), "integer", BundleFormatError),
        (lambda m: m["files"]["model.onnx"].update(sha256="0" * 63), "64 hex digits", BundleFormatError),
        (lambda m: m.update(preview=""), "inside the bundle|named elsewhere", BundleFormatError),
        (lambda m: m["spec"].update(schema_version=9), "newer", SpecError),
        (lambda m: m["spec"].update(colour=1), "not known", SpecError),
        (lambda m: m["spec"]["inputs"][0].update(shape=[0]), "shape", SpecError),
        (lambda m: m["spec"]["inputs"][0].update(shape=[2**31, 2**31]), "shape", SpecError),
        (lambda m: m["spec"]["inputs"][0]["role"].update(kind=[]), "role", SpecError),
        (lambda m: m["spec"]["inputs"][0]["role"].update(kind="pickle"), "role", SpecError),
        (lambda m: m["spec"]["provenance"].update(metrics={"a": None}), "metrics", SpecError),
    ],
)  # fmt: skip
def test_manifests_that_are_malformed(
    bundle_path: Path, change: Callable[[dict[str, Any]], None], problem: str, error: type[GanError]
) -> None:
    edit(bundle_path, change)
    refused(bundle_path, subject="manifest.json", problem=problem, error=error)


# Files that are not what the manifest says


def replaced_by_link_to_file(target: Path, outside: Path) -> None:
    shutil.copy(target, outside / "copy")
    target.unlink()
    target.symlink_to(outside / "copy")


def replaced_by_link_inside(target: Path, outside: Path) -> None:
    target.rename(target.with_name("moved"))
    target.symlink_to("moved")


def replaced_by_broken_link(target: Path, outside: Path) -> None:
    target.unlink()
    target.symlink_to("/nowhere/at/all")


def replaced_by_link_to_itself(target: Path, outside: Path) -> None:
    target.unlink()
    target.symlink_to(target.name)


def replaced_by_folder(target: Path, outside: Path) -> None:
    target.unlink()
    target.mkdir()


def replaced_by_link_to_folder(target: Path, outside: Path) -> None:
    target.unlink()
    target.symlink_to(outside)


def replaced_by_pipe(target: Path, outside: Path) -> None:
    target.unlink()
    os.mkfifo(target)


def replaced_by_socket(target: Path, outside: Path) -> None:
    target.unlink()
    folder = os.open(target.parent, os.O_RDONLY)
    try:  # the address of a socket is short, and the path of a test is not
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/{target.name}")
    finally:
        os.close(folder)


def replaced_by_device(target: Path, outside: Path) -> None:
    target.unlink()
    target.symlink_to("/dev/zero")


REPLACED = [f for name, f in list(globals().items()) if name.startswith("replaced_by_")]


@pytest.mark.usefixtures("no_native")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "golden.npz"])
@pytest.mark.parametrize("replace", REPLACED)
def test_what_is_no_plain_file_is_refused(
    bundle_path: Path, tmp_path: Path, replace: Callable[[Path, Path], None], name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    replace(bundle_path / name, outside)
    if name == "golden.npz":
        bundle = read_bundle(bundle_path)
        with pytest.raises(BundleIntegrityError, match=r"golden\.npz (is|cannot be)"):
            bundle.golden()
    else:
        refused(bundle_path, subject=name, problem="is a link|not a plain file|cannot be read")


def in_a_folder(path: Path) -> Path:
    """The bundle with its model in a folder of it."""
    (path / "graphs").mkdir()
    (path / "model.onnx").rename(path / "graphs/model.onnx")

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["graphs/model.onnx"] = manifest["files"].pop("model.onnx")
        manifest["variants"][0]["file"] = "graphs/model.onnx"

    edit(path, change)
    return path


def test_a_file_in_a_folder_is_read(bundle_path: Path) -> None:
    assert ganruntime.load(in_a_folder(bundle_path), device="cpu").generate(1).shape == (1, 8, 8, 1)


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_that_is_a_link_is_refused(bundle_path: Path, tmp_path: Path, inside: bool) -> None:
    in_a_folder(bundle_path)
    target = bundle_path / "moved" if inside else tmp_path / "outside"
    (bundle_path / "graphs").rename(target)
    (bundle_path / "graphs").symlink_to(target)
    refused(bundle_path, subject="graphs/model.onnx", problem="link")


@pytest.mark.usefixtures("no_native")
def test_a_folder_that_is_a_file_or_missing_is_refused(bundle_path: Path) -> None:
    in_a_folder(bundle_path)
    shutil.rmtree(bundle_path / "graphs")
    refused(bundle_path, subject="graphs/model.onnx", problem="missing")
    (bundle_path / "graphs").write_text("")
    refused(bundle_path, subject="graphs/model.onnx", problem="cannot be read|link")


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (lambda d: d[:-1], "truncated"),
        (lambda d: d[:100], "truncated"),
        (lambda d: b"", "truncated"),
        (lambda d: d + b"\0", "longer"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "changed after the export"),
        (lambda d: bytes([d[0] ^ 128]) + d[1:], "changed after the export"),
    ],
)
def test_a_file_that_was_edited_is_refused(bundle_path: Path, data: Callable[[bytes], bytes], problem: str) -> None:
    model = bundle_path / "model.onnx"
    model.write_bytes(data(model.read_bytes()))
    refused(bundle_path, subject="model.onnx", problem=problem)


@pytest.mark.usefixtures("no_native")
def test_a_missing_file_and_a_wrong_hash_are_refused(bundle_path: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle_path, tmp_path / "other.gan")
    edit(other, lambda m: m["files"]["model.onnx"].update(sha256="0" * 64))
    refused(other, subject="model.onnx", problem="changed after the export")
    (bundle_path / "model.onnx").unlink()
    refused(bundle_path, subject="model.onnx", problem="missing")


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize("size", [2**40, 2**63 - 1])
def test_a_size_that_is_a_lie_costs_no_memory(bundle_path: Path, size: int) -> None:
    edit(bundle_path, lambda m: m["files"]["model.onnx"].update(size_bytes=size))
    refused(bundle_path, subject="model.onnx", problem="truncated")


@pytest.mark.usefixtures("no_native")
def test_a_sparse_file_of_a_terabyte_is_not_read(bundle_path: Path) -> None:
    os.truncate(bundle_path / "model.onnx", 1 << 40)
    refused(bundle_path, subject="model.onnx", problem="longer")
    os.truncate(bundle_path / "manifest.json", 1 << 40)
    refused(bundle_path, subject="manifest.json", problem="too large", error=BundleFormatError)


def test_a_file_may_not_be_readable(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def denied(path: Any, *arguments: Any, **named: Any) -> int:
        if path == "model.onnx":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", denied)
    refused(bundle_path, subject="model.onnx", problem="Permission denied")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(bundle_path: Path) -> None:
    before = open_descriptors()
    for name in ("model.onnx", "golden.npz"):
        for _ in range(20):
            read_bundle(bundle_path).read(name)
    (bundle_path / "model.onnx").unlink()
    os.mkfifo(bundle_path / "model.onnx")
    for _ in range(20):
        with pytest.raises(BundleIntegrityError):
            read_bundle(bundle_path).read("model.onnx")
    assert open_descriptors() == before


# Graphs that the manifest vouches for


def external_model() -> bytes:
    model = small_model(small_spec())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return model.SerializeToString()


def model_with_props(**props: str) -> bytes:
    model = small_model(small_spec(), with_spec=False)
    helper.set_model_props(model, {name.replace("_", "."): text for name, text in props.items()})
    return model.SerializeToString()


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no graph"),
        (b"\0", "field number"),
        (b"not an ONNX file at all", "truncated|wire type|no graph|field number"),
        (small_model(small_spec()).SerializeToString()[:-7], "truncated"),
        (external_model(), "'dense' is kept in an external file"),
        (b"\x18\0\0\0ORTM" + bytes(64), "own format"),
        (model_with_props(ganexport_spec=small_spec(name="other").dumps()), "another spec"),
        (model_with_props(ganexport_spec="{}"), "malformed spec"),
        (model_with_props(ganexport_spec="[" * 100_000), "malformed spec"),
    ],
)
def test_graphs_that_are_refused_although_their_hash_is_right(bundle_path: Path, data: bytes, problem: str) -> None:
    with_file(bundle_path, "model.onnx", data)
    refused(bundle_path, subject="model.onnx", problem=problem)


def test_the_fixture_would_notice_a_native_parser(bundle_path: Path, no_native: None) -> None:
    with pytest.raises(pytest.fail.Exception, match="native parser"):
        ganruntime.load(bundle_path, device="cpu")


# Golden samples


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + bytes(17),
        npz_bytes(a=np.array([{"pickled": 1}], object)),
        npz_bytes(np.savez_compressed, a=np.zeros(1 << 20)),
        numpy_helper.from_array(np.zeros(3), "x").SerializeToString(),
    ],
)
def test_golden_samples_that_are_refused_although_their_hash_is_right(bundle_path: Path, data: bytes) -> None:
    bundle = read_bundle(with_file(bundle_path, "golden.npz", data))
    with pytest.raises(BundleIntegrityError, match=r"golden\.npz") as error:
        bundle.golden()
    assert str(bundle_path) in str(error.value)
