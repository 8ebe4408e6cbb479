"""New weights for old engines: at load where the plan has none, and by --refit after another training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from imaginary_machine import FakeGpu, Machine
from onnx import numpy_helper
from tensorrt_bundles import add_half, half_generator, onnx_generator, write_bundle
from to_trt_command import run

from ganexport.tensorrt.graph_key import graph_key_from_onnx
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.job import run_job
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.refit_bundle import refit_into_bundle
from ganruntime.bundle import Bundle, bundle_changed, read_bundle
from ganruntime.errors import EngineError, InputError, ParityError
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.tensorrt import TensorRTSession

REFITTABLE = BuildOptions(buckets=(1, 4), refittable=True)
STRIPPED = BuildOptions(buckets=(1, 4), stripped=True)


@pytest.fixture
def retrained(tmp_path: Path) -> Path:
    """The same architecture with other weights."""
    return write_bundle(tmp_path / "retrained.gan", seed=7).path


def serves_its_golden_images(bundle: Bundle, name: str, atol: float = 1e-5) -> None:
    out = empty_outputs(bundle.spec, 4)
    with TensorRTSession(bundle, bundle.variant(name)) as session:
        session.run({"z": np.ascontiguousarray(bundle.golden()["input.z"][:4])}, out)
    np.testing.assert_allclose(out["image"], bundle.golden()["output.image"][:4], atol=atol)


# --- the key ----------------------------------------------------------------------------------------------------------


def changed_graph(change: str) -> bytes:
    model = onnx.load_from_string(onnx_generator())
    nodes, weights = model.graph.node, {t.name: t for t in model.graph.initializer}
    if change == "operator":
        nodes[-1].op_type = "Sigmoid"
    elif change == "attribute":
        next(a for a in nodes[2].attribute if a.name == "pads").ints[:] = [0, 0, 2, 2]
    elif change == "shape":
        weights["shape"].CopyFrom(numpy_helper.from_array(np.array([-1, 8, 2, 8], np.int64), "shape"))
    elif change == "width":
        weights["kernel"].CopyFrom(numpy_helper.from_array(np.zeros((8, 1, 6, 6), np.float32), "kernel"))
    elif change == "opset":
        model.opset_import[0].version = 19
    elif change == "wiring":
        nodes[1].input[0], nodes[1].output[0] = "flat", "map2"
        nodes[2].input[0] = "map2"
    return model.SerializeToString()


def test_the_key_is_blind_to_weights_only() -> None:
    key = graph_key_from_onnx(onnx_generator())
    assert key == graph_key_from_onnx(onnx_generator(seed=3))
    others = [changed_graph(c) for c in ("operator", "attribute", "shape", "width", "opset", "wiring")]
    keys = {graph_key_from_onnx(data) for data in (*others, onnx_generator(labelled=True), half_generator())}
    assert key not in keys
    assert len(keys) == 8


def test_names_of_nodes_and_metadata_are_no_part_of_it() -> None:
    model = onnx.load_from_string(onnx_generator())
    for node in model.graph.node:
        node.name, node.doc_string = "", "traced at line 7"
    model.producer_version = "another"
    onnx.helper.set_model_props(model, {"ganexport.spec": "steps: 9000"})
    assert graph_key_from_onnx(model.SerializeToString()) == graph_key_from_onnx(onnx_generator())


def test_floats_that_say_how_a_node_works_are_part_of_it() -> None:
    def clipped(high: float, scale: float, constant: bool) -> bytes:
        low = "l = Constant <value = float {0.0}> ()" if constant else ""
        text = f"""
        <ir_version: 8, opset_import: ["": 18]>
        g (float[N, 4] x) => (float[N, 4] y)
        <float h = {{{high}}}, float s = {{{scale}}}, int8 z = {{0}} {"" if constant else ", float l = {0.0}"}> {{
          {low} c = Clip (x, l, h) q = QuantizeLinear (c, s, z) y = DequantizeLinear (q, s, z)
        }}"""
        return onnx.parser.parse_model(text).SerializeToString()

    for constant in (True, False):
        keys = {graph_key_from_onnx(clipped(h, s, constant)) for h, s in ((1.0, 0.1), (2.0, 0.1), (1.0, 0.2))}
        assert len(keys) == 3


# --- at load ----------------------------------------------------------------------------------------------------------


def test_a_stripped_engine_takes_its_weights_at_load(machine: Machine, bundle_path: Path) -> None:
    engine = engine_into_bundle(bundle_path, STRIPPED)
    bundle = read_bundle(bundle_path)
    serves_its_golden_images(bundle, engine.variant.name)
    # The weights really are not in it.
    model = onnx.load_from_string(bundle.read(engine.variant.file).split(b"\n", 2)[2])
    assert all(not numpy_helper.to_array(t).any() for t in model.graph.initializer if t.name != "shape")


def test_an_engine_of_another_export_is_refused_with_the_way_out(machine: Machine, bundle_path: Path) -> None:
    names = [engine_into_bundle(bundle_path, o).variant.name for o in (STRIPPED, BuildOptions(buckets=(1, 4)))]
    with bundle_changed(bundle_path) as draft:
        draft.add("model.onnx", onnx_generator(seed=7))
    bundle = read_bundle(bundle_path)
    machine.deserialised = 0
    for name, remedy in zip(names, (f"to-trt {bundle_path} --refit", "--precision fp32 --batch 1,4"), strict=True):
        with pytest.raises(EngineError, match="has the weights of another export") as caught:
            TensorRTSession(bundle, bundle.variant(name))
        assert remedy in str(caught.value)
    assert machine.deserialised == 0


def test_weights_that_are_left_over_are_named(machine: Machine, bundle_path: Path) -> None:
    name = engine_into_bundle(bundle_path, STRIPPED).variant.name
    machine.refit_leaves = ("kernel",)
    bundle = read_bundle(bundle_path)
    with pytest.raises(EngineError, match="1 weights are left without values") as caught:
        TensorRTSession(bundle, bundle.variant(name))
    assert "got:      kernel" in str(caught.value)
    assert "--strip" in str(caught.value)
    machine.refitter_starts = False
    with pytest.raises(EngineError, match="refitter does not start"):
        TensorRTSession(bundle, bundle.variant(name))


# --- after another training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [REFITTABLE, STRIPPED, BuildOptions("tf32", (2,), refittable=True, hardware="ampere+")]
)
def test_engines_of_one_export_serve_the_next(
    machine: Machine, bundle_path: Path, retrained: Path, options: BuildOptions
) -> None:
    before = engine_into_bundle(bundle_path, options)
    assert len(machine.builds) == 1
    done = refit_into_bundle(retrained, engines_from=bundle_path)
    assert len(machine.builds) == 1  # nothing was built
    (engine,) = done.engines
    assert done.left == {}
    assert engine.finding.verdict.passed
    assert engine.variant.name == before.variant.name
    bundle = read_bundle(retrained)
    serves_its_golden_images(bundle, engine.variant.name, 1e-2 if options.tf32 else 1e-5) if options.buckets == (
        1,
        4,
    ) else None
    old, new = read_bundle(bundle_path).variant(before.variant.name).engine, bundle.variant(engine.variant.name).engine
    assert old is not None
    assert new is not None
    assert new.graph_sha256 == bundle.manifest.files["model.onnx"].sha256 != old.graph_sha256
    assert new.graph_key == old.graph_key
    # The bundle that the engine came from is as it was, and serves what it served.
    serves_its_golden_images(read_bundle(bundle_path), before.variant.name, 1e-2) if options.buckets == (1, 4) else None


def test_a_bundle_whose_graph_was_exchanged_refits_its_own(
    machine: Machine, bundle_path: Path, retrained: Path
) -> None:
    name = engine_into_bundle(bundle_path, REFITTABLE).variant.name
    new = read_bundle(retrained)
    with bundle_changed(bundle_path) as draft:
        for file in ("model.onnx", "golden.npz"):
            draft.add(file, new.read(file))
    (engine,) = refit_into_bundle(bundle_path).engines
    assert engine.variant.name == name
    serves_its_golden_images(read_bundle(bundle_path), name)
    again = refit_into_bundle(bundle_path)
    assert (again.engines, again.left) == ((), {name: "has these weights already"})


def test_what_cannot_be_refitted_is_said_of_each(
    machine: Machine, bundle_path: Path, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = engine_into_bundle(bundle_path, BuildOptions(buckets=(1,))).variant.name
    with pytest.raises(InputError, match=r"no engine of .* can be given the weights of") as caught:
        refit_into_bundle(retrained, engines_from=bundle_path)
    assert f"{plain}: was not built to be refitted" in str(caught.value)
    engine_into_bundle(bundle_path, REFITTABLE)
    done = refit_into_bundle(retrained, engines_from=bundle_path)
    assert len(done.engines) == 1
    assert done.left == {plain: "was not built to be refitted"}
    labelled = write_bundle(tmp_path / "labelled.gan", labelled=True).path
    with pytest.raises(InputError, match="no engine") as caught:
        refit_into_bundle(labelled, engines_from=bundle_path)
    assert ".refit: was built from another architecture" in str(caught.value)
    Machine(version="11.5.0.1+double").install(monkeypatch)
    with pytest.raises(InputError, match="no engine") as caught:
        refit_into_bundle(retrained, engines_from=bundle_path)
    assert "was built by another TensorRT (11.4.0.106+double)" in str(caught.value)
    Machine(gpus=[FakeGpu("Another", 9, 0)]).install(monkeypatch)
    with pytest.raises(InputError, match="no engine") as caught:
        refit_into_bundle(retrained, engines_from=bundle_path)
    assert "was built for another GPU" in str(caught.value)


def test_a_bundle_without_engines(machine: Machine, bundle_path: Path) -> None:
    with pytest.raises(InputError, match="has no engine to refit") as caught:
        refit_into_bundle(bundle_path)
    assert "--refittable" in str(caught.value)
    assert "--engines-from" in str(caught.value)


def test_a_half_graph_is_refitted_by_a_half_graph(machine: Machine, bundle_path: Path, retrained: Path) -> None:
    add_half(bundle_path)
    engine_into_bundle(bundle_path, BuildOptions("fp16", (1, 4), refittable=True))
    with pytest.raises(InputError, match="no engine") as caught:
        refit_into_bundle(retrained, engines_from=bundle_path)
    assert "has no fp16 graph to build an engine from (fp32 (fp32))" in str(caught.value)
    with bundle_changed(retrained) as draft:
        draft.add("model.fp16.onnx", half_generator(seed=7))
        draft.put_variant(read_bundle(bundle_path).variant("fp16"))
    (engine,) = refit_into_bundle(retrained, engines_from=bundle_path).engines
    serves_its_golden_images(read_bundle(retrained), engine.variant.name, 1e-2)


def test_a_refit_that_computes_wrongly_is_not_added(machine: Machine, bundle_path: Path, retrained: Path) -> None:
    engine_into_bundle(bundle_path, REFITTABLE)
    before = (retrained / "manifest.json").read_bytes()
    machine.refit_drops = ("bias",)
    with pytest.raises(ParityError, match="not added to the bundle") as caught:
        refit_into_bundle(retrained, engines_from=bundle_path)
    assert "build without --refittable and --strip" in str(caught.value)
    assert (retrained / "manifest.json").read_bytes() == before


def test_a_refittable_engine_that_drops_a_bias_is_not_added(machine: Machine, bundle_path: Path) -> None:
    """What TensorRT 11.3.0 is known to do, before any refit."""
    machine.refit_drops = ("bias",)
    engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    with pytest.raises(ParityError, match="not added to the bundle"):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), refittable=True))


def test_weights_of_another_shape_are_refused(machine: Machine, bundle_path: Path) -> None:
    """Where a key would let it through: TensorRT's own word."""
    from ganexport.tensorrt.job import Job

    engine = engine_into_bundle(bundle_path, REFITTABLE)
    bundle = read_bundle(bundle_path)
    job = Job(changed_graph("width"), bundle.spec, REFITTABLE, "a.gan", engine.built.plan)
    with pytest.raises(EngineError, match="the graph's weights do not fit it") as caught:
        run_job(job)
    assert "kernel has [8, 1, 6, 6], not [8, 1, 4, 4]" in str(caught.value)
    with pytest.raises(EngineError, match="takes no new weights"):
        run_job(
            Job(
                onnx_generator(),
                bundle.spec,
                REFITTABLE,
                "a.gan",
                engine_into_bundle(bundle_path, BuildOptions(buckets=(1, 4))).built.plan,
            )
        )
    with pytest.raises(EngineError, match="does not load the engine that is to get new weights"):
        run_job(Job(onnx_generator(), bundle.spec, REFITTABLE, "a.gan", b"junk"))


