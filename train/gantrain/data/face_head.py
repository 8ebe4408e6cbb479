"""The head of a drawn face: its outline, and where its turn puts what is on it.

Points are given relative to the head's middle line and *turned*: a point in front moves with the gaze, one at the
silhouette stays, one behind moves against it, and that parallax makes the three poses.
"""

from __future__ import annotations

import numpy as np

from gantrain.data.face_attributes import FaceAttributes
from gantrain.data.face_canvas import Points, Strip, loop, mirrored, strand, table

# Half the outline, top to chin: x, y, and what a full turn adds to x on the far and on the near side.
_OUTLINE = table([
    (33, 50, 0, 1), (56, 72, -1, 3), (66, 104, -3, 3), (67, 132, -3, 2), (63, 158, 0, -1), (49, 181, 6, -7),
    (24, 197, 11, -10),
])  # fmt: skip


class Head:
    """One face's head.

    yaw: where it looks, -1 left to 1 right, and up to 0.16 more.
    width: factor on its breadth.
    outline, shaded_side: closed shapes.
    """

    def __init__(self, face: FaceAttributes, jitter: dict[str, float]) -> None:
        self.yaw = {"left": -1.0, "front": 0.0, "right": 1.0}[face.pose] + 0.16 * jitter["yaw"]
        self.width = 1 + 0.05 * jitter["face_width"]
        self.chin = jitter["chin"]
        turn = abs(self.yaw)
        half = _OUTLINE.copy()
        half[5:, 0] += np.array([3.0, 4.0]) * self.chin
        far, near = half[:, :2].copy(), half[:, :2].copy()
        far[:, 0] += turn * half[:, 2]
        near[:, 0] += turn * half[:, 3]
        right, left = (far, near) if self.yaw > 0 else (near, far)
        points = np.concatenate([[(0.0, 45.0)], right, [(11 * self.yaw, 201.0)], mirrored(left, -1.0)[::-1]])
        points[:, 0] = 128 + points[:, 0] * self.width
        self.outline = loop(points)
        cheek = points[2:9]
        inset = np.array([(0, 0), (-5, 1), (-8, 0), (-9, -2), (-10, -4), (-8, -5), (0, 0)])
        # Light comes from the upper left: a crescent of shade along the right side.
        self.shaded_side = np.concatenate([strand(cheek), strand((cheek + inset)[::-1])])

    def turned(self, points: Strip | Points, depth: float | None = None) -> Points:
        """Control points -> places. The depth of a point is that of a rounded head, 1 in front, unless given."""
        p = np.array(points, np.float64)
        x = p[:, 0]
        if depth is None:
            u = np.minimum(x * x * (1 / 4900), 1.0)
            p[:, 0] = x * self.width + (128 + 17 * self.yaw) - (8.5 * self.yaw) * (u + u * u)
        else:
            p[:, 0] = x * self.width + (128 + 17 * self.yaw * depth)
        return p
