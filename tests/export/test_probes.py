"""Probes: an input for every role, the same for (seed, index) wherever the range is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganexport.probes import probe_inputs
from ganruntime import noise
from ganruntime.errors import ExportError
from ganruntime.spec import (
    GeneratorSpec,
    Image,
    Keypoints,
    Label,
    Latent,
    Noise,
    Scalar,
    TensorSpec,
    Tokens,
    Vector,
)

SPEC = GeneratorSpec(
    "everything",
    (
        TensorSpec("z", "float32", (16,), Latent("sphere", 2.0)),
        TensorSpec("layer_noise", "float32", (1, 4, 4), Noise()),
        TensorSpec("label", "int64", (), Label(("cat", "dog", "owl"))),
        TensorSpec("truncation", "float32", (), Scalar(0.7, (0.25, 1.5))),
        TensorSpec("style", "float32", (6,), Vector()),
        TensorSpec("photo", "float32", (3, 8, 8), Image("CHW", (0.0, 1.0))),
        TensorSpec("pixels", "uint8", (8, 8, 3), Image("HWC", (0.0, 255.0))),
        TensorSpec("points", "float32", (10, 2), Keypoints((-1.0, 1.0))),
        TensorSpec("caption", "int32", (12,), Tokens(49_408)),
    ),
    (TensorSpec("image", "float32", (3, 8, 8), Image()),),
)


def test_every_input_has_its_shape_and_dtype() -> None:
    probes = probe_inputs(SPEC, 3, 10, 40)
    assert probes.keys() == {t.name for t in SPEC.inputs}
    for tensor in SPEC.inputs:
        assert probes[tensor.name].shape == (40, *tensor.shape)
        assert str(probes[tensor.name].dtype) == tensor.dtype


def test_what_noise_draws_is_drawn_by_noise() -> None:
    probes, drawn = probe_inputs(SPEC, 3, 10, 40), noise.inputs(SPEC, 3, 10, 40)
    for name in ("z", "layer_noise", "label"):
        np.testing.assert_array_equal(probes[name], drawn[name])


def test_values_fill_their_ranges_and_do_not_leave_them() -> None:
    probes = probe_inputs(SPEC, 3, 0, 400)
    for name, low, high in (("photo", 0, 1), ("points", -1, 1), ("style", -1, 1), ("truncation", 0.25, 1.5)):
        values = probes[name]
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high
    assert set(np.unique(probes["pixels"])) >= set(range(255))
    assert probes["caption"].min() >= 0
    assert 48_000 < probes["caption"].max() < 49_408
    assert set(probes["label"]) == {0, 1, 2}


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 32_768, 33_000, 65_535, 1 << 20])
def test_tokens_stay_in_the_vocabulary_at_the_very_end_of_the_draw(
    vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest draw is 1 - 2^-23; rounded in float32 it must not become the vocabulary's size."""
    spec = GeneratorSpec("t", (TensorSpec("caption", "int64", (2,), Tokens(vocabulary)),), SPEC.outputs)
    extremes = np.array([[-1.0, 1.0 - 2.0**-23]], np.float32)
    monkeypatch.setattr(noise, "uniform", lambda *arguments, **options: extremes)
    assert probe_inputs(spec, 0, 0, 1)["caption"].tolist() == [[0, vocabulary - 1]]


def test_scalars_take_their_default_and_other_values_too() -> None:
    """With the default alone, a graph in which ψ is a constant would pass every check."""
    values = probe_inputs(SPEC, 3, 0, 100)["truncation"]
    np.testing.assert_array_equal(values[::2], np.float32(0.7))
    assert len(np.unique(values[1::2])) == 50


@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 300), count=st.integers(1, 40), seed=st.integers(0, 2**64 - 1))
def test_a_probe_is_a_function_of_seed_and_index(first: int, count: int, seed: int) -> None:
    whole = probe_inputs(SPEC, seed, 0, first + count)
    part = probe_inputs(SPEC, seed, first, count)
    for name, array in part.items():
        np.testing.assert_array_equal(array, whole[name][first:])


def test_dimensions_that_vary_are_refused() -> None:
    spec = GeneratorSpec("t", (TensorSpec("photo", "float32", (3, None, 8), Image()),), SPEC.outputs)
    with pytest.raises(ExportError, match="'photo' has dimensions that vary") as caught:
        probe_inputs(spec, 0, 0, 2)
    assert caught.value.remedy == "give the height and width in the spec"
