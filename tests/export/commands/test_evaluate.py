"""`ganexport evaluate`: one score wherever a generator runs, its table, JSON and picture, and refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from command_line import Ganexport
from odd_networks import lively_with_spec
from small_bundles import write_small_bundle

from ganexport.bundling import Exported
from ganruntime.spec import Image, Latent, TensorSpec, Vector
from gantrain.checkpoint import save_generator
from gantrain.run_folder import RunRecord, write_run

FIGURES = ["fid", "kid", "precision", "recall", "density", "coverage", "neighbour_ratio", "nearer_to_train"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANEXPORT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 grey pictures of 16 px, in a folder without classes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k in range(120):
        image = rng.integers(0, 60, (16, 16), dtype=np.uint8)
        image[k % 12 : k % 12 + 4, 3:13] += 150
        PIL.Image.fromarray(image).save(folder / f"{k:03d}.png")
    return folder


@pytest.fixture(scope="module")
def classes(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a folder for each of three classes, by where the bar is."""
    root = tmp_path_factory.mktemp("classes")
    for k, path in enumerate(sorted(pictures.iterdir())):
        folder = root / ("zero", "one", "two")[k % 12 // 4]
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


def scores(ganexport: Ganexport, *arguments: object) -> dict[str, Any]:
    answer = ganexport("evaluate", *arguments, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    found["values"] = {f"{f['name']}[{f['features']}]": f["value"] for f in found["figures"]}
    return found


def test_checkpoint_graph_and_pixel_graph_have_the_same_score(
    ganexport: Ganexport, checkpoint_once: Path, exported_with_pixels_once: Exported, pictures: Path
) -> None:
    bundle = exported_with_pixels_once.path
    about = ("--data", pictures, "--held-out", 0.25, "-n", 100, "--seed", 3)
    names = (checkpoint_once, f"{bundle}:fp32", f"{bundle}:fp32-uint8")
    found = [scores(ganexport, name, *about) for name in names]
    assert [f["figures"][0]["features"] for f in found] == ["random-32px"] * 3
    assert [f["name"] for f in found[0]["figures"]] == FIGURES
    assert found[0]["where"].startswith("eager torch")
    assert found[1]["where"].startswith("onnxruntime")
    for other in found[1:]:
        # Outputs differ by 1e-6, so at most a pixel in some thousand is rounded to the next level.
        assert other["values"] == pytest.approx(found[0]["values"], rel=1e-3, abs=1e-4)
    again = scores(ganexport, names[1], *about)
    assert again["values"] == found[1]["values"]
    other_seed = scores(ganexport, names[1], *about[:-1], 4)
    assert other_seed["values"] != found[1]["values"]


def test_openvino_scores_the_same(ganexport: Ganexport, exported_once: Exported, pictures: Path) -> None:
    pytest.importorskip("openvino")
    about = (exported_once.path, "--data", pictures, "-n", 64, "--metric", "fid")
    one, two = scores(ganexport, *about), scores(ganexport, *about, "--backend", "openvino")
    assert two["where"].startswith("openvino")
    assert two["values"] == pytest.approx(one["values"], rel=1e-3)


def test_figures_are_those_of_the_images_that_generate_draws(
    ganexport: Ganexport, exported_once: Exported, pictures: Path
) -> None:
    from ganruntime import load
    from gantrain.data.named import source_from_name
    from gantrain.metrics.frechet import frechet_distance
    from gantrain.metrics.random_features import RandomFeatures

    with load(exported_once.path, "cpu") as generator:
        drawn = generator.generate(70, seed=9, first=5)
    real = source_from_name(str(pictures), 16).images
    space = RandomFeatures()
    wanted = frechet_distance(space.describe(real).features, space.describe(drawn).features)
    found = scores(
        ganexport, exported_once.path, "--data", pictures, "-n", 70, "--seed", 9, "--first", 5, "--metric", "fid",
        "--reference", "all",
    )  # fmt: skip
    # 70 of the 120 real images are taken, as many as are generated.
    assert found["real"].startswith("70 of 120 images")
    full = scores(ganexport, exported_once.path, "--data", pictures, "-n", 120, "--seed", 9, "--metric", "fid")
    assert full["real"].startswith("120 images")
    assert found["values"]["fid[random-32px]"] == pytest.approx(wanted, rel=0.2)


def test_the_table_names_spaces_and_samples_and_files_are_written(
    ganexport: Ganexport, checkpoint_once: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "scores"
    answer = ganexport("evaluate", checkpoint_once, "--data", pictures, "--held-out", 0.2, "-n", 80, "-o", out)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert "80 samples, seed 0, indices 0 to 79" in answer.out
    assert f"real       24 images held out of {pictures.name}" in lines
    (fid,) = [line.split() for line in lines if line.startswith("fid ")]
    assert fid[2:] == ["lower", "24,", "80", "random-32px"]
    assert "no entropy: there are no classes to judge by" in answer.out
    stored = json.loads((out / "scores.json").read_text())
    assert stored["samples"] == 80
    assert [f["name"] for f in stored["figures"]] == FIGURES
    assert len(stored["nearest_to_train"]) == 8
    distances = [pair["distance_train"] for pair in stored["nearest_to_train"]]
    assert distances == sorted(distances)
    with PIL.Image.open(out / "neighbours.png") as picture:
        assert picture.width > 8 * 112
    assert f"written: {out / 'scores.json'}, {out / 'neighbours.png'}" in answer.out


def test_a_conditional_generator_is_asked_for_classes(
    ganexport: Ganexport, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganruntime import load, noise
    from gantrain.data.named import source_from_name
    from gantrain.metrics import judge

    monkeypatch.setattr(judge, "_LEAST_STEPS", 30)
    bundle = write_small_bundle(tmp_path / "c.gan", conditional=True)  # 8 px, RGB, classes zero, one, two
    found = scores(ganexport, bundle, "--data", classes, "-n", 64)
    assert found["judge_accuracy"]["class"] > 0.5
    names = {f["name"] for f in found["figures"]}
    assert {"conditional_accuracy", "quality", "diversity", "inception_score", "dropped_classes"} <= names
    # The folders are classes in alphabetical order, one, two, zero, which is not the generator's.
    source = source_from_name(str(classes), 8, channels=3)
    assert source.classes["class"] == ("one", "two", "zero")
    with load(bundle, "cpu") as generator:
        asked = noise.inputs(generator.spec, 0, 0, 64)["label"]
        told = judge.judge_of(source).describe(generator.generate(64, seed=0)).probabilities["class"].argmax(axis=1)
    wanted = (np.array([2, 0, 1])[asked] == told).mean()
    (figure,) = (f for f in found["figures"] if f["name"] == "conditional_accuracy")
    assert figure["value"] == wanted
    assert figure["features"].startswith(f"{classes.name}-judge-8px-")
    (classes / "dataset.json").write_text(
        json.dumps(
            {"labels": [[p.relative_to(classes).as_posix(), k % 3] for k, p in enumerate(classes.rglob("*.png"))]}
        )
    )
    assert "conditional" in scores(ganexport, bundle, "--data", classes, "-n", 64)["skipped"]


def test_a_run_knows_its_data_and_what_was_held_out(ganexport: Ganexport, pictures: Path, tmp_path: Path) -> None:
    module, spec, record = lively_with_spec("mlp_generator", size=16, z_size=4, widths=[16])
    run = tmp_path / "run"
    run.mkdir()
    save_generator(run / "checkpoint", module, record, spec)
    settings, data = {"images": 80, "held_out": 0.25}, {"source": str(pictures.resolve()), "name": pictures.name}
    write_run(run, RunRecord("mlp", settings, data, 0, "cpu", 1, {}))
    about = ("-n", 30, "--metric", "kid")
    for path in (run, run / "checkpoint"):
        assert scores(ganexport, path, *about)["real"] == f"20 images held out of {pictures.name}"
    assert scores(ganexport, run, *about, "--data", pictures)["real"] == f"20 images held out of {pictures.name}"
    assert scores(ganexport, run, *about, "--held-out", 0)["real"].startswith("30 of 80 images")
    # Of other data the run says nothing.
    other = shutil.copytree(pictures, tmp_path / "other")
    assert scores(ganexport, run, *about, "--data", other)["real"].startswith("30 of 120 images of other, which")
    # A checkpoint or bundle alone may say the share, of the data that it names.
    alone = tmp_path / "alone"
    provenance = replace(spec.provenance, dataset="other", metrics={"held_out_share": 0.2})
    save_generator(alone, module, record, replace(spec, provenance=provenance))
    assert scores(ganexport, alone, *about, "--data", other)["real"] == "24 images held out of other"
    assert scores(ganexport, alone, *about, "--data", pictures)["real"].startswith("30 of 120 images")
    (run / "run.json").write_text("{}")
    answer = ganexport("evaluate", run, *about)
    assert (answer.code, answer.err.startswith("error: "), "run.json" in answer.err) == (1, True, True)


def vectors_checkpoint(path: Path, network: str = "vector_generator") -> Path:
    module, spec, record = lively_with_spec(network)
    save_generator(path, module, record, spec)
    return path


def test_a_generator_of_vectors_is_held_against_a_toy(ganexport: Ganexport, tmp_path: Path) -> None:
    path = vectors_checkpoint(tmp_path / "toy")
    found = scores(ganexport, path, "--data", "ring", "-n", 300)
    assert {"modes_found", "high_quality", "mode_distance", "fid"} <= {f["name"] for f in found["figures"]}
    assert {f["features"] for f in found["figures"]} == {"values"}
    table = ganexport("evaluate", path, "--data", "grid", "-n", 300, "--metric", "modes").out
    assert " of 25 " in table
    for data in ("digits", "curves"):
        answer = ganexport("evaluate", path, "--data", data)
        assert answer.code == 1
        assert data in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "rings"), "no data source 'rings'"),
        (("--data", "ring"), "toy distribution of vectors"),
        ((), "does not say what it learned from"),
        (("--data", "PICTURES", "--metric", "FID"), "no metric is called 'FID'"),
        (("--data", "PICTURES", "--metric", "modes"), "toys ring and grid alone"),
        (("--data", "PICTURES", "--metric", "memorisation"), "never saw"),
        (("--data", "PICTURES", "--reference", "held-out"), "nothing of"),
        (("--data", "PICTURES", "--features", "judge"), "no labels"),
        (("--data", "PICTURES", "--features", "inception.pt"), "no features file"),
        (("--data", "PICTURES", "--images", 500), "does not have that many"),
        (("--data", "PICTURES", "--held-out", 0.01), "too small to hold out"),
        (("--data", "PICTURES", "--device", "cuda:7"), "cuda"),
    ],
)
def test_wrong_requests_are_errors_with_a_remedy(
    ganexport: Ganexport, exported_once: Exported, pictures: Path, arguments: tuple[object, ...], said: str
) -> None:
    words = [pictures if a == "PICTURES" else a for a in arguments]
    answer = ganexport("evaluate", exported_once.path, "-n", 20, *words)
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert said in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "arguments", [("-n", 3), ("--seed", -1), ("--held-out", 0.9), ("--reference", "test"), ("--backend", "torch")]
)
def test_wrong_usage_is_two(ganexport: Ganexport, exported_once: Exported, arguments: tuple[object, ...]) -> None:
    assert ganexport("evaluate", exported_once.path, "--data", "digits", *arguments).code == 2


