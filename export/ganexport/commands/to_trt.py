"""`ganexport to-trt`: a TensorRT engine for this machine's GPU, into a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from ganexport.tensorrt.options import DEFAULT_BUCKETS, PRECISIONS, text_from_buckets


@click.command(name="to-trt")
@click.argument("bundle", metavar="NAME.gan", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="tf32 lets inner products round their factors to 10 bits of mantissa: faster, and not exact.",
)
@click.option(
    "--batch",
    "batches",
    default=text_from_buckets(DEFAULT_BUCKETS),
    show_default=True,
    metavar="N,N,…",
    help="Batch sizes to tune for, one profile each; one more profile takes every other batch up to the largest.",
)
@click.option("--device", type=int, default=0, show_default=True, help="Index of the GPU, as CUDA counts them.")
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep kernel timings here: the next build takes them from it. A folder holds one file per GPU and version.",
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
def command(
    bundle: Path,
    precision: str,
    batches: str,
    device: int,
    timing_cache: Path | None,
    workspace_mib: int | None,
    optimization_level: int | None,
) -> None:
    """Build a TensorRT engine for this machine's GPU into a bundle, and prove it there.

    The engine is built from the bundle's fp32 graph, read back, and run over the golden samples at every batch size;
    only then it is added, with TensorRT's version, the compute capability, the driver and the errors that were
    measured. It runs on this TensorRT version and this GPU architecture. Needs the extra `trt`; needs no torch.

    \b
    Example:
      ganexport to-trt digits.gan
      ganexport to-trt digits.gan --precision tf32 --batch 1,8,64,256 --timing-cache ~/.cache/ganexport
      ganexport generate digits.gan -n 1000 --backend tensorrt -o images/
    """
    from ganexport.tensorrt.into_bundle import engine_into_bundle
    from ganexport.tensorrt.options import BuildOptions, buckets_from_text
    from ganexport.tensorrt.progress import ProgressBar

    options = BuildOptions(
        precision=precision,
        buckets=buckets_from_text(batches),
        device=device,
        workspace_mib=workspace_mib,
        optimization_level=optimization_level,
        timing_cache=None if timing_cache is None else timing_cache.expanduser(),
    )
    bar = ProgressBar("building")
    proof = ProgressBar("proving")

    def on_progress(fraction: float, phase: str) -> None:
        bar.update(fraction, phase)

    def on_proof(images: int, of_images: int) -> None:
        bar.close()
        proof.update(images / of_images, f"{images} of {of_images} images")

    try:
        engine = engine_into_bundle(bundle, options, on_progress=on_progress, on_proof=on_proof)
    finally:
        bar.close()
        proof.close()
    built, verdict, record = engine.built, engine.finding.verdict, engine.variant.engine
    counts = ", ".join(f"{count} {name}" for name, count in engine.readback.counts().items())
    errors = verdict.errors
    largest = max(value for key, value in errors.items() if key.endswith("max_abs"))
    levels = [value for key, value in errors.items() if key.endswith("max_uint8")]
    click.echo(f"engine    {bundle / engine.variant.file}  {engine.size_bytes / 2**20:.1f} MiB")
    click.echo(
        f"built     in {built.seconds:.0f} s by TensorRT {built.tensorrt_version} on {built.gpu.name} "
        f"(compute capability {built.gpu.compute_capability}, driver {built.gpu.driver_version})"
    )
    click.echo(f"layers    {counts}")
    click.echo(
        f"{engine.variant.status:<9} {verdict.latents} latents at batches {text_from_buckets(set(verdict.batches))}: "
        f"largest error {largest:.2g} (bound {verdict.bound:.2g}), {max(levels, default=0.0):.0f} pixel levels"
    )
    if record is not None:
        click.echo(f"runs on   TensorRT {record.tensorrt}, compute capability {record.compute_capability}")
