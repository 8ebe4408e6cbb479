"""Every recipe at its smallest: resumed bit for bit, exported with parity, and what contradicts itself refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_runs import TINY, TINY_RECIPES, interrupted_after, same

from ganexport.bundling import bundle_from_source
from ganexport.source import generator_from_checkpoint
from ganruntime.bundle import read_bundle
from ganruntime.errors import InputError
from gantrain.checkpoint import load_generator, read_tensors
from gantrain.data.faces import FACE_ATTRIBUTES
from gantrain.data.source import ImageSource
from gantrain.loop import train
from gantrain.networks import network_from_record
from gantrain.plan import new_plan
from gantrain.recipes import RECIPES, recipe_from_name
from gantrain.run_folder import sample_sheets
from gantrain.start import discriminator_record
from gantrain.stop_signals import TrainingStopped

STEPS, STOP = 9, 4  # a lazy penalty, a change of ADA's probability and a checkpoint fall on both sides of the stop

GENERATORS = {recipe_from_name(name).generator: name for name in reversed(list(RECIPES))}


@pytest.fixture(scope="module", params=list(RECIPES))
def whole_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A recipe, and a run of it that was never interrupted."""
    recipe = str(request.param)
    data, settings = TINY_RECIPES[recipe]
    run = tmp_path_factory.mktemp(recipe) / "whole"
    train(recipe, data, run, steps=STEPS, seed=5, settings=settings, threads=1)
    return recipe, run


def test_an_interrupted_run_of_every_recipe_ends_in_the_same_bits(whole_run: tuple[str, Path], tmp_path: Path) -> None:
    recipe, whole = whole_run
    data, settings = TINY_RECIPES[recipe]
    parts = tmp_path / "parts"
    with pytest.raises(TrainingStopped):
        train(recipe, data, parts, steps=STEPS, seed=5, settings=settings, threads=1, on_step=interrupted_after(STOP))
    torch.manual_seed(0)  # whatever the caller's random state is
    train(recipe, None, parts, resume=True)
    same(whole, parts)


def test_every_recipe_s_checkpoint_is_exported_with_parity(whole_run: tuple[str, Path], tmp_path: Path) -> None:
    recipe, run = whole_run
    source = generator_from_checkpoint(run)
    assert source.spec.provenance.recipe == recipe
    assert source.spec.outputs[0].role.kind == recipe_from_name(recipe).kind
    if recipe not in GENERATORS.values():
        return  # another recipe has the very same generator, and shows it
    bundle_from_source(source, tmp_path / "out.gan", latents=64)  # raises, and writes nothing, where parity fails
    (variant,) = (v for v in read_bundle(tmp_path / "out.gan").manifest.variants if v.name == "fp32")
    assert variant.status == "verified"


def test_every_recipe_s_log_and_sheets_are_of_its_training(whole_run: tuple[str, Path]) -> None:
    recipe, run = whole_run
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6, 8]
    for line in lines:
        assert 0 <= line["d_accuracy"] <= 1
        assert line["d_score"] == -line["loss_d"]
        assert line["gradient_d"] >= 0  # 0 where a hinge loss has told everything apart
        assert line["gradient_g"] > 0
    assert lines[0]["gradient_d"] > 0
    assert list(sample_sheets(run)) == [0, 7, STEPS]
    for sheet in sample_sheets(run).values():
        assert np.asarray(PIL.Image.open(sheet)).std() > 0
    weights = read_tensors(run / "checkpoint" / "training" / "discriminator.safetensors")
    clip = recipe_from_name(recipe).defaults.clip
    if clip:
        assert max(float(w.abs().max()) for name, w in weights.items() if "running" not in name and w.ndim > 0) <= clip


# --- parts that a run is made of -------------------------------------------------------------------------------------


