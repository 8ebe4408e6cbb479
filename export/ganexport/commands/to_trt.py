"""`ganexport to-trt`: a TensorRT engine for this machine's GPU, into a bundle."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ganexport.tensorrt.options import DEFAULT_BUCKETS, PRECISIONS, text_from_buckets
from ganruntime.bundle.manifest import HARDWARE_COMPATIBILITIES

if TYPE_CHECKING:
    from ganexport.tensorrt.engine_proof import OnProof
    from ganexport.tensorrt.options import BuildOptions
    from ganexport.tensorrt.progress import OnProgress


@click.command(name="to-trt")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Which of the bundle's graphs to build from (`ganexport precision` makes fp16, bf16 and int8); tf32 is the "
    "fp32 graph with inner products that round their factors to 10 bits of mantissa: faster, and not exact.",
)
@click.option(
    "--batch",
    "batches",
    default=text_from_buckets(DEFAULT_BUCKETS),
    show_default=True,
    metavar="N,N,…",
    help="Batch sizes to tune for, one profile each; one more profile takes every other batch up to the largest.",
)
@click.option(
    "--size",
    "sizes",
    metavar="HxW,HxW,…",
    help="Where height and width of images vary: the sizes to tune for, each at every batch size; one more profile "
    "takes every other size from the smallest that the generator takes up to the largest height and width given. "
    "[default: 64x64, or the next size above it that fits]",
)
@click.option("--device", type=int, default=0, show_default=True, help="Index of the GPU, as CUDA counts them.")
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help="Keep kernel timings here: the next build takes them from it. A folder holds one file for each GPU, CUDA and "
    "TensorRT.",
)
@click.option(
    "--workspace-mib", type=int, metavar="N", help="Most scratch memory a layer may use. [default: all of the GPU's]"
)
@click.option(
    "--optimization-level",
    type=int,
    metavar="0…5",
    help="How long to look for fast kernels; 5 tries the most. [default: TensorRT's own, 3]",
)
@click.option(
    "--hardware-compatible",
    "hardware",
    type=click.Choice(HARDWARE_COMPATIBILITIES),
    default="none",
    show_default=True,
    help="Which other GPUs run it too: ampere+, those of compute capability 8.0 or later; same-cc, those of the same "
    "compute capability. Slower than an engine for this GPU.",
)
@click.option(
    "--version-compatible", is_flag=True, help="Later TensorRT releases run it too, 11 what 10 built. Slower."
)
@click.option("--refittable", is_flag=True, help="It can be given the weights of another training, with --refit.")
@click.option(
    "--strip",
    "stripped",
    is_flag=True,
    help="It holds no weights, and takes the graph's at load. Implies --refittable.",
)
@click.option(
    "--refit", is_flag=True, help="Build nothing: give engines the weights of this bundle's graphs, in seconds."
)
@click.option(
    "--engines-from",
    type=click.Path(path_type=Path),
    metavar="OLD.gan",
    help="With --refit: the bundle that has the engines. [default: this one]",
)
@click.option("--check", is_flag=True, help="Build nothing: say what TensorRT will say of the graph. Needs no GPU.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="VERSION",
    help="With --check: the TensorRT release to check for, such as 10.12 or 11.4; may be given several times. "
    "[default: the installed one, else the newest that is known]",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a report for programs, with what each layer was asked and got, of a refused engine too.",
)
@click.pass_context
def command(
    context: click.Context,
    bundle: Path,
    precision: str,
    batches: str,
    sizes: str | None,
    device: int,
    timing_cache: Path | None,
    workspace_mib: int | None,
    optimization_level: int | None,
    hardware: str,
    version_compatible: bool,
    refittable: bool,
    stripped: bool,
    refit: bool,
    engines_from: Path | None,
    check: bool,
    targets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build a TensorRT engine for this machine's GPU into a bundle, and prove it there.

    The engine is built from one of the bundle's graphs, in a process of its own; read back, and run over the golden
    samples at every batch size; only then it is added, with TensorRT's version, the compute capability, the driver and
    the errors that were measured. It runs on this TensorRT version and this GPU architecture. Needs the extra `trt`;
    needs no torch. With --size sizes other than the default are proven against the bundle's fp32 graph, for which it
    needs the extra `cpu` as well.

    With --refit engines that were built with --refittable or --strip get the weights of this bundle's graphs, where the
    architecture is the same: a generator that was trained further needs no new build.

    A step that fails leaves a folder with the ONNX file and the log, and the command that does it again is in the
    error. An engine whose layers got another precision than the graph asks, or that computes something else, is not
    added: exit 1.

    With --check nothing is built: every node of the graph is held against what the TensorRT release takes and against
    known traps. That needs neither TensorRT nor a GPU. Exit 1 if anything is known to fail or to compute wrongly.

    \b
    Example:
      ganexport to-trt digits.gan --check --target 10.12 --target 11.4
      ganexport to-trt digits.gan
      ganexport to-trt digits.gan --precision tf32 --batch 1,8,64,256 --timing-cache ~/.cache/ganexport
      ganexport to-trt digits.gan --hardware-compatible ampere+ --strip
      ganexport to-trt photos.gan --size 256x256,512x768 --batch 1,4
      ganexport to-trt digits-2.gan --refit --engines-from digits.gan
      ganexport generate digits.gan -n 1000 --backend tensorrt -o images/
    """
    if check and refit:
        raise click.UsageError("--check and --refit do not go together: each is a thing of its own")
    if engines_from is not None and not refit:
        raise click.UsageError("--engines-from goes with --refit")
    if check:
        _refuse_others(context, ("precision", "batches", "sizes", "targets"), "--check", "nothing is built")
        _check(bundle, _options(precision, batches, sizes), targets, as_json)
        return
    if targets:
        raise click.UsageError("--target goes with --check: an engine is built by the TensorRT that is installed")
    if refit:
        kept = "the engine keeps what it was built with"
        _refuse_others(context, ("engines_from", "device"), "--refit", kept)
        _refit(bundle, engines_from, device, as_json)
        return
    options = replace(
        _options(precision, batches, sizes),
        device=device,
        workspace_mib=workspace_mib,
        optimization_level=optimization_level,
        timing_cache=None if timing_cache is None else timing_cache.expanduser(),
        hardware=hardware,
        version_compatible=version_compatible,
        refittable=refittable,
        stripped=stripped,
    )
    _build(bundle, options, as_json)


