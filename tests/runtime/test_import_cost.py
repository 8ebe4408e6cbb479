"""What an import brings along: nothing that a service pays for before it loads a bundle."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "onnx", "onnxruntime", "onnxscript", "tensorrt", "cuda", "openvino", "PIL", "scipy", "sklearn",
    "matplotlib", "pandas", "safetensors", "click", "gantrain", "ganexport",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import ganruntime", set()),
        ("import ganruntime.spec, ganruntime.errors, ganruntime.files, ganruntime.buckets, ganruntime.cores", set()),
        ("from ganruntime import GeneratorSpec", set()),
        ("import ganruntime.noise", set()),
        ("from ganruntime.bundle import read_bundle", set()),
        ("import ganruntime.sessions.base, ganruntime.sessions.fake", set()),
        # The class is there to be named; its library comes when a session is opened.
        ("import ganruntime.sessions.onnxruntime", set()),
        ("import ganruntime.sessions.openvino", set()),
        ("import ganruntime.sessions.tensorrt", set()),
        ("import ganruntime; ganruntime.load, ganruntime.Generator", {"PIL"}),
        ("import ganruntime.batcher", {"PIL"}),
    ],
)
def test_an_import_brings_no_backend(code: str, allowed: set[str]) -> None:
    found = {name.partition(".")[0] for name in modules_after(code)} & HEAVY
    assert found <= allowed


def test_importing_the_package_does_not_even_import_numpy() -> None:
    loaded = modules_after("import ganruntime")
    assert "numpy" not in loaded
    assert {name for name in loaded if name.startswith("ganruntime")} == {"ganruntime"}


def test_the_package_has_what_it_says_and_nothing_else() -> None:
    import ganruntime

    assert {getattr(ganruntime, name) is not None for name in ganruntime.__all__} == {True}
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = ganruntime.nothing


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    import ganruntime

    assert version("ganexport") == ganruntime.__version__
