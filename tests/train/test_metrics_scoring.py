"""Scoring: the real side, names that carry the feature space, what does not apply, and a monitor for training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ganruntime.errors import InputError
from gantrain.data.named import source_from_name
from gantrain.data.source import ImageSource
from gantrain.data.toys import curves, grid, ring, toy_from_name
from gantrain.metrics import reference as references
from gantrain.metrics.during_training import Monitor
from gantrain.metrics.random_features import RandomFeatures
from gantrain.metrics.reference import reference_of
from gantrain.metrics.scoring import Chunk, scorer_of_images, scorer_of_vectors
from gantrain.metrics.spaces import Description, FeatureSpace
from gantrain.metrics.table import METRICS, NotApplicable


def blobs(count: int, seed: int = 0) -> ImageSource:
    """Grey images of one bright square at a random place; its column is the label."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 30, (count, 16, 16, 1), dtype=np.uint8)
    columns, rows = rng.integers(0, 3, count), rng.integers(0, 12, count)
    for image, column, row in zip(images, columns, rows, strict=True):
        image[row : row + 4, column * 5 : column * 5 + 4] = 220
    return ImageSource("blobs", images, {"column": columns})


class Columns(FeatureSpace):
    """A judge that needs no fitting: how bright each third is."""

    name = "columns"

    def __init__(self) -> None:
        self.classes = {"column": ("0", "1", "2")}

    def describe(self, samples: np.ndarray) -> Description:
        thirds = np.stack([samples[:, :, k * 5 : k * 5 + 4, 0].mean(axis=(1, 2)) for k in range(3)], axis=1)
        return Description(
            samples.reshape(len(samples), -1)[:, ::4].astype(np.float32),
            {"column": (thirds / thirds.sum(axis=1, keepdims=True)).astype(np.float32)},
        )


def chunks(source: ImageSource, asked: bool = False) -> Iterator[Chunk]:
    for first in range(0, len(source.images), 50):
        labels = {"column": source.labels["column"][first : first + 50]} if asked else {}
        yield source.images[first : first + 50], labels


def test_every_figure_names_its_feature_space_and_samples() -> None:
    reference = reference_of(blobs(300), 0.25)
    scores = scorer_of_images(reference, Columns()).score(chunks(blobs(120, seed=1), asked=True))
    assert {f.features for f in scores.figures} == {"columns", "pixels-16px"}
    values = scores.by_key()
    assert values["conditional_accuracy[columns]"] == 1.0
    assert values["dropped_classes[columns]"] == 0.0
    assert values["diversity[columns]"] > 0.98
    assert values["neighbour_ratio[pixels-16px]"] == pytest.approx(1.0, abs=0.2)  # of 75 held out
    by_name = {f.name: f for f in scores.figures}
    assert by_name["fid"].samples == (75, 120)
    assert by_name["coverage"].samples == (75, 75)
    assert by_name["neighbour_ratio"].samples == (225, 120)
    assert set(scores.skipped) == {"modes", "curves"}


def test_collapse_dropping_and_copying_show_in_the_figures_that_are_for_them() -> None:
    source = blobs(300)
    scorer = scorer_of_images(reference_of(source, 0.25), Columns())
    right = scorer.score(chunks(blobs(120, seed=1))).by_key()
    left = source.part(np.flatnonzero(source.labels["column"] == 0))
    dropped = scorer.score(chunks(left)).by_key()
    assert dropped["dropped_classes[columns]"] == 2.0
    assert dropped["class_distance[columns]"] > 0.5
    for lower in ("recall[columns]", "coverage[columns]", "diversity[columns]"):
        assert dropped[lower] < right[lower]
    assert dropped["fid[columns]"] > right["fid[columns]"]
    reference = reference_of(source, 0.25)
    copies = scorer.score(chunks(reference.train.part(np.arange(120)))).by_key()
    assert copies["neighbour_ratio[pixels-16px]"] < 0.8 < right["neighbour_ratio[pixels-16px]"]


def test_a_metric_that_is_named_must_apply() -> None:
    scorer = scorer_of_images(reference_of(blobs(100)), RandomFeatures())
    all_that_apply = scorer.score(chunks(blobs(60, seed=1)))
    assert set(all_that_apply.skipped) == {
        "modes", "curves", "entropy", "mode-dropping", "conditional", "memorisation",
    }  # fmt: skip
    for name in all_that_apply.skipped:
        with pytest.raises(NotApplicable):
            scorer.score(chunks(blobs(60, seed=1)), [name])
    only = scorer.score(chunks(blobs(60, seed=1)), ["kid"])
    assert list(only.by_key()) == ["kid[random-32px]"]
    with pytest.raises(InputError, match="no metric is called 'FID'"):
        scorer.score(chunks(blobs(60)), ["FID"])
    with pytest.raises(InputError, match="nothing was generated"):
        scorer.score(iter(()))
    assert all(metric.line for metric in METRICS.values())


