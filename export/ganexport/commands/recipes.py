"""`ganexport recipes`."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command(name="recipes")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, for programs.")
def command(name: str | None, as_json: bool) -> None:
    """List what can be trained, a line each; or one by NAME, with every setting, its default and its meaning.

    \b
    Example:
      ganexport recipes dcgan
      ganexport train dcgan --data digits --out runs/digits --set width=64 --set steps=20000
    """
    from gantrain.recipes import RECIPES, recipe_from_name

    tables = [_table(recipe_from_name(n)) for n in ([name] if name else RECIPES)]
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "recipes": tables}, indent=2))
        return
    if name is None:
        width = max(len(table["name"]) for table in tables)
        for table in tables:
            click.echo(f"{table['name'].ljust(width)}  {table['description']}")
        click.echo("\nganexport recipes NAME lists the settings of one")
        return
    for table in tables:
        click.echo(f"{table['name']}: {table['description']}")
        rows = [(f"{s['name']}={_text(s['default'])}", _meaning(s)) for s in table["settings"]]
        width = max(len(left) for left, _ in rows)
        for left, meaning in rows:
            click.echo(f"  {left.ljust(width)}  {meaning}")
        for preset, changes in table["presets"].items():
            click.echo(f"  --preset {preset}: " + " ".join(f"{k}={_text(v)}" for k, v in changes.items()))


def _table(recipe: Any) -> dict[str, Any]:
    from dataclasses import fields
    from typing import get_type_hints

    from gantrain.recipes.settings import type_name

    types = get_type_hints(type(recipe.defaults))
    plain = recipe.defaults.to_json()
    return {
        "name": recipe.name,
        "description": recipe.line,
        "data": recipe.kind,
        "conditional": recipe.conditional,
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
