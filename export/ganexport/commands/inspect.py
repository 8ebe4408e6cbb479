"""`ganexport inspect`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ganruntime.bundle import Bundle, Variant
    from ganruntime.spec import TensorSpec


@click.command(name="inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(bundle: Path, as_json: bool) -> None:
    """Say what a bundle is: what it takes and gives, where it comes from, variants with sizes and verdicts.

    Every file is checked against its hash; a damaged one is an error.

    \b
    Example:
      ganexport inspect digits.gan
      ganexport inspect digits.gan --json
    """
    from ganruntime.bundle import read_bundle

    opened = read_bundle(bundle)
    for name in opened.manifest.files:
        opened.read(name)
    click.echo(json.dumps(_as_json(opened), indent=2, ensure_ascii=False) if as_json else _as_text(opened))


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
        [v.name, v.precision, v.format, size_text(manifest.files[v.file].size_bytes), v.status, _verdicts_text(v)]
        for v in manifest.variants
    ]
    lines += ["", table(rows, ["variant", "precision", "format", "size", "status", "verdicts"], frozenset({3}))]
    return "\n".join(lines)


def _tensor_text(tensor: TensorSpec) -> str:
    role = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(tensor.role).items()}
    meaning = ", ".join(f"{k} {v}" for k, v in role.items())
    shape = ", ".join(["N", *("?" if d is None else str(d) for d in tensor.shape)])
    return f"{tensor.name}: {tensor.dtype} [{shape}], {tensor.role.kind}" + (f" ({meaning})" if meaning else "")


def _verdicts_text(variant: Variant) -> str:
    if not variant.verdicts:
        return "never ran anywhere; used only if asked for by name"
    parts = []
    for v in variant.verdicts:
        versions = " ".join(f"{k} {version}" for k, version in v.versions.items())
        worst = [e for k, e in v.errors.items() if k.rpartition(".")[2] == "max_abs"]
        error = f"max error {max(worst):.1e}" if worst else "no figures"
        outcome = "holds" if v.passed else "FAILS"
        parts.append(f"{outcome} on {v.device}, {v.latents:,} latents, {error} ({versions})")
    return "; ".join(parts)