def test_a_generator_that_draws_from_no_latent_or_no_image_is_refused(
    ganexport: Ganexport, checkpoint_once: Path, pictures: Path, tmp_path: Path
) -> None:
    missing = ganexport("evaluate", tmp_path / "nothing.gan", "--data", pictures)
    assert (missing.code, "does not exist" in missing.err) == (1, True)
    backend = ganexport("evaluate", checkpoint_once, "--data", pictures, "--backend", "openvino")
    assert (backend.code, "PyTorch runs" in backend.err) == (1, True)
    blocked = tmp_path / "file"
    blocked.write_text("here")
    out = ganexport("evaluate", checkpoint_once, "--data", pictures, "-o", blocked)
    assert (out.code, "cannot be made a folder" in out.err) == (1, True)


def test_what_can_be_judged_of_a_spec() -> None:
    from ganexport.evaluation.generated import asked_attributes, judged_output
    from ganruntime.errors import InputError
    from ganruntime.spec import GeneratorSpec, Label

    z = TensorSpec("z", "float32", (4,), Latent())
    picture = TensorSpec("photo", "float32", (3, 8, 8), Image())
    odd = TensorSpec("wide", "float32", (3, 8, 16), Image())
    hwc = TensorSpec("image", "float32", (8, 8, 1), Image(layout="HWC"))
    vector = TensorSpec("v", "float32", (3,), Vector())
    assert judged_output(GeneratorSpec("a", (z,), (vector, odd, hwc))).tensor.name == "image"
    assert judged_output(GeneratorSpec("a", (z,), (odd, vector))).size == 3
    with pytest.raises(InputError, match="nothing that can be judged"):
        judged_output(GeneratorSpec("a", (z,), (odd,)))
    with pytest.raises(InputError, match="latents alone"):
        judged_output(GeneratorSpec("a", (picture,), (hwc,)))
    label, mouth = TensorSpec("label", "int64", (), Label(("a", "b"))), TensorSpec("y", "int64", (), Label(("c", "d")))
    spec = GeneratorSpec("a", (z, label, mouth), (hwc,))
    found = asked_attributes(spec, {"kind": ("b", "a"), "y": ("c", "d"), "x": ("c", "d")})
    assert {name: (attribute, numbers.tolist()) for name, (attribute, numbers) in found.items()} == {
        "label": ("kind", [1, 0]),
        "y": ("y", [0, 1]),
    }
    assert asked_attributes(spec, {"kind": ("b", "z"), "u": ("c", "d"), "x": ("c", "d")}) == {}


def test_help_has_an_example(ganexport: Ganexport) -> None:
    answer = ganexport("evaluate", "--help")
    assert answer.code == 0
    assert "\n  Example:\n    ganexport evaluate runs/digits\n" in answer.out
