"""The one command, `ganexport`. Each subcommand is a file here, imported when it is called and not before."""

from __future__ import annotations

import contextlib
import os
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from ganruntime import __version__
from ganruntime.backend_log import keep_backends_quiet
from ganruntime.errors import GanError

# name -> (module, a line for --help). The line stands here so that --help imports nothing.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "The whole way on real data, from training to a report."),
    "recipes": ("recipes", "List what can be trained, with every setting."),
    "train": ("train", "Train a generator into a run folder; stop and resume at will."),
    "spec": ("spec", "Draft the spec of your own module, to be checked."),
    "to-onnx": ("to_onnx", "Export a checkpoint, or your own module, to a verified bundle."),
    "precision": ("precision", "Add fp16, bf16 or int8 to a bundle, proven against fp32."),
    "to-trt": ("to_trt", "Build TensorRT engines for this GPU into a bundle."),
    "verify": ("verify", "Prove a bundle over a thousand latents and five batch sizes."),
    "tune": ("tune", "Measure what is fastest here, and record it in the bundle."),
    "inspect": ("inspect", "Say what a bundle is, takes and gives, with sizes and verdicts."),
    "diff": ("diff", "Compare bundles, variants or checkpoints on the same latents."),
    "evaluate": ("evaluate", "Measure quality and variety against real data."),
    "generate": ("generate", "Draw images: files, tar shards, an array, or a sheet."),
    "replay": ("replay", "Make an image of a run again, and say whether it is identical."),
    "interpolate": ("interpolate", "Move from image to image: a GIF, an MP4 or a strip."),
    "grid": ("grid", "Spread a sheet between four images."),
    "arithmetic": ("arithmetic", "Add and subtract latents by what their images show."),
    "directions": ("directions", "Find where to move so that an image shows a class."),
    "invert": ("invert", "Find the latent whose image is nearest to a picture."),
    "bench": ("bench", "Measure the runtime against eager PyTorch on the same latents."),
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"ganexport.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ganexport")
def ganexport() -> None:
    """From training data to production images: train, export, prove, serve, measure.

    \b
    Example:
      ganexport train dcgan --data digits --out runs/digits
      ganexport to-onnx runs/digits -o digits.gan
      ganexport verify digits.gan
      ganexport generate digits.gan -n 64 --seed 7 -o sheet.png
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line. Exit codes: 0 done, 1 an error that says its remedy, 2 wrong usage, 130 Ctrl-C.

    With GANEXPORT_DEBUG set, an error comes with its traceback, and backends write what they like. Where the reader of
    our output goes away (`| head`), click ends quietly with 1.
    """
    if not os.environ.get("GANEXPORT_DEBUG"):
        keep_backends_quiet()
    try:
        # Outside standalone mode click returns the code of ctx.exit(), and whatever else a command returns.
        code = ganexport.main(args=arguments, prog_name="ganexport", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except GanError as error:
        if os.environ.get("GANEXPORT_DEBUG"):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        # What no command foresaw: standard output on a full disk has no file name.
        if os.environ.get("GANEXPORT_DEBUG"):
            raise
        where = "standard output" if error.filename is None else error.filename
        click.echo(f"error: cannot read or write {where}\n  got:      {error.strerror or error}", err=True)
        _discard_output()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _discard_output() -> None:
    """What could not be written would be tried again when the interpreter ends, with a message of its own."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
