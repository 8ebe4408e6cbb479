"""`ganexport to-onnx`: checkpoints and strangers' modules to bundles, through the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import odd_networks as odd
import onnx
import pytest
from command_line import Ganexport, Process

from ganexport.bundling import Exported
from ganruntime.bundle import read_bundle

NETWORKS = """
import torch
from torch import nn


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.linear, self.classes = nn.Linear(8, 16), nn.Embedding(3, 8)

    def forward(self, z, label, truncation):
        code = z * truncation[:, None] + self.classes(label)
        return torch.tanh(self.linear(code)).reshape(-1, 1, 4, 4), code


class Noisy(Both):
    def forward(self, z, label, truncation):
        image, code = super().forward(z, label, truncation)
        return image + torch.rand_like(image), code


def fails():
    raise ValueError("no weights here")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "their_models.py").write_text(NETWORKS)
    spec = odd.spec_of(odd.Z, odd.LABEL, odd.TRUNCATION, outputs=(odd.IMAGE, odd.CODE), name="both")
    (tmp_path / "spec.json").write_text(spec.dumps())
    return tmp_path


def test_another_process_exports_the_same_bytes(
    ganexport_process: Process,
    checkpoint_once: Path,
    exported_once: Exported,
    tmp_path: Path,
) -> None:
    process = ganexport_process("to-onnx", checkpoint_once, "-o", tmp_path / "again.gan")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for name in ("model.onnx", "golden.npz", "preview.png"):
        again = hashlib.sha256((tmp_path / "again.gan" / name).read_bytes()).hexdigest()
        assert again == hashlib.sha256((exported_once.path / name).read_bytes()).hexdigest(), name
    # Steps on stderr, the result on stdout, and nothing of torch's on either.
    assert err.splitlines() == [
        "dcgan-generator: checking the network",
        "dcgan-generator: exporting the graph",
        "dcgan-generator: proving the graph over 1,024 latents in batches 1, 2, 3, 64, 257",
        "dcgan-generator: proving the graph that gives pixels, equal to that of values",
        "dcgan-generator: writing the bundle",
    ]
    first, second, third = out.splitlines()
    assert first.startswith(f"{tmp_path / 'again.gan'}: ")
    assert "verified over 1,024 latents" in first
    assert second.startswith("  image: largest error ")
    assert second.endswith((" (bound 1e-05), pixels at most 0 level(s) apart", "pixels at most 1 level(s) apart"))
    assert third == "  fp32-uint8: the same images as pixels, equal over all of these latents"


def test_a_module_with_several_inputs_and_outputs_is_exported_through_its_factory(
    ganexport: Ganexport, here: Path
) -> None:
    answer = ganexport(
        "to-onnx", "--factory", "their_models:Both", "--spec", "spec.json", "-o", "both.gan", "--latents", 20
    )
    assert answer.code == 0, answer.err
    _, image, code, pixels = answer.out.splitlines()
    assert image.startswith("  image: largest error ")
    assert "pixels" in image
    assert code.startswith("  code: largest error ")
    assert "pixels" not in code
    assert pixels.startswith("  fp32-uint8: ")
    bundle = read_bundle(here / "both.gan")
    assert bundle.manifest.reports["export"]["origin"] == "factory their_models:Both"
    assert [t.name for t in bundle.spec.inputs] == ["z", "label", "truncation"]
    # The whole way on: what was bundled is verified, and drawn with a label and a truncation.
    assert ganexport("verify", here / "both.gan").code == 0
    drawn = ganexport("generate", "both.gan", "-n", 5, "-o", "images", "--label", "owl", "--truncation", 0.5)
    assert drawn.code == 0, drawn.err
    assert len(list((here / "images").glob("*.png"))) == 5


@pytest.mark.parametrize(
    ("factory", "error"),
    [
        ("their_models:Noisy", "error: both: the network draws random numbers"),
        ("their_models:fails", "error: their_models:fails() failed\n  got:      ValueError: no weights here"),
        ("their_models:Nobody", "error: cannot import their_models:Nobody"),
        ("their_models", "error: 'their_models' does not name a function\n  expected: package.module:function"),
    ],
)
def test_a_factory_that_cannot_be_exported_leaves_nothing(
    ganexport: Ganexport, here: Path, factory: str, error: str
) -> None:
    before = sorted(here.iterdir())
    answer = ganexport("to-onnx", "--factory", factory, "--spec", "spec.json", "-o", "new.gan")
    assert (answer.code, answer.out) == (1, "")
    assert error in answer.err
    assert "Traceback" not in answer.err
    assert [p for p in sorted(here.iterdir()) if p.name != "__pycache__"] == before


def test_wrong_paths_are_errors_that_name_them(ganexport: Ganexport, here: Path, checkpoint_once: Path) -> None:
    (here / "empty").mkdir()
    for arguments, problem in (
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "empty holds no checkpoint"),
        ([here / "spec.json"], "is a file, and a checkpoint is a folder"),
        (["--factory", "their_models:Both", "--spec", "none.json"], "cannot read the spec none.json"),
        (["--factory", "their_models:Both", "--spec", "their_models.py"], "their_models.py: spec: is not JSON"),
    ):
        answer = ganexport("to-onnx", *arguments, "-o", "new.gan")
        assert (answer.code, answer.out) == (1, "")
        assert problem in answer.err
    for output, problem in (
        ("spec.json", "spec.json is not a folder"),
        (here, "is a folder that is not a bundle"),
        ("no/such/new.gan", "cannot write no/such/new.gan"),
    ):
        answer = ganexport("to-onnx", checkpoint_once, "-o", output)
        assert (answer.code, answer.out) == (1, "")
        assert problem in answer.err
        assert "exporting" not in answer.err


def test_passes_are_chosen_by_name(ganexport: Ganexport, here: Path, checkpoint_once: Path) -> None:
    answer = ganexport(
        "to-onnx", checkpoint_once, "-o", "new.gan", "--latents", 20, "--no-uint8", "--without-pass", "fold_batchnorm",
        "--with-pass", "convtranspose_to_subpixel", "--target", "tensorrt11",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 2
    bundle = read_bundle(here / "new.gan")
    assert [v.name for v in bundle.manifest.variants] == ["fp32"]
    names = [report["name"] for report in bundle.manifest.reports["passes"]["fp32"]]
    assert "fold_batchnorm" not in names
    assert names[-2:] == ["convtranspose_to_subpixel", "prune"]
    kinds = {node.op_type for node in onnx.load_from_string(bundle.read("model.onnx")).graph.node}
    assert {"BatchNormalization", "DepthToSpace"} <= kinds
    assert "ConvTranspose" not in kinds


@pytest.mark.parametrize(
    ("options", "problem", "expected"),
    [
        (["--without-pass", "speed"], "no pass is called 'speed'", "fold_batchnorm"),
        (["--with-pass", "speed"], "no pass is called 'speed'", "convtranspose_to_subpixel"),
        (["--target", "toaster"], "'toaster' is not a target", "tensorrt11"),
        (["--target", "onnxruntime", "--opset", 23], "onnxruntime does not take operator set 23", "7 to 21"),
    ],
)
def test_names_that_are_not_known_are_errors_that_list_those_that_are(
    ganexport: Ganexport, here: Path, checkpoint_once: Path, options: list[object], problem: str, expected: str
) -> None:
    answer = ganexport("to-onnx", checkpoint_once, "-o", "new.gan", *options)
    assert (answer.code, answer.out) == (1, "")
    assert problem in answer.err
    assert expected in answer.err
    assert not (here / "new.gan").exists()
