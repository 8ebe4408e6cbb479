"""`ganexport verify`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ganexport.commands.progress import progress_bar
from ganexport.commands.proof_batches import proof_batches_from_text, proof_batches_option

if TYPE_CHECKING:
    from ganexport.verification import Reference, Report
    from ganruntime.bundle import Bundle


@click.command(name="verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against", type=click.Path(path_type=Path), help="A checkpoint: compare whole outputs on fresh latents."
)
@click.option("--variant", "variants", multiple=True, help="Verify this variant only; may be given again.")
@click.option("--device", default="cpu", show_default=True, help="Where graphs run: cpu, cuda or cuda:N.")
@click.option(
    "--backend",
    default="onnxruntime",
    show_default=True,
    type=click.Choice(["onnxruntime", "openvino", "onnxruntime-tensorrt"]),
    help="What runs the graphs; each has verdicts of its own.",
)
@click.option(
    "--latents", default=1024, show_default=True, type=click.IntRange(1), help="Fresh latents, with --against."
)
@click.option("--seed", default=0x70726F6F, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Their seed.")
@proof_batches_option
@click.option("--record/--no-record", default=True, show_default=True, help="Write the verdicts into the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    context: click.Context,
    bundle: Path,
    against: Path | None,
    variants: tuple[str, ...],
    device: str,
    backend: str,
    latents: int,
    seed: int,
    batches: str,
    record: bool,
    as_json: bool,
) -> None:
    """Prove a bundle on this machine; exit 0 only if everything holds.

    Every file is checked against its hash. Every variant that can run here runs the golden latents (1,024 of them, kept
    in the bundle with what PyTorch made of them) in each batch size; with --against, fresh latents through the
    checkpoint's own network instead. Engines keep their own batch sizes. The runtime must draw the golden images to
    within one pixel level, and on a GPU each variant, run four times, must give the same bits.

    \b
    Example:
      ganexport verify digits.gan
      ganexport verify digits.gan --against runs/digits --latents 4096
      ganexport verify digits.gan --backend openvino
    """
    for name in ("latents", "seed"):
        if against is None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} goes with --against: without it the golden latents are run, all of them")
    from ganexport.verification import images_to_run, verify_bundle
    from ganruntime.bundle import read_bundle

    proof_batches = proof_batches_from_text(batches)
    opened = read_bundle(bundle)
    reference = _reference(against, opened) if against is not None else None
    total = images_to_run(opened, latents, proof_batches, variants, reference is not None)
    with progress_bar(total, "verifying") as progress:
        report = verify_bundle(
            opened,
            device=device,
            backend=backend,
            variants=variants,
            latents=latents,
            seed=seed,
            batches=proof_batches,
            reference=reference,
            progress=progress,
        )
    try:
        if record:
            _record(opened, report)
    finally:
        click.echo(json.dumps(_as_json(report), indent=2) if as_json else _as_text(bundle, report))
    sys.exit(0 if report.passed else 1)


def _record(bundle: Bundle, report: Report) -> None:
    from ganruntime.bundle import bundle_changed
    from ganruntime.errors import BundleIntegrityError

    with bundle_changed(bundle.path) as draft:
        for variant in list(draft.variants):
            if variant.name not in report.verdicts:
                continue
            if draft.files[variant.file] != bundle.manifest.files.get(variant.file):
                raise BundleIntegrityError(
                    f"{bundle.path}: {variant.file} was changed while it was verified",
                    remedy=f"ganexport verify {bundle.path}",
                )
            draft.put_variant(variant.with_verdict(report.verdicts[variant.name]))


def _reference(checkpoint: Path, bundle: Bundle) -> Reference:
    from ganexport.graph import evaluate_from_module, inference_copy
    from ganexport.source import generator_from_checkpoint, require_origin
    from ganexport.verification import Reference

    source = generator_from_checkpoint(checkpoint)
    from ganexport.program.noise_inputs import source_with_noise  # needs torch, which is there from here on
    from ganexport.program.size_search import source_with_sizes

    # As it was exported: with its random draws as inputs, or as constants.
    report = bundle.manifest.reports.get("export", {})
    source = source_with_noise(source_with_sizes(source), str(report.get("random", "refuse")))
    require_origin(bundle, source, checkpoint)
    module = inference_copy(source.module, source.spec)
    return Reference(evaluate_from_module(module, source.spec), f"PyTorch eager fp32 on the CPU, {source.origin}")


def _as_json(report: Report) -> dict[str, Any]:
    variants = {
        name: {
            "passed": finding.verdict.passed,
            "backend": finding.verdict.backend,
            "device": finding.verdict.device,
            "versions": dict(finding.verdict.versions),
            "reference": finding.verdict.reference,
            "latents": finding.verdict.latents,
            "batches": list(finding.verdict.batches),
            "bound": finding.verdict.bound,
            "errors": dict(finding.verdict.errors),
            "problems": finding.problems,
        }
        for name, finding in report.findings.items()
    }
    return {"passed": report.passed, "variants": variants, "checks": report.checks, "not_run": report.not_run}


def _as_text(bundle: Path, report: Report) -> str:
    from ganexport.tables import table

    rows = []
    for name, finding in report.findings.items():
        verdict = finding.verdict
        outputs: dict[str, dict[str, float]] = {}
        for key, value in verdict.errors.items():
            output, _, figure = key.rpartition(".")
            outputs.setdefault(output, {})[figure] = value
        for output, errors in outputs.items():
            if "max_abs" not in errors:  # floors are the variant's, not an output's
                continue
            rows.append(
                [
                    f"{name} {output}".strip(),
                    f"{verdict.backend} {verdict.device}",
                    f"{verdict.latents:,}",
                    f"{errors['max_abs']:.2e}",
                    f"{errors.get('bound', verdict.bound):.0e}",
                    f"{errors['mean_abs']:.1e}",
                    f"{errors['max_uint8']:.0f}",
                    f"{errors['psnr_db']:.1f}",
                    f"{errors['diversity']:.3f}",
                    "holds" if verdict.passed else "FAILS",
                ]
            )
    header = ["variant", "where", "latents", "max error", "bound", "mean", "levels", "PSNR dB", "diversity", ""]
    lines = [table(rows, header, frozenset(range(2, 9)))]
    if report.findings:
        verdict = next(iter(report.findings.values())).verdict
        lines.append(f"against {verdict.reference}; batches {', '.join(map(str, verdict.batches))}")
    lines += [f"{check}: {'; '.join(problems) or 'holds'}" for check, problems in report.checks.items()]
    lines += [f"{name}: {p}" for name, finding in report.findings.items() for p in finding.problems]
    lines += [f"{name}: not run here: {reason.splitlines()[0]}" for name, reason in report.not_run.items()]
    lines.append(f"{bundle}: {'everything holds' if report.passed else 'NOT proven'}")
    return "\n".join(lines)
