"""`ganexport spec`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="spec")
@click.option(
    "--factory",
    required=True,
    metavar="PACKAGE.MODULE:FUNCTION",
    help="A function of yours that returns a torch.nn.Module.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write; by default it is printed.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=SHAPE[,DTYPE][,ROLE]",
    help="What cannot be told from the network: z=100, photo=3x64x64,image, photo=3xHxW,image where height and width "
    "vary, label=label:10; may be given again.",
)
@click.option("--name", default="", help="The generator's name; by default its class's.")
def command(factory: str, output: Path | None, inputs: tuple[str, ...], name: str) -> None:
    """Write a first draft of your module's spec, to be checked and edited.

    Names come from forward's signature, sizes from the layers that take the inputs, outputs from a run. What was
    guessed is listed; what cannot be told is asked for. The draft is valid for `ganexport to-onnx --spec`.

    \b
    Example:
      ganexport spec --factory mypackage.models:generator -o generator.json
      ganexport spec --factory mypackage.models:translator --input photo=3x256x256,image -o translator.json
      ganexport spec --factory mypackage.models:translator --input photo=3xHxW,image -o translator.json
    """
    from ganexport.source import module_from_factory, require_torch

    require_torch()
    from ganexport.input_text import given_inputs
    from ganexport.spec_draft import spec_from_module
    from ganruntime.files import write_atomically

    draft = spec_from_module(module_from_factory(factory), given_inputs(inputs), name)
    if output is not None:
        write_atomically(output, draft.spec.dumps().encode())
        for tensor in (*draft.spec.inputs, *draft.spec.outputs):
            click.echo(f"  {tensor.name}: {tensor.dtype} {['N', *tensor.shape]}, {tensor.role.kind}")
    else:
        click.echo(draft.spec.dumps(), nl=False)
    for line in draft.to_check:
        click.echo(f"to check: {line}", err=True)
