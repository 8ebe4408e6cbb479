"""What a run makes of its data: held-out images stay out, broken pictures are named, and both are on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tiny_runs import TINY_MLP, same

from ganexport.commands import main
from ganruntime.errors import DataError, InputError
from gantrain.checkpoint import load_generator
from gantrain.data.named import source_from_name
from gantrain.data.split import HELD_OUT_KEY, split
from gantrain.loop import train
from gantrain.run_folder import read_run

SETTINGS: dict[str, Any] = TINY_MLP | {"images": 0, "held_out": 0.25, "steps": 4}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """41 pictures of 8 px, one of them broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(41):
        image = np.full((8, 8), 6 * k, np.uint8)
        PIL.Image.fromarray(image).save(folder / f"{k:02d}.png")
    (folder / "07.png").write_bytes(b"?")
    (folder / "notes.txt").write_text("hello")
    return folder


def test_held_out_images_and_broken_ones_stay_out_and_are_on_record(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = train("mlp", str(pictures), run, settings=SETTINGS)
    record = read_run(run)
    train_part = split(source_from_name(str(pictures), 8), 0.25).train
    assert record.data["images"] == 30
    assert record.data["fingerprint"] == train_part.fingerprint
    assert record.data["left_out"] == ["07.png", "notes.txt"]
    assert record.data["left_out_files"] == 2
    assert record.settings["held_out"] == 0.25
    _, spec = load_generator(checkpoint)
    assert dict(spec.provenance.metrics) == {HELD_OUT_KEY: 0.25}
    # The held-out images may be whatever they are.
    other = tmp_path / "other"
    held_out = split(source_from_name(str(pictures), 8), 0.25).held_out
    assert held_out is not None
    values = {int(image[0, 0, 0]) for image in held_out.images}
    for path in pictures.glob("*.png"):
        if path.name != "07.png" and int(np.asarray(PIL.Image.open(path))[0, 0]) in values:
            PIL.Image.fromarray(np.full((8, 8), 255, np.uint8)).save(path)
    train("mlp", str(pictures), other, settings=SETTINGS)
    same(run, other)
    with pytest.raises(InputError, match="held_out"):
        train("mlp", None, run, settings={"held_out": 0.1}, resume=True)


def test_the_command_says_what_was_left_out(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    with pytest.raises(SystemExit) as stop:
        main(["train", "mlp", "--data", str(pictures), "--out", str(tmp_path / "run"), "--quiet", *words])
    assert stop.value.code == 0
    assert "left out of the data: 2 files, such as 07.png; run.json names them" in capsys.readouterr().err


def test_a_broken_picture_stops_a_run_that_wants_it_so(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"07\.png is a broken picture"):
        train("mlp", str(pictures), tmp_path / "run", settings=SETTINGS | {"broken": "stop"})
    assert not (tmp_path / "run").exists()
