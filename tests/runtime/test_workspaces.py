"""Workspaces: arrays that are kept and filled again, and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundles import small_spec

import ganruntime
from ganruntime import noise, workspaces
from ganruntime.errors import BackendError
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.fake import FakeSession
from ganruntime.spec import GeneratorSpec, Image, TensorSpec
from ganruntime.workspaces import Workspace, Workspaces


class Watched(FakeSession):
    """Keeps what it was given: copies of inputs, and which arrays they were."""

    def __init__(self, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.given: list[dict[str, np.ndarray]] = []
        self.places: list[int] = []
        self.prepared_calls = 0

    def run(self, inputs: Arrays, out: Arrays) -> None:
        self.given.append({name: array.copy() for name, array in inputs.items()})
        self.places.append(next(iter(inputs.values())).ctypes.data)
        super().run(inputs, out)

    def prepared(self, inputs: Arrays, out: Arrays) -> Callable[[], None]:
        self.prepared_calls += 1
        return super().prepared(inputs, out)


def test_rows_are_padded_with_a_real_row_into_the_arrays_that_are_kept() -> None:
    spec = small_spec()
    session = Watched(spec, buckets=(4,))
    workspace = Workspace(session, 4, None)
    five = noise.inputs(spec, 3, 0, 5)
    for start, count in ((0, 4), (1, 2), (4, 1), (0, 4)):
        workspace.run({name: array[start : start + count] for name, array in five.items()})
        z = five["z"][start : start + count]
        assert np.array_equal(session.given[-1]["z"], np.concatenate([z, np.repeat(z[:1], 4 - count, axis=0)]))
    assert len(set(session.places)) == 1
    assert session.prepared_calls == 1


def test_large_inputs_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "_COPIED_BYTES", 16)
    spec = small_spec()
    session = Watched(spec, buckets=(4,))
    workspace = Workspace(session, 4, None)
    rows = noise.inputs(spec, 3, 0, 4)
    workspace.run(rows)
    assert session.places == [rows["z"].ctypes.data]
    assert session.prepared_calls == 0


def test_arrays_are_kept_for_the_last_sizes_only() -> None:
    image = TensorSpec("x", "float32", (1, None, None), Image("CHW", (-1.0, 1.0)))
    drawn = TensorSpec("y", "float32", (1, None, None), Image("CHW", (-1.0, 1.0)))
    kept = Workspaces(FakeSession(GeneratorSpec("sizes", (image,), (drawn,)), buckets=(1, 2)))
    first = [kept.of(bucket, (8, 8)) for bucket in (1, 2)]
    assert kept.of(2, (8, 8)) is first[1]
    assert first[1].outputs["y"].shape == (2, 1, 8, 8)
    for side in (16, 24, 32):
        kept.of(1, (side, side))
    assert kept.of(1, (8, 8)) is first[0]
    kept.of(1, (40, 40))
    assert kept.of(1, (8, 8)) is not first[0]


def test_images_of_one_call_do_not_change_with_the_next(paths: dict[bool, Path]) -> None:
    with ganruntime.load(paths[False], device="cpu", buckets=[4]) as generator:
        z = generator.latents(4, seed=1)
        outputs, images = generator.outputs({"z": z})["image"], generator(z)
        before = outputs.copy(), images.copy()
        generator.generate(9, seed=2)
        generator.outputs({"z": generator.latents(4, seed=3)})
        assert np.array_equal(outputs, before[0])
        assert np.array_equal(images, before[1])
        assert np.array_equal(generator.outputs({"z": z})["image"], before[0])


def test_what_was_prepared_is_refused_after_the_session_is_closed(paths: dict[bool, Path]) -> None:
    generator = ganruntime.load(paths[False], device="cpu", buckets=[2])
    generator.close()
    with pytest.raises(BackendError, match="closed"):
        generator.generate(2)
