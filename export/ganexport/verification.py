"""Verifying a bundle on this machine: every file, every variant that can run here, and the runtime's own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from ganexport.gate import BATCHES, LATENTS, PROOF_SEED, Finding, verdict_against_golden, verdict_against_reference
from ganexport.golden import Evaluate, GoldenSamples
from ganexport.parity import FLOORS
from ganexport.pixels import pixel_problems
from ganexport.proof_sizes import proofs_of
from ganexport.repeatability import gap_between_runs, twin_of, with_gap
from ganruntime import noise
from ganruntime.buckets import DEFAULT_BUCKETS
from ganruntime.bundle import Bundle, Variant, Verdict
from ganruntime.choice import BY_NAME
from ganruntime.errors import BackendError, InputError, MissingDependencyError
from ganruntime.generator import Generator
from ganruntime.images import uint8_from_output
from ganruntime.sessions.base import Session
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sessions.openvino import OpenVinoSession
from ganruntime.sizes import size_text
from ganruntime.spec import Latent, Noise

Progress = Callable[[int], None]
GRAPH_BACKENDS = ("onnxruntime", "openvino", BY_NAME)
_HALF_PRECISIONS = ("fp16", "bf16")
_PIXEL_BATCH = (64,)


@dataclass(frozen=True)
class Reference:
    """A source network to verify against, instead of the golden samples."""

    evaluate: Evaluate
    name: str


@dataclass
class Report:
    """What was found: a finding per variant that ran, why the others did not, and checks of the bundle as a whole."""

    findings: dict[str, Finding] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    checks: dict[str, list[str]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether something ran, and everything that ran holds."""
        problems = [p for f in self.findings.values() for p in f.problems] + [
            p for c in self.checks.values() for p in c
        ]
        return bool(self.findings) and not problems

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {name: finding.verdict for name, finding in self.findings.items()}


def verify_bundle(
    bundle: Bundle,
    *,
    device: str = "cpu",
    backend: str = "onnxruntime",
    variants: Sequence[str] = (),
    latents: int = LATENTS,
    seed: int = PROOF_SEED,
    batches: Sequence[int] = BATCHES,
    reference: Reference | None = None,
    progress: Progress | None = None,
) -> Report:
    """Runs every check.

    Args:
        device: where graphs run: `cpu`, `cuda` or `cuda:N`. Engines run on the GPU that they were built for.
        backend: what runs the graphs: one of `GRAPH_BACKENDS`; `openvino` runs no engines. A verdict is of one backend
            on one device, and leaves those of others as they are.
        variants: names; by default every variant that can run here. One that was named and cannot run is an error.
        latents: how many fresh latents to compare where a `reference` is given; the golden samples are run whole.
        reference: the source network.

    Raises:
        BundleIntegrityError: a file of the bundle is damaged.
        BackendError: a variant that was named cannot run here.
    """
    for name in bundle.manifest.files:
        bundle.read(name)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    report = Report()
    gaps: dict[str, float] = {}  # of those that ran on a GPU
    report.checks["noise gives the golden latents"] = _noise_problems(bundle, golden)
    for variant in [bundle.variant(name) for name in dict.fromkeys(variants)] or bundle.manifest.variants:
        try:
            session = open_session(bundle, variant, device, tuple(batches), backend)
        except (BackendError, MissingDependencyError) as error:
            if variants or not _may_be_refused(variant, device):
                raise
            report.not_run[variant.name] = str(error)
            continue
        with session:
            sizes = tuple(batches) if variant.format == "onnx" else session.buckets
            against = reference.name if reference is not None else bundle.manifest.golden.reference
            count = latents if reference is not None else golden.latents
            try:
                if reference is not None:
                    finding = verdict_against_reference(
                        session,
                        reference.evaluate,
                        against,
                        seed=seed,
                        latents=latents,
                        batches=sizes,
                        progress=progress,
                    )
                else:
                    finding = verdict_against_golden(session, golden, against, sizes, progress)
            except BackendError as error:
                finding = _finding_of_failure(session, error, against, count, sizes)
            else:
                if session.device != "cpu":
                    gaps[variant.name] = gap_between_runs(session, golden)
                    finding = replace(finding, verdict=with_gap(finding.verdict, gaps[variant.name]))
        report.findings[variant.name] = finding
    _check_repeatability(bundle, report, gaps)
    ran = [name for name, finding in report.findings.items() if finding.verdict.errors]
    # A rung that rounds has floors instead: its images are further away than a level.
    exact = [v for v in bundle.manifest.variants if v.format == "onnx" and v.precision not in FLOORS]
    graph = next((v for v in sorted(exact, key=lambda v: gaps.get(v.name, 0.0) > 0.0) if v.name in ran), None)
    if graph is not None:
        report.checks["the runtime draws the golden images"] = _runtime_problems(bundle, graph, device, backend, golden)
    values = next((v for v in exact if v.name in ran and v.output == "float"), None)
    if values is not None and (backend, device) == ("onnxruntime", "cpu"):
        # Elsewhere a backend may fold the head into the layer before it, and a pixel on an edge rounds the other way.
        for pixels in (v for v in exact if v.name in ran and v.output == "uint8"):
            report.checks[f"{pixels.name} draws the pixels of {values.name}"] = _pixel_problems(bundle, values, pixels)
    return report


