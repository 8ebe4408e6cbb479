"""Tiny training runs, and what is in their folders."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from gantrain.progress import StepReport

TINY: dict[str, Any] = {
    "size": 16, "images": 50, "batch": 8, "z_size": 6, "width": 4, "discriminator_width": 4,
    "sample_images": 9, "sample_every": 7, "log_every": 2, "checkpoint_every": 5, "ema_half_life": 100.0,
    "metrics_every": 0,
}  # fmt: skip
TINY_MLP: dict[str, Any] = {
    "size": 8, "images": 50, "batch": 8, "z_size": 6, "generator_widths": "8,16", "discriminator_widths": "16",
    "sample_images": 4, "sample_every": 7, "log_every": 2, "checkpoint_every": 5,
    "metrics_every": 0,
}  # fmt: skip


def contents(run: Path) -> dict[str, Any]:
    """Everything in a run folder but the times and what may differ by design (steps asked for)."""
    result: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or path.name == "index.html":  # the page is all times
            continue
        if path.name == "log.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                assert line.pop("timing")["seconds"] > 0
            result[name] = lines
        elif path.name in ("state.json", "run.json"):
            table = json.loads(path.read_text())
            table.pop("seconds", None)
            table.get("settings", {}).pop("steps", None)
            table.get("settings", {}).pop("checkpoint_every", None)
            result[name] = table
        else:
            result[name] = path.read_bytes()
    return result


def same(a: Path, b: Path) -> None:
    left, right = contents(a), contents(b)
    assert set(left) == set(right)
    assert [name for name in left if left[name] != right[name]] == []


def interrupted_after(step: int, number: int = signal.SIGINT) -> Any:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            os.kill(os.getpid(), number)

    return on_step


_TINY_VECTORS: dict[str, Any] = {
    "z_size": 3, "batch": 8, "sample_images": 16, "sample_every": 7, "log_every": 2, "checkpoint_every": 5,
    "metrics_every": 0,
}  # fmt: skip
_TINY_TOY = _TINY_VECTORS | {
    "generator_widths": "8,8", "discriminator_widths": "8,8", "maxout": 2, "generator_signs": 2,
}  # fmt: skip

# recipe -> data and settings of its smallest training, with every part at work that the recipe has
_SMALL = {key: value for key, value in TINY.items() if key != "discriminator_width"} | {"max_width": 8}
TINY_RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "cgan": ("digits", TINY | {"conditioning": "projection", "mismatched": 0.4}),
    "dcgan": ("digits", TINY | {"shift": 2, "colour": 0.5, "cutout": 0.3, "ada_target": 0.6, "ada_images": 100.0}),
    "lsgan": ("digits", TINY),
    "mlp": ("digits", TINY_MLP),
    "painter": ("curves", _TINY_VECTORS | {"width": 8}),
    # At 8 px the one fade is over 16 images, steps 3 and 4: the runs stop in the middle of it.
    "progressive": ("digits", _SMALL | {"size": 8, "stage_images": 16, "discriminator_steps": 1}),
    "r3gan": ("digits", _SMALL),
    "sngan": ("digits", TINY | {"max_width": 8, "discriminator_steps": 2, "discriminator": "vit"}),
    "sngan-projection": ("digits", TINY | {"max_width": 8, "discriminator_steps": 2}),
    "stylegan2": (
        "digits",
        _SMALL
        | {
            "size": 8,
            "w_size": 6,
            "penalty_every": 2,
            "path_every": 2,
            "shift": 1,
            "ada_target": 0.6,
            "ada_images": 100.0,
        },
    ),
    "toy": ("ring", _TINY_TOY | {"pack": 2, "penalty_every": 2, "decay_start": 2, "decay_end": 20}),
    "wgan": ("digits", TINY | {"discriminator_steps": 2}),
    "wgan-gp": ("digits", TINY | {"discriminator_steps": 2}),
}
