"""The formulas of the metrics: against closed forms, against slow twins that follow the papers word for word, and, in
the long tests, against torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ganruntime.errors import InputError
from gantrain.data.toys import GaussianMixture, curves, grid, ring
from gantrain.metrics import distances
from gantrain.metrics.entropy import classifier_entropy
from gantrain.metrics.frechet import frechet_distance, frechet_from_moments
from gantrain.metrics.kernel import kernel_distance
from gantrain.metrics.labels import conditional_accuracy, mode_dropping
from gantrain.metrics.manifold import density_coverage, precision_recall
from gantrain.metrics.memorisation import memorisation
from gantrain.metrics.modes import curve_fit, modes_found

Rows = NDArray[np.float64]
PAIRS = st.tuples(st.integers(0, 2**32 - 1), st.integers(6, 40), st.integers(6, 40), st.integers(1, 6))


def pair(shape: tuple[int, int, int, int]) -> tuple[Rows, Rows]:
    seed, n, m, d = shape
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(0.3, 1.4, (m, d))


# --- Fréchet ----------------------------------------------------------------------------------------------------------


def test_the_distance_of_two_gaussians_in_closed_form() -> None:
    # Commuting covariances: |μ₁ - μ₂|² + Σ (√λ₁ - √λ₂)².
    a, b = np.array([4.0, 9.0, 0.25]), np.array([1.0, 16.0, 0.0])
    means = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 5.0])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    found = frechet_from_moments(means[0], turn @ np.diag(a) @ turn.T, means[1], turn @ np.diag(b) @ turn.T)
    assert found == pytest.approx(1 + 0 + 4 + 1 + 1 + 0.25, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_frechet_is_what_the_matrix_root_gives(shape: tuple[int, int, int, int]) -> None:
    x, y = pair(shape)
    s, t = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (x, y))
    root = scipy.linalg.sqrtm(s @ t)
    slow = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s + t - 2 * np.real(root))
    # Of singular covariances (no more rows than columns) roots of eigenvalues keep half the digits, either way.
    assert frechet_distance(x, y) == pytest.approx(slow, rel=1e-5, abs=1e-5)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6, abs=1e-6)


def test_frechet_of_equal_and_of_moved_sets() -> None:
    x = np.random.default_rng(2).normal(size=(500, 8))
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(x, x + 3.0) == pytest.approx(9.0 * 8, rel=1e-9)
    assert frechet_distance(x, 2 * x - x.mean(0)) == pytest.approx(np.trace(np.cov(x.T)), rel=1e-9)
    # Far from the origin, where float32 sums would lose everything.
    assert frechet_distance(x + 1e6, x + 1e6 + 0.5) == pytest.approx(0.25 * 8, rel=1e-6)


# --- kernel -----------------------------------------------------------------------------------------------------------


def slow_kernel(x: Rows, y: Rows) -> float:
    def k(a: Rows, b: Rows) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@settings(max_examples=15, deadline=None)
@given(PAIRS)
def test_kernel_distance_is_the_papers_estimator(shape: tuple[int, int, int, int]) -> None:
    x, y = pair(shape)
    assert kernel_distance(x, y) == pytest.approx(slow_kernel(x, y), rel=1e-9, abs=1e-9)


def test_kernel_distance_is_unbiased_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    same = [kernel_distance(rng.normal(size=(30, 4)), rng.normal(size=(30, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 4 * np.std(same) / math.sqrt(len(same))
    x, y = pair((1, 40, 33, 5))
    whole = kernel_distance(x, y), *vars(density_coverage(x, y)).values(), *vars(precision_recall(x, y)).values()
    for module in (distances, *(__import__(f"gantrain.metrics.{m}", fromlist=["x"]) for m in ("kernel",))):
        monkeypatch.setattr(module, "BLOCK_BYTES", 8 * 100)
    pieces = kernel_distance(x, y), *vars(density_coverage(x, y)).values(), *vars(precision_recall(x, y)).values()
    assert pieces == pytest.approx(whole, rel=1e-12)


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def radii(x: Rows, k: int) -> list[float]:
    return [sorted(float(np.linalg.norm(a - b)) for j, b in enumerate(x) if j != i)[k - 1] for i, a in enumerate(x)]


@settings(max_examples=25, deadline=None)
@given(PAIRS, st.integers(1, 5))
def test_neighbourhood_metrics_are_the_papers_sums(shape: tuple[int, int, int, int], k: int) -> None:
    x, y = pair(shape)
    rx, ry = radii(x, k), radii(y, k)
    away = np.linalg.norm(y[:, None] - x[None], axis=2)  # [M, N]
    found = precision_recall(x, y, k)
    assert found.precision == pytest.approx(np.mean([(row <= rx).any() for row in away]))
    assert found.recall == pytest.approx(np.mean([(column <= ry).any() for column in away.T]))
    density = density_coverage(x, y, k)
    assert density.density == pytest.approx((away < rx).sum() / (k * len(y)))
    assert density.coverage == pytest.approx((away < rx).any(axis=0).mean())


def test_neighbourhood_metrics_of_what_is_right_dropped_and_far() -> None:
    rng = np.random.default_rng(7)
    left, right = rng.normal(0, 0.1, (200, 2)), rng.normal(5, 0.1, (200, 2))
    x = np.concatenate([left, right])
    half = rng.normal(0, 0.1, (400, 2))
    assert precision_recall(x, half).precision > 0.95
    assert 0.45 < precision_recall(x, half).recall < 0.52
    assert 0.45 < density_coverage(x, half).coverage <= 0.5
    far = precision_recall(x, half + 100)
    assert (far.precision, far.recall) == (0.0, 0.0)
    # Of the right distribution coverage is 1 - (½)ᵏ at equal numbers (Naeem et al., section 3.2), and density 1.
    fresh = np.concatenate([rng.normal(0, 0.1, (200, 2)), rng.normal(5, 0.1, (200, 2))])
    right_one = density_coverage(x, fresh)
    assert right_one.coverage == pytest.approx(1 - 0.5**5, abs=0.04)
    assert right_one.density == pytest.approx(1.0, abs=0.15)


def test_one_outlier_lifts_precision_and_not_density() -> None:
    rng = np.random.default_rng(8)
    real = np.concatenate([rng.normal(size=(300, 2)), [[1000.0, 0.0]]])
    junk = rng.uniform([100, -300], [700, 300], (300, 2))
    assert precision_recall(real, junk).precision > 0.9
    assert density_coverage(real, junk).density < 0.3


# --- classifiers ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(2, 12), st.floats(0.05, 20))
def test_entropies_and_the_score_that_joins_them(seed: int, n: int, classes: int, sharp: float) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(classes, 1 / sharp), n)
    found = classifier_entropy(p)
    mean = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slow = math.exp(np.mean([np.nansum(np.where(row > 0, row * np.log(row / mean), 0.0)) for row in p]))
    assert found.inception_score == pytest.approx(slow, rel=1e-9)
    assert 1.0 <= found.inception_score <= classes * (1 + 1e-12)
    assert -1e-12 <= found.quality <= 1.0
    assert -1e-12 <= found.diversity <= 1.0 + 1e-12
    joined = classes ** (found.quality + found.diversity - 1)
    assert found.inception_score == pytest.approx(joined, rel=1e-9)


def test_entropy_at_its_ends() -> None:
    sure = classifier_entropy(np.eye(10))
    assert (sure.inception_score, sure.quality, sure.diversity) == pytest.approx((10.0, 1.0, 1.0))
    collapsed = classifier_entropy(np.repeat(np.eye(10)[:1], 7, axis=0))
    assert (collapsed.inception_score, collapsed.quality, collapsed.diversity) == pytest.approx((1.0, 1.0, 0.0))
    vague = classifier_entropy(np.full((5, 10), 0.1))
    assert (vague.inception_score, vague.quality, vague.diversity) == pytest.approx((1.0, 0.0, 1.0))


def test_dropped_classes_and_conditional_accuracy() -> None:
    real = np.eye(4)[[0] * 50 + [1] * 30 + [2] * 20]
    fake = np.eye(4)[[0] * 95 + [1] * 3 + [2] * 2]
    found = mode_dropping(real, fake)
    assert found.real == pytest.approx((0.5, 0.3, 0.2, 0.0))
    assert found.dropped == ()  # a tenth is not below a tenth
    assert found.distance == pytest.approx(0.45)
    assert mode_dropping(real, np.eye(4)[[0] * 99 + [1]]).dropped == (1, 2)
    assert conditional_accuracy(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 1])) == 0.75


# --- memorisation -----------------------------------------------------------------------------------------------------


def test_memorisation_is_seen_and_a_fresh_sample_is_not_accused() -> None:
    rng = np.random.default_rng(11)
    train, unseen, fresh = rng.normal(size=(900, 6)), rng.normal(size=(300, 6)), rng.normal(size=(600, 6))
    clean = memorisation(train, unseen, fresh)
    assert clean.ratio == pytest.approx(1.0, abs=0.06)
    assert clean.nearer_to_train == pytest.approx(0.5, abs=0.06)
    copies = memorisation(train, unseen, train[:600] + 1e-3)
    assert copies.ratio < 0.72  # a copied image is in one of three parts, and 0 away there
    assert copies.nearer_to_train > 0.62
    np.testing.assert_array_equal(copies.nearest_train, np.arange(600))
    np.testing.assert_allclose(copies.distance_train, 1e-3 * math.sqrt(6), rtol=1e-9)
    assert memorisation(train[:300], unseen, train[:300]).ratio == 0.0


def test_parts_are_of_the_held_out_size_and_ties_count_half() -> None:
    train = np.array([[0.0], [10.0], [20.0], [30.0], [99.0]])  # parts {0, 10} and {20, 30}; 99 is the rest
    found = memorisation(train, np.array([[1.0], [21.0]]), np.array([[0.0], [20.5]]))
    # Nearest held out: 1, 0.5. In the first part 0 and 10.5, in the second 20 and 0.5.
    assert found.ratio == pytest.approx(np.mean([0, 10.5, 20, 0.5]) / 0.75)
    assert found.nearer_to_train == pytest.approx(np.mean([1, 0, 0, 0.5]))
    assert found.nearest_train.tolist() == [0, 2]


# --- toys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "modes"), [(ring(1), 8), (grid(1), 25)])
def test_perfect_samples_find_every_mode(source: object, modes: int) -> None:
    found = modes_found(source.rows(0, 2500), source)  # type: ignore[attr-defined]
    assert (found.found, found.modes) == (modes, modes)
    # 1 - exp(-9/2), within four standard errors of 2,500 samples.
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=4 * math.sqrt(0.011 / 2500))
    assert found.distance < 0.1
    assert found.spread == pytest.approx(1.0, abs=0.04)


def test_modes_that_are_too_small_are_told_by_their_spread() -> None:
    source = ring(3)
    samples = np.concatenate([source.centres, source.centres + np.array([source.sigma, 0.0])])
    # E[d² | d ≤ 3σ] in the plane is σ²·(2 - 9·e^(-9/2) / (1 - e^(-9/2))); here d² is 0 and σ², half and half.
    perfect = 2.0 - 9.0 * math.exp(-4.5) / (1.0 - math.exp(-4.5))
    assert modes_found(samples, source).spread == pytest.approx(math.sqrt(0.5 / perfect), rel=1e-9)
    space = GaussianMixture("space", np.zeros((1, 5)), 0.3)
    assert modes_found(space.rows(0, 20_000), space).spread == pytest.approx(1.0, abs=0.01)


def test_modes_are_counted_by_samples_within_three_sigma() -> None:
    source = ring()
    samples = np.array([[1 + 0.0299, 0], [1, 0.0301], [0, 1], [0, 1], [0.5, 0.5]])
    found = modes_found(samples, source)
    assert found.found == 2
    assert found.high_quality == pytest.approx(3 / 5)
    assert found.distance == pytest.approx((1 / 3 - 1 / 8) / 2 + (2 / 3 - 1 / 8) / 2 + 6 / 16)
    nothing = modes_found(np.zeros((4, 2)), source)
    assert (nothing.found, nothing.high_quality, nothing.distance, nothing.spread) == (0, 0.0, 1.0, 0.0)


def test_curves_are_fitted() -> None:
    source = curves(2)
    right = curve_fit(source.rows(0, 2500), source)
    assert right.on_curve == pytest.approx(1.0, abs=0.01)  # an opening of 1 may round to below it
    assert right.residual < 1e-6
    assert right.distance < 0.05
    one = curve_fit(np.repeat(source.rows(0, 1), 100, axis=0), source)
    assert one.on_curve == 1.0
    a = float(source.openings(0, 1)[0])
    assert one.distance == pytest.approx(max(a - 1, 2 - a), abs=1e-6)
    flat = curve_fit(np.zeros((3, 15)), source)
    assert flat.on_curve == 0.0
    assert flat.residual > 0.1


# --- what is no evidence ----------------------------------------------------------------------------------------------

TWO_SETS: list[Callable[[Rows, Rows], object]] = [frechet_distance, kernel_distance, precision_recall, density_coverage]


@pytest.mark.parametrize("metric", TWO_SETS)
def test_sets_that_do_not_fit_are_refused(metric: Callable[[Rows, Rows], object]) -> None:
    x = np.zeros((9, 3))
    for bad in (np.zeros((9, 2)), np.zeros((0, 3)), np.zeros(9), np.full((9, 3), np.nan), np.full((9, 3), np.inf)):
        with pytest.raises(InputError):
            metric(x, bad)
        with pytest.raises(InputError):
            metric(bad, x)


def test_other_misuse_is_refused() -> None:
    x = np.zeros((4, 2))
    for call in (
        lambda: precision_recall(x, x, k=4),
        lambda: memorisation(x, np.zeros((5, 2)), x),
        lambda: memorisation(x, x, np.zeros((3, 3))),
        lambda: memorisation(x, x, x),
        lambda: classifier_entropy(np.full((3, 2), 0.4)),
        lambda: classifier_entropy(np.ones((3, 1))),
        lambda: classifier_entropy(np.array([[1.5, -0.5]])),
        lambda: mode_dropping(np.eye(3), np.eye(4)),
        lambda: conditional_accuracy(np.eye(3), np.zeros(2, np.int64)),
        lambda: modes_found(np.full((3, 2), np.nan), ring()),
    ):
        with pytest.raises(InputError):
            call()


# --- torchmetrics -----------------------------------------------------------------------------------------------------


@pytest.mark.slow  # importing it takes as long as all of the above
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_torchmetrics_says_the_same() -> None:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

    class Features(torch.nn.Module):
        num_features = 5

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows

    x, y = pair((3, 200, 200, 5))
    fid = FrechetInceptionDistance(feature=Features()).set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=Features(), subsets=1, subset_size=200)
    for metric in (fid, kid):
        metric.update(torch.from_numpy(x), real=True)
        metric.update(torch.from_numpy(y), real=False)
    assert frechet_distance(x, y) == pytest.approx(float(fid.compute()), rel=1e-9)
    assert kernel_distance(x, y) == pytest.approx(float(kid.compute()[0]), rel=1e-9)
    logits = np.random.default_rng(0).normal(size=(200, 7))
    score = InceptionScore(feature=Features(), splits=1)
    score.update(torch.from_numpy(logits))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert classifier_entropy(p).inception_score == pytest.approx(float(score.compute()[0]), rel=1e-9)