def test_refit_in_a_process_of_its_own(
    machine: Machine, bundle_path: Path, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganexport.tensorrt.isolated import run_isolated

    engine_into_bundle(bundle_path, REFITTABLE)
    machine.describe(monkeypatch, tmp_path)
    (engine,) = refit_into_bundle(retrained, engines_from=bundle_path, run=run_isolated).engines
    serves_its_golden_images(read_bundle(retrained), engine.variant.name)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_refits(
    machine: Machine, bundle_path: Path, retrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, bundle_path, "--batch", "1,4", "--strip")[0] == 0
    assert run(capsys, bundle_path, "--batch", "1")[0] == 0
    code, out, err = run(capsys, retrained, "--refit", "--engines-from", bundle_path)
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    told = ["engine", "refitted", "profiles", "layers", "unverified", "runs", "weights", "left"]
    assert [first for first, _ in lines] == told
    assert "none of its own" in out
    code, out, _ = run(capsys, retrained, "--refit", "--json")
    assert json.loads(out) == {
        "ok": True,
        "engines": [],
        "left": {lines[0][1].split(".plan")[0].split("tiny.")[-1]: "has these weights already"},
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--refit", "--check"), "--check and --refit do not go together"),
        (("--engines-from", "a.gan"), "--engines-from goes with --refit"),
        (("--refit", "--batch", "8"), "--batch does not go with --refit"),
        (("--refit", "--precision", "fp32"), "--precision does not go with --refit"),
        (("--refit", "--strip"), "--strip does not go with --refit"),
        (("--refit", "--target", "11.4"), "--target goes with --check"),
    ],
)
def test_options_that_do_not_go_together(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], problem: str
) -> None:
    code, _, err = run(capsys, bundle_path, *words)
    assert code == 2
    assert problem in err
