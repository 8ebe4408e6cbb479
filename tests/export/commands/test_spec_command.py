"""`ganexport spec`, and exports whose spec is not written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ganexport.commands.spec import command as spec_command
from ganexport.commands.to_onnx import command as to_onnx_command
from ganruntime import load
from ganruntime.errors import SpecError
from ganruntime.spec import GeneratorSpec, Noise

CODE = """
import torch
from torch import nn

class Painter(nn.Module):
    def __init__(self, tail):
        super().__init__()
        self.linear, self.tail = nn.Linear(8, 3 * 64), tail

    def forward(self, z):
        return self.tail(self.linear(z).reshape(-1, 3, 8, 8))

class Grain(nn.Module):
    def forward(self, x):
        return torch.tanh(x + 0.3 * torch.randn_like(x))

def painter():
    torch.manual_seed(0)
    return Painter(nn.Tanh())

def unbounded():
    return Painter(nn.Identity())

def grainy():
    torch.manual_seed(0)
    return Painter(Grain())
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"painters_{abs(hash(request.node.name)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_draft_is_written_and_exported(package: str, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "spec.json"
    result = runner.invoke(spec_command, ["--factory", f"{package}:painter", "-o", str(file)])
    assert result.exit_code == 0, result.output
    assert "z: float32 ['N', 8], latent" in result.output
    printed = runner.invoke(spec_command, ["--factory", f"{package}:painter"])
    assert printed.stdout == file.read_text()
    assert GeneratorSpec.loads(file.read_text()).image is not None


def test_an_export_without_a_spec_takes_what_leaves_no_doubt(package: str, tmp_path: Path) -> None:
    bundle = tmp_path / "painter.gan"
    options = ["--factory", f"{package}:painter", "-o", str(bundle), "--latents", "20", "--no-uint8"]
    result = CliRunner().invoke(to_onnx_command, options)
    assert result.exit_code == 0, result.output
    with load(bundle, device="cpu", backend="onnxruntime") as generator:
        assert generator.generate(3, seed=1).shape == (3, 8, 8, 3)


def test_an_export_without_a_spec_does_not_guess(package: str, tmp_path: Path) -> None:
    options = ["--factory", f"{package}:unbounded", "-o", str(tmp_path / "new.gan")]
    result = CliRunner().invoke(to_onnx_command, options)
    assert isinstance(result.exception, SpecError)
    assert "range was guessed" in str(result.exception.got)
    assert f"ganexport spec --factory {package}:unbounded -o spec.json" in (result.exception.remedy or "")
    assert not (tmp_path / "new.gan").exists()


def test_random_draws_become_inputs_of_the_bundle(package: str, tmp_path: Path) -> None:
    from ganruntime.bundle import read_bundle

    file, bundle = tmp_path / "spec.json", tmp_path / "grainy.gan"
    draft = CliRunner().invoke(spec_command, ["--factory", f"{package}:grainy", "-o", str(file)])
    assert draft.exit_code == 0, draft.output
    common = ["--factory", f"{package}:grainy", "--spec", str(file), "--latents", "20", "--no-uint8", "-o", str(bundle)]
    refused = CliRunner().invoke(to_onnx_command, common)
    assert "in 'tail' (Grain), torch.randn_like" in str(getattr(refused.exception, "got", ""))
    result = CliRunner().invoke(to_onnx_command, [*common, "--random", "input"])
    assert result.exit_code == 0, result.output
    assert "input noise ['N', 3, 8, 8], normal: drawn in 'tail' (Grain)" in result.output
    opened = read_bundle(bundle)
    assert opened.spec.input("noise").role == Noise()
    report = opened.manifest.reports["export"]
    assert report["random"] == "input"
    assert "'tail' (Grain)" in report["draws"]["noise"]["drawn_in"]
    with load(bundle, device="cpu", backend="onnxruntime") as generator:
        first, second = generator.generate(4, seed=1), generator.generate(2, seed=1, first=2)
        assert (first[2:] == second).all()
