"""What changes with the step: learning rates and growth, each at the corners of its schedule."""

from __future__ import annotations

import pytest

from gantrain.schedules.decay import rate_factor
from gantrain.schedules.growth import growth


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (100, 1.0), (150, 0.6), (199, 0.208), (200, 0.2), (10**6, 0.2)])
def test_rates_fall_linearly_from_start_to_end(step: int, factor: float) -> None:
    assert rate_factor(step, 100, 200, 0.2) == pytest.approx(factor)


def test_without_an_end_rates_do_not_fall() -> None:
    assert rate_factor(10**9, 0, 0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("images", "grown"),
    [(0, 0.0), (9, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (30, 1.0), (38, 1.8), (40, 2.0), (55, 2.0), (10**6, 2.0)],
)
def test_each_size_stands_as_long_as_it_is_faded_in(images: int, grown: float) -> None:
    assert growth(images, 10, 2) == pytest.approx(grown)


def test_without_stages_a_network_is_grown() -> None:
    assert growth(0, 0, 3) == 3.0
