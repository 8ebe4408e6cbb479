"""Where generators come from: checkpoints, and functions of strangers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import odd_networks as odd
import pytest
import torch
from torch import nn

from ganexport.eager import eager_outputs
from ganexport.source import (
    Source,
    generator_from_checkpoint,
    generator_from_factory,
    read_spec,
    require_torch,
)
from ganruntime.errors import CheckpointError, ExportError, InputError, MissingDependencyError, SpecError

FACTORIES = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 16)

    def forward(self, z):
        return torch.tanh(self.linear(z)).reshape(-1, 1, 4, 4)

def small():
    torch.manual_seed(5)
    return Small()

def weights():
    return Small().state_dict()

def needs_argument(size):
    return Small()

def fails():
    raise FileNotFoundError("weights.pt")

not_callable = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a spec and modules of a stranger, which are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "their_networks.py").write_text(FACTORIES)
    (tmp_path / "breaks.py").write_text("weights = open_weights()\n")
    (tmp_path / "unfinished.py").write_text("def small(:\n")
    (tmp_path / "spec.json").write_text(odd.spec_of().dumps())
    return tmp_path


def test_a_checkpoint_gives_its_network_in_eval_mode(checkpoint_once: Path) -> None:
    source = generator_from_checkpoint(checkpoint_once)
    assert source.origin == "checkpoint lively"
    assert not source.module.training
    assert source.spec.name == "dcgan-generator"


def test_the_origin_of_the_working_folder_has_a_name(checkpoint_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint_once)
    assert generator_from_checkpoint(".").origin == "checkpoint lively"


def test_no_checkpoint_is_an_error_with_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint") as caught:
        generator_from_checkpoint(tmp_path)
    assert "ganexport train" in (caught.value.remedy or "")


def test_a_factory_in_the_working_folder_is_found(here: Path) -> None:
    source = generator_from_factory("their_networks:small", here / "spec.json")
    assert source.origin == "factory their_networks:small"
    assert source.spec == odd.spec_of()
    assert isinstance(source.module, nn.Module)


@pytest.mark.parametrize(
    "name",
    ["", ":", "their_networks", "their_networks:", ":small", "a:b:c", "a b:c", "..a:b", ".:b", "a..b:c", "a/b:c"],
)
def test_what_does_not_name_a_function_is_refused(here: Path, name: str) -> None:
    with pytest.raises(InputError, match="does not name a function") as caught:
        generator_from_factory(name, here / "spec.json")
    assert caught.value.expected == "package.module:function"


@pytest.mark.parametrize("name", ["nowhere:small", "their_networks:large", "unfinished:small"])
def test_what_cannot_be_imported_is_named(here: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"cannot import {name}") as caught:
        generator_from_factory(name, here / "spec.json")
    assert caught.value.got
    assert "run in the folder" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("name", "problem", "got"),
    [
        ("breaks:small", "importing breaks failed", "NameError: name 'open_weights' is not defined"),
        ("their_networks:fails", r"their_networks:fails\(\) failed", "FileNotFoundError: weights.pt"),
        ("their_networks:needs_argument", r"needs_argument\(\) failed", "TypeError: needs_argument() missing 1"),
        ("their_networks:not_callable", r"not_callable\(\) failed", "TypeError: 'int' object is not callable"),
        ("their_networks:weights", "returned something else", "OrderedDict"),
    ],
)
def test_a_factory_that_fails_is_told_with_its_own_words(here: Path, name: str, problem: str, got: str) -> None:
    with pytest.raises(ExportError, match=problem) as caught:
        generator_from_factory(name, here / "spec.json")
    assert str(caught.value.got).startswith(got)


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "cannot read the spec"), ("{", "is not JSON"), ("[]", "is not a JSON object"), ('{"a": 1}', "schema")],
)
def test_a_spec_that_is_none_names_its_file(here: Path, text: str | None, problem: str) -> None:
    path = here / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=problem) as caught:
        read_spec(path)
    assert "broken.json" in caught.value.problem


def test_a_spec_that_is_no_text_names_its_file(here: Path) -> None:
    (here / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"binary\.json"):
        read_spec(here / "binary.json")


def test_the_hash_of_weights_sees_values_names_shapes_and_dtypes() -> None:
    def source_of(change: object = None) -> Source:
        torch.manual_seed(0)
        network = odd.Small()
        if change is not None:
            change(network)  # type: ignore[operator]
        return Source(network, odd.spec_of(), "test")

    def one_bit(network: odd.Small) -> None:
        with torch.no_grad():
            network.linear.bias[3] = torch.nextafter(network.linear.bias[3], torch.tensor(9.0))

    def buffer(network: odd.Small) -> None:
        network.w_avg[0] = 1

    def shape(network: odd.Small) -> None:
        network.linear.bias = nn.Parameter(network.linear.bias.detach()[None])

    def dtype(network: odd.Small) -> None:
        network.w_avg = network.w_avg.view(torch.int32)

    def name(network: odd.Small) -> None:
        network.dense = network.linear
        del network.linear

    hashes = [source_of(change).weights_sha256() for change in (None, one_bit, buffer, shape, dtype, name)]
    assert len(set(hashes)) == len(hashes)
    assert source_of().weights_sha256() == hashes[0]


def test_the_hash_takes_every_dtype_and_shape_of_tensor() -> None:
    network = odd.Small()
    for i, dtype in enumerate((torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.float64)):
        network.register_buffer(f"b{i}", torch.ones((), dtype=dtype))
        network.register_buffer(f"c{i}", torch.ones((3, 2), dtype=dtype).T)
    assert len(Source(network, odd.spec_of(), "test").weights_sha256()) == 64


def test_eager_outputs_are_those_of_the_network() -> None:
    network = odd.TwoOutputs().eval()
    spec = odd.spec_of(outputs=(odd.IMAGE, odd.CODE))
    z = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    outputs = eager_outputs(network, spec, {"z": z})
    np.testing.assert_array_equal(outputs["code"], 3 * z)
    np.testing.assert_array_equal(outputs["image"], network(torch.from_numpy(z))[0].detach().numpy())


def test_an_output_without_its_batch_is_not_as_the_spec_says() -> None:
    class Mean(odd.Small):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.draw(z).mean(0)

    with pytest.raises(ExportError, match="not as the spec says") as caught:
        eager_outputs(Mean(), odd.spec_of(), {"z": np.zeros((3, 8), np.float32)})
    assert (caught.value.got, caught.value.expected) == ("float32 [1, 4, 4]", "float32 [3, 1, 4, 4]")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match="onnxscript") as caught:
        require_torch()
    assert caught.value.remedy == 'pip install "ganexport[export]"'
