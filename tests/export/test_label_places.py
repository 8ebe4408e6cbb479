"""Labels: on their points where there is room, else beside them, over nothing else. Captions: over no point."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganexport.benchmark.label_places import Point, Rectangle, caption_place, is_beside, label_places

RADIUS, DOT = 16.0, 5.0
PICTURE = Rectangle(0.0, 0.0, 900.0, 600.0)
CAPTION = Rectangle(300.0, 280.0, 500.0, 300.0)
SLACK = 1e-6


def places(points: list[Point], taken: tuple[Rectangle, ...] = ()) -> list[Point]:
    return label_places(points, RADIUS, DOT, PICTURE, taken)


def assert_apart(points: list[Point], found: list[Point], taken: tuple[Rectangle, ...] = ()) -> None:
    for a, b in itertools.combinations(found, 2):
        assert math.dist(a, b) >= 2 * RADIUS - SLACK
    for number, place in enumerate(found):
        assert PICTURE.grown(-RADIUS + SLACK).contains(*place)
        for other, point in enumerate(points):
            assert other == number or math.dist(place, point) >= RADIUS + DOT - SLACK
        assert not any(caption.grown(RADIUS - SLACK).contains(*place) for caption in taken)


ROOMS = [CAPTION.moved(right, 0.0) for right in (-100.0, 0.0, 100.0, 450.0)]  # the last one leaves the picture
LINE = [(250.0, float(y)) for y in range(0, 600, 5)]  # through the first room alone


def chosen(points: list[Point], lines: tuple[list[Point], ...] = ()) -> int:
    return caption_place(ROOMS, points, RADIUS, PICTURE, lines)


def test_a_caption_takes_the_first_room_that_is_free() -> None:
    assert chosen([]) == 0
    assert chosen([(210.0, 290.0)]) == 1
    assert chosen([(185.0, 290.0)]) == 1  # under the label of a point, not under the point
    assert chosen([(210.0, 290.0), (310.0, 290.0)]) == 2


def test_a_caption_hides_a_line_before_it_hides_a_point() -> None:
    assert chosen([], (LINE,)) == 1
    assert chosen([(425.0, 290.0)], (LINE,)) == 0  # in the second and the third room
    assert chosen([(425.0, 290.0), (225.0, 290.0)], (LINE,)) == 1  # everywhere a point: where there is no line


def test_a_caption_stays_in_the_picture_whatever_it_covers() -> None:
    everywhere = [(x, 290.0) for x in (250.0, 350.0, 450.0, 550.0)]
    assert chosen(everywhere) == 0


def test_a_label_with_room_stands_on_its_point() -> None:
    points = [(100.0, 100.0), (400.0, 500.0)]
    assert places(points) == points
    assert not any(is_beside(p, q) for p, q in zip(points, places(points), strict=True))


def test_labels_of_points_at_one_place_stand_around_it() -> None:
    points = [(400.0, 300.0)] * 12
    found = places(points)
    assert all(is_beside(p, q) for p, q in zip(points, found, strict=True))
    assert_apart(points, found)
    assert max(math.dist(p, q) for p, q in zip(points, found, strict=True)) < 6 * RADIUS


def test_neighbours_look_away_from_each_other() -> None:
    left, right = places([(400.0, 300.0), (410.0, 300.0)])
    assert left[0] < 400.0
    assert right[0] > 410.0


def test_a_label_at_the_edge_stays_in_the_picture_and_off_a_caption() -> None:
    points = [(0.0, 0.0), (900.0, 600.0), (400.0, 290.0)]
    found = places(points, (CAPTION,))
    assert all(is_beside(p, q) for p, q in zip(points, found, strict=True))
    assert_apart(points, found, (CAPTION,))


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(0, 600)), max_size=24))
def test_no_label_covers_anything(points: list[Point]) -> None:
    assert_apart(points, places(points, (CAPTION,)), (CAPTION,))


def test_where_there_is_no_room_every_label_still_has_a_place() -> None:
    small = Rectangle(0.0, 0.0, 4 * RADIUS, 2 * RADIUS)
    found = label_places([(10.0, 10.0)] * 9, RADIUS, DOT, small)
    assert len(found) == 9
    assert all(math.isfinite(x) and math.isfinite(y) for x, y in found)
    assert label_places([], RADIUS, DOT, small) == []


@pytest.mark.parametrize("by", [3.0, -3.0])
def test_rectangles_grow_on_all_sides(by: float) -> None:
    assert Rectangle(1, 2, 30, 40).grown(by) == Rectangle(1 - by, 2 - by, 30 + by, 40 + by)
