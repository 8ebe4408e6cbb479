"""An evaluation: a generator, the data it is held against, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganexport.comparison.side import BundleSide, CheckpointSide, Side
from ganexport.evaluation.generated import Judged, chunks_of, judged_output, samples_of
from ganruntime import noise
from ganruntime.errors import CheckpointError, InputError
from ganruntime.spec import GeneratorSpec
from gantrain.data.named import source_from_name
from gantrain.data.split import HELD_OUT_KEY
from gantrain.data.toys import TOYS, toy_from_name
from gantrain.metrics.judge import Judge
from gantrain.metrics.memorisation import Memorisation
from gantrain.metrics.reference import Reference, reference_of
from gantrain.metrics.scoring import Scorer, Scores, scorer_of_images, scorer_of_vectors, space_from_name
from gantrain.metrics.table import METRICS, NotApplicable, memorisation_of

LEAST = 16


@dataclass(frozen=True)
class Request:
    """What is asked for. data, images, held_out: None for what the generator's run says, where it is one.

    metrics: names of `METRICS`; empty for all that apply.
    """

    data: str | None
    metrics: tuple[str, ...] = ()
    samples: int = 2_500
    seed: int = 0
    first: int = 0
    features: str = "auto"
    reference: str = "auto"
    held_out: float | None = None
    images: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Pair:
    """A generated image and its nearest training and held-out images, uint8 [H, W, C], and how far these are."""

    index: int
    generated: NDArray[np.uint8]
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    distance_train: float
    distance_held_out: float


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    accuracy: of a judge, attribute -> share of held-out images that it tells rightly.
    pairs: the generated images nearest to a training image, the nearest first; empty where that was not measured.
    neighbours: how many training and held-out images they were sought among.
    """

    label: str
    where: str
    data: str
    real: str
    request: Request
    scores: Scores
    accuracy: Mapping[str, float] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    neighbours: tuple[int, int] = (0, 0)


def evaluate(side: Side, request: Request, progress: Callable[[int], None], keep: int = 8) -> Evaluation:
    """Scores a generator.

    Args:
        progress: called with the number of samples just drawn.
        keep: how many pairs of nearest neighbours to keep.

    Raises:
        InputError: the request does not fit the generator or the data.
        DataError, BackendError, BundleError, MissingDependencyError: what they say.
    """
    unknown = [name for name in request.metrics if name not in METRICS]
    if unknown:
        raise InputError(f"no metric is called {unknown[0]!r}", expected=", ".join(METRICS))
    if request.samples < LEAST:
        raise InputError("too few samples for a score", got=request.samples, expected=f"at least {LEAST}")
    noise.require_range(request.seed, request.first, request.samples)
    judged = judged_output(side.spec)
    data = _data_name(side, request)
    # Before the data are read and a judge is fitted: a backend that is missing says so at once.
    with side.opened(request.device, 64) as opened:
        scorer, reference = _scorer(side, judged, data, request)
        chunks = chunks_of(
            opened, side, judged, scorer.space.classes, request.seed, request.first, request.samples, progress
        )
        scores = scorer.score(chunks, request.metrics or None)
        neighbours = _neighbours(scores, request)

        def draw(index: int) -> NDArray[np.uint8]:
            samples, _ = samples_of(opened, side, judged, request.seed, index, 1)
            image: NDArray[np.uint8] = samples[0].astype(np.uint8, copy=False)
            return image

        pairs = () if neighbours is None or reference is None else _pairs(neighbours, reference, draw, request, keep)
        where = opened.where
    accuracy = scorer.space.accuracy if isinstance(scorer.space, Judge) else {}
    known = (0, 0)
    if reference is not None and reference.held_out is not None:
        known = len(reference.train.images), len(reference.held_out.images)
    return Evaluation(side.label, where, data, scorer.text, request, scores, accuracy, pairs, known)


