"""From an fp32 bundle to further rungs: graph, proof, and only then the file and its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ganexport.gate import BATCHES, PROOF_SEED
from ganexport.golden import SEED as GOLDEN_SEED
from ganexport.parity import FLOORS, Floors
from ganexport.precision import calibration
from ganexport.precision.calibration import calibration_inputs
from ganexport.precision.fp32_form import FP32_FORMS, fp32_form
from ganexport.precision.half_rung import BF16_FORM, half_rung
from ganexport.precision.int8_rung import SYMMETRIC, int8_rung
from ganexport.precision.proof import NewVariant, Progress, Proof, latents_for
from ganexport.precision.rounding import HALF_TYPES
from ganexport.precision.traced import Array
from ganexport.proof_sizes import proofs_of
from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.errors import BundleIntegrityError, InputError
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sizes import default_size, size_of, spec_at
from ganruntime.spec import GeneratorSpec

RUNGS = ("fp16", "bf16", "int8", SYMMETRIC)
# Not further precisions: graphs in forms that suit one device, and no other.
FORMS = (*FP32_FORMS, BF16_FORM)
# Of the rungs that are not called by theirs.
_PRECISIONS = {SYMMETRIC: "int8", **dict.fromkeys(FP32_FORMS, "fp32"), BF16_FORM: "bf16"}

Say = Callable[[str], None]


def rungs_into_bundle(
    path: Path | str,
    rungs: Sequence[str],
    *,
    floors: Mapping[str, float] | None = None,
    latents: int | None = None,
    batches: Sequence[int] = BATCHES,
    calibration_latents: int = calibration.LATENTS,
    seed: int = PROOF_SEED,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> list[NewVariant]:
    """Makes rungs of the bundle's fp32 graph, proves each, and adds them all, or none.

    Args:
        rungs: names from `RUNGS` and `FORMS`.
        floors: `psnr_db`, `ssim`, `levels`: what differs from the rungs' own floors.
        latents: how many the gate runs, in each batch size; by default 4,096, fewer for large outputs.
        batches: those batch sizes.
        calibration_latents: how many ranges are measured on.
        seed: of the gate's latents.
        progress: called with the number of images that the gate has just run.

    Raises:
        InputError: a rung or a floor is not known, or the seed is that of the calibration; before anything is run. Or
            a graph has no layer that has another form; the bundle is as it was.
        ExportError: the graph cannot be typed.
        ParityError: a rung does not keep its floors; names the node where it departs. The bundle is as it was.
        OutputError: the bundle cannot be written; it is as it was.
    """
    held = {rung: _floors_of(rung, floors or {}) for rung in dict.fromkeys(rungs)}
    if floors and all(floor is None for floor in held.values()):
        raise InputError(
            f"{' and '.join(held)} {'has' if len(held) == 1 else 'have'} no floor",
            got=", ".join(floors),
            expected="the bound of fp32, which it is held to",
            remedy="leave --floor out",
        )
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
            tuple(batches),
        )
        made = []
        for rung, floor in held.items():
            variant = Variant(rung, precision_of(rung), "onnx", f"model.{rung}.onnx")
            if floor is None:
                made.append(fp32_form(variant, written, measured_on, proof, say))
            else:
                make = half_rung if variant.precision in HALF_TYPES else int8_rung
                made.append(make(variant, written, measured_on, floor, proof, say))
    _write(bundle, source, made)
    return made


def images_to_run(
    spec: GeneratorSpec, rungs: Sequence[str], latents: int | None, batches: Sequence[int] = BATCHES
) -> int:
    """How many images the gate will run, for a progress bar; a half rung runs twice where ONNX Runtime takes it."""
    runs = sum(2 if precision_of(rung) in HALF_TYPES else 1 for rung in dict.fromkeys(rungs))
    usual = spec_at(spec, default_size(spec))
    return runs * sum(proof.images for proof in proofs_of(spec, latents or latents_for(usual), batches))


def precision_of(rung: str) -> str:
    return _PRECISIONS.get(rung, rung)


def _floors_of(rung: str, changes: Mapping[str, float]) -> Floors | None:
    """None for the forms of fp32, which keep a bound."""
    if rung in FP32_FORMS:
        return None
    if rung not in (*RUNGS, *FORMS):
        raise InputError(f"no rung is called {rung!r}", expected=", ".join((*RUNGS, *FORMS)))
    try:
        return replace(FLOORS[precision_of(rung)], **changes)
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
