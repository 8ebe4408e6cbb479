"""A new export over an old bundle: what is dropped is named, and engines go over only where they can be refitted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from imaginary_machine import Machine
from tensorrt_bundles import add_half, onnx_generator, write_bundle

from ganexport.replacement import Replacement
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.refit_bundle import refit_into_bundle
from ganruntime.bundle import BundleDraft, Variant, bundle_changed, bundle_written, read_bundle
from ganruntime.errors import EngineError, InputError
from ganruntime.sessions.tensorrt import TensorRTSession

REFITTABLE = BuildOptions(buckets=(1, 4), refittable=True)


def written_over(path: Path, replacement: Replacement, *, labelled: bool = False) -> list[Variant]:
    """Writes another training over the bundle, as an export does."""
    new = write_bundle(path.parent / "new.gan", seed=7, labelled=labelled)
    with bundle_written(path, new.spec) as draft:
        for name in new.manifest.files:
            draft.add(name, new.read(name))
        draft.golden = new.manifest.golden
        for variant in new.manifest.variants:
            draft.put_variant(variant)
        return replacement.carry_into(draft)


def test_nothing_is_said_where_nothing_is_lost(bundle_path: Path, tmp_path: Path) -> None:
    assert Replacement(tmp_path / "none.gan").announcement() == []
    assert Replacement(bundle_path).announcement() == []


def test_what_was_made_of_the_old_weights_is_named_with_the_way_back(machine: Machine, bundle_path: Path) -> None:
    add_half(bundle_path)
    plain = engine_into_bundle(bundle_path, BuildOptions(buckets=(1, 2))).variant.name
    refittable = engine_into_bundle(bundle_path, REFITTABLE).variant.name
    lines = Replacement(bundle_path).announcement()
    assert lines[0] == f"{bundle_path} is replaced; these were made of its old weights:"
    assert lines[1].startswith("  fp16 (fp16 graph, ")
    assert lines[1].endswith(f", unverified) is dropped: ganexport precision {bundle_path} fp16")
    assert lines[2].startswith(f"  {plain} (fp32 engine, ")
    assert lines[2].endswith(f"is dropped: ganexport to-trt {bundle_path} --precision fp32 --batch 1,2")
    assert lines[3].startswith(f"  {refittable} (fp32 refittable engine, ")
    assert lines[3].endswith("--refittable")
    assert "--keep-engines" in lines[4]
    assert f"ganexport to-trt NEW.gan --refit --engines-from {bundle_path}" in lines[4]
    assert len(lines) == 5
    kept = Replacement(bundle_path, keep_engines=True).announcement()
    assert kept[3].endswith("is carried over, if the architecture is the same")
    assert kept[:3] == lines[:3]
    assert len(kept) == 4


def test_without_keep_engines_none_goes_over(machine: Machine, bundle_path: Path) -> None:
    engine_into_bundle(bundle_path, REFITTABLE)
    assert written_over(bundle_path, Replacement(bundle_path)) == []
    assert [v.name for v in read_bundle(bundle_path).manifest.variants] == ["fp32"]


@pytest.mark.parametrize("options", [REFITTABLE, BuildOptions(buckets=(1, 4), stripped=True)])
def test_an_engine_that_goes_over_runs_only_after_its_refit(
    machine: Machine, bundle_path: Path, options: BuildOptions
) -> None:
    name = engine_into_bundle(bundle_path, options).variant.name
    replacement = Replacement(bundle_path, keep_engines=True)
    (carried,) = written_over(bundle_path, replacement)
    (line,) = replacement.afterword([carried])
    assert name in line
    assert line.endswith(f"ganexport to-trt {bundle_path} --refit")
    bundle = read_bundle(bundle_path)
    variant = bundle.variant(name)
    assert (variant.status, variant.verdicts) == ("unverified", ())
    assert "--refit" in bundle.manifest.reports["engines"][name]["note"]
    with pytest.raises(EngineError, match="weights of another export"):
        TensorRTSession(bundle, variant)
    (engine,) = refit_into_bundle(bundle_path).engines
    assert engine.finding.verdict.passed
    assert len(machine.builds) == 1
    bundle = read_bundle(bundle_path)
    assert "note" not in bundle.manifest.reports["engines"][name]
    TensorRTSession(bundle, bundle.variant(name)).close()


def test_another_architecture_is_refused_and_the_old_bundle_stays(machine: Machine, bundle_path: Path) -> None:
    name = engine_into_bundle(bundle_path, REFITTABLE).variant.name
    before = (bundle_path / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=re.escape(f"{name} cannot be carried over")) as caught:
        written_over(bundle_path, Replacement(bundle_path, keep_engines=True), labelled=True)
    assert f"ganexport to-trt {bundle_path} --precision fp32 --batch 1,4 --refittable" in str(caught.value)
    assert (bundle_path / "manifest.json").read_bytes() == before


def test_keep_engines_without_one_to_keep_is_an_error(machine: Machine, bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no engine that can be carried over") as caught:
        Replacement(tmp_path / "none.gan", keep_engines=True)
    assert caught.value.got == "no bundle"
    engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))
    with pytest.raises(InputError, match="no engine that can be carried over") as caught:
        Replacement(bundle_path, keep_engines=True)
    assert "fp32 engine" in str(caught.value.got)


def test_a_half_engine_has_no_graph_to_be_refitted_from(machine: Machine, bundle_path: Path) -> None:
    name = engine_into_bundle(bundle_path, REFITTABLE).variant.name
    with bundle_changed(bundle_path) as draft:
        as_half(draft, name)
    with pytest.raises(InputError, match="no engine that can be carried over"):
        Replacement(bundle_path, keep_engines=True)
    assert any("fp16 refittable engine" in line for line in Replacement(bundle_path).announcement())


def as_half(draft: BundleDraft, name: str) -> None:
    variant = next(v for v in draft.variants if v.name == name)
    draft.put_variant(replace(variant, precision="fp16"))


def test_a_bundle_that_cannot_be_read_is_said_to_be_replaced(bundle_path: Path) -> None:
    (bundle_path / "manifest.json").write_text("[]")
    (line,) = Replacement(bundle_path).announcement()
    assert line.startswith(f"what is at {bundle_path} is replaced whatever it holds")
    assert "is not a JSON object" in line


def test_keys_come_from_the_new_graph(machine: Machine, bundle_path: Path) -> None:
    """The same architecture with another opset is another graph."""
    engine_into_bundle(bundle_path, REFITTABLE)
    model = onnx.load_from_string(onnx_generator(seed=7))
    model.opset_import[0].version = 19
    replacement = Replacement(bundle_path, keep_engines=True)
    with bundle_changed(bundle_path) as draft:
        draft.add("model.onnx", model.SerializeToString())
        with pytest.raises(InputError, match="another architecture"):
            replacement.carry_into(draft)
