"""`ganexport to-onnx`."""

from __future__ import annotations

from pathlib import Path

import click

from ganexport.commands.progress import progress_bar


@click.command(name="to-onnx")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle to write, NAME.gan.")
@click.option(
    "--factory", metavar="PACKAGE.MODULE:FUNCTION", help="A function of yours that returns a torch.nn.Module."
)
@click.option(
    "--spec", "spec_file", type=click.Path(path_type=Path), help="The spec of --factory's module, a JSON file."
)
@click.option(
    "--latents", default=1024, show_default=True, type=click.IntRange(1), help="Latents to prove the graph over."
)
@click.option("--opset", default=18, show_default=True, type=click.IntRange(18, 23), help="ONNX operator set.")
def command(
    checkpoint: Path | None, output: Path, factory: str | None, spec_file: Path | None, latents: int, opset: int
) -> None:
    """Export a checkpoint, or your own module, to a bundle whose graph is proven against PyTorch.

    CHECKPOINT is a run folder or a checkpoint folder of `ganexport train`. A bundle at the output is replaced,
    whole or not at all.

    \b
    Example:
      ganexport to-onnx runs/digits -o digits.gan
      ganexport to-onnx --factory mypackage.models:generator --spec generator.json -o mine.gan
    """
    if (checkpoint is None) == (factory is None):
        raise click.UsageError("give either CHECKPOINT or --factory")
    if (factory is None) != (spec_file is None):
        raise click.UsageError("--factory and --spec go together: the spec says what the module takes and gives")
    from ganexport.bundling import bundle_from_source
    from ganexport.gate import BATCHES
    from ganexport.source import generator_from_checkpoint, generator_from_factory
    from ganexport.tables import size_text

    if factory is not None and spec_file is not None:
        source = generator_from_factory(factory, spec_file)
    else:
        assert checkpoint is not None
        source = generator_from_checkpoint(checkpoint)
    with progress_bar(latents * len(BATCHES), "proving") as progress:
        exported = bundle_from_source(
            source,
            output,
            opset=opset,
            latents=latents,
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
