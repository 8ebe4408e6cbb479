"""Feature spaces: judges that are the same whoever fits them, their cache, and the spaces that need no labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganruntime.errors import InputError
from gantrain.data.named import source_from_name
from gantrain.data.source import ImageSource
from gantrain.data.split import split
from gantrain.metrics import judge as judges
from gantrain.metrics.judge import Judge, cache_folder, fit, judge_of
from gantrain.metrics.random_features import RandomFeatures
from gantrain.metrics.script_features import ScriptFeatures
from gantrain.metrics.spaces import Pixels, Values

SIDES = {"side": ("left", "right"), "height": ("top", "middle", "bottom")}


def striped(count: int = 160, size: int = 16, channels: int = 1, seed: int = 0) -> ImageSource:
    """Noise with a bright half, left or right, and a dark third: two attributes that a glance tells."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 120, (count, size, size, channels), dtype=np.uint8)
    labels = {name: rng.integers(0, len(classes), count) for name, classes in SIDES.items()}
    for image, side, height in zip(images, labels["side"], labels["height"], strict=True):
        image[:, side * size // 2 : (side + 1) * size // 2] += 100
        image[height * size // 3 : (height + 1) * size // 3] //= 4
    return ImageSource("striped", images, labels, classes=SIDES)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_LEAST_STEPS", 40)


@pytest.fixture(scope="module")
def judge() -> Judge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "_LEAST_STEPS", 40)
        return fit(striped())


def test_a_judge_tells_all_attributes_of_images_it_never_saw(judge: Judge) -> None:
    assert set(judge.accuracy) == set(SIDES)
    assert min(judge.accuracy.values()) > 0.9
    fresh = striped(seed=1)
    told = judge.describe(fresh.images)
    assert told.features.shape == (160, 64)
    for name, p in told.probabilities.items():
        np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)
        assert (p.argmax(axis=1) == fresh.labels[name]).mean() > 0.9


def test_whoever_fits_it_it_is_the_same_and_torch_is_as_before(judge: Judge) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        again = fit(striped())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert again.name == judge.name
    assert again.name.startswith("striped-judge-16px-")
    assert torch.equal(torch.get_rng_state(), state)
    other = striped()
    other.images[:, 0, 0] ^= 1
    assert fit(other).name != judge.name


def test_the_company_of_an_image_changes_nothing(judge: Judge) -> None:
    images = striped(300, seed=2).images  # more than a chunk
    whole = judge.describe(images)
    for first, count in ((0, 1), (255, 3), (297, 3)):
        part = judge.describe(images[first : first + count])
        np.testing.assert_allclose(part.features, whole.features[first : first + count], atol=1e-4)


def test_what_is_held_out_of_training_was_held_out_of_the_judge() -> None:
    source = ImageSource("numbers", np.zeros((200, 2, 2, 1), np.uint8), {"number": np.arange(200)})
    judges_part = split(source, judges.HELD_OUT).held_out
    assert judges_part is not None
    for share in (0.05, 0.1, 0.25):
        kept = split(source, share).held_out
        assert kept is not None
        assert set(kept.labels["number"]) <= set(judges_part.labels["number"])


