"""`ganexport bench` as a person meets it."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ganexport.commands import main
from ganexport.commands.bench import batches_from_text
from ganruntime.errors import InputError

QUICK = ["--seconds", "0.03", "--rounds", "2", "--threads", "1", "--batch", "1,3"]


def run(arguments: list[object]) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


def test_a_table_a_file_and_a_picture(
    lively_bundle: Path, checkpoint_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    code = run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "-o", out])
    printed = capsys.readouterr()
    assert "plain ONNX Runtime" in printed.out
    assert str(out / "bench.json") in printed.out
    data = json.loads((out / "bench.json").read_text())
    # On a busy machine one contender may look cached by chance; the code says what the file says.
    assert code == (3 if data["flags"] else 0)
    assert list(data["offline"]) == ["1", "3"]
    assert sorted(path.name for path in out.iterdir()) == ["bench-quality.png", "bench.json", "bench.md", "bench.png"]
    for path in out.glob("*.png"):
        with PIL.Image.open(path) as picture:
            assert picture.format == "PNG"
    assert "![bench-quality.png](bench-quality.png)" in (out / "bench.md").read_text()


def test_what_was_asked_for_is_measured_and_the_server_too(
    lively_bundle: Path, checkpoint_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "out").mkdir()
    arguments = ["--contender", "channels-last", "--contender", "ganruntime", "--only", "--slo-ms", "20"]
    arguments += ["--server-requests", "100", "--batch", "2"]
    code = run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK[:-2], *arguments, "-o", out])
    data = json.loads((out / "bench.json").read_text())
    assert code == (3 if data["flags"] else 0)
    assert list(data["contenders"]) == ["eager", "channels_last", "ganruntime"]
    assert list(data["server"]) == ["ganruntime"]
    assert data["server"]["ganruntime"]["trials"][0]["requests"] >= 100
    assert "ganruntime, batcher" in capsys.readouterr().out
    assert (out / "bench-server.png").exists()
    # The next run has no server scenario, and its picture may not be taken for this one's.
    assert run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "-o", out]) in (0, 3)
    assert not (out / "bench-server.png").exists()


def test_a_contender_that_draws_something_else_is_listed_and_the_code_says_so(
    lively_bundle: Path,
    checkpoint_once: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ganexport.benchmark.plain_contenders import PlainOnnxRuntime

    right = PlainOnnxRuntime.run

    def wrong(self: PlainOnnxRuntime, inputs: Any) -> Any:
        return {name: -array for name, array in right(self, inputs).items()}

    monkeypatch.setattr(PlainOnnxRuntime, "run", wrong)
    assert run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "-o", tmp_path / "out"]) == 1
    printed = capsys.readouterr().out
    assert "plain ONNX Runtime: FAILED: plain ONNX Runtime does not draw what eager PyTorch draws" in printed
    data = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert data["absent"]["onnxruntime"]["failed"]
    assert "onnxruntime" not in data["contenders"]
    assert "ganruntime" in data["contenders"]
    assert "FAILED" in (tmp_path / "out" / "bench.md").read_text()


def test_json_alone_on_stdout_and_a_folder_named_after_the_bundle(
    lively_bundle: Path,
    checkpoint_once: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "--json"]) in (0, 3)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "lively-bench" / "bench.json").read_text())


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1.5", "1;2"])
def test_batches_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a list of batch sizes"):
        batches_from_text(text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch", "0"], "batch bucket is not a batch size"),
        (["--seconds", "0"], "seconds is out of range"),
        (["--rounds", "0"], "rounds is out of range"),
        (["--threads", "0"], "threads is out of range"),
        (["--device", "tpu"], "'tpu' is not a device"),
        (["--contender", "jax"], "'jax' is not a contender"),
        (["--contender", "ganruntime:int8"], "has no onnx variant 'int8'"),
        (["--only"], "there is nobody to measure"),
        (["--slo-ms", "0"], "slo_ms is out of range"),
        (["--server-requests", "7"], "server_requests is out of range"),
    ],
)
def test_wrong_options_are_said_before_anything_is_written(
    lively_bundle: Path,
    checkpoint_once: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    output = tmp_path / "out"
    assert run(["bench", lively_bundle, "--against", checkpoint_once, "-o", output, *arguments]) == 1
    assert says in capsys.readouterr().err
    assert not list(output.glob("*")) if output.exists() else True


def test_no_checkpoint_no_bundle(
    lively_bundle: Path, checkpoint_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", lively_bundle, "--against", tmp_path / "none"]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert run(["bench", tmp_path / "none.gan", "--against", checkpoint_once]) == 1
    assert "no bundle" in capsys.readouterr().err
    assert run(["bench", lively_bundle]) == 2
    assert "--against" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_an_error(
    lively_bundle: Path, checkpoint_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "-o", tmp_path / "taken"]) == 1
    assert "cannot make the folder" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(("package", "extra"), [("torch", "export"), ("matplotlib", "export"), ("onnxruntime", "cpu")])
def test_a_missing_package_names_its_extra(
    lively_bundle: Path,
    checkpoint_once: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {package!r}", name=package)
        return real(name, *arguments, **named)

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "-o", tmp_path / "out"]) == 1
    assert f"ganexport[{extra}]" in capsys.readouterr().err


def test_ctrl_c_leaves_no_result(
    lively_bundle: Path,
    checkpoint_once: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ganexport.benchmark.runtime_contenders import RuntimeImages

    def interrupted(self: RuntimeImages, inputs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RuntimeImages, "run", interrupted)
    earlier = shutil.copytree(lively_bundle, tmp_path / "out")
    assert run(["bench", lively_bundle, "--against", checkpoint_once, *QUICK, "-o", earlier]) == 130
    assert "stopped" in capsys.readouterr().err
    assert not (earlier / "bench.json").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "ganexport bench digits.gan --against runs/digits" in printed
    assert "--contender ganruntime:int8@openvino/2" in printed
