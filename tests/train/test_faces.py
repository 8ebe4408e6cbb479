"""The drawn faces: pure functions of (seed, index), with labels that mean what can be seen."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ganruntime.errors import InputError
from gantrain.data.faces import (
    BACKGROUNDS,
    FACE_ATTRIBUTES,
    HAIR_COLOURS,
    JITTER,
    SKINS,
    FaceAttributes,
    draw_face,
    face_attributes,
    face_images,
    with_attributes,
)

PLAIN = FaceAttributes(
    skin="light",
    hair_colour="brown",
    hair_style="short",
    eye_colour="green",
    lashes="plain",
    glasses="none",
    mouth="smile",
    pose="front",
    outfit="tee",
    outfit_colour="navy",
    background="mint",
    jitter=(0.0,) * len(JITTER),
)
UNIFORM = ("skin", "hair_colour", "eye_colour", "lashes", "outfit", "outfit_colour", "background")


def pixels(face: FaceAttributes, size: int = 64) -> NDArray[np.int64]:
    return np.asarray(draw_face(face, size)).astype(np.int64)  # [H, W, C]


def with_jitter(face: FaceAttributes, **values: float) -> FaceAttributes:
    jitter = dict(zip(JITTER, face.jitter, strict=True)) | values
    fields = {name: getattr(face, name) for name in FACE_ATTRIBUTES}
    return FaceAttributes(**fields, jitter=tuple(jitter[name] for name in JITTER))


def digest(seed: int, first: int, count: int, size: int) -> str:
    images, labels = face_images(seed, first, count, size)
    parts = [images.tobytes(), *(labels[name].tobytes() for name in FACE_ATTRIBUTES)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


# --- determinism ------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 6), st.data())
def test_a_face_is_the_same_in_any_range(seed: int, first: int, count: int, data: st.DataObject) -> None:
    whole, labels = face_images(seed, first, count, 24)
    cut = data.draw(st.integers(0, count))
    head, head_labels = face_images(seed, first, cut, 24)
    tail, tail_labels = face_images(seed, first + cut, count - cut, 24)
    assert np.array_equal(whole, np.concatenate([head, tail]))
    for name in FACE_ATTRIBUTES:
        assert np.array_equal(labels[name], np.concatenate([head_labels[name], tail_labels[name]]))
    k = data.draw(st.integers(0, count - 1))
    alone = face_attributes(seed, first + k)
    assert np.array_equal(np.asarray(draw_face(alone, 24)), whole[k])
    assert alone.labels() == {name: values[k] for name, values in labels.items()}


def test_another_process_draws_the_same_bytes() -> None:
    code = (
        "import hashlib; from gantrain.data.faces import *;"
        "images, labels = face_images(7, 3, 12, 40);"
        "parts = [images.tobytes(), *(labels[name].tobytes() for name in FACE_ATTRIBUTES)];"
        "print(hashlib.sha256(b''.join(parts)).hexdigest())"
    )
    # Another hash seed, so that an order that hangs on a set or a dictionary of strings would show.
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == digest(7, 3, 12, 40)


def test_seeds_and_indices_differ() -> None:
    images = np.concatenate([face_images(seed, 0, 8, 16)[0] for seed in (0, 1, 2**63)])
    assert len({image.tobytes() for image in images}) == len(images)


def test_the_attributes_of_a_seed_stay_what_they_are() -> None:
    # The picture may change with Pillow; which faces a seed holds may not change at all.
    names = [tuple(face_attributes(0, k).labels().values()) for k in range(50)]
    jitter = np.array([face_attributes(0, k).jitter for k in range(50)], "<f4")
    golden = hashlib.sha256(repr(names).encode() + jitter.tobytes()).hexdigest()
    assert golden == "7d78cf555983e6bdae328a8a9bb8c51495105564723f4a7142ce3ae420bd0b57"


# --- the distribution -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> list[FaceAttributes]:
    return [face_attributes(11, k) for k in range(2000)]


@pytest.mark.parametrize("name", FACE_ATTRIBUTES)
def test_labels_are_balanced(name: str, many: list[FaceAttributes]) -> None:
    classes = FACE_ATTRIBUTES[name]
    counts = np.bincount([face.labels()[name] for face in many], minlength=len(classes))
    even = len(many) / len(classes)
    if name in UNIFORM:
        assert np.abs(counts - even).max() < 4.5 * np.sqrt(even)
    else:
        assert counts.min() > 0.4 * even
        assert counts.max() < 2.2 * even


def test_labels_and_jitter_are_independent(many: list[FaceAttributes]) -> None:
    table = np.array([[*face.labels().values(), *face.jitter] for face in many], np.float64)
    correlation = np.corrcoef(table, rowvar=False) - np.eye(table.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(len(many))
    jitter = table[:, len(FACE_ATTRIBUTES) :]
    assert np.abs(jitter.mean(axis=0)).max() < 5 * np.sqrt(1 / 3 / len(many))
    assert np.allclose(jitter.std(axis=0), np.sqrt(1 / 3), rtol=0.06)


def test_jitter_makes_no_two_faces_alike() -> None:
    plain = pixels(PLAIN)
    for name in JITTER:
        # A parting has two sides, and 0 is on one of them.
        assert not np.array_equal(plain, pixels(with_jitter(PLAIN, **{name: -1.0}))), name


@pytest.mark.parametrize("style", FACE_ATTRIBUTES["hair_style"])
def test_a_little_turn_changes_little(style: str) -> None:
    # The far and the near side of the head change places at a yaw of 0: nothing may jump there.
    face = with_attributes(PLAIN, hair_style=style)
    left, right = (pixels(with_jitter(face, yaw=yaw)) for yaw in (-1e-4, 1e-4))
    assert np.abs(left - right).mean() < 0.5


# --- what the labels mean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACE_ATTRIBUTES)
@pytest.mark.parametrize("size", [32, 64])
def test_every_class_can_be_seen(name: str, size: int) -> None:
    pictures = {value: pixels(with_attributes(PLAIN, **{name: value}), size) for value in FACE_ATTRIBUTES[name]}
    for (a, one), (b, other) in itertools.combinations(pictures.items(), 2):
        changed = np.abs(one - other).max(axis=2) >= 24
        assert changed.sum() >= (size / 32) ** 2 * 4, f"{a} and {b} look alike"


@pytest.mark.parametrize("index", range(6))
def test_glasses_change_the_eyes_and_nothing_else(index: int) -> None:
    face = face_attributes(3, index)
    bare = pixels(with_attributes(face, glasses="none"), 128)
    for kind in ("round", "square", "sun"):
        rows, columns = np.nonzero((pixels(with_attributes(face, glasses=kind), 128) != bare).any(axis=2))
        assert len(rows) > 300
        assert rows.min() > 0.35 * 128
        assert rows.max() < 0.70 * 128
        assert columns.min() > 0.12 * 128
        assert columns.max() < 0.88 * 128


@pytest.mark.parametrize("index", range(4))
def test_a_mouth_changes_mouth_and_brows_only(index: int) -> None:
    face = with_attributes(face_attributes(4, index), glasses="none", hair_style="bald")
    smile = pixels(with_attributes(face, mouth="smile"), 128)
    for kind in FACE_ATTRIBUTES["mouth"][1:]:
        rows = np.nonzero((pixels(with_attributes(face, mouth=kind), 128) != smile).any(axis=2))[0]
        mouth = rows > 0.62 * 128
        assert mouth.sum() > 40
        assert rows.max() < 0.82 * 128
        assert rows[~mouth].max(initial=0) < 0.48 * 128


def test_eye_colour_changes_the_eyes_only() -> None:
    green = pixels(PLAIN, 128)
    for kind in ("blue", "brown", "violet", "grey", "amber"):
        rows = np.nonzero((pixels(with_attributes(PLAIN, eye_colour=kind), 128) != green).any(axis=2))[0]
        assert rows.min() > 0.42 * 128
        assert rows.max() < 0.64 * 128


@pytest.mark.parametrize("style", [style for style in FACE_ATTRIBUTES["hair_style"] if style != "bald"])
def test_hair_has_its_colour(style: str) -> None:
    for colour in HAIR_COLOURS:
        face = pixels(with_attributes(PLAIN, hair_style=style, hair_colour=colour))
        changed = face != pixels(with_attributes(PLAIN, hair_style="bald", hair_colour=colour))
        hair = face[changed.any(axis=2)]  # [P, C]
        share = {
            other: np.mean([np.abs(hair - tone).max(axis=1) < 10 for tone in tones[:2]], axis=1).sum()
            for other, tones in HAIR_COLOURS.items()
        }
        assert share.pop(colour) > 0.2
        assert max(share.values()) < 0.1


def test_skin_has_its_colour() -> None:
    for skin, tones in SKINS.items():
        # The chin's left: no blush, no shade.
        patch = pixels(with_attributes(PLAIN, skin=skin), 128)[91:95, 50:53].reshape(-1, 3).mean(axis=0)
        assert np.abs(patch - tones[0]).max() < 12, skin


def test_a_pose_moves_the_features_its_way() -> None:
    def eyes(pose: str) -> float:
        """Where the eyes are, left 0 to right 1."""
        face = with_attributes(PLAIN, pose=pose)
        green, blue = pixels(face, 128), pixels(with_attributes(face, eye_colour="blue"), 128)
        return float(np.nonzero((green != blue).any(axis=2))[1].mean() / 128)

    left, front, right = (eyes(pose) for pose in ("left", "front", "right"))
    assert abs(front - 0.5) < 0.02
    assert left < front - 0.02
    assert right > front + 0.02


def test_nothing_reaches_the_upper_corners() -> None:
    for k in range(60):
        face = face_attributes(21, k)
        picture = pixels(face)
        top = BACKGROUNDS[face.background][0]
        for corner in (picture[:3, :3], picture[:3, -3:]):
            assert np.abs(corner - top).max() < 25


# --- sizes and errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 17, 24, 31, 32, 48, 63, 64, 95, 96, 128, 200, 256])
def test_any_size(size: int) -> None:
    picture = draw_face(PLAIN, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    coarse = [
        np.asarray(p.resize((8, 8), Image.Resampling.BILINEAR), np.float64) for p in (picture, draw_face(PLAIN, 64))
    ]
    assert np.abs(coarse[0] - coarse[1]).mean() < 5  # the same face, for all its lesser detail


def test_images_and_labels_have_their_types() -> None:
    images, labels = face_images(0, 5, 3, 32)
    assert images.dtype == np.uint8
    assert images.shape == (3, 32, 32, 3)
    assert list(labels) == list(FACE_ATTRIBUTES)
    assert all(values.dtype == np.int64 and values.shape == (3,) for values in labels.values())
    assert face_images(0, 5, 0, 32)[0].shape == (0, 32, 32, 3)


@pytest.mark.parametrize("size", [15, 0, -64, 4097, 64.0, True, "64", None])
def test_a_bad_size_is_an_input_error(size: object) -> None:
    with pytest.raises(InputError, match="size"):
        draw_face(PLAIN, size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="size"):
        face_images(0, 0, 1, size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seed", "first", "count"), [(-1, 0, 1), (2**64, 0, 1), (0, -1, 1), (0, 0, -1), (0.5, 0, 1)])
def test_a_bad_range_is_an_input_error(seed: int, first: int, count: int) -> None:
    with pytest.raises(InputError):
        face_images(seed, first, count, 16)


def test_unknown_classes_are_input_errors() -> None:
    with pytest.raises(InputError, match="hair_style") as caught:
        with_attributes(PLAIN, hair_style="mohican")
    assert "ponytail" in str(caught.value)
    with pytest.raises(InputError, match="no such attribute"):
        with_attributes(PLAIN, hat="top")
    with pytest.raises(InputError, match="jitter"):
        with_jitter(PLAIN, yaw=1.5)
    with pytest.raises(InputError, match="jitter"):
        with_jitter(PLAIN, yaw=float("nan"))