def _check_repeatability(bundle: Bundle, report: Report, gaps: Mapping[str, float]) -> None:
    """Each variant gives the same bits again, or another one of its precision does, which a load takes before it."""
    variants = [bundle.variant(name) for name in gaps]
    for variant in variants:
        check, problems = f"{variant.name} gives the same bits when it is run again", []
        if gaps[variant.name] > 0.0 and (twin := twin_of(variant, gaps, variants)) is not None:
            check = f"{twin.name} gives the same bits when it is run again, where {variant.name} does not"
        elif gaps[variant.name] > 0.0:
            device = report.findings[variant.name].verdict.device
            problems = [f"it does not on {device}, by up to {gaps[variant.name]:.1e}"]
            if variant.precision == "fp32" and variant.format == "onnx":
                problems[0] += f": try ganexport precision {bundle.path} fp32-cuda"
        report.checks[check] = problems


def _may_be_refused(variant: Variant, device: str) -> bool:
    """Whether it says nothing against a bundle that this variant does not run here: an engine is for another machine,
    half types have no kernels on a CPU, and the integers of `int8` none on a GPU. An fp32 graph runs anywhere."""
    return (
        variant.format != "onnx"
        or variant.precision in _HALF_PRECISIONS
        or (variant.precision == "int8" and device != "cpu")
    )


def images_to_run(
    bundle: Bundle, latents: int, batches: Sequence[int], variants: Sequence[str], reference: bool
) -> int:
    """How many images `verify_bundle` will run, for a progress bar."""
    count = len(set(variants)) or sum(v.format == "onnx" for v in bundle.manifest.variants)
    samples = latents if reference else bundle.manifest.golden.latents
    return count * sum(proof.images for proof in proofs_of(bundle.spec, samples, batches))


def open_session(
    bundle: Bundle, variant: Variant, device: str, buckets: tuple[int, ...], backend: str = "onnxruntime"
) -> Session:
    """The session of a variant; an engine keeps its own buckets.

    A half graph for which ONNX Runtime has no kernels on this CPU is evaluated by its definition, where onnx is
    installed; its backend is then `reference`.
    """
    if backend not in GRAPH_BACKENDS:
        raise InputError(f"{backend!r} runs no graphs", expected=" or ".join(GRAPH_BACKENDS))
    if backend == "openvino" and variant.format != "onnx":
        raise BackendError("OpenVINO runs no engines", got=variant.name)
    if variant.format == "onnx":
        graph, where = bundle.graph(variant), str(bundle.path / variant.file)
        if backend == "openvino":
            return OpenVinoSession(bundle.spec, variant, graph, device=device, buckets=buckets, where=where)
        if backend == BY_NAME:
            from ganruntime.sessions.onnxruntime_tensorrt import OnnxRuntimeTensorRTSession

            return OnnxRuntimeTensorRTSession(bundle.spec, variant, graph, device=device, buckets=buckets, where=where)
        try:
            return OnnxRuntimeSession(bundle.spec, variant, graph, device=device, buckets=buckets, where=where)
        except BackendError:
            if device != "cpu" or variant.precision not in _HALF_PRECISIONS or find_spec("onnx") is None:
                raise
        from ganexport.precision.reference import ReferenceSession

        return ReferenceSession(bundle.spec, variant, graph, buckets=buckets, where=where)
    from ganruntime.sessions.tensorrt import TensorRTSession

    return TensorRTSession(bundle, variant, "cuda:0" if device == "cpu" else device)