def first_losses(tmp_path: Path, recipe: str, changes: dict[str, Any], steps: int = 2) -> list[dict[str, Any]]:
    """The log of a short run, without its times."""
    data, settings = TINY_RECIPES[recipe]
    train(recipe, data, tmp_path, steps=steps, settings=settings | {"log_every": 1} | changes, threads=1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for line in lines:
        del line["timing"]
    return lines


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("toy", {"r1": 0.0}),
        ("toy", {"r2": 0.0}),
        ("toy", {"penalty_every": 1}),
        ("toy", {"pack": 1}),
        ("wgan-gp", {"gradient_penalty": 0.0}),
        ("wgan", {"clip": 0.0}),
        ("wgan", {"optimiser": "adam"}),
        ("dcgan", {"colour": 0.0}),
        ("dcgan", {"cutout": 0.0}),
        ("cgan", {"conditioning": "concatenation"}),
        ("cgan", {"mismatched": 0.0}),
        ("sngan", {"discriminator": "own"}),
        ("stylegan2", {"mixing": 0.0}),
        ("stylegan2", {"path_length": 0.0}),
        ("progressive", {"stage_images": 0}),
        ("progressive", {"drift": 0.0}),
        ("wgan", {"drift": 0.1}),
    ],
)
def test_every_part_changes_the_training(tmp_path: Path, recipe: str, changes: dict[str, Any]) -> None:
    """Otherwise a setting would be taken and not obeyed."""
    base = {"ada_target": 0.0} if recipe == "dcgan" else {}  # ADA begins without any augmentation
    with_part = first_losses(tmp_path / "with", recipe, base, 3)
    assert first_losses(tmp_path / "without", recipe, base | changes, 3) != with_part


def test_decayed_rates_leave_the_weights_where_they_are(tmp_path: Path) -> None:
    data, settings = TINY_RECIPES["toy"]
    changes = {"decay_start": 2, "decay_end": 3, "ema_half_life": 0.0, "checkpoint_every": 1}
    for steps in (4, 6):
        train("toy", data, tmp_path / str(steps), steps=steps, settings=settings | changes, threads=1)
    early, late = (read_tensors(tmp_path / str(steps) / "checkpoint" / "generator.safetensors") for steps in (4, 6))
    assert all(torch.equal(early[name], late[name]) for name in early)


