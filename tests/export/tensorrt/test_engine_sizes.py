"""Engines for images of several sizes: options, profiles, build, proof, record, and how a session picks a profile."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imaginary_machine import Machine
from tensorrt_bundles import sized_generator, sized_spec, spec_of, write_sized_bundle
from to_trt_command import run

import ganruntime
from ganexport.probes import probe_inputs
from ganexport.tensorrt.engine_builder import engine_from_onnx
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.job import Job, Made, run_job
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.preflight import preflight_from_onnx
from ganexport.tensorrt.profiles import Profile, profiles_from_buckets, sizes_from_text, sorted_sizes
from ganexport.verification import verify_bundle
from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.errors import BackendError, EngineError, InputError, MissingDependencyError, ParityError
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.tensorrt import TensorRTSession
from ganruntime.sizes import Size, size_option, spec_at
from ganruntime.spec import GeneratorSpec, Image, TensorSpec, Tokens

SIZES = ((32, 48), (64, 64))
OPTIONS = BuildOptions(buckets=(1, 4), sizes=SIZES)


@pytest.fixture
def sized(machine: Machine, tmp_path: Path) -> Bundle:
    return write_sized_bundle(tmp_path / "sized.gan")


@pytest.fixture
def built(sized: Bundle) -> Bundle:
    engine_into_bundle(sized.path, OPTIONS)
    return read_bundle(sized.path)


def engine_of(bundle: Bundle) -> Variant:
    (variant,) = (v for v in bundle.manifest.variants if v.format == "tensorrt")
    return variant


def inputs_at(size: Size, batch: int, seed: int = 1) -> dict[str, np.ndarray]:
    rows = probe_inputs(spec_at(sized_spec(), size), seed, 0, batch)
    return {name: np.ascontiguousarray(array) for name, array in rows.items()}


# --- options and profiles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("64x64", ((64, 64),)),
        ("256x128, 64x64", ((64, 64), (256, 128))),
        ("32x64,64x32", ((32, 64), (64, 32))),
    ],
)
def test_sizes_are_read_in_any_order(text: str, sizes: tuple[Size, ...]) -> None:
    assert sizes_from_text(text) == sizes


@given(st.sets(st.tuples(st.integers(1, 65536), st.integers(1, 65536)), min_size=1, max_size=6))
def test_sizes_go_to_text_and_back(sizes: set[Size]) -> None:
    assert sizes_from_text(size_option(sizes)) == sorted_sizes(sizes)


@pytest.mark.parametrize("text", ["", "64", "64x", "0x64", "64x64,", "64x65537", "64×64", "64X64", "-1x4", "6 4x64"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not a height and a width") as caught:
        sizes_from_text(text)
    assert "64x64,256x256" in str(caught.value)


def test_a_size_twice_is_an_error_with_the_right_list() -> None:
    with pytest.raises(InputError, match="64x64 stands there twice") as caught:
        sizes_from_text("64x64,8x8,64x64")
    assert "--size 8x8,64x64" in str(caught.value)


def test_a_profile_for_each_size_at_each_bucket_and_a_dynamic_one() -> None:
    profiles = profiles_from_buckets((1, 4), ((32, 48), (64, 40)), (8, 8))
    static = [Profile(b, b, b, (size,) * 3) for size in ((32, 48), (64, 40)) for b in (1, 4)]
    assert profiles == (*static, Profile(1, 4, 4, ((8, 8), (64, 48), (64, 48))))
    assert [str(p) for p in profiles] == ["1@32x48", "4@32x48", "1@64x40", "4@64x40", "1..4@8x8..64x48"]
    assert [p.static for p in profiles] == [True] * 4 + [False]
    # One size and one batch, but other sizes; and nothing beside it.
    assert [str(p) for p in profiles_from_buckets((1,), ((16, 16),), (8, 8))] == ["1@16x16", "1@8x8..16x16"]
    assert [str(p) for p in profiles_from_buckets((1,), ((8, 8),), (8, 8))] == ["1@8x8"]


def test_every_input_of_a_profile_follows_the_size() -> None:
    shapes = Profile(1, 4, 4, ((8, 8), (64, 48), (64, 48))).shapes(sized_spec())
    assert shapes == {
        "photo": ((1, 1, 8, 8), (4, 1, 64, 48), (4, 1, 64, 48)),
        "hint": ((1, 1, 4, 4), (4, 1, 32, 24), (4, 1, 32, 24)),
    }


def test_without_a_size_it_is_the_default_one() -> None:
    assert BuildOptions().fitted(sized_spec()).sizes == ((64, 64),)
    assert OPTIONS.fitted(sized_spec()) == OPTIONS
    assert OPTIONS.command("x.gan") == "ganexport to-trt x.gan --precision fp32 --batch 1,4 --size 32x48,64x64"


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="takes and gives one size only") as caught:
        BuildOptions(sizes=((8, 8),)).fitted(spec_of())
    assert "leave --size out" in str(caught.value)
    with pytest.raises(InputError, match="multiples of 4, at least 8"):
        BuildOptions(sizes=((30, 32),)).fitted(sized_spec())
    with pytest.raises(InputError, match="--batch 64 is too large at 40000x8192: 'photo'"):
        BuildOptions(sizes=((40000, 8), (8, 8192))).fitted(sized_spec())
    words = TensorSpec("words", "int64", (None,), Tokens(10))
    spec = GeneratorSpec("said", (words,), (TensorSpec("x", "float32", (1, 8, 8), Image()),))
    with pytest.raises(InputError, match="'words' has dimensions that vary"):
        BuildOptions().fitted(spec)


# --- build, proof, record ---------------------------------------------------------------------------------------------


def test_it_is_built_proven_at_every_size_and_recorded(machine: Machine, sized: Bundle) -> None:
    proven: list[tuple[int, int]] = []
    engine = engine_into_bundle(sized.path, OPTIONS, on_proof=lambda done, total: proven.append((done, total)))
    (build,) = machine.builds
    assert [p["photo"][0] for p in build["profiles"]] == [
        [1, 1, 32, 48], [4, 1, 32, 48], [1, 1, 64, 64], [4, 1, 64, 64], [1, 1, 8, 8],
    ]  # fmt: skip
    assert build["profiles"][-1]["hint"] == [[1, 1, 4, 4], [4, 1, 32, 32], [4, 1, 32, 32]]
    verdict = engine.finding.verdict
    assert verdict.passed
    # The golden sizes that its profiles take (52 x 32 and 32 x 52 reach no further than 64), then the other tuned one.
    assert verdict.sizes[0] == (64, 64)
    assert verdict.sizes[-1] == (32, 48)
    assert (8, 8) in verdict.sizes
    assert verdict.batches == (1, 3, 4)
    assert verdict.reference == "golden samples; at 32x48 the fp32 graph by ONNX Runtime"
    assert proven[-1][0] == proven[-1][1]
    bundle = read_bundle(sized.path)
    record = engine_of(bundle).engine
    assert record is not None
    assert (record.sizes, record.size_range) == (SIZES, ((8, 8), (64, 64)))
    profiles = ["1@32x48", "4@32x48", "1@64x64", "4@64x64", "1..4@8x8..64x64"]
    assert bundle.manifest.reports["engines"][engine.variant.name]["profiles"] == profiles


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 4])
def test_kernels_that_are_wrong_at_one_size_and_batch_are_found(
    machine: Machine, sized: Bundle, size: Size, batch: int
) -> None:
    height, width = size
    machine.wrong_at_shapes.append({"photo": (batch, 1, height, width), "hint": (batch, 1, height // 2, width // 2)})
    with pytest.raises(ParityError, match="does not compute what the generator computes") as caught:
        engine_into_bundle(sized.path, OPTIONS)
    assert f"at height {height}, width {width}" in str(caught.value)
    assert [v.format for v in read_bundle(sized.path).manifest.variants] == ["onnx"]


def test_a_size_beside_the_golden_ones_needs_a_reference_before_the_build(
    machine: Machine, sized: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganexport.tensorrt.engine_proof.installed", lambda backend: False)
    with pytest.raises(MissingDependencyError, match="engines for 32x48 are proven against the graph") as caught:
        engine_into_bundle(sized.path, OPTIONS)
    assert 'pip install "ganexport[cpu]"' in str(caught.value)
    assert machine.builds == []
    engine = engine_into_bundle(sized.path, BuildOptions(buckets=(1,)))
    assert engine.finding.verdict.reference == "onnxruntime"


def test_golden_samples_that_are_too_large_leave_the_smaller_ones(machine: Machine, sized: Bundle) -> None:
    engine = engine_into_bundle(sized.path, BuildOptions(buckets=(1, 2), sizes=((16, 16),)))
    verdict = engine.finding.verdict
    assert verdict.sizes == ((8, 8), (16, 16))
    assert verdict.batches == (1, 2)


def test_a_graph_with_a_fixed_height_is_refused(machine: Machine) -> None:
    with pytest.raises(EngineError, match="'photo' has another shape in the graph") as caught:
        engine_from_onnx(sized_generator(fixed=32), sized_spec(), OPTIONS)
    assert "[-1, 1, 32, -1]" in str(caught.value)
    found = preflight_from_onnx(sized_generator(fixed=32), (11, 4), spec=sized_spec())
    assert [f.problem.split(" has ")[0] for f in found.findings if f.rule == "fixed-size"] == [
        "input 'photo'", "input 'hint'", "output 'image'",
    ]  # fmt: skip
    assert not found.ok
    assert preflight_from_onnx(sized_generator(), (11, 4), spec=sized_spec()).ok


def test_a_job_comes_back_from_its_folder_with_its_sizes(machine: Machine, tmp_path: Path) -> None:
    job = Job(sized_generator(), sized_spec(), BuildOptions(buckets=(1,), sizes=SIZES))
    made = run_job(job)
    job.write(tmp_path)
    made.write(tmp_path)
    again = Job.read(tmp_path)
    assert again == job
    assert Made.read(tmp_path, again) == made


# --- the session ------------------------------------------------------------------------------------------------------


def test_each_size_and_batch_runs_on_its_profile(machine: Machine, built: Bundle) -> None:
    graph = ganruntime.load(built, device="cpu", backend="onnxruntime", precision="fp32", threads=1)
    machine.profile_switches.clear()
    with TensorRTSession(built, engine_of(built)) as session:
        assert machine.profile_switches == [0, 1, 2, 3] * 2
        assert session.warm_sizes == SIZES
        for size, batch in [((64, 64), 4), ((32, 48), 1), ((8, 8), 4), ((40, 64), 1), ((12, 8), 4), ((32, 48), 4)]:
            inputs = inputs_at(size, batch)
            out = empty_outputs(spec_at(built.spec, size), batch)
            session.run(inputs, out)
            assert out["image"].shape == (batch, 1, 2 * size[0], 2 * size[1])
            np.testing.assert_allclose(out["image"], graph.outputs(inputs)["image"], atol=1e-6)
        # The dynamic profile, once on each lane.
        assert machine.profile_switches[8:] == [4, 4]
        described = session.describe()
        assert described["sizes"] == [[32, 48], [64, 64]]
        assert described["cuda_graphs"]["used"] == ["1@32x48", "4@32x48", "1@64x64", "4@64x64"]
        assert list(described["cuda_graphs"]["not_used"]) == ["other sizes"]
    graph.close()


def test_it_serves_requests_of_any_size_through_the_generator(built: Bundle) -> None:
    variant = engine_of(built)
    with (
        ganruntime.load(built, backend="tensorrt", precision=variant.name) as generator,
        ganruntime.load(built, device="cpu", backend="onnxruntime", precision="fp32", threads=1) as graph,
    ):
        for size in ((64, 64), (24, 60)):
            given = inputs_at(size, 11)
            images = generator.generate(11, **given)
            assert images.shape == (11, 2 * size[0], 2 * size[1], 1)
            np.testing.assert_allclose(images.astype(int), graph.generate(11, **given).astype(int), atol=1)


def test_a_size_that_no_profile_takes_names_the_command(built: Bundle) -> None:
    with TensorRTSession(built, engine_of(built)) as session:
        assert session.takes((64, 64))
        assert not session.takes((68, 8))
        out = empty_outputs(spec_at(built.spec, (68, 32)), 1)
        with pytest.raises(InputError, match="takes no images of this size") as caught:
            session.run(inputs_at((68, 32), 1), out)
        assert "height 68, width 32" in str(caught.value)
        assert "height 8 to 64, width 8 to 64" in str(caught.value)
        command = f"ganexport to-trt {built.path} --precision fp32 --batch 1,4 --size 32x48,68x32,64x64"
        assert command in str(caught.value)
        session.run(inputs_at((64, 32), 1), empty_outputs(spec_at(built.spec, (64, 32)), 1))
    with TensorRTSession(built, engine_of(built)) as session:
        with pytest.raises(InputError, match="multiples of 4, at least 8"):
            session.run(inputs_at((64, 64), 1) | {"photo": np.zeros((1, 1, 62, 64), np.float32)}, out)
        with pytest.raises(InputError, match="'photo' is not the array"):
            session.run(inputs_at((64, 64), 1) | {"photo": np.zeros((1, 64, 64), np.float32)}, out)
        with pytest.raises(InputError, match="'hint' is not the array"):
            session.run(inputs_at((64, 64), 1) | {"hint": np.zeros((1, 1, 32, 30), np.float32)}, out)


def test_a_bucket_that_only_another_engine_takes(built: Bundle) -> None:
    with pytest.raises(EngineError, match="8 at 32x48 is not a batch that the engine") as caught:
        TensorRTSession(built, engine_of(built), "cuda", (1, 8))
    assert "--batch 1,4,8 --size 32x48,64x64" in str(caught.value)


def test_a_record_without_sizes_is_refused(built: Bundle) -> None:
    variant = engine_of(built)
    assert variant.engine is not None
    unsaid = replace(variant, engine=replace(variant.engine, sizes=(), size_range=()))
    with pytest.raises(BackendError, match="does not say which sizes") as caught:
        TensorRTSession(built, unsaid)
    assert "ganexport to-trt" in str(caught.value)


def test_verify_runs_an_engine_at_the_sizes_that_it_takes(sized: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_into_bundle(sized.path, BuildOptions(buckets=(1, 2), sizes=((16, 16),)))
    bundle = read_bundle(sized.path)
    report = verify_bundle(bundle, device="cuda:0", variants=[engine_of(bundle).name], batches=(1, 2))
    (finding,) = report.findings.values()
    assert finding.problems == []
    assert finding.verdict.sizes == ((8, 8),)


def test_a_refit_keeps_the_sizes(machine: Machine, sized: Bundle) -> None:
    from ganexport.tensorrt.refit_bundle import refit_into_bundle

    engine_into_bundle(sized.path, replace(OPTIONS, refittable=True))
    variant = engine_of(read_bundle(sized.path))
    assert variant.engine is not None
    old = replace(variant.engine, graph_sha256="0" * 64)
    with bundle_changed(sized.path) as draft:
        draft.put_variant(replace(variant, engine=old))
    (engine,) = refit_into_bundle(sized.path).engines
    assert engine.variant.engine is not None
    assert (engine.variant.engine.sizes, engine.finding.verdict.passed) == (SIZES, True)
    assert len(machine.builds) == 1


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_takes_sizes(machine: Machine, sized: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, sized.path, "--batch", "1", "--size", "64x64,16x24")
    assert (code, err) == (0, "")
    assert "profiles  1@16x24, 1@64x64, 1@8x8..64x64" in out
    assert "and sizes 64x64" in out
    code, out, err = run(capsys, sized.path, "--size", "62x64")
    assert (code, out) == (1, "")
    assert "multiples of 4, at least 8" in err


def test_check_tells_of_profiles_and_of_sizes_that_do_not_fit(
    sized: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, out, err = run(capsys, sized.path, "--check", "--target", "11.4", "--batch", "2", "--size", "64x64")
    assert (code, err) == (0, "")
    assert "profiles: 2@64x64, 1..2@8x8..64x64" in out
    code, out, err = run(capsys, sized.path, "--check", "--size", "10x64")
    assert (code, out) == (1, "")
    assert "multiples of 4, at least 8" in err
    with bundle_changed(sized.path) as draft:
        draft.add("model.onnx", sized_generator(fixed=32))
    code, out, _ = run(capsys, sized.path, "--check", "--target", "11.4")
    assert code == 1
    assert "has a fixed height or width of 32, and by the spec it varies" in out
