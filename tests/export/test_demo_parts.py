"""The demo's parts: options, the folder, judging, pictures, the page."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ganexport.demo.folder import MARK, DemoFolder
from ganexport.demo.judging import Shares, colour_features, judge_images, resemblance
from ganexport.demo.options import SHOWS, Options
from ganexport.demo.page import image
from ganexport.demo.pictures import (
    Picture,
    images_from_sheet,
    interpolated,
    losses_plot,
    shares_plot,
    sheet,
    slerp,
)
from ganruntime import noise
from ganruntime.errors import CheckpointError, InputError
from ganruntime.images import sheet_from_images
from ganruntime.spec import Latent, TensorSpec
from gantrain.data.digits import digits
from gantrain.page_parts import code, html_table, page


def random_images(n: int, size: int, channels: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)


@pytest.mark.parametrize("data, recipe", list(SHOWS))  # noqa: PT006
def test_every_show_has_options_that_the_recipe_takes(data: str, recipe: str) -> None:
    from gantrain.recipes import recipe_from_name
    from gantrain.recipes.settings import settings_with

    options = Options(data, recipe)
    settings = settings_with(recipe_from_name(recipe).defaults, options.settings)
    assert settings.size == 32
    # Rates that fall have fallen when the training ends, however long it was asked to be.
    asked = Options(data, recipe, steps=50)
    ends = settings_with(recipe_from_name(recipe).defaults, asked.settings).decay_end
    assert ends == (50 if asked.show.decays else 0)
    assert options.steps_to_make == SHOWS[data, recipe].steps
    assert Options(data, recipe, quick=True).steps_to_make == SHOWS[data, recipe].quick_steps
    assert Options(data, recipe, steps=12, quick=True).steps_to_make == 12


@pytest.mark.parametrize(
    "wrong", [{"data": "cats"}, {"data": "faces", "recipe": "mlp"}, {"steps": 0}, {"seed": -1}, {"seed": 1 << 64}]
)
def test_options_that_make_no_demo_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Options(**wrong)


def filled(folder: DemoFolder) -> None:
    for part in (folder.run, folder.bundle, folder.bench):
        part.mkdir()
        (part / "file").write_text("ours")
    folder.images.write_text("ours")
    folder.report.write_text("ours")


def test_a_new_folder_is_made_and_marked(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "deep" / "demo", Options())
    assert folder.open() == ""
    mark = json.loads((folder.path / MARK).read_text())
    assert (mark["kind"], mark["finished"]) == ("ganexport-demo", False)


def test_an_interrupted_demo_of_the_same_arguments_is_gone_on_with(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path, Options(steps=5))
    folder.open()
    filled(folder)
    assert "going on" in DemoFolder(tmp_path, Options(steps=5)).open()
    assert (folder.run / "file").exists()


@pytest.mark.parametrize("finished, options", [(True, Options(steps=5)), (False, Options(steps=6))])  # noqa: PT006
def test_any_other_demo_is_replaced_and_nothing_else_is_touched(
    tmp_path: Path, finished: bool, options: Options
) -> None:
    folder = DemoFolder(tmp_path, Options(steps=5))
    folder.open()
    filled(folder)
    folder.mark(finished=finished)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mine.gan").mkdir()
    assert "replacing" in DemoFolder(tmp_path, options).open()
    assert sorted(p.name for p in tmp_path.iterdir()) == [MARK, "mine.gan", "notes.txt"]
    assert json.loads((tmp_path / MARK).read_text())["options"] == options.to_json()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"kind": "another"}'])
def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    if content is not None:
        (tmp_path / MARK).write_text(content)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="no demo of ours"):
        DemoFolder(tmp_path, Options()).open()
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        DemoFolder(tmp_path / "file", Options()).open()


def test_the_digit_judge_passes_real_digits_and_fails_a_collapsed_generator() -> None:
    source = digits(32)
    real = judge_images(source.images[:600], source)
    assert real.passed
    assert real.figures["judge_held_out_accuracy"] > 0.95
    fours = source.images[source.labels["digit"] == 4][:100]
    collapsed = judge_images(fours, source)
    assert [c.holds for c in collapsed.conditions] == [False, False, True]
    assert not judge_images(random_images(50, 32, 1), source).conditions[2].holds


def test_copies_are_found_and_are_paired_with_their_originals() -> None:
    real = random_images(60, 32, 3)
    generated = np.concatenate([real[[5, 40]], random_images(18, 32, 3, seed=1)])
    found = resemblance(generated, real, typical=3, nearest=2)
    assert found.pairs[:2] == ((0, 5), (1, 40))
    assert len(found.pairs) == 5
    assert found.nearest_pairs == 2
    assert found.copies == pytest.approx(0.1)
    assert found.diversity == pytest.approx(1.0, abs=0.1)


def test_distances_are_those_of_plain_numpy() -> None:
    real, generated = random_images(30, 16, 1), random_images(7, 16, 1, seed=2)
    found = resemblance(generated, real, typical=0, nearest=7)
    a, b = (x.reshape(len(x), -1).astype(float) for x in (generated, real))
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).mean(axis=2))
    assert dict(found.pairs) == {i: int(distances[i].argmin()) for i in range(7)}
    assert found.generated_distance == pytest.approx(float(np.median(distances.min(axis=1))), rel=1e-5)
    own = np.sqrt(((b[:, None] - b[None]) ** 2).mean(axis=2)) + np.where(np.eye(30), np.inf, 0)
    assert found.real_distance == pytest.approx(float(np.median(own.min(axis=1))), rel=1e-5)


def test_one_image_over_and_over_has_no_diversity() -> None:
    real = random_images(30, 16, 1)
    assert resemblance(np.repeat(real[:1], 9, axis=0), real).diversity == pytest.approx(0.0, abs=1e-6)


def test_features_are_averages_of_blocks() -> None:
    images = random_images(2, 32, 3)
    means = images.reshape(2, 16, 2, 16, 2, 3).astype(float).mean(axis=(2, 4))
    assert (
        np.abs(colour_features(images).reshape(2, 16, 16, 3) - means).max() <= 1.0
    )  # Pillow rounds after each direction


def test_shares_know_how_far_apart_they_are() -> None:
    assert Shares("a", ("x", "y"), (0.5, 0.5), (1.0, 0.0), 1.0).distance == pytest.approx(0.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_out_of_a_sample_sheet(tmp_path: Path, channels: int) -> None:
    images = random_images(10, 16, channels)
    sheet_from_images(images, scale=4).save(tmp_path / "sheet.png")
    assert np.array_equal(images_from_sheet(tmp_path / "sheet.png", 16, 10, 6), images[:6])
    with pytest.raises(CheckpointError, match="not a sheet of 10 images of 20 px"):
        images_from_sheet(tmp_path / "sheet.png", 20, 10, 6)
    (tmp_path / "torn.png").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not a picture"):
        images_from_sheet(tmp_path / "torn.png", 16, 10, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_is_see_through_between_its_images(channels: int) -> None:
    images = random_images(5, 8, channels)
    made = sheet(images, 3, gap=2)
    pixels = np.asarray(PIL.Image.open(io.BytesIO(made.png)))
    assert (made.height, made.width) == pixels.shape[:2] == (18, 28)
    assert np.array_equal(pixels[10:18, 10:18, :channels], images[4])
    assert pixels[..., -1].sum() == 255 * 5 * 64


def test_slerp_turns_evenly_and_keeps_the_length() -> None:
    a, b = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    for t in (0.0, 0.25, 0.5, 1.0):
        point = slerp(a, b, t)
        assert np.linalg.norm(point) == pytest.approx(1.0)
        assert np.degrees(np.arctan2(point[1], point[0])) == pytest.approx(90 * t)
    assert slerp(a, 3 * b, 0.5) @ slerp(a, 3 * b, 0.5) == pytest.approx(4.0)
    assert np.allclose(slerp(a, 2 * a, 0.5), 1.5 * a)
    assert np.allclose(slerp(a, np.zeros(3), 0.5), 0.5 * a)
    assert np.isfinite(slerp(a, -a, 0.5)).all()


@pytest.mark.parametrize("distribution, curved", [("normal", True), ("sphere", True), ("uniform", False)])  # noqa: PT006
def test_strips_go_from_one_latent_to_another(distribution: str, curved: bool) -> None:
    tensor = TensorSpec("z", "float32", (64,), Latent(distribution))
    strips = interpolated(tensor, 7, 100, 3, 5).reshape(3, 5, 64)
    ends = noise.latents(tensor, 7, 100, 6).reshape(3, 2, 64)
    assert np.allclose(strips[:, 0], ends[:, 0], atol=1e-6)
    assert np.allclose(strips[:, -1], ends[:, 1], atol=1e-6)
    length = np.linalg.norm(strips, axis=2)
    middle_keeps_its_length = (length[:, 2] / length[:, [0, 4]].mean(axis=1)).mean() > 0.95
    assert middle_keeps_its_length == curved


def test_plots_come_in_two_colour_schemes_and_in_the_size_they_say() -> None:
    log = [{"step": i, "loss_d": 1.0, "loss_g": 2.0, "d_real": 0.6, "d_fake": 0.4} for i in range(1, 30)]
    one = Shares("digit", tuple("0123456789"), (0.1,) * 10, (0.1,) * 10, 0.99)
    many = [Shares(f"kind_{k}", ("alpha", "beta"), (0.5, 0.5), (0.2, 0.8), 0.9) for k in range(5)]
    for picture in (losses_plot(log), losses_plot(log[:1]), shares_plot([one]), shares_plot(many)):
        assert picture.dark_png is not None
        for png, corner in ((picture.png, (255, 255, 255)), (picture.dark_png, (0x17, 0x1A, 0x21))):
            drawn = PIL.Image.open(io.BytesIO(png)).convert("RGB")
            assert drawn.size == (picture.width, picture.height)
            assert drawn.getpixel((0, 0)) == corner


def test_a_page_escapes_text_and_holds_its_pictures() -> None:
    png = sheet(random_images(1, 4, 1), 1).png
    body = image(Picture(png, 4, 4, png), 'a "quoted" <b>', scale=2) + html_table(["<h>"], [["<i>"]]) + code(["a < b"])
    text = page("<title> & co", body)
    assert "<title>&lt;title&gt; &amp; co</title>" in text
    assert 'alt="a &quot;quoted&quot; &lt;b&gt;" width="8"' in text
    assert "<td>&lt;i&gt;</td>" in text
    assert "a &lt; b" in text
    assert base64.b64decode(re.findall(r"base64,([^\"]+)", text)[0]) == png
    assert text.count("prefers-color-scheme: dark") == 2
