"""Places for captions, by the lines that they belong to, where they cover no point; and for labels, by their points,
where they cover no other label, no other point, no caption.

Coordinates are pixels, y upwards. Rules, for labels that are discs of one radius:

1. A label stands on its point where nothing else is in its way.
2. Elsewhere it stands on the nearest ring around its point that has room, on the side that looks away from its
   neighbours; a line is drawn to the point then (`is_beside`).
3. Points come in the order that they have: an earlier one never gives way to a later one.
4. Where there is no room at all, the place with the least in its way is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_DIRECTIONS = 24
_NEIGHBOURHOOD = 4.0  # in radii: whom a label looks away from


@dataclass(frozen=True)
class Rectangle:
    left: float
    bottom: float
    right: float
    top: float

    def moved(self, right: float, up: float) -> Rectangle:
        return Rectangle(self.left + right, self.bottom + up, self.right + right, self.top + up)

    def grown(self, by: float) -> Rectangle:
        return Rectangle(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def contains(self, x: float, y: float) -> bool:
        return self.left <= x <= self.right and self.bottom <= y <= self.top


Point = tuple[float, float]


def caption_place(
    rooms: Sequence[Rectangle],
    points: Sequence[Point],
    radius: float,
    within: Rectangle,
    lines: Sequence[Sequence[Point]] = (),
) -> int:
    """Which of the rooms a caption is to take: the first that is in the picture, covers the fewest points, and of those
    the fewest lines.

    Args:
        radius: of a point's label, for which there is to be room beside the caption.
        lines: other lines of the picture, each as points that are closer than the caption is wide and high. A caption
            over a line can be read; one over a point hides it.
    """

    def in_the_way(number: int) -> tuple[bool, int, int, int]:
        room = rooms[number]
        inside = within.contains(room.left, room.bottom) and within.contains(room.right, room.top)
        points_under = sum(room.grown(radius).contains(*point) for point in points)
        lines_under = sum(any(room.contains(*point) for point in line) for line in lines)
        return not inside, points_under, lines_under, number

    return min(range(len(rooms)), key=in_the_way)


def label_places(
    points: Sequence[Point], radius: float, dot: float, within: Rectangle, taken: Sequence[Rectangle] = ()
) -> list[Point]:
    """Where the label of each point has its centre.

    Args:
        radius: of a label; dot: of a point that is drawn apart from its label.
        within: labels stand in here.
        taken: captions, which no label covers.
    """
    room = within.grown(-radius)
    captions = [caption.grown(radius) for caption in taken]
    placed: list[Point] = []

    def in_the_way(place: Point, own: int) -> float:
        """How much of other things a label at a place would cover, in pixels; 0 for a free place."""
        covered = 0.0 if room.contains(*place) else 2 * radius
        covered += sum(2 * radius for caption in captions if caption.contains(*place))
        covered += sum(max(0.0, 2 * radius - math.dist(place, other)) for other in placed)
        others = (p for i, p in enumerate(points) if i != own)
        return covered + sum(max(0.0, radius + dot - math.dist(place, other)) for other in others)

    for number, point in enumerate(points):
        best, least = point, math.inf
        for place in _places(point, _away(number, points, radius), radius, within):
            covered = in_the_way(place, number)
            if covered < least:
                best, least = place, covered
            if covered == 0.0:
                break
        placed.append(best)
    return placed


def is_beside(point: Point, place: Point) -> bool:
    """Whether a label does not stand on its point."""
    return math.dist(point, place) > 0.0


def _away(number: int, points: Sequence[Point], radius: float) -> float:
    """The angle that leads away from a point's neighbours; upwards where it has none, or sits in their middle."""
    x, y = points[number]
    near = [p for p in points if 0 < math.dist(p, (x, y)) < _NEIGHBOURHOOD * radius]
    across, up = sum(x - p[0] for p in near), sum(y - p[1] for p in near)
    return math.atan2(up, across) if math.hypot(across, up) > 1e-9 else math.pi / 2


def _places(point: Point, angle: float, radius: float, within: Rectangle) -> Iterator[Point]:
    """The point, then rings around it, each from one side to the other."""
    yield point
    reach = math.hypot(within.right - within.left, within.top - within.bottom)
    for ring in range(1, 2 + math.ceil(reach / radius)):
        distance = (ring + 0.5) * radius
        for turn in sorted(range(-_DIRECTIONS // 2, _DIRECTIONS // 2), key=abs):
            towards = angle + turn * 2 * math.pi / _DIRECTIONS
            yield point[0] + distance * math.cos(towards), point[1] + distance * math.sin(towards)
