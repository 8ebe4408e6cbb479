"""The public fake: what users' own tests may rely on."""

from __future__ import annotations

import time

import numpy as np
import pytest
from small_bundles import small_spec

from ganruntime import noise
from ganruntime.errors import BackendError, InputError
from ganruntime.generator import Generator
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.fake import FakeSession, fake_generator
from ganruntime.spec import GeneratorSpec, Image, Latent, Logits, TensorSpec, Vector

SPEC = small_spec(conditional=True)
PINNED = [179, 36, 225, 121]


def run(session: FakeSession, batch: int, seed: int = 0) -> np.ndarray:
    out = empty_outputs(session.spec, batch)
    session.run(noise.inputs(session.spec, seed, 0, batch), out)
    return out["image"]


def test_every_row_is_one_colour_and_a_function_of_its_inputs_alone() -> None:
    session = FakeSession(SPEC, buckets=(1, 4, 16))
    image = run(session, 16)
    assert image.shape == (16, 3, 8, 8)
    assert image.min() >= -1.0
    assert image.max() <= 1.0
    assert (image == image[:, :1, :1, :1]).all()
    colours = image[:, 0, 0, 0]
    assert len(set(colours.tolist())) == 16
    assert run(session, 4)[:, 0, 0, 0].tolist() == colours[:4].tolist()


def test_a_batch_that_is_no_bucket_is_an_error() -> None:
    with pytest.raises(BackendError, match="bucket"):
        run(FakeSession(SPEC, buckets=(4,)), 3)


def test_it_counts_its_runs_and_fails_when_told() -> None:
    session = FakeSession(SPEC, buckets=(1, 4), fail_on=frozenset({1}))
    run(session, 1)
    with pytest.raises(BackendError, match="told to fail"):
        run(session, 4)
    run(session, 4)
    assert session.batches == [1, 4, 4]


def test_rows_that_poison_their_batch() -> None:
    session = FakeSession(SPEC, buckets=(4,), fail_when=lambda inputs: (inputs["label"] == 2).any())
    inputs = noise.inputs(SPEC, 0, 0, 4)
    for label, fails in ((1, False), (2, True), (0, False)):
        inputs["label"][:] = [0, 1, label, 0]
        if fails:
            with pytest.raises(BackendError, match="told to fail"):
                session.run(inputs, empty_outputs(SPEC, 4))
        else:
            session.run(inputs, empty_outputs(SPEC, 4))
    assert session.batches == [4, 4, 4]


def test_what_the_test_raises_is_what_the_run_raises() -> None:
    def lost(inputs: object) -> bool:
        raise OSError("the device is gone")

    with pytest.raises(OSError, match="the device is gone"):
        run(FakeSession(SPEC, fail_when=lost), 1)


def test_it_takes_the_time_that_it_is_told_to() -> None:
    session = FakeSession(SPEC, seconds=0.02, seconds_per_row=0.01)
    start = time.perf_counter()
    run(session, 4)
    assert time.perf_counter() - start >= 0.06


def test_a_generator_over_the_fake_is_the_same_in_every_run() -> None:
    images = fake_generator().generate(16, seed=7)
    assert (images.shape, images.dtype) == ((16, 8, 8, 3), np.uint8)
    # Pinned: users compare with what they saw.
    assert images[:4, 0, 0, 0].tolist() == PINNED
    with fake_generator(SPEC, buckets=(2,), fail_on=[1]) as generator:
        assert np.array_equal(generator.generate(2, seed=1), fake_generator(SPEC).generate(2, seed=1))
        with pytest.raises(BackendError, match="run 1"):
            generator.generate(1)


def test_it_closes_twice_and_then_runs_no_more() -> None:
    with FakeSession(SPEC) as session:
        run(session, 1)
    session.close()
    with pytest.raises(BackendError, match="closed"):
        run(session, 1)


def test_it_describes_itself() -> None:
    assert FakeSession(SPEC, buckets=(2,)).describe() == {
        "backend": "fake",
        "device": "cpu",
        "variant": "fake",
        "precision": "fp32",
        "buckets": [2],
        "versions": {"fake": "1"},
    }


def test_outputs_that_are_no_images_are_filled_too() -> None:
    spec = GeneratorSpec(
        "two",
        (TensorSpec("z", "float32", (4,), Latent()),),
        (TensorSpec("code", "float16", (5,), Vector()), TensorSpec("scores", "float32", (2, 3), Logits())),
    )
    found = Generator(FakeSession(spec)).outputs({"z": noise.latents(spec.inputs[0], 1, 0, 6)})
    assert {name: (a.dtype.name, a.shape) for name, a in found.items()} == {
        "code": ("float16", (6, 5)),
        "scores": ("float32", (6, 2, 3)),
    }
    assert len(np.unique(found["scores"])) == 6
    assert Generator(FakeSession(spec)).generate(3, seed=1).shape == (3, 5)


def test_what_numpy_cannot_hold_is_an_error() -> None:
    for side in ("inputs", "outputs"):
        tensors = {
            "inputs": (TensorSpec("z", "float32", (4,), Latent()),),
            "outputs": (TensorSpec("image", "float32", (1, 4, 4), Image()),),
        }
        tensors[side] += (TensorSpec("style", "bfloat16", (4,), Vector()),)
        with pytest.raises(BackendError, match="'style' is bfloat16"):
            FakeSession(GeneratorSpec("g", **tensors))


def test_a_shape_that_varies_cannot_be_an_output_of_a_session() -> None:
    spec = GeneratorSpec(
        "v", (TensorSpec("z", "float32", (4,), Latent()),), (TensorSpec("image", "float32", (1, None, None), Image()),)
    )
    with pytest.raises(InputError, match="'image' has dimensions that vary"):
        empty_outputs(spec, 1)


def test_outputs_beyond_the_memory_are_an_error() -> None:
    spec = GeneratorSpec(
        "big",
        (TensorSpec("z", "float32", (4,), Latent()),),
        (TensorSpec("image", "float32", (1, 2**15, 2**15), Image()),),
    )
    with pytest.raises(InputError, match="do not fit the memory"):
        empty_outputs(spec, 65_536)
    with pytest.raises(InputError, match="do not fit the memory"):
        empty_outputs(spec, 2**47)
