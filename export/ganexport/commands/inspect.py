"""`ganexport inspect`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ganruntime.roles import SIZE_FIELDS

if TYPE_CHECKING:
    from ganruntime.bundle import Bundle, Tuning, Variant
    from ganruntime.spec import TensorSpec


@click.command(name="inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--passes", is_flag=True, help="Say what each graph pass did at export, and what it refused and why.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(bundle: Path, passes: bool, as_json: bool) -> None:
    """Say what a bundle is: what it takes and gives, where it comes from, variants with sizes and verdicts.

    Every file is checked against its hash; a damaged one is an error.

    \b
    Example:
      ganexport inspect digits.gan
      ganexport inspect digits.gan --passes
      ganexport inspect digits.gan --json
    """
    from ganruntime.bundle import read_bundle

    opened = read_bundle(bundle)
    for name in opened.manifest.files:
        opened.read(name)
    if as_json:
        click.echo(json.dumps(_as_json(opened), indent=2, ensure_ascii=False))
        return
    click.echo(_as_text(opened))
    if passes:
        click.echo("\n" + _passes_text(opened))


def _as_json(bundle: Bundle) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(bundle.manifest.dumps())
    for variant, entry in zip(bundle.manifest.variants, data["variants"], strict=True):
        entry["status"] = variant.status
        entry["size_bytes"] = bundle.manifest.files[variant.file].size_bytes
    return data | {"path": str(bundle.path), "manifest_sha256": bundle.manifest_sha256}


def _as_text(bundle: Bundle) -> str:
    from ganexport.tables import size_text, table

    spec, manifest = bundle.spec, bundle.manifest
    origin = spec.provenance
    lines = [f"{bundle.path}: {spec.name}"]
    known = [
        f"recipe {origin.recipe}" if origin.recipe else "",
        f"data {origin.dataset}" if origin.dataset else "",
        f"{origin.steps:,} steps" if origin.steps else "",
        f"seed {origin.seed}" if origin.recipe else "",
    ]
    if any(known):
        lines.append("  trained: " + ", ".join(k for k in known if k))
    if origin.metrics:
        lines.append("  metrics: " + ", ".join(f"{k} {v:.4g}" for k, v in origin.metrics.items()))
    lines += [f"  takes {_tensor_text(t)}" for t in spec.inputs]
    lines += [f"  gives {_tensor_text(t)}" for t in spec.outputs]
    golden = manifest.golden
    lines.append(f"  golden: {golden.latents:,} latents of seed {golden.seed}, by {golden.reference}")
    lines.append(f"  manifest: SHA-256 {bundle.manifest_sha256}")
    rows = [
        [v.name, v.precision, v.format, _pixels_text(v), size_text(manifest.files[v.file].size_bytes), v.status]
        for v in manifest.variants
    ]
    lines += ["", table(rows, ["variant", "precision", "format", "images", "size", "status"], frozenset({4}))]
    rows = [row for v in manifest.variants for row in _verdict_rows(v)]
    header = ["verdicts", "where", "latents", "max error", "worst PSNR dB", "versions", ""]
    lines += ["", table(rows, header, frozenset({2, 3, 4}))]
    rows = [row for t in manifest.tunings for row in _tuning_rows(t)]
    if rows:
        lines += ["", table(rows, ["tuned for", "to", "batch", "ms", "on", "when"], frozenset({2, 3}))]
    return "\n".join(lines)


def _pixels_text(variant: Variant) -> str:
    return "uint8 pixels" if variant.output == "uint8" else "values"


def _tensor_text(tensor: TensorSpec) -> str:
    varies = None in tensor.shape
    role = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in asdict(tensor.role).items()
        if varies or k not in SIZE_FIELDS
    }
    meaning = ", ".join(f"{k} {v}" for k, v in role.items())
    shape = ", ".join(["N", *("?" if d is None else str(d) for d in tensor.shape)])
    return f"{tensor.name}: {tensor.dtype} [{shape}], {tensor.role.kind}" + (f" ({meaning})" if meaning else "")


def _verdict_rows(variant: Variant) -> list[list[str]]:
    if not variant.verdicts:
        return [[variant.name, "never ran anywhere; used only if asked for by name", "", "", "", "", ""]]
    rows = []
    for v in variant.verdicts:
        errors = [e for k, e in v.errors.items() if k.rpartition(".")[2] == "max_abs"]
        worst_db = [e for k, e in v.errors.items() if k.rpartition(".")[2] == "psnr_db"]
        rows.append(
            [
                variant.name,
                f"{v.backend} on {v.device}",
                f"{v.latents:,}",
                f"{max(errors):.1e}" if errors else "no figures",
                f"{min(worst_db):.1f}" if worst_db else "",
                " ".join(f"{k} {version}" for k, version in v.versions.items()),
                "holds" if v.passed else "FAILS",
            ]
        )
    return rows


def _tuning_rows(tuning: Tuning) -> list[list[str]]:
    machine = tuning.machine
    where = machine.gpu or f"{machine.cpu}, {machine.cores} core(s)"
    versions = " ".join(f"{name} {version}" for name, version in tuning.versions.items())
    rows = []
    for objective, pick in tuning.picks.items():
        settings = [
            f"{n} {word}(s)" for n, word in ((pick.threads, "thread"), (pick.streams, "stream")) if n is not None
        ]
        what = ", ".join([f"{pick.variant} on {pick.backend}", *settings])
        when = tuning.time_utc
        rows.append([objective, what, str(pick.bucket), f"{pick.milliseconds:.3g}", f"{where}; {versions}", when])
    return rows


def _passes_text(bundle: Bundle) -> str:
    """What the passes did; `reports` is information, and may be of another hand: what does not fit is passed over."""
    from ganexport.tables import table

    reports = bundle.manifest.reports.get("passes")
    if not isinstance(reports, dict) or not reports:
        return "passes: no report; the bundle was exported before there were any, or by another program"
    lines = []
    for variant, entries in reports.items():
        passes = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        rows = [
            [
                str(e.get("name", "")),
                f"{e.get('nodes_before', '?')} -> {e.get('nodes_after', '?')}",
                f"{e['max_abs_change']:.1e}" if e.get("changed") and _is_number(e.get("max_abs_change")) else "",
                str(len(_list_of(e, "changed"))),
                str(len(_list_of(e, "refused"))),
            ]
            for e in passes
        ]
        lines += [
            "",
            table(rows, [f"passes of {variant}", "nodes", "largest change", "did", "refused"], frozenset({3, 4})),
        ]
        for e in passes:
            lines += [f"  {e.get('name')}: {line}" for line in _list_of(e, "changed")]
            lines += [
                f"  {e.get('name')} left {r.get('node')}: {r.get('reason')}"
                for r in _list_of(e, "refused")
                if isinstance(r, dict)
            ]
    return "\n".join(lines[1:])


def _list_of(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    return value if isinstance(value, list) else []


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
