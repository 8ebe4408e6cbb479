"""`ganexport diff`: both sides in every spelling, figures, the exit code, the picture, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import altered_graphs
import numpy as np
import odd_networks as odd
import onnx
import PIL.Image
import pytest
from command_line import Ganexport
from picture_bundles import write_painter

from ganexport.bundling import Exported
from ganruntime.bundle import Variant, bundle_changed, read_bundle
from gantrain.checkpoint import save_generator


@pytest.fixture
def two_variants(lively_bundle: Path) -> Path:
    """The bundle with a second variant, whose weights are rounded to half precision."""
    bundle = read_bundle(lively_bundle)
    model = onnx.load_from_string(bundle.graph(bundle.variant("fp32")))
    altered_graphs.round_weights_to_half(model)
    with bundle_changed(lively_bundle) as draft:
        draft.add("model.other.onnx", model.SerializeToString())
        draft.put_variant(Variant("other", "fp32", "onnx", "model.other.onnx"))
    return lively_bundle


def diff(ganexport: Ganexport, *arguments: object) -> dict[str, Any]:
    answer = ganexport("diff", *arguments, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    return found


def test_a_bundle_is_what_its_checkpoint_is(
    ganexport: Ganexport, checkpoint_once: Path, exported_once: Exported
) -> None:
    found = diff(ganexport, checkpoint_once, exported_once.path, "-n", 100)
    image = found["outputs"]["image"]
    assert found["a"]["where"].startswith("eager torch ")
    assert found["b"]["name"] == f"{exported_once.path}:fp32"
    assert image["max_abs"] < 1e-5
    assert image["psnr_db"] > 100
    assert image["diversity"] == pytest.approx(1.0, abs=1e-4)


def test_figures_are_those_of_both_outputs_by_brute_force(ganexport: Ganexport, two_variants: Path) -> None:
    from ganruntime import load, noise

    found = diff(ganexport, two_variants, ":other", "-n", 70, "--seed", 5, "--first", 11, "--worst", 3)
    image = found["outputs"]["image"]
    with load(two_variants, "cpu", buckets=[64]) as a, load(two_variants, "cpu", precision="other") as b:
        inputs = noise.inputs(a.spec, 5, 11, 70)
        out_a, out_b = (g.outputs(inputs)["image"].astype(np.float64) for g in (a, b))
    gaps = np.abs(out_a - out_b).reshape(70, -1)
    psnr = 10 * np.log10(4 / np.square(gaps).mean(axis=1))
    assert image["max_abs"] == pytest.approx(gaps.max(), rel=1e-3)
    assert image["mean_abs"] == pytest.approx(gaps.mean(), rel=1e-3)
    assert image["psnr_db"] == pytest.approx(psnr.min(), abs=0.01)
    assert image["mean_psnr_db"] == pytest.approx(psnr.mean(), abs=0.01)
    assert image["spread_a"] == pytest.approx(out_a.reshape(70, -1).std(axis=0).mean(), rel=1e-4)
    assert image["spread_b"] == pytest.approx(out_b.reshape(70, -1).std(axis=0).mean(), rel=1e-4)
    order = np.argsort(psnr)[:3]
    assert [(w["seed"], w["index"]) for w in image["worst"]] == [(5, 11 + int(i)) for i in order]
    assert [w["max_abs"] for w in image["worst"]] == pytest.approx(gaps[order].max(axis=1), rel=1e-3)


def test_the_worst_case_can_be_compared_again_alone(ganexport: Ganexport, two_variants: Path) -> None:
    (worst,) = diff(ganexport, two_variants, ":other", "-n", 130, "--worst", 1)["outputs"]["image"]["worst"]
    alone = diff(ganexport, two_variants, ":other", "-n", 1, "--first", worst["index"])["outputs"]["image"]
    assert alone["psnr_db"] == pytest.approx(worst["psnr_db"], abs=0.01)
    assert alone["max_abs"] == pytest.approx(worst["max_abs"], rel=1e-3)


def test_the_command_that_draws_the_worst_case_again_works(
    ganexport: Ganexport, two_variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    monkeypatch.chdir(tmp_path)
    answer = ganexport("diff", two_variants, ":other", "-n", 40)
    commands = [line.partition("again: ")[2] for line in answer.out.splitlines() if line.startswith("draw ")]
    assert len(commands) == 2
    for command in commands:
        assert ganexport(*shlex.split(command)[1:]).code == 0
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["a.png", "b.png"]


def test_the_text_names_both_sides_and_the_worst(ganexport: Ganexport, two_variants: Path) -> None:
    answer = ganexport("diff", two_variants, f"{two_variants}:other", "-n", 40, "--seed", 3)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"A  {two_variants}:fp32: onnxruntime ")
    assert lines[1].startswith(f"B  {two_variants}:other: onnxruntime ")
    assert lines[2] == "40 latents, seed 3, indices 0 to 39"
    assert any(line.startswith("worst PSNR") and line.endswith(" dB") for line in lines)
    assert "image, the worst:" in lines


def test_the_same_twice_is_equal(ganexport: Ganexport, lively_bundle: Path) -> None:
    answer = ganexport("diff", lively_bundle, lively_bundle, "-n", 20, "--bound", 0, "--floor", "psnr=150")
    assert answer.code == 0
    assert "image: equal for every latent" in answer.out
    assert "draw" not in answer.out


@pytest.mark.parametrize(
    ("option", "missed"),
    [
        (("--bound", "1e-12"), "over the bound 1e-12"),
        (("--floor", "psnr=190"), "under the floor 190 dB"),
        (("--floor", "psnr=1", "--floor", "ssim=1.1"), "under the floor 1.1"),
    ],
)
def test_a_limit_that_is_missed_is_the_exit_code(
    ganexport: Ganexport, two_variants: Path, option: tuple[str, ...], missed: str
) -> None:
    answer = ganexport("diff", two_variants, ":other", "-n", 20, *option)
    assert answer.code == 1
    assert missed in answer.out
    assert json.loads(ganexport("diff", two_variants, ":other", "-n", 20, *option, "--json").out)["problems"]


def test_limits_that_are_kept_are_0(ganexport: Ganexport, two_variants: Path) -> None:
    kept = ("--bound", "3", "--floor", "psnr=0.1")
    assert ganexport("diff", two_variants, ":other", "-n", 20, *kept).code == 0


def test_two_trainings_can_be_compared(
    ganexport: Ganexport, exported_once: Exported, tmp_path: Path, checkpoint_once: Path
) -> None:
    module, spec, record = odd.lively_with_spec("dcgan_generator", 9, z_size=16, size=16, channels=1, width=8)
    save_generator(tmp_path / "later", module, record, spec)
    found = diff(ganexport, exported_once.path, tmp_path / "later", "-n", 50)
    assert found["outputs"]["image"]["psnr_db"] < 40


def test_the_picture_shows_what_is_worst(ganexport: Ganexport, two_variants: Path, tmp_path: Path) -> None:
    picture = tmp_path / "worst.png"
    answer = ganexport("diff", two_variants, ":other", "-n", 20, "-o", picture, "--worst", 2)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == f"written: {picture}"
    with PIL.Image.open(picture) as opened:
        assert opened.size[0] > 3 * 16 * 10
        assert opened.mode == "RGB"


def test_pixels_are_within_half_a_level_of_values(
    ganexport: Ganexport, exported_with_pixels_once: Exported, checkpoint_once: Path, tmp_path: Path
) -> None:
    path = exported_with_pixels_once.path
    found = diff(ganexport, checkpoint_once, f"{path}:fp32-uint8", "-n", 30, "-o", tmp_path / "worst.png")
    assert found["in_levels"]
    assert 0.4 < found["outputs"]["image"]["max_abs"] < 0.5 + 1e-2
    assert found["outputs"]["image"]["range"] == [0, 255]
    twice = diff(ganexport, f"{path}:fp32-uint8", ":fp32-uint8", "-n", 30)
    assert (twice["in_levels"], twice["outputs"]["image"]["max_abs"]) == (True, 0)


def write_png(path: Path) -> Path:
    PIL.Image.new("L", (4, 4)).save(path, "PNG")
    return path


def test_wrong_sides_are_named(
    ganexport: Ganexport, lively_bundle: Path, checkpoint_once: Path, tmp_path: Path
) -> None:
    module, spec, record = odd.lively_with_spec("dcgan_generator", z_size=8, size=16, channels=3, width=8)
    save_generator(tmp_path / "other", module, record, spec)
    (tmp_path / "empty").mkdir()
    drawn = write_png(tmp_path / "drawn.gan")
    for sides, said in {
        (lively_bundle, tmp_path / "missing.gan"): "missing.gan does not exist",
        (tmp_path / "missing.gan:fp16", lively_bundle): "missing.gan does not exist",
        (lively_bundle, ":fp64"): "has no variant 'fp64'",
        (checkpoint_once, ":fp16"): "names a variant and no bundle",
        (":fp16", checkpoint_once): "names a variant and no bundle",
        (lively_bundle, f"{checkpoint_once}:fp16"): "is a checkpoint, and has no variants",
        (lively_bundle, drawn): "is a file, and a bundle is a folder",
        (lively_bundle, tmp_path / "empty"): "holds no checkpoint",
        (lively_bundle, tmp_path / "other"): "input z: shape is [16] in A and [8] in B",
    }.items():
        answer = ganexport("diff", *sides)
        assert answer.code == 1, sides
        assert said in answer.err, answer.err
    assert "output image: shape is [1, 16, 16] in A and [3, 16, 16] in B" in answer.err


def test_options_that_do_not_fit_are_refused_before_anything_runs(
    ganexport: Ganexport, lively_bundle: Path, tmp_path: Path
) -> None:
    for options, said in {
        ("-o", tmp_path / "worst.jpg"): "the picture is a PNG file",
        ("-o", tmp_path / "missing" / "worst.png"): "its folder does not exist",
        ("--bound", "-1"): "--bound is not one",
        ("--bound", "nan"): "--bound is not one",
        ("--floor", "psnr"): "--floor is not one",
        ("--floor", "beauty=3"): "--floor is not one",
        ("--first", 2**64 - 1): "the range of indices ends after the last one",
        ("--device", "tpu"): "tpu",
    }.items():
        answer = ganexport("diff", lively_bundle, lively_bundle, *options)
        assert answer.code == 1, options
        assert said in answer.err, answer.err
        assert answer.out == ""
    assert ganexport("diff", lively_bundle, lively_bundle, "-n", -3).code == 2


def test_where_height_and_width_vary_it_compares_at_several_sizes(ganexport: Ganexport, tmp_path: Path) -> None:
    painter = write_painter(tmp_path / "painter.gan")
    answer = ganexport("diff", painter, painter, "-n", 4, "--json")
    assert answer.code == 0, answer.err
    table = json.loads(answer.out)
    assert table["sizes"][0]["size"] == [64, 64]
    assert len(table["sizes"]) == 4
    again = ganexport(
        "diff", painter, painter, "-n", 3, "--size", "8x6", "--size", "4x10", "-o", tmp_path / "w.png", "--bound", 0
    )
    assert again.code == 0, again.err
    assert "height 8, width 6" in again.out
    assert "height 4, width 10" in again.out
    assert PIL.Image.open(tmp_path / "w.png").size[0] > 0
    for size, message in (("7x6", "size that the network does not take"), ("8", "HEIGHTxWIDTH")):
        answer = ganexport("diff", painter, painter, "--size", size)
        assert answer.code not in (0, None)
        assert message in answer.err