def test_r1_at_the_first_step_is_what_the_formula_says(tmp_path: Path) -> None:
    """The penalised gradient of D's weights, from networks built again from the run's seed."""
    from gantrain.penalties.zero_centred import squared_gradient
    from gantrain.recipes import DataShape
    from gantrain.recipes.settings import settings_with

    torch.manual_seed(3)
    recipe = recipe_from_name("painter")
    s = settings_with(recipe.defaults, {"width": 8})
    discriminator = network_from_record(recipe.discriminator(s, DataShape("vector", length=4)))
    x = torch.randn(5, 4, requires_grad=True)
    got = squared_gradient(discriminator(x), x)
    step, expected = 1e-4, torch.zeros(5, dtype=torch.float64)
    double, base = discriminator.double(), x.detach().double()
    for i in range(4):
        move = torch.zeros(4, dtype=torch.float64)
        move[i] = step
        expected += ((double(base + move) - double(base - move)) / (2 * step)).detach().square()
    assert got.item() == pytest.approx(expected.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "data", "changes", "words"),
    [
        ("toy", "digits", {}, "trains on vectors"),
        ("dcgan", "ring", {}, "trains on images"),
        ("toy", "ring", {"batch": 9, "pack": 2}, "whole number of packs"),
        ("toy", "ring", {"z_size": 4, "generator_signs": 4}, "vary what is drawn at a place"),
        ("wgan", "digits", {"real_label": 0.9}, "no target to smooth"),
        ("wgan-gp", "digits", {"batch_norm": True}, "by itself"),
        ("lsgan", "digits", {"decay_start": 5, "decay_end": 5}, "before it starts"),
        ("lsgan", "digits", {"ada_target": 0.6}, "nothing to augment"),
        ("dcgan", "digits", {"label": "digit"}, "takes no labels"),
        ("dcgan", "digits", {"mismatched": 0.5}, "takes no labels"),
        ("dcgan", "digits", {"mixing": 0.5}, "no styles"),
        ("dcgan", "digits", {"stage_images": 10}, "do not grow"),
        ("cgan", "digits", {"label": "colour"}, "no such labels"),
        ("cgan", "faces", {}, "which labels"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, recipe: str, data: str, changes: dict[str, Any], words: str
) -> None:
    settings = (TINY_RECIPES[recipe][1] if recipe == "toy" else TINY) | changes
    with pytest.raises(InputError, match=words):
        train(recipe, data, tmp_path / "run", steps=1, settings=settings)
    assert not (tmp_path / "run").exists()


def test_a_vector_recipe_says_so_in_its_spec(tmp_path: Path) -> None:
    data, settings = TINY_RECIPES["painter"]
    train("painter", data, tmp_path / "run", steps=1, settings=settings, threads=1)
    _, spec = load_generator(tmp_path / "run")
    assert spec.image is None
    assert (spec.outputs[0].role.kind, spec.outputs[0].shape) == ("vector", (15,))
    assert spec.name == "painter-curves"


def test_the_documented_example_is_a_recipe(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "adding-a-recipe.md").read_text()
    (tmp_path / "hinge.py").write_text(text.split("```python\n")[1].split("```")[0])
    spec = importlib.util.spec_from_file_location("gantrain.recipes.hinge", tmp_path / "hinge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    RECIPES["hinge"] = spec.name
    try:
        spec.loader.exec_module(module)
        train("hinge", "digits", tmp_path / "run", steps=2, settings=TINY, threads=1)
    finally:
        del sys.modules[spec.name], RECIPES["hinge"]
    assert load_generator(tmp_path / "run")[1].provenance.recipe == "hinge"


def test_a_conditional_recipe_takes_the_labels_of_its_data(tmp_path: Path) -> None:
    """Real ones in training, and as an input of its generator, with the names of their classes."""
    settings = TINY_RECIPES["cgan"][1]
    train("cgan", "faces", tmp_path / "run", steps=1, settings=settings | {"label": "glasses"}, threads=1)
    generator, spec = load_generator(tmp_path / "run")
    label = spec.inputs[1]
    assert (label.name, label.dtype, label.shape, label.role.kind) == ("label", "int64", (), "label")
    assert label.role.classes == FACE_ATTRIBUTES["glasses"]
    z = torch.randn(1, settings["z_size"]).expand(2, -1)
    images = generator(z, torch.tensor([0, 1]))
    assert not torch.equal(images[0], images[1])


def test_real_and_generated_samples_of_a_pair_share_the_label() -> None:
    from gantrain.batches import Batches
    from gantrain.plan import new_plan
    from gantrain.start import fresh_state, spec_of

    settings = TINY | {"images": 0, "batch": 64}
    nothing: dict[str, Any] = {"steps": None, "seed": 3, "threads": None, "device": None}
    plan = new_plan("cgan", "digits", Path("nowhere"), settings, **nothing)
    batches = Batches(plan, spec_of(plan, fresh_state(plan)).inputs[0])
    real, (labels,) = batches.real(128)
    assert isinstance(plan.data, ImageSource)
    where = {plan.data.images[i].tobytes(): int(plan.data.labels["digit"][i]) for i in range(len(plan.data.images))}
    pixels = ((real + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert [where[np.ascontiguousarray(image).tobytes()] for image in pixels.numpy()] == labels.tolist()


@pytest.mark.parametrize(("size", "patch"), [(16, 4), (32, 4), (64, 8), (128, 16)])
def test_a_transformer_judges_patches_of_four_pixels_and_no_more_than_64(tmp_path: Path, size: int, patch: int) -> None:
    settings = {"size": size, "discriminator": "vit"}
    plan = new_plan("dcgan", "digits", tmp_path / "run", settings, steps=1, seed=0, threads=1, device="cpu")
    record = discriminator_record(plan)
    assert (record.network, record.settings["patch"]) == ("vit_discriminator", patch)
