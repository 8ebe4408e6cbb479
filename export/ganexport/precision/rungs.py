"""From an fp32 bundle to further rungs: graph, proof, and only then the file and its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ganexport.gate import BATCHES, PROOF_SEED, Finding, verdict_against_reference
from ganexport.golden import SEED as GOLDEN_SEED
from ganexport.parity import FLOORS, Floors
from ganexport.passes.pipeline import CPU_PASSES, DEFAULT_PASSES, run_passes
from ganexport.precision import calibration
from ganexport.precision.calibration import calibration_inputs
from ganexport.precision.departure import first_departure
from ganexport.precision.half_graph import half_graph_from_model
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.reference import ReferenceSession
from ganexport.precision.rounding import HALF_TYPES
from ganexport.precision.sensitivity import POOL, WEIGHT_LEVELS, Search, search_from_model
from ganexport.precision.traced import Array, Arrays
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import proofs_of
from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.errors import BackendError, BundleIntegrityError, InputError, MissingDependencyError, ParityError
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sizes import default_size, size_of, spec_at
from ganruntime.spec import GeneratorSpec

RUNGS = ("fp16", "bf16", "int8", "int8-symmetric")
# Not another precision: the fp32 graph in forms that are faster with OpenVINO, held to the bound of fp32.
CPU_FORM = "fp32-cpu"
_PRECISIONS = {"int8-symmetric": "int8", CPU_FORM: "fp32"}  # of the rungs that are not called by theirs
LATENTS = 4096
# A generator whose images are larger than 128 × 128 RGB is proven over fewer latents, in proportion, and says so.
_FULL_PROOF_ELEMENTS = 3 * 128 * 128
_LEAST_LATENTS = 256

Say = Callable[[str], None]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class NewVariant:
    """A rung that was made and proven.

    findings: one per backend that ran it. not_run: {backend: why it did not}. report: what stands in the manifest.
    """

    variant: Variant
    graph: bytes
    findings: tuple[Finding, ...]
    not_run: dict[str, str]
    report: dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """How rungs are proven: over `latents` of `seed`, in every batch size of the gate, against `evaluate`."""

    spec: GeneratorSpec
    evaluate: Callable[[dict[str, Array]], dict[str, Array]]
    reference: str
    latents: int
    seed: int
    progress: Progress | None = None

    def of(self, session: Session, floors: Floors | None) -> Finding:
        return verdict_against_reference(
            session,
            self.evaluate,
            self.reference,
            seed=self.seed,
            latents=self.latents,
            batches=BATCHES,
            progress=self.progress,
            floors=floors,
        )


def rungs_into_bundle(
    path: Path | str,
    rungs: Sequence[str],
    *,
    floors: Mapping[str, float] | None = None,
    latents: int | None = None,
    calibration_latents: int = calibration.LATENTS,
    seed: int = PROOF_SEED,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> list[NewVariant]:
    """Makes rungs of the bundle's fp32 graph, proves each, and adds them all, or none.

    Args:
        rungs: names from `RUNGS`, or `CPU_FORM`.
        floors: `psnr_db`, `ssim`, `levels`: what differs from the rungs' own floors.
        latents: how many the gate runs, in each batch size; by default 4,096, fewer for large outputs.
        calibration_latents: how many ranges are measured on.
        seed: of the gate's latents.
        progress: called with the number of images that the gate has just run.

    Raises:
        InputError: a rung or a floor is not known, or the seed is that of the calibration; before anything is run.
        ExportError: the graph cannot be typed.
        ParityError: a rung does not keep its floors; names the node where it departs. The bundle is as it was.
        OutputError: the bundle cannot be written; it is as it was.
    """
    held = {rung: _floors_of(rung, floors or {}) for rung in dict.fromkeys(rungs)}
    if seed in (calibration.SEED, GOLDEN_SEED):
        raise InputError(
            "the gate draws other latents than those that ranges are measured on",
            got=f"seed {seed}",
            remedy="another --seed",
        )
    bundle = read_bundle(path)
    source = _source_variant(bundle)
    written = bundle.graph(source)
    say("measuring ranges over latents")
    # Where height and width vary: at the default size. The gate runs the others too.
    usual = spec_at(bundle.spec, default_size(bundle.spec))
    measured_on = calibration_inputs(usual, calibration_latents)
    with OnnxRuntimeSession(bundle.spec, source, written, device="cpu", buckets=(1,)) as session:
        proof = Proof(
            bundle.spec,
            _evaluate_from(session),
            f"ONNX Runtime on the CPU, {source.file} (SHA-256 {bundle.manifest.files[source.file].sha256[:12]})",
            latents or latents_for(usual),
            seed,
            progress,
        )
        made = []
        for rung, floor in held.items():
            if floor is None:
                made.append(_cpu_form(rung, written, measured_on, proof, say))
                continue
            make = _half_rung if rung in HALF_TYPES else _int8_rung
            made.append(make(rung, written, measured_on, floor, proof, say))
    _write(bundle, source, made)
    return made


def latents_for(spec: GeneratorSpec) -> int:
    """How many latents prove a rung: 4,096, and fewer for large outputs, at least 256."""
    elements = sum(t.size for t in spec.outputs)
    return max(_LEAST_LATENTS, min(LATENTS, LATENTS * _FULL_PROOF_ELEMENTS // elements))


def images_to_run(spec: GeneratorSpec, rungs: Sequence[str], latents: int | None) -> int:
    """How many images the gate will run, for a progress bar; a half rung runs twice where ONNX Runtime takes it."""
    runs = sum(2 if rung in HALF_TYPES else 1 for rung in dict.fromkeys(rungs))
    usual = spec_at(spec, default_size(spec))
    return runs * sum(proof.images for proof in proofs_of(spec, latents or latents_for(usual), BATCHES))


def optimised_model(graph: bytes, inputs: Arrays, extra: Sequence[str] = ()) -> ir.Model:
    """The fp32 graph after the passes that pay everywhere, and `extra` ones; each is proven on the way."""
    model = ir.from_proto(onnx.load_model_from_string(graph))
    probes = {name: array[:8] for name, array in inputs.items()}
    # Pruned again: what a pass replaced is still there.
    run_passes(model, probes, (*DEFAULT_PASSES, *extra, "prune"))
    return model


def _cpu_form(rung: str, graph: bytes, inputs: Arrays, proof: Proof, say: Say) -> NewVariant:
    model = ir.from_proto(onnx.load_model_from_string(graph))
    probes = {name: array[:8] for name, array in inputs.items()}
    reports = run_passes(model, probes, (*DEFAULT_PASSES, *CPU_PASSES, "prune"))
    changed = [line for report in reports if report.name in CPU_PASSES for line in report.changed]
    if not changed:
        raise InputError(
            f"{proof.spec.name} has no layer for which {rung} is faster",
            expected=f"something to do for one of the passes {', '.join(CPU_PASSES)}",
            remedy=f"leave {rung} out",
        )
    form = ir.to_proto(model).SerializeToString()
    say(f"{rung}: {len(changed)} layer(s) in another form; proving over {proof.latents:,} latents")
    variant = _new_variant(rung)
    with OnnxRuntimeSession(proof.spec, variant, form, device="cpu", buckets=BATCHES) as session:
        finding = proof.of(session, None)
    if finding.problems:
        raise ParityError(
            f"{proof.spec.name}: the {rung} graph does not compute what the fp32 graph computes, and is not written",
            got="; ".join(finding.problems),
            expected=f"at most {finding.verdict.bound:.3g} apart",
            remedy=f"leave {rung} out",
        )
    report = {"passes": [r.to_json() for r in reports if r.name in CPU_PASSES]}
    return new_variant(variant, form, [finding], {}, report, None, proof, inputs)


def _half_rung(rung: str, graph: bytes, inputs: Arrays, floors: Floors, proof: Proof, say: Say) -> NewVariant:
    half = HALF_TYPES[rung]
    # The last layer's form that is fast with OpenVINO: in bfloat16 it runs there at twice the speed of fp32.
    model = optimised_model(graph, inputs, ("narrow_convtranspose_to_subpixel",))
    fp32 = ir.to_proto(model).SerializeToString()
    made = half_graph_from_model(fp32, ranges_from_graph(fp32, inputs), half)
    say(f"{rung}: {made.half_nodes} nodes in it, {len(made.islands)} in fp32; proving over {proof.latents:,} latents")
    variant = _new_variant(rung)
    findings, not_run = [], {}
    with ReferenceSession(proof.spec, variant, made.graph, buckets=BATCHES) as session:
        findings.append(proof.of(session, floors))
    try:
        opened = OnnxRuntimeSession(proof.spec, variant, made.graph, device="cpu", buckets=BATCHES)
    except MissingDependencyError:
        raise
    except BackendError as error:
        not_run["onnxruntime cpu"] = str(error.got or error.problem)
        if proof.progress is not None:
            proof.progress(sum(run.images for run in proofs_of(proof.spec, proof.latents, BATCHES)))
    else:
        with opened:
            findings.append(proof.of(opened, floors))
    require_floors(rung, fp32, made.graph, findings, floors, proof)
    report = {
        "half_nodes": made.half_nodes,
        "islands": [asdict(island) for island in made.islands],
        "flushed_weights": made.flushed_weights,
    }
    return new_variant(variant, made.graph, findings, not_run, report, floors, proof, inputs)


def _int8_rung(rung: str, graph: bytes, inputs: Arrays, floors: Floors, proof: Proof, say: Say) -> NewVariant:
    model = optimised_model(graph, inputs, ("convtranspose_to_subpixel",))
    say(f"{rung}: choosing thresholds and layers")
    usual = spec_at(proof.spec, default_size(proof.spec))
    symmetric = rung == "int8-symmetric"
    # Among as many as the gate sees: its largest batch is filled with further latents.
    search = search_from_model(usual, model, inputs, min(POOL, max(proof.latents, *BATCHES)), symmetric)
    search.start()
    search.leave_out_until(floors.psnr_db)
    variant = _new_variant(rung)
    while True:
        if not search.kept:
            raise _no_int8(search, floors, proof)
        candidate = search.graph()
        say(
            f"{rung}: {len(search.kept)} of {len(search.layers)} layers, {search.int8_share:.0%} of the "
            f"multiplications; proving over {proof.latents:,} latents"
        )
        with OnnxRuntimeSession(proof.spec, variant, candidate, device="cpu", buckets=BATCHES) as session:
            finding = proof.of(session, floors)
        if not finding.problems:
            break
        say(f"{rung}: {'; '.join(finding.problems)}; searching among more latents")
        search.widen(floors.psnr_db)
    report = {
        "quantised": [
            {"node": k.node, "op_type": k.op_type, "reads": k.reads, "multiplications": k.multiplications}
            for k in search.kept
        ],
        "left_in_fp32": [asdict(left) for left in search.left],
        "too_small": [layer.node for layer in search.small],
        "balanced": list(search.balanced),
        "int8_share": search.int8_share,
        "tried_psnr_db": dict(search.tried),
        "thresholds": {
            k.reads: {"method": search.chosen[k.reads], "value": search.thresholds[search.chosen[k.reads]][k.reads]}
            for k in search.kept
        },
        "weight_levels": WEIGHT_LEVELS,
        "symmetric": symmetric,
    }
    return new_variant(variant, candidate, [finding], {}, report, floors, proof, inputs)


def _no_int8(search: Search, floors: Floors, proof: Proof) -> ParityError:
    costly = ", ".join(f"{left.node} ({left.op_type}) {left.cost_db:.1f} dB" for left in search.left[:4])
    reached = max(search.tried.values())
    departure = first_departure(search.base, search.whole, "int8", search.whole_worst, floors.psnr_db)
    node = f"; on the latent that suffers most, {departure.sentence()}" if departure is not None else ""
    return ParityError(
        f"{proof.spec.name}: with every layer in fp32 nothing is left of int8, and it is not written",
        got=f"PSNR {reached:.1f} dB with all layers in int8; what single layers cost: {costly}{node}",
        expected=f"PSNR {floors.psnr_db:g} dB",
        remedy=f"lower the floor: --floor psnr={np.floor(reached):g}, or take fp16",
    )


def new_variant(
    variant: Variant,
    graph: bytes,
    findings: Sequence[Finding],
    not_run: dict[str, str],
    report: dict[str, Any],
    floors: Floors | None,
    proof: Proof,
    inputs: Arrays,
) -> NewVariant:
    for finding in findings:
        variant = variant.with_verdict(finding.verdict)
    common = {
        "floors": None if floors is None else asdict(floors),
        "gate": {"latents": proof.latents, "seed": proof.seed, "batches": list(BATCHES)},
        "calibration": {"latents": len(next(iter(inputs.values()))), "seed": calibration.SEED},
        "not_run": not_run,
    }
    return NewVariant(variant, graph, tuple(findings), not_run, common | report)


def require_floors(
    rung: str, source: bytes, candidate: bytes, findings: Sequence[Finding], floors: Floors, proof: Proof
) -> None:
    """Raises `ParityError` with the first node that departs, on the worst latent, where a finding has problems."""
    for finding in findings:
        if not finding.problems:
            continue
        verdict = finding.verdict
        sample = _worst_sample(finding)
        worst = probe_inputs(spec_at(proof.spec, default_size(proof.spec)), proof.seed, sample, 1)
        departure = first_departure(source, candidate, _PRECISIONS.get(rung, rung), worst, floors.psnr_db)
        node = f"; at sample {sample}, {departure.sentence()}" if departure is not None else ""
        raise ParityError(
            f"{proof.spec.name}: the {rung} graph does not keep its floors, and is not written",
            got=f"on {verdict.backend} {verdict.device}: {'; '.join(finding.problems)}{node}",
            expected=f"PSNR {floors.psnr_db:g} dB, SSIM {floors.ssim:g}, at most {floors.levels:g} levels, "
            f"over {verdict.latents:,} latents of seed {proof.seed}",
            remedy=f"lower a floor (--floor psnr={max(0.0, np.floor(_lowest_psnr(finding))):g}), or take another rung",
        )


def _worst_sample(finding: Finding) -> int:
    errors = finding.verdict.errors
    keys = [k for k in errors if k.rpartition(".")[2] == "psnr_db"]
    prefix = min(keys, key=lambda k: errors[k]).removesuffix("psnr_db")
    # A value that is not finite has the largest error, whatever its place in the sample.
    finite = errors.get(prefix + "finite", 1.0) == 1.0
    return int(errors[prefix + ("worst_psnr_sample" if finite else "worst_sample")])


def _lowest_psnr(finding: Finding) -> float:
    return min(v for k, v in finding.verdict.errors.items() if k.rpartition(".")[2] == "psnr_db")


def _floors_of(rung: str, changes: Mapping[str, float]) -> Floors | None:
    """None for the form of fp32, which keeps a bound."""
    if rung == CPU_FORM:
        return None
    if rung not in RUNGS:
        raise InputError(f"no rung is called {rung!r}", expected=", ".join((*RUNGS, CPU_FORM)))
    try:
        return replace(FLOORS[_PRECISIONS.get(rung, rung)], **changes)
    except TypeError as error:
        raise InputError(
            "a floor is not known", got=", ".join(changes), expected=", ".join(asdict(FLOORS["fp16"]))
        ) from error


def _source_variant(bundle: Bundle) -> Variant:
    for variant in bundle.manifest.variants:
        if variant.format == "onnx" and variant.precision == "fp32" and variant.output == "float":
            return variant
    raise InputError(
        f"{bundle.path} has no fp32 graph to make other rungs of",
        got=", ".join(v.name for v in bundle.manifest.variants),
        remedy="ganexport to-onnx CHECKPOINT -o NAME.gan makes one",
    )


def _new_variant(rung: str) -> Variant:
    return Variant(rung, _PRECISIONS.get(rung, rung), "onnx", f"model.{rung}.onnx")


def _evaluate_from(session: Session) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """ONNX Runtime takes any batch; `Generator` would cut it to the buckets."""

    def evaluate(inputs: dict[str, Array]) -> dict[str, Array]:
        spec = spec_at(session.spec, size_of(session.spec, inputs))
        out = empty_outputs(spec, len(next(iter(inputs.values()))))
        session.run({name: np.ascontiguousarray(array) for name, array in inputs.items()}, out)
        return out

    return evaluate


def _write(bundle: Bundle, source: Variant, made: Sequence[NewVariant]) -> None:
    with bundle_changed(bundle.path) as draft:
        # Proving takes minutes, in which the bundle may have been exported anew.
        if draft.files.get(source.file) != bundle.manifest.files[source.file]:
            raise BundleIntegrityError(
                f"{bundle.path} was exported anew while rungs were made of the graph that was there before",
                remedy=f"ganexport precision {bundle.path} {' '.join(m.variant.name for m in made)}",
            )
        reports = dict(draft.reports.get("precision", {}))
        for new in made:
            draft.add(new.variant.file, new.graph)
            draft.put_variant(new.variant)
            reports[new.variant.name] = new.report
        draft.reports["precision"] = reports