def _scorer(side: Side, judged: Judged, data: str, request: Request) -> tuple[Scorer, Reference | None]:
    if not judged.is_image:
        if data not in TOYS:
            raise InputError(
                f"{side.label} gives vectors, and {data} is no distribution of vectors", expected=", ".join(TOYS)
            )
        toy = toy_from_name(data)
        if toy.size != judged.size:
            raise InputError(
                f"{side.label} gives vectors of another length than {data}", got=judged.size, expected=toy.size
            )
        return scorer_of_vectors(toy, request.samples), None
    run = _run_of(side)
    # What a run says of its data says nothing of others.
    settings = run.get("settings", {}) if _same_source(run.get("data", {}).get("source"), data) else {}
    images = request.images if request.images is not None else int(settings.get("images", 0))
    source = source_from_name(data, judged.size, judged.channels, images)
    held_out = request.held_out
    if held_out is None:
        held_out = float(settings.get("held_out", _held_out_of_spec(side.spec, source.name)))
    reference = reference_of(source, held_out, request.reference, request.samples)
    return scorer_of_images(reference, space_from_name(request.features, reference)), reference


def _data_name(side: Side, request: Request) -> str:
    if request.data is not None:
        return request.data
    known = _run_of(side).get("data", {}).get("source")
    if not isinstance(known, str) or not known:
        raise InputError(
            f"{side.label} does not say what it learned from",
            expected="--data digits, faces, ring, grid, curves, or a path; a run folder knows its data",
        )
    return known


def _held_out_of_spec(spec: GeneratorSpec, dataset: str) -> float:
    """The share that a bundle says was kept out of training; 0 where it says nothing, or was trained on other data."""
    said = spec.provenance.metrics.get(HELD_OUT_KEY, 0.0)
    return said if spec.provenance.dataset == dataset else 0.0


def _same_source(known: object, asked: str) -> bool:
    """Whether run.json's name of the data, a path made absolute, means what was asked for."""
    return isinstance(known, str) and known in (asked, str(Path(asked).expanduser().resolve()))


def _run_of(side: Side) -> dict[str, Any]:
    """run.json of the run that a checkpoint is of; empty where it is of none, or not a checkpoint."""
    from gantrain.run_folder import RUN_FILE, read_run

    if not isinstance(side, CheckpointSide):
        return {}
    path = Path(side.label)
    for folder in (path, path.resolve().parent):
        if (folder / RUN_FILE).is_file():
            try:
                return read_run(folder).to_json()
            except InputError as error:
                raise CheckpointError(error.problem, got=error.got, expected=error.expected) from error
    return {}


def _neighbours(scores: Scores, request: Request) -> Memorisation | None:
    if request.metrics and "memorisation" not in request.metrics:
        return None
    try:
        return memorisation_of(scores.evidence)
    except NotApplicable:
        return None


def _pairs(
    found: Memorisation,
    reference: Reference,
    draw: Callable[[int], NDArray[np.uint8]],
    request: Request,
    keep: int,
) -> tuple[Pair, ...]:
    """Images are drawn again from their index, and need not have been kept."""
    assert reference.held_out is not None
    nearest = np.argsort(found.distance_train, kind="stable")[:keep]
    return tuple(
        Pair(
            request.first + int(k),
            draw(request.first + int(k)),
            reference.train.images[found.nearest_train[k]],
            reference.held_out.images[found.nearest_held_out[k]],
            float(found.distance_train[k]),
            float(found.distance_held_out[k]),
        )
        for k in nearest
    )


def with_backend(side: Side, backend: str | None) -> Side:
    """The side, its graph run by another backend. Raises `InputError` where it is none that has backends."""
    if backend is None:
        return side
    if not isinstance(side, BundleSide):
        raise InputError(f"{side.label} is a checkpoint, which PyTorch runs", got=f"--backend {backend}")
    return BundleSide(side.bundle, side.variant, backend)