def test_the_real_side_is_what_the_generator_never_saw_if_there_is_any() -> None:
    source = blobs(200)
    kept = reference_of(source, 0.25)
    assert kept.text == "50 images held out of blobs"
    assert (len(kept.train.images), len(kept.images.images)) == (150, 50)
    assert reference_of(source, 0.25, "train").text == "150 images of blobs, which the generator learned from"
    assert reference_of(source, 0.25, "all").text == "200 images of blobs, learned from and held out"
    everything = reference_of(source, most=60)
    assert everything.text == "60 of 200 images of blobs, which the generator learned from"
    assert everything.held_out is None
    np.testing.assert_array_equal(everything.images.images, reference_of(source, most=60).images.images)
    with pytest.raises(InputError, match="nothing of blobs was held out"):
        reference_of(source, 0.0, "held-out")
    with pytest.raises(InputError, match="too few images"):
        reference_of(source, 0.05)
    with pytest.raises(InputError, match="no part"):
        reference_of(source, 0.0, "test")


def test_faces_are_held_against_fresh_ones() -> None:
    source = source_from_name("faces", 16, images=20)
    found = reference_of(source, most=17)
    assert found.held_out is not None
    assert len(found.images.images) == 17
    trained = {image.tobytes() for image in source.images}
    assert not any(image.tobytes() in trained for image in found.images.images)
    grey = reference_of(source_from_name("faces", 16, channels=1, images=20), most=17)
    assert grey.images.channels == 1
    assert references.SPLITS[0] == "auto"


@pytest.mark.parametrize(
    ("source", "perfect"),
    [
        (ring(), {"modes_found": 8, "high_quality": 0.989, "coverage": 0.97}),
        (grid(), {"modes_found": 25, "high_quality": 0.989, "coverage": 0.97}),
        (curves(), {"on_curve": 1.0, "curve_residual": 0.0, "coverage": 0.97}),
    ],
)
def test_toys_are_held_against_their_definition(source: object, perfect: dict[str, float]) -> None:
    scorer = scorer_of_vectors(source, 1000)  # type: ignore[arg-type]
    fresh = toy_from_name(source.name, 77)  # type: ignore[attr-defined]
    scores = scorer.score([(fresh.rows(0, 1000), {})])
    found = {f.name: f.value for f in scores.figures}
    for name, value in perfect.items():
        assert found[name] == pytest.approx(value, abs=0.03)


def test_a_monitor_tells_better_from_worse_and_leaves_torch_alone() -> None:
    monitor = Monitor.of(ring(), samples=200)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    good = monitor.value(monitor.score(lambda first, count: ring(3).rows(first, count)))
    one_mode = monitor.value(monitor.score(lambda first, count: np.full((count, 2), [1, 0], np.float32)))
    assert monitor.key == "coverage[values]"
    assert monitor.is_better(good, None)
    assert monitor.is_better(good, one_mode)
    assert not monitor.is_better(one_mode, good)
    assert not monitor.is_better(good, good)
    assert not monitor.is_better(float("nan"), None)
    assert torch.equal(torch.get_rng_state(), state)
    asked: list[tuple[int, int]] = []

    def draw(first: int, count: int) -> np.ndarray:
        asked.append((first, count))
        return ring(3).rows(first, count)

    monitor.score(draw)
    assert asked == [(0, 64), (64, 64), (128, 64), (192, 8)]


def test_a_monitor_of_images_uses_what_is_held_out() -> None:
    source = blobs(120)
    monitor = Monitor.of(source, held_out=0.25, samples=64, features="random")
    assert monitor.scorer.text == "30 images held out of blobs"
    scores = monitor.score(lambda first, count: blobs(64, seed=2).images[first : first + count])
    assert set(scores.by_key()) == {f"{name}[random-32px]" for name in ("fid", "density", "coverage")}
    assert monitor.lower
    assert monitor.is_better(1.0, 2.0)
    with pytest.raises(InputError, match="too few samples"):
        Monitor.of(source, samples=3)
    with pytest.raises(InputError, match="not finite"):
        Monitor.of(ring(), samples=16).score(lambda first, count: np.full((count, 2), np.nan, np.float32))
