"""`ganexport demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ganexport.commands.progress import progress_bar


@click.command(name="demo")
@click.option(
    "--data", default="digits", show_default=True, type=click.Choice(["digits", "faces"]), help="What to draw."
)
@click.option(
    "--recipe", default="dcgan", show_default=True, type=click.Choice(["dcgan", "mlp"]), help="What to train."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The demo's folder. [default: demo/DATA, or demo/DATA-mlp]"
)
@click.option("--steps", type=click.IntRange(1), help="Generator steps. [default: what makes a good generator]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Seed of the training.")
@click.option("--quick", is_flag=True, help="A look at the whole way in a minute: too few steps for good images.")
def command(data: str, recipe: str, out: Path | None, steps: int | None, seed: int, quick: bool) -> None:
    """Go the whole way on real data: train, export, verify, generate, judge, benchmark, and write one HTML report.

    Digits are real handwritten ones, faces are drawn; neither is downloaded. On two cores the digits take about three
    minutes. The last line is the path of the report, a single file with everything in it.

    The images are judged; where they are not good enough the report says so and the exit code is 1.

    Ctrl-C keeps the training's checkpoint: the same command goes on from there. A finished demo in the folder, or one
    with other arguments, is replaced: what a demo writes, and nothing else. A folder that is no demo's is left alone.

    \b
    Example:
      ganexport demo
      ganexport demo --data faces --out faces-demo
      ganexport demo --recipe mlp --steps 8000
    """
    from ganexport.demo.options import Options
    from ganexport.openmp import spin_briefly

    options = Options(data, recipe, steps, seed, quick)
    _require_packages()
    spin_briefly()
    from ganexport.demo.pipeline import Console, run_demo
    from ganexport.demo.report import html_from_result
    from ganruntime.files import write_atomically
    from gantrain.progress import ProgressLine
    from gantrain.stop_signals import TrainingStopped

    path = out or Path("demo") / (data if recipe == "dcgan" else f"{data}-{recipe}")
    line = ProgressLine(sys.stderr)
    console = Console(
        say=lambda text: click.echo(text, err=True), progress=progress_bar, on_step=line, trained=line.close
    )
    try:
        result = run_demo(options, path, console)
    except KeyboardInterrupt as stop:
        line.close()
        where = f"after step {stop.step:,}; the checkpoint is kept" if isinstance(stop, TrainingStopped) else ""
        click.echo(f"stopped {where}".strip() + "\nto go on, give the same command again", err=True)
        # As shells report a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM.
        sys.exit(128 + (stop.signal_number if isinstance(stop, TrainingStopped) else 2))
    write_atomically(result.folder.report, html_from_result(result).encode())
    result.folder.mark(finished=True, result=result.figures())
    for condition in result.judgement.conditions:
        click.echo(f"{'holds' if condition.holds else 'DOES NOT HOLD':<13} {condition.text}: {condition.found}")
    if not result.bench.neighbours.quiet:
        click.echo(result.bench.neighbours.sentence())
    click.echo(f"done in {result.seconds:.0f} s")
    click.echo(result.folder.report.resolve())
    if not result.judgement.passed:
        sys.exit(1)


def _require_packages() -> None:
    """Raises `MissingDependencyError` before anything is begun, where a package that a stage needs is not installed."""
    from importlib.util import find_spec

    from ganruntime.errors import MissingDependencyError

    extras = {
        "torch": "train", "safetensors": "train", "sklearn": "train", "onnx": "export", "onnxscript": "export",
        "matplotlib": "export", "onnxruntime": "cpu",
    }  # fmt: skip
    missing = {package: extra for package, extra in extras.items() if find_spec(package) is None}
    if missing:
        raise MissingDependencyError(
            f"the demo needs {', '.join(missing)}, which is not installed",
            remedy=f'pip install "ganexport[{",".join(sorted(set(missing.values())))}]"',
        )
