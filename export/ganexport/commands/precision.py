"""`ganexport precision`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ganexport.commands.progress import progress_bar
from ganexport.commands.proof_batches import proof_batches_from_text, proof_batches_option

if TYPE_CHECKING:
    from ganexport.precision.proof import NewVariant

_FLOORS = {"psnr": "psnr_db", "ssim": "ssim", "levels": "levels"}


@click.command(name="precision")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.argument(
    "rungs",
    metavar="RUNG...",
    nargs=-1,
    required=True,
    type=click.Choice(["fp16", "bf16", "int8", "int8-symmetric", "fp32-cpu", "fp32-cuda", "bf16-cpu"]),
)
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="KEY=NUMBER",
    help="What must be kept: psnr in dB and ssim, of the worst image; levels, the largest pixel difference. May be "
    "given again. [default: psnr=55 for fp16, 37 for bf16, 40 for int8]",
)
@click.option(
    "--latents",
    type=click.IntRange(1),
    help="Latents of the gate, in each batch size. [default: 4096, fewer for outputs above 128 px]",
)
@proof_batches_option
@click.option(
    "--calibration-latents",
    default=512,
    show_default=True,
    type=click.IntRange(8),
    help="Latents that ranges are measured on.",
)
@click.option(
    "--seed",
    default=0x70726F6F,
    show_default=True,
    type=click.IntRange(0, 2**64 - 1),
    help="Seed of the gate's latents.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    bundle: Path,
    rungs: tuple[str, ...],
    floors: tuple[str, ...],
    latents: int | None,
    batches: str,
    calibration_latents: int,
    seed: int,
    as_json: bool,
) -> None:
    """Add lower precisions to a bundle, made of its fp32 graph and proven against it.

    fp16 and bf16 are typed graphs in which norms, roots, large sums and the output head stay in fp32. int8 is explicit
    Q/DQ, calibrated over latents; layers that cost too much stay in fp32 until the floor is met. int8-symmetric has no
    zero points, as TensorRT wants it, and keeps fewer layers under the same floor. fp32-cpu is no lower precision but
    the fp32 graph in forms that are faster with OpenVINO, within the bound of fp32; --floor does not concern it. Nor
    does it concern fp32-cuda, in a form that gives the same bits twice on a GPU, which ConvTranspose does not.
    bf16-cpu is bf16 with 3 × 3 convolutions of many channels in such a form, which is faster again and less exact.
    Either all rungs that were asked for are added, or none. Needs no torch and no checkpoint.

    Where this CPU has no kernels for a type, a reference evaluation checks the numbers, and the verdict says so.

    \b
    Example:
      ganexport precision digits.gan fp16 bf16
      ganexport precision digits.gan int8 --floor psnr=42
    """
    from ganexport.precision.rungs import images_to_run, rungs_into_bundle
    from ganruntime.bundle import read_bundle

    proof_batches = proof_batches_from_text(batches)
    spec = read_bundle(bundle).spec
    with progress_bar(images_to_run(spec, rungs, latents, proof_batches), "proving") as progress:
        made = rungs_into_bundle(
            bundle,
            rungs,
            floors=floors_from_text(floors),
            latents=latents,
            batches=proof_batches,
            calibration_latents=calibration_latents,
            seed=seed,
            say=lambda line: click.echo(f"{spec.name}: {line}", err=True),
            progress=progress,
        )
    click.echo(json.dumps([_as_json(new) for new in made], indent=2) if as_json else _as_text(bundle, made))


def floors_from_text(texts: tuple[str, ...]) -> dict[str, float]:
    """`psnr=40` as {"psnr_db": 40.0}. Raises `InputError`."""
    from ganruntime.errors import InputError

    floors = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if key not in _FLOORS or not 0 <= number < float("inf"):
            raise InputError("--floor is not one", got=repr(text), expected="psnr=NUMBER, ssim=NUMBER or levels=NUMBER")
        floors[_FLOORS[key]] = number
    return floors


def _as_json(new: NewVariant) -> dict[str, Any]:
    verdicts = [
        {
            "passed": f.verdict.passed,
            "backend": f.verdict.backend,
            "device": f.verdict.device,
            "versions": dict(f.verdict.versions),
            "latents": f.verdict.latents,
            "batches": list(f.verdict.batches),
            "errors": dict(f.verdict.errors),
        }
        for f in new.findings
    ]
    name, file = new.variant.name, new.variant.file
    return {"variant": name, "file": file, "size_bytes": len(new.graph), "verdicts": verdicts, "report": new.report}


def _as_text(bundle: Path, made: list[NewVariant]) -> str:
    from ganexport.tables import size_text, table

    rows, notes = [], []
    for new in made:
        for finding in new.findings if new.report["floors"] is not None else ():
            errors = finding.verdict.errors
            for prefix in sorted({k.removesuffix("mean_psnr_db") for k in errors if k.endswith("mean_psnr_db")}):
                ssim = errors.get(prefix + "ssim")
                rows.append(
                    [
                        f"{new.variant.name} {prefix.removesuffix('.')}".strip(),
                        size_text(len(new.graph)),
                        f"{finding.verdict.backend} {finding.verdict.device}",
                        f"{finding.verdict.latents:,}",
                        f"{errors[prefix + 'psnr_db']:.1f}",
                        f"{errors['floor_psnr_db']:g}",
                        f"{errors[prefix + 'mean_psnr_db']:.1f}",
                        f"{ssim:.4f}" if ssim is not None else "",
                        f"{errors[prefix + 'max_uint8']:.0f}",
                        f"{errors[prefix + 'diversity']:.3f}",
                    ]
                )
        notes += _notes(new)
    header = ["variant", "size", "where", "latents", "worst PSNR", "floor", "mean", "worst SSIM", "levels", "diversity"]
    lines = [*([table(rows, header, frozenset(range(3, 10)))] if rows else []), *notes]
    lines.append(f"{bundle}: added {', '.join(new.variant.name for new in made)}")
    return "\n".join(lines)


def _notes(new: NewVariant) -> list[str]:
    name, report = new.variant.name, new.report
    lines = [f"{name}: {i['node']} ({i['op_type']}) in fp32: {i['reason']}" for i in report.get("islands", [])]
    lines += [
        f"{name}: {layer['node']} ({layer['op_type']}) left in fp32: it cost {layer['cost_db']:.1f} dB"
        for layer in report.get("left_in_fp32", [])
    ]
    for done in report.get("passes", []):
        lines += [f"{name}: {line}" for line in done["changed"]]
    if new.report["floors"] is None:
        verdict = new.findings[0].verdict
        largest = max(value for key, value in verdict.errors.items() if key.rpartition(".")[2] == "max_abs")
        lines.append(
            f"{name}: at most {largest:.1e} from the fp32 graph over {verdict.latents:,} latents "
            f"(bound {verdict.bound:.0e})"
        )
    if "quantised" in report:
        lines.append(
            f"{name}: {len(report['quantised'])} layers in int8, {report['int8_share']:.0%} of the multiplications; "
            + ", ".join(f"{value} by {t['method']}" for value, t in report["thresholds"].items())
        )
    return lines + [f"{name}: not run on {where}: {why}" for where, why in new.not_run.items()]