def _options(precision: str, batches: str, sizes: str | None) -> BuildOptions:
    from ganexport.tensorrt.options import BuildOptions, buckets_from_text
    from ganexport.tensorrt.profiles import sizes_from_text

    return BuildOptions(
        precision=precision,
        buckets=buckets_from_text(batches),
        sizes=() if sizes is None else sizes_from_text(sizes),
    )


def _build(path: Path, options: BuildOptions, as_json: bool) -> None:
    from ganexport.tensorrt.into_bundle import engine_into_bundle
    from ganexport.tensorrt.readback import ReadBack
    from ganexport.tensorrt.report import json_from_engine, json_from_refused, text_from_engine
    from ganruntime.errors import GanError

    seen: list[ReadBack] = []
    try:
        with _bars("building") as (on_progress, on_proof):
            engine = engine_into_bundle(
                path, options, on_progress=on_progress, on_proof=on_proof, on_readback=seen.append
            )
    except GanError as error:
        if as_json and seen:  # built, and refused for what it is: the report says of which layer
            click.echo(json.dumps(json_from_refused(seen[0], options, error), indent=2))
        raise
    click.echo(json.dumps(json_from_engine(path, engine), indent=2) if as_json else text_from_engine(path, engine))


def _refit(path: Path, engines_from: Path | None, device: int, as_json: bool) -> None:
    from ganexport.tensorrt.refit_bundle import refit_into_bundle
    from ganexport.tensorrt.report import json_from_engine, text_from_engine

    with _bars("refitting") as (on_progress, on_proof):
        done = refit_into_bundle(
            path, engines_from=engines_from, device=device, on_progress=on_progress, on_proof=on_proof
        )
    if as_json:
        engines = [json_from_engine(path, engine) for engine in done.engines]
        click.echo(json.dumps({"ok": True, "engines": engines, "left": done.left}, indent=2))
        return
    for engine in done.engines:
        click.echo(text_from_engine(path, engine, verb="refitted"))
    for name, why in done.left.items():
        click.echo(f"left      {name}: {why}")


def _refuse_others(context: click.Context, taken: tuple[str, ...], mode: str, why: str) -> None:
    """An option that a mode has no use for asks for something else: it must not be passed over."""
    for name in context.params:
        if name in (*taken, "bundle", "check", "refit", "as_json"):
            continue
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(p.opts[0] for p in context.command.params if p.name == name)
            raise click.UsageError(f"{option} does not go with {mode}: {why}")


@contextlib.contextmanager
def _bars(label: str) -> Iterator[tuple[OnProgress, OnProof]]:
    from ganexport.tensorrt.progress import ProgressBar

    bar, proof = ProgressBar(label), ProgressBar("proving")

    def on_progress(fraction: float, phase: str) -> None:
        proof.close()
        bar.update(fraction, phase)

    def on_proof(images: int, of_images: int) -> None:
        bar.close()
        proof.update(images / of_images, f"{images} of {of_images} images")

    try:
        yield on_progress, on_proof
    finally:
        bar.close()
        proof.close()


def _check(path: Path, options: BuildOptions, targets: tuple[str, ...], as_json: bool) -> None:
    from ganexport.tensorrt.preflight import preflight_from_onnx
    from ganexport.tensorrt.report import json_from_preflights, text_from_preflights
    from ganexport.tensorrt.sources import source_variant
    from ganruntime.bundle import read_bundle

    versions = _versions(targets)
    bundle = read_bundle(path)
    options = options.fitted(bundle.spec)
    variant = source_variant(bundle, options.graph_precision)
    graph = bundle.graph(variant)
    source = f"{path / variant.file} ({variant.precision})"
    preflights = [preflight_from_onnx(graph, version, source, bundle.spec) for version in versions]
    profiles = [str(profile) for profile in options.profiles(bundle.spec)]
    if as_json:
        click.echo(json.dumps(json_from_preflights(source, preflights, profiles), indent=2))
    else:
        click.echo(text_from_preflights(source, preflights, profiles))
    if not all(p.ok for p in preflights):
        sys.exit(1)


def _versions(targets: tuple[str, ...]) -> list[tuple[int, ...]]:
    """The releases asked for; else the one that is installed; else the newest that the table knows."""
    from ganexport.tensorrt.operator_support import newest_known, version_from_text
    from ganruntime.errors import MissingDependencyError
    from ganruntime.sessions.tensorrt_library import require_tensorrt, version_numbers

    if targets:
        return [version_from_text(t) for t in dict.fromkeys(targets)]
    try:
        return [version_numbers(require_tensorrt())[:3]]
    except MissingDependencyError:
        return [newest_known()]
