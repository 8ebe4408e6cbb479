"""The gallery: its cases are what recipes take, its page is what its records say, and no two feature spaces meet."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ganexport.commands.train import command as train_command
from gantrain.previews import preview_of
from gantrain.recipes import recipe_from_name
from gantrain.recipes.settings import settings_with

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gallery
from gallery_cases import CASES, Case
from gallery_page import MARK, page_with
from gallery_pictures import png_of

RECORDS = {file.stem: json.loads(file.read_text()) for file in sorted(gallery.RECORDS.glob("*.json"))}
CASE = Case("ring-quick", "toy", "ring", "A ring.", {"steps": 20, "batch_norm": True}, seeds=(3,))


def record_of(name: str, space: str, values: list[float], label: str = "") -> dict[str, Any]:
    run = {
        "commands": [f"ganexport train {name}"],
        "settings": {"label": label},
        "steps": 1000,
        "cpu_seconds": 90.0,
        "verify": {
            "passed": True,
            "variants": {"fp32": {"latents": 1024, "batches": [1, 2], "bound": 1e-5, "max_abs": 2e-6}},
        },
        "real": "449 images held out of digits",
        "judge_accuracy": {"digit": 0.99, "style": 0.5},
    }
    runs = []
    for seed, value in enumerate(values):
        figures = [
            {"name": "fid", "value": 10 * value, "features": space, "samples": 2500},
            {"name": "conditional_accuracy", "value": value, "features": space, "samples": 2500},
        ]
        runs.append(copy.deepcopy(run) | {"seed": seed, "figures": figures})
    return {"name": name, "recipe": name, "data": "digits", "shows": "What it shows.", "runs": runs}


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_what_its_recipe_takes(name: str) -> None:
    case = CASES[name]
    assert case.name == name
    assert case.seeds
    settings_with(recipe_from_name(case.recipe).defaults, case.changes)
    train_command.make_context("train", case.commands(Path("runs"), 0)["train"][1:])


def test_each_recipe_has_one_case_for_its_preview() -> None:
    from gantrain.recipes import RECIPES

    assert sorted(case.recipe for case in CASES.values() if case.preview) == sorted(RECIPES)


def test_the_presets_are_what_was_recorded() -> None:
    from gantrain.recipes import recipe_from_name

    stylegan2 = recipe_from_name("stylegan2")
    recorded = dict(CASES["digits-stylegan2"].changes) | {"held_out": stylegan2.defaults.held_out}
    preset = settings_with(stylegan2.defaults, stylegan2.presets["small"])
    assert preset == settings_with(stylegan2.defaults, recorded)
    changes = dict(CASES["faces-cgan-hair"].changes)
    assert (changes.pop("label"), changes.pop("size")) == ("hair_style", recipe_from_name("cgan").defaults.size)
    assert changes == recipe_from_name("cgan").presets["faces"]


def test_the_page_is_what_the_records_say() -> None:
    page = gallery.PAGE.read_text()
    assert page == page_with(page, [RECORDS[name] for name in CASES if name in RECORDS])


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_of_its_case_and_passed(name: str) -> None:
    record, case = RECORDS[name], CASES[name]
    assert (record["recipe"], record["data"]) == (case.recipe, case.data)
    assert (gallery.RECORDS / f"{name}.png").stat().st_size < 80_000
    assert not case.preview or preview_of(case.recipe) is not None
    for run in record["runs"]:
        commands = [" ".join(["ganexport", *c]) for c in case.commands(Path("runs"), run["seed"]).values()]
        assert run["commands"] == commands
        assert run["verify"]["passed"]
        assert run["steps"] == run["settings"]["steps"]
        assert all(run["settings"][key] == value for key, value in case.changes.items())


def test_the_whole_gallery_is_small() -> None:
    assert sum(file.stat().st_size for file in gallery.RECORDS.iterdir()) < 1_500_000


def test_figures_of_two_feature_spaces_never_stand_in_one_table() -> None:
    records = [
        record_of("a", "one-16px", [0.5]),
        record_of("b", "two-32px", [0.25]),
        record_of("c", "one-16px", [0.75]),
    ]
    tables = page_with(f"# Words\n\n{MARK}\nold", records).split("In the features ")[1:]
    heads = [table.split("###")[0] for table in tables]
    assert [h.split(",")[0] for h in heads] == ["`one-16px`", "`two-32px`"]
    assert "[a]" in heads[0]
    assert "[c]" in heads[0]
    assert "[b]" not in heads[0]
    assert "[b]" in heads[1]
    assert "digit 99.0 %, style 50.0 %" in heads[0]


def test_several_seeds_give_a_mean_and_its_standard_error() -> None:
    page = page_with(f"# Words\n{MARK}\n", [record_of("a", "s", [0.9, 0.98, 1.0], label="digit")])
    # Deviations -0.06, 0.02, 0.04: s = sqrt(0.0056 / 2) = 0.0529, over sqrt(3) 0.0306.
    assert "| [a](#a) | 1,000 | 1.5 | 9.60 ± 0.306 | 96.0 ± 3.06 % |" in page
    assert "digit 99.0 %." in page
    assert "style" not in page.split("###")[0]
    assert page.startswith("# Words\n")
    assert "Seeds 0, 1, 2. `ganexport verify`: passed, 1,024 latents" in page


def test_a_page_without_its_mark_is_left_alone() -> None:
    with pytest.raises(SystemExit, match="has no line"):
        page_with("# Words\n", [])


def test_long_commands_are_broken_where_a_shell_allows_it() -> None:
    record = record_of("a", "s", [0.5])
    record["runs"][0]["commands"] = ["ganexport " + " ".join(f"--set value{i}={i}" for i in range(30))]
    block = page_with(MARK, [record]).split("```sh\n")[1].split("\n```")[0]
    assert max(map(len, block.splitlines())) <= 120
    assert block.replace(" \\\n ", "").split() == record["runs"][0]["commands"][0].split()


def test_a_picture_with_a_palette_is_close_to_what_it_was() -> None:
    ramp = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    with PIL.Image.open(io.BytesIO(png_of(PIL.Image.fromarray(ramp)))) as picture:
        assert picture.mode == "P"
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - ramp).max() <= 4
    grey = ramp[..., 0]
    with PIL.Image.open(io.BytesIO(png_of(PIL.Image.fromarray(grey)))) as picture:
        assert np.array_equal(np.asarray(picture), grey)


def test_what_is_done_is_not_done_again_and_a_stopped_training_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def answer(arguments: list[str], quiet: bool) -> tuple[str, float, float]:
        called.append(list(arguments))
        assert quiet == (arguments[0] == "train")
        if arguments[0] == "verify":
            raise SystemExit("ganexport verify ended with 1")
        return "{}", 2.0, 1.0

    monkeypatch.setattr(gallery, "_ganexport", answer)
    with pytest.raises(SystemExit, match="verify"):
        gallery.make(CASE, tmp_path, 3)
    assert [c[0] for c in called] == ["train", "to-onnx", "verify"]
    assert called[0][-6:] == ["--set", "steps=20", "--set", "batch_norm=true", "--out", str(tmp_path / "ring-quick-3")]
    called.clear()
    with pytest.raises(SystemExit, match="verify"):
        gallery.make(CASE, tmp_path, 3)
    assert [c[0] for c in called] == ["verify"]
    called.clear()
    (tmp_path / "ring-quick-3").mkdir()
    (tmp_path / "ring-quick-3.train.json").unlink()
    with pytest.raises(SystemExit, match="verify"):
        gallery.make(CASE, tmp_path, 3)
    assert called[0][0] == "train"
    assert called[0][-1] == "--resume"


def test_a_case_with_other_settings_goes_on_with_nothing_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def answer(arguments: list[str], quiet: bool) -> tuple[str, float, float]:
        called.append(arguments[0])
        if arguments[0] == "train":
            (tmp_path / "ring-quick-3").mkdir()
        return "{}", 2.0, 1.0

    monkeypatch.setattr(gallery, "_ganexport", answer)
    gallery.make(CASE, tmp_path, 3)
    other = dataclasses.replace(CASE, changes={"steps": 30})
    with pytest.raises(SystemExit, match=r"other arguments .* remove it"):
        gallery.make(other, tmp_path, 3)
    (tmp_path / "ring-quick-3").rmdir()
    called.clear()
    gallery.make(other, tmp_path, 3)
    # The arguments of the score are the same as before, and it is of the new training all the same.
    assert called == ["train", "to-onnx", "verify", "evaluate"]
    called.clear()
    gallery.make(other, tmp_path, 3)
    assert called == []
