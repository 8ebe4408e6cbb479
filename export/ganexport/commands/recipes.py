"""`ganexport recipes`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


@click.command(name="recipes")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, for programs.")
@click.option("--preview", is_flag=True, help="Show what each draws, in a terminal with 24-bit colours.")
@click.option(
    "--pictures", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the previews there, a PNG a recipe."
)
def command(name: str | None, as_json: bool, preview: bool, pictures: Path | None) -> None:
    """List what can be trained, a line each; or one by NAME, with every setting, its default and its meaning.

    \b
    Example:
      ganexport recipes dcgan
      ganexport recipes --preview
      ganexport train dcgan --data digits --out runs/digits --set width=64 --set steps=20000
    """
    from gantrain.recipes import RECIPES, recipe_from_name

    if preview:
        _require_colours(as_json)
    tables = [_table(recipe_from_name(n)) for n in ([name] if name else RECIPES)]
    if pictures is not None:
        _write_previews([table["name"] for table in tables], pictures)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "recipes": tables}, indent=2))
        return
    if name is None:
        width = max(len(table["name"]) for table in tables)
        for table in tables:
            click.echo(f"{table['name'].ljust(width)}  {table['description']}")
            if preview:
                _show_preview(table["name"])
        click.echo(
            "\nganexport recipes NAME lists the settings of one; --preview shows what each draws, and --pictures FOLDER"
            "\nwrites that as PNG. Their figures and commands: docs/gallery.md"
        )
        return
    for table in tables:
        click.echo(f"{table['name']}: {table['description']}")
        if preview:
            _show_preview(table["name"])
        rows = [(f"{s['name']}={_text(s['default'])}", _meaning(s)) for s in table["settings"]]
        width = max(len(left) for left, _ in rows)
        for left, meaning in rows:
            click.echo(f"  {left.ljust(width)}  {meaning}")
        for preset, changes in table["presets"].items():
            click.echo(f"  --preset {preset}: " + " ".join(f"{k}={_text(v)}" for k, v in changes.items()))


def _require_colours(as_json: bool) -> None:
    from ganexport.terminal_picture import shows_colours
    from ganruntime.errors import InputError

    if as_json:
        raise InputError("--preview is for people and --json for programs", remedy="leave out one of them")
    if not shows_colours(sys.stdout):
        raise InputError(
            "--preview needs a terminal with colours",
            got="no terminal, or NO_COLOR",
            remedy="--pictures FOLDER writes the previews as PNG; FORCE_COLOR=1 writes colour codes all the same",
        )


def _show_preview(name: str) -> None:
    from ganexport.terminal_picture import lines_from_picture
    from gantrain.previews import preview_of

    png = preview_of(name)
    lines = ["  (no preview)"] if png is None else lines_from_picture(png, shutil.get_terminal_size().columns)
    for line in lines:
        click.echo(line, color=True)


def _write_previews(names: Sequence[str], folder: Path) -> None:
    """NAME.png of each that has one. Raises `OutputError` where the folder cannot be made or written to."""
    from ganruntime.errors import OutputError
    from ganruntime.files import write_atomically
    from gantrain.previews import preview_of

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made a folder",
            got=error.strerror or str(error),
            remedy="choose another --pictures FOLDER",
        ) from error
    written = 0
    for name in names:
        png = preview_of(name)
        if png is None:
            click.echo(f"{name} has no preview", err=True)
            continue
        write_atomically(folder / f"{name}.png", png)
        written += 1
    click.echo(f"written: {written} pictures in {folder}", err=True)


def _table(recipe: Any) -> dict[str, Any]:
    from dataclasses import fields
    from typing import get_type_hints

    from gantrain.previews import preview_of
    from gantrain.recipes.settings import type_name

    types = get_type_hints(type(recipe.defaults))
    plain = recipe.defaults.to_json()
    return {
        "name": recipe.name,
        "description": recipe.line,
        "data": recipe.kind,
        "conditional": recipe.conditional,
        "has_preview": preview_of(recipe.name) is not None,
        "settings": [
            {
                "name": f.name,
                "type": type_name(types[f.name]),
                "default": plain[f.name],
                "meaning": f.metadata["meaning"],
                "choices": list(f.metadata["choices"]) if f.metadata["choices"] else None,
                "least": f.metadata["least"],
                "most": f.metadata["most"],
            }
            for f in fields(recipe.defaults)
        ],
        "presets": {name: dict(changes) for name, changes in recipe.presets.items()},
    }


def _meaning(setting: dict[str, Any]) -> str:
    choices = setting["choices"]
    return str(setting["meaning"]) + (f" ({', '.join(str(c) for c in choices)})" if choices else "")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(str(v) for v in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
