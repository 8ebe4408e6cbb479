"""Settings: every recipe's defaults build networks, text becomes values, and mistakes are told apart."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ganruntime.errors import InputError
from gantrain.networks import network_from_record
from gantrain.recipes import RECIPES, DataShape, recipe_from_name
from gantrain.recipes.settings import changes_from_arguments, settings_with

DCGAN = recipe_from_name("dcgan").defaults
MLP = recipe_from_name("mlp").defaults


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_builds_networks_that_fit_each_other(name: str) -> None:
    recipe = recipe_from_name(name)
    assert recipe.name == name
    classes = ("a", "b", "c") if recipe.conditional else ()
    data = DataShape("image", channels=3, classes=classes) if recipe.kind == "image" else DataShape("vector", length=5)
    labels = (torch.tensor([2, 0]),) if recipe.conditional else ()
    for preset in ({}, *recipe.presets.values()):
        settings = settings_with(recipe.defaults, preset)
        with torch.device("meta"):  # shapes without the arithmetic: presets are of real sizes
            generator = network_from_record(recipe.generator(settings, data))
            discriminator = network_from_record(recipe.discriminator(settings, data.packed(settings.pack)))
        z, labels = torch.randn(2, settings.z_size, device="meta"), tuple(label.to("meta") for label in labels)
        given = [torch.zeros(2, *t.shape, device="meta") for t in generator.input_tensors()[1 + len(labels) :]]
        samples = generator(z, *labels, *given)
        assert samples.shape == ((2, 3, settings.size, settings.size) if recipe.kind == "image" else (2, 5))
        pairs = torch.zeros(2, *(settings.pack * n if i == 0 else n for i, n in enumerate(samples.shape[1:])))
        assert discriminator(pairs.to("meta"), *labels).shape == (2,)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_setting_has_a_line_of_meaning_and_survives_json(name: str) -> None:
    defaults = recipe_from_name(name).defaults
    for f in dataclasses.fields(defaults):
        assert 10 < len(f.metadata["meaning"]) < 100, f.name
    assert settings_with(defaults, defaults.to_json()) == defaults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("width=48", 48),
        ("steps=10_000", 10_000),
        ("generator_lr=3e-4", 3e-4),
        ("generator-lr=1", 1.0),
        ("batch_norm=no", False),
        ("mirror=TRUE", True),
        ("objective=minimax", "minimax"),
    ],
)
def test_text_becomes_a_value(text: str, value: object) -> None:
    changes = changes_from_arguments([text])
    (name,) = changes
    changed = getattr(settings_with(DCGAN, changes), name)
    assert changed == value
    assert type(changed) is type(value)


def test_lists_are_written_with_commas() -> None:
    assert settings_with(MLP, {"generator_widths": "64,128"}).generator_widths == (64, 128)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widht": "4"}, "'width'?"),
        ({"qqqq": "4"}, "generator_lr"),
        ({"width": "4.5"}, "an integer"),
        ({"width": True}, "an integer"),
        ({"batch_norm": "maybe"}, "true or false"),
        ({"generator_lr": "fast"}, "a number"),
        ({"generator_lr": "nan"}, "not a finite number"),
        ({"generator_lr": -1.0}, "at least 0"),
        ({"batch": 1}, "from 2 to"),
        ({"size": "48"}, "16, 32, 64, 128"),
        ({"objective": "wgan"}, "non_saturating, minimax"),
        ({"beta1": "1"}, "from 0 to"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_what_would_be_right(changes: dict, said: str) -> None:
    with pytest.raises(InputError) as raised:
        settings_with(DCGAN, changes)
    assert next(iter(changes)) in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize("widths", ["", "64,", "64,x", "0"])
def test_a_wrong_list_is_an_error(widths: str) -> None:
    with pytest.raises(InputError, match="generator_widths"):
        settings_with(MLP, {"generator_widths": widths})


@pytest.mark.parametrize("arguments", [["width"], ["=4"], ["width=4", "width=5"]])
def test_an_argument_that_is_no_assignment_is_an_error(arguments: list[str]) -> None:
    with pytest.raises(InputError):
        changes_from_arguments(arguments)


def test_an_unknown_recipe_is_an_error_that_suggests_one() -> None:
    with pytest.raises(InputError, match="dcgna") as raised:
        recipe_from_name("dcgna")
    assert "'dcgan'?" in str(raised.value)
