"""`ganexport evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganexport.commands.progress import progress_bar


@click.command(name="evaluate")
@click.argument("generator", metavar="CHECKPOINT|BUNDLE")
@click.option(
    "--data", metavar="DATA", help="What it is held against: digits, faces, ring, grid, curves, or a path. A run knows."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="One metric; may be given again. All that apply if left out.",
)
@click.option("-n", "--samples", default=2500, show_default=True, type=click.IntRange(16), help="How many to generate.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Of the latents.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Index of the first.")
@click.option(
    "--features",
    default="auto",
    show_default=True,
    metavar="SPACE",
    help="judge: a classifier of our own, fitted to the data's labels; random: a network with random weights; FILE.pt: "
    "TorchScript of your own, such as Inception; auto: a judge where there are labels.",
)
@click.option(
    "--reference",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "held-out", "train", "all"]),
    help="Which real images figures compare with; auto: held-out ones, where there are any.",
)
@click.option(
    "--held-out", type=click.FloatRange(0.0, 0.5), help="The share that training kept out, where a run says none."
)
@click.option("--images", type=click.IntRange(0), help="How many images training took, where a run says none.")
@click.option("--device", default="cpu", show_default=True, help="Where the generator runs: cpu, cuda or cuda:N.")
@click.option("--backend", type=click.Choice(["onnxruntime", "openvino"]), help="What runs a bundle's graph.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write scores.json and neighbours.png there."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    generator: str,
    data: str | None,
    metrics: tuple[str, ...],
    samples: int,
    seed: int,
    first: int,
    features: str,
    reference: str,
    held_out: float | None,
    images: int | None,
    device: str,
    backend: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure how good and how varied what a generator gives is, against real data.

    CHECKPOINT is a checkpoint or run folder, which PyTorch runs; BUNDLE is NAME.gan, or one of its variants
    (NAME.gan:int8, NAME.gan:ENGINE). All are scored on the same latents, those of --seed, so their figures compare.

    Every figure names the feature space that it was computed in; figures of different spaces do not compare, nor do
    figures of different numbers of samples. Metrics: modes, curves (toys); fid, kid, precision-recall,
    density-coverage, entropy, mode-dropping, conditional, memorisation (docs/metrics.md).

    \b
    Example:
      ganexport evaluate runs/digits
      ganexport evaluate digits.gan:int8 --data digits --held-out 0.1 -o scores/
      ganexport evaluate faces.gan --data faces --metric fid --features inception-2015-12-05.pt -n 10000
    """
    from ganexport.comparison.side import side_from_text
    from ganruntime.errors import MissingDependencyError

    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"metrics need {error.name}, which is not installed", remedy='pip install "ganexport[train]"'
        ) from error
    from ganexport.evaluation.evaluation import Request, evaluate, with_backend
    from ganexport.evaluation.report import json_from_evaluation, text_from_evaluation

    if out is not None:
        _require_folder(out)
    side = with_backend(side_from_text(generator), backend)
    request = Request(data, metrics, samples, seed, first, features, reference, held_out, images, device)
    with progress_bar(samples, "evaluating") as progress:
        found = evaluate(side, request, progress)
    figures = json.dumps(json_from_evaluation(found), indent=2)
    click.echo(figures if as_json else text_from_evaluation(found))
    if out is not None:
        from ganexport.evaluation.picture import png_from_pairs
        from ganruntime.files import write_atomically

        files = {"scores.json": f"{figures}\n".encode()}
        if found.pairs:
            files["neighbours.png"] = png_from_pairs(found.pairs, seed, found.neighbours)
        for name, content in files.items():
            write_atomically(out / name, content)
        click.echo(f"written: {', '.join(str(out / name) for name in files)}", err=as_json)


def _require_folder(out: Path) -> None:
    """Makes the folder, before minutes of measuring and not after. Raises `OutputError` where that cannot be."""
    from ganruntime.errors import OutputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out} cannot be made a folder", got=error.strerror or str(error), remedy="choose another -o FOLDER"
        ) from error