def test_the_cache_gives_the_same_judge_and_is_not_needed(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = striped()
    fits: list[str] = []

    def counted(source: ImageSource) -> Judge:
        fits.append(source.name)
        return judge

    monkeypatch.setattr(judges, "fit", counted)
    assert judge_of(source, tmp_path).name == judge.name
    (file,) = (tmp_path / "judges").iterdir()

    cached = judge_of(source, tmp_path)
    assert cached is not judge
    assert len(fits) == 1
    assert (cached.name, cached.accuracy, cached.classes) == (judge.name, judge.accuracy, judge.classes)
    np.testing.assert_array_equal(
        cached.describe(source.images[:5]).features, judge.describe(source.images[:5]).features
    )
    whole = file.read_bytes()
    for data in (b"", whole[:200], whole[:-8] + bytes(8)):  # the last is a whole file of other weights
        file.write_bytes(data)
        assert judge_of(source, tmp_path).name == judge.name
        assert len(file.read_bytes()) == len(whole)  # put right, too
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert judge_of(source, blocked).name == judge.name
    assert len(fits) == 1 + 3 + 1


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANEXPORT_CACHE", "/a")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("GANEXPORT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/b/ganexport")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/ganexport"


def test_what_no_judge_can_be_fitted_to(judge: Judge) -> None:
    with pytest.raises(InputError, match="no labels"):
        fit(ImageSource("plain", striped().images))
    with pytest.raises(InputError, match="no labels"):
        fit(ImageSource("one", striped().images, {"kind": np.zeros(160, np.int64)}))
    with pytest.raises(InputError, match="channels"):
        judge.describe(striped(channels=3).images)
    with pytest.raises(InputError, match="not images"):
        judge.describe(np.zeros((2, 16, 16, 1), np.float32))


@pytest.mark.slow
def test_real_digits_and_drawn_faces_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_LEAST_STEPS", 200)
    digits = fit(source_from_name("digits", 32))
    assert digits.accuracy["digit"] > 0.98
    faces = fit(source_from_name("faces", 32)).accuracy
    for name in ("skin", "hair_style", "glasses", "pose", "outfit", "outfit_colour", "background"):
        assert faces[name] > 0.97, name
    assert faces["mouth"] > 0.93
    assert faces["lashes"] > 0.85
    # Of the bald nobody can tell the hair's colour, nor behind sunglasses the eyes'.
    assert faces["hair_colour"] > 0.93
    assert faces["eye_colour"] > 0.89


# --- others -----------------------------------------------------------------------------------------------------------


def test_random_features_are_the_same_everywhere_and_take_grey_as_rgb() -> None:
    grey = striped(8).images
    one, two = RandomFeatures(), RandomFeatures()
    np.testing.assert_array_equal(one.describe(grey).features, two.describe(grey).features)
    np.testing.assert_array_equal(one.describe(grey).features, one.describe(np.repeat(grey, 3, axis=3)).features)
    assert one.describe(grey).features.shape == (8, 272)
    black = one.describe(np.zeros((1, 32, 32, 3), np.uint8)).features[0]
    np.testing.assert_allclose(black[:3], [1.406107, 0.262945, 1.339716], atol=1e-5)
    assert one.describe(striped(4, size=64).images).features.shape == (4, 272)


def test_pixels_are_root_mean_squares_of_averaged_pixels() -> None:
    white, black = np.full((1, 64, 64, 3), 255, np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
    pixels = Pixels()
    apart = pixels.describe(white).features - pixels.describe(black).features
    assert np.linalg.norm(apart) == pytest.approx(1.0, rel=1e-6)
    halves = black.copy()
    halves[:, ::2] = 255
    assert np.linalg.norm(pixels.describe(halves).features) == pytest.approx(0.5, abs=0.01)
    assert pixels.describe(white[:, :8, :8]).features.shape == (1, 8 * 8 * 3)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(Values().describe(rows).features, rows)


class _Means(torch.nn.Module):
    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = images.mean(dim=[2, 3])
        return means if return_features else means.softmax(dim=1)


class _Flat(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_file_gives_features_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.script(_Means()).save(str(path))
    space = ScriptFeatures(path)
    assert space.name.startswith("inception-")
    images = striped(5).images
    found = space.describe(images).features
    np.testing.assert_allclose(found[:, 2], images.mean(axis=(1, 2, 3)), rtol=1e-5)
    other = tmp_path / "other" / "inception.pt"
    other.parent.mkdir()
    torch.jit.script(_Flat()).save(str(other))
    assert ScriptFeatures(other).name != space.name
    with pytest.raises(InputError, match="gives no features"):
        ScriptFeatures(other).describe(images)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_that_gives_no_features(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no features file"):
        ScriptFeatures(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(InputError, match="no TorchScript file"):
        ScriptFeatures(tmp_path / "text.pt")
