"""Checkpoints: they come back bit for bit, and every way of damaging one is a CheckpointError that names the file."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from ganruntime.errors import CheckpointError
from ganruntime.spec import GeneratorSpec, Provenance
from gantrain.checkpoint import find_checkpoint, load_generator, save_generator, spec_from_generator
from gantrain.networks import NetworkRecord, network_from_record

RECORD = NetworkRecord("dcgan_generator", {"z_size": 5, "size": 16, "channels": 1, "width": 4})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    generator = network_from_record(RECORD)
    generator(torch.randn(8, 5))  # BatchNorm statistics that are not the initial ones
    spec = spec_from_generator(generator, "tiny", Provenance(recipe="dcgan", dataset="digits", steps=3))
    save_generator(tmp_path / "tiny", generator, RECORD, spec)
    return tmp_path / "tiny"


def test_what_was_saved_is_loaded(checkpoint: Path) -> None:
    torch.manual_seed(4)
    original = network_from_record(RECORD)
    original(torch.randn(8, 5))
    generator, spec = load_generator(checkpoint)
    z = torch.randn(3, 5)
    assert torch.equal(generator(z), original.eval()(z))
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())
    assert spec.name == "tiny"
    assert spec.provenance.steps == 3
    assert spec.latent is not None
    assert spec.latent.shape == (5,)
    assert spec.image is not None
    assert spec.image.shape == (1, 16, 16)
    assert not any(parameter.is_meta for parameter in generator.state_dict().values())


def test_the_files_are_what_the_format_says(checkpoint: Path) -> None:
    assert sorted(p.name for p in checkpoint.iterdir()) == ["generator.safetensors", "network.json", "spec.json"]
    assert json.loads((checkpoint / "network.json").read_text()) == {
        "schema_version": 1,
        "network": "dcgan_generator",
        "settings": {"z_size": 5, "size": 16, "channels": 1, "width": 4},
    }
    text = (checkpoint / "spec.json").read_text()
    assert GeneratorSpec.loads(text).dumps() == text


def test_saving_again_replaces(checkpoint: Path) -> None:
    generator = network_from_record(RECORD)
    save_generator(checkpoint, generator, RECORD, spec_from_generator(generator, "second"))
    assert load_generator(checkpoint)[1].name == "second"
    assert [p.name for p in checkpoint.parent.iterdir()] == ["tiny"]


def test_a_run_folder_stands_for_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.rename(run / "checkpoint")
    assert find_checkpoint(run) == run / "checkpoint"
    assert find_checkpoint(str(run / "checkpoint")) == run / "checkpoint"
    assert load_generator(run)[1].name == "tiny"


def test_no_checkpoint_is_an_error_that_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint") as raised:
        load_generator(tmp_path)
    assert "ganexport train" in str(raised.value)
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a file") as raised:
        load_generator(tmp_path / "weights.pt")
    assert "--factory" in str(raised.value)


@pytest.mark.parametrize("name", ["spec.json", "network.json", "generator.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise", "folder", "edited byte"])
def test_a_damaged_file_is_named(checkpoint: Path, name: str, damage: str) -> None:
    path = checkpoint / name
    data = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "half":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "noise":
        path.write_bytes(bytes((i * 197 + 13) % 256 for i in range(500)))
    elif damage == "folder":
        path.mkdir()
    elif damage == "edited byte":
        path.write_bytes(data[:8] + b"\xff" + data[9:])
    with pytest.raises(CheckpointError) as raised:
        load_generator(checkpoint)
    if not (name == "spec.json" and damage in ("missing", "folder")):  # then it is no checkpoint at all
        assert name in str(raised.value)
    assert raised.value.remedy


class _Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (exec, (f"open({self.path!r}, 'w').close()",))


def test_pickle_is_never_loaded(checkpoint: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    attack = pickle.dumps(_Touch(str(witness)))
    pickle.loads(attack)
    assert witness.exists()  # the attack works on who unpickles it
    witness.unlink()
    torch.save(_Touch(str(witness)), tmp_path / "attack.pt")
    for data in (attack, (tmp_path / "attack.pt").read_bytes()):
        (checkpoint / "generator.safetensors").write_bytes(data)
        with pytest.raises(CheckpointError, match="safetensors"):
            load_generator(checkpoint)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"schema_version": 2, "network": "dcgan_generator", "settings": {}}, "newer"),
        ({"schema_version": 1, "network": "stylegan9", "settings": {}}, "no network"),
        ({"schema_version": 1, "network": "os.system", "settings": {"command": "true"}}, "no network"),
        ({"schema_version": 1, "network": "dcgan_generator", "settings": []}, "does not name a network"),
        ({"schema_version": 1, "network": "dcgan_generator"}, "does not name a network"),
        ({"schema_version": 1, "network": "dcgan_generator", "settings": {"evil": 1}}, "settings"),
        ({"schema_version": 1, "network": "dcgan_generator", "settings": {"size": 10**9}}, "size"),
        # Large enough to fill any memory, if it were allocated before it is compared.
        (
            {
                "schema_version": 1,
                "network": "mlp_generator",
                "settings": {"size": 16, "channels": 1, "z_size": 65536, "widths": [65536] * 16},
            },
            "not those of",
        ),
        (
            {"schema_version": 1, "network": "dcgan_generator", "settings": {**RECORD.settings, "width": 8}},
            "[5, 16, 4, 4]",
        ),
        ([], "not a JSON object"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(checkpoint: Path, table: object, said: str) -> None:
    (checkpoint / "network.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError) as raised:
        load_generator(checkpoint)
    assert "network.json" in str(raised.value)
    assert said in str(raised.value)


def test_deeply_nested_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "network.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match=r"network\.json"):
        load_generator(checkpoint)


def test_a_spec_of_another_network_is_refused(checkpoint: Path) -> None:
    other = network_from_record(NetworkRecord("dcgan_generator", {**RECORD.settings, "z_size": 6}))
    (checkpoint / "spec.json").write_text(spec_from_generator(other, "other").dumps())
    with pytest.raises(CheckpointError, match="does not describe"):
        load_generator(checkpoint)


def test_weights_of_another_network_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    record = NetworkRecord("mlp_generator", {"z_size": 5, "size": 16, "channels": 1, "widths": [8]})
    other = network_from_record(record)
    save_generator(tmp_path / "other", other, record, spec_from_generator(other, "other"))
    shutil.copy(tmp_path / "other" / "generator.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match="not those of 'dcgan_generator'"):
        load_generator(checkpoint)