def _finding_of_failure(
    session: Session, error: BackendError, reference: str, latents: int, batches: tuple[int, ...]
) -> Finding:
    """A variant that was opened and then failed while running: a verdict without figures."""
    verdict = Verdict(
        passed=False,
        backend=session.backend,
        device=session.device,
        versions=session.versions(),
        reference=reference,
        latents=latents,
        batches=batches,
        bound=0.0,
        errors={},
    )
    return Finding(verdict, [f"{error.problem}: {error.got}"])


def _noise_problems(bundle: Bundle, golden: GoldenSamples) -> list[str]:
    """Whether (seed, index) still means the same latents here as where the bundle was made, bit for bit."""
    problems = []
    for tensor in bundle.spec.inputs:
        if isinstance(tensor.role, (Latent, Noise)):
            drawn = noise.latents(tensor, bundle.manifest.golden.seed, 0, golden.latents)
            if not np.array_equal(drawn, golden.inputs[tensor.name]):
                problems.append(f"{tensor.name}: noise draws other latents than the golden ones")
    return problems


def _pixel_problems(bundle: Bundle, values: Variant, pixels: Variant) -> list[str]:
    """Both over the golden latents, in one batch size: every pixel is equal."""
    golden = bundle.manifest.golden
    with (
        open_session(bundle, values, "cpu", _PIXEL_BATCH) as of_values,
        open_session(bundle, pixels, "cpu", _PIXEL_BATCH) as of_pixels,
    ):
        return pixel_problems(of_values, of_pixels, golden.seed, golden.latents, _PIXEL_BATCH)


def _runtime_problems(bundle: Bundle, variant: Variant, device: str, backend: str, golden: GoldenSamples) -> list[str]:
    """The whole samples through `Generator`, with its own cutting and padding: at most one pixel level away."""
    image = bundle.spec.image
    latent = bundle.spec.latent
    if image is None:
        return []
    if latent is None:
        return _drawn_problems(bundle, variant, device, backend, golden)
    whole = golden.whole[image.name]
    expected = uint8_from_output(whole, image)
    with Generator(open_session(bundle, variant, device, DEFAULT_BUCKETS, backend)) as generator:
        inputs: dict[str, Any] = {
            name: array[: len(whole)] for name, array in golden.inputs.items() if name != latent.name
        }
        drawn = generator(golden.inputs[latent.name][: len(whole)], **inputs)
        if len(generator.spec.inputs) == 1:
            again = generator.generate(len(whole), seed=bundle.manifest.golden.seed)
            if not np.array_equal(drawn, again):
                return ["generate(seed) and generator(latents) give different images"]
    gap = int(np.abs(drawn.astype(np.int16) - expected).max())
    return [f"images differ by up to {gap} levels"] if gap > 1 else []


def _drawn_problems(bundle: Bundle, variant: Variant, device: str, backend: str, golden: GoldenSamples) -> list[str]:
    """As `_runtime_problems`, of a generator without latents: every size through `Generator.draw`."""
    image = bundle.spec.image
    assert image is not None
    problems = []
    with Generator(open_session(bundle, variant, device, DEFAULT_BUCKETS, backend)) as generator:
        for samples in (golden, *golden.others):
            whole = samples.whole[image.name]
            drawn = generator.draw({name: array[: len(whole)] for name, array in samples.inputs.items()})
            gap = int(np.abs(drawn.astype(np.int16) - uint8_from_output(whole, image)).max())
            at_size = f" at {size_text(samples.size)}" if samples.size is not None else ""
            problems += [f"images{at_size} differ by up to {gap} levels"] if gap > 1 else []
    return problems
