"""`ganexport to-onnx`."""

from __future__ import annotations

from pathlib import Path

import click

from ganexport.commands.progress import progress_bar
from ganexport.commands.proof_batches import proof_batches_from_text, proof_batches_option


@click.command(name="to-onnx")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle to write, NAME.gan.")
@click.option(
    "--factory", metavar="PACKAGE.MODULE:FUNCTION", help="A function of yours that returns a torch.nn.Module."
)
@click.option(
    "--spec",
    "spec_file",
    type=click.Path(path_type=Path),
    help="The spec of --factory's module, a JSON file (see ganexport spec); by default what the module itself tells.",
)
@click.option(
    "--random",
    default="refuse",
    show_default=True,
    type=click.Choice(["refuse", "input", "freeze"]),
    help="Random numbers that the network draws by itself: refuse them, make each draw an input with the role 'noise', "
    "or a constant drawn with a fixed seed.",
)
@click.option(
    "--latents", default=1024, show_default=True, type=click.IntRange(1), help="Latents to prove the graph over."
)
@proof_batches_option
@click.option("--opset", type=click.IntRange(18, 23), help="ONNX operator set. [default: 18]")
@click.option(
    "--target",
    metavar="BACKEND",
    help="What will run it: onnxruntime, openvino, tensorrt10, tensorrt11 or a TensorRT release, such as 11.4. It "
    "decides which operator sets are written.",
)
@click.option(
    "--without-pass", "without", multiple=True, metavar="NAME", help="Leave out a graph pass; may be given again."
)
@click.option(
    "--with-pass",
    "extra",
    multiple=True,
    metavar="NAME",
    help="Run a graph pass that does not pay everywhere, such as convtranspose_to_subpixel; may be given again.",
)
@click.option(
    "--uint8/--no-uint8",
    "uint8",
    default=True,
    show_default=True,
    help="Also write a variant whose images leave the graph as pixels; it holds the weights once more.",
)
@click.option(
    "--keep-engines",
    is_flag=True,
    help="Carry TensorRT engines that can be refitted over from the bundle that is replaced; "
    "`ganexport to-trt NAME.gan --refit` then gives them the new weights.",
)
def command(
    checkpoint: Path | None,
    output: Path,
    factory: str | None,
    spec_file: Path | None,
    random: str,
    latents: int,
    batches: str,
    opset: int | None,
    target: str | None,
    without: tuple[str, ...],
    extra: tuple[str, ...],
    uint8: bool,
    keep_engines: bool,
) -> None:
    """Export a checkpoint, or your own module, to a bundle whose graph is proven against PyTorch.

    CHECKPOINT is a run folder or a checkpoint folder of `ganexport train`. A bundle at the output is replaced,
    whole or not at all; what was made of its old weights (fp16, int8, engines) goes with them, and is named first.
    Graph passes are proven one by one, and the whole against PyTorch; `ganexport inspect NAME.gan --passes` says what
    each did.

    \b
    Example:
      ganexport to-onnx runs/digits -o digits.gan
      ganexport to-onnx runs/digits -o digits.gan --target tensorrt11 --with-pass convtranspose_to_subpixel
      ganexport to-onnx --factory mypackage.models:generator --spec generator.json -o mine.gan
    """
    if (checkpoint is None) == (factory is None):
        raise click.UsageError("give either CHECKPOINT or --factory")
    if factory is None and spec_file is not None:
        raise click.UsageError("--spec goes with --factory: a checkpoint has its own")
    from ganexport.source import generator_from_checkpoint, generator_from_factory, require_torch

    require_torch()
    from ganexport.bundling import bundle_from_source, images_to_run
    from ganexport.opset_choice import opset_for
    from ganexport.optimisation import chosen_passes
    from ganexport.program.noise_inputs import source_with_noise
    from ganexport.program.size_search import source_with_sizes
    from ganexport.tables import size_text

    proof_batches = proof_batches_from_text(batches)
    passes = chosen_passes(without, extra)
    chosen_opset = opset_for(target, opset)

    if factory is not None:
        source = generator_from_factory(factory, spec_file)
    else:
        assert checkpoint is not None
        source = generator_from_checkpoint(checkpoint)
    source = source_with_noise(source_with_sizes(source), random)
    for name, draw in source.notes.get("draws", {}).items():
        what = "input" if random == "input" else "constant"
        shape = [*(["N"] if random == "input" else []), *draw["shape"]]
        click.echo(f"  {what} {name} {shape}, {draw['distribution']}: drawn in {draw['drawn_in']}")
    with progress_bar(images_to_run(source.spec, latents, uint8, proof_batches), "proving") as progress:
        exported = bundle_from_source(
            source,
            output,
            opset=chosen_opset,
            passes=passes,
            uint8=uint8,
            latents=latents,
            batches=proof_batches,
            keep_engines=keep_engines,
            say=lambda line: click.echo(f"{source.spec.name}: {line}", err=True),
            progress=progress,
        )
    verdict = exported.finding.verdict
    click.echo(
        f"{output}: {size_text(exported.graph_bytes)} graph, verified over {verdict.latents:,} latents "
        f"in batches {', '.join(map(str, verdict.batches))}"
    )
    for i, tensor in enumerate(source.spec.outputs):
        prefix = f"{tensor.name}." if len(source.spec.outputs) > 1 else ""
        line = f"  {tensor.name}: largest error {verdict.errors[prefix + 'max_abs']:.2g}"
        line += f" (bound {verdict.bound:.0e})" if i == 0 else ""
        if tensor.role.kind == "image":
            line += f", pixels at most {verdict.errors[prefix + 'max_uint8']:.0f} level(s) apart"
        click.echo(line)
    if exported.pixel_finding is not None:
        click.echo("  fp32-uint8: the same images as pixels, equal over all of these latents")
