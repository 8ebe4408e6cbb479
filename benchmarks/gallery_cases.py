"""The gallery: which trainings are shown, as what `ganexport train` is told of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SAMPLES = 2500  # of a score


@dataclass(frozen=True)
class Case:
    """One training.

    changes: of the recipe's settings, as after `--set`. seeds: one run each. shows: what there is to see, in a line.
    preview: whether `ganexport recipes --preview` shows this one for its recipe. neighbours: whether the page shows the
        images that are nearest to one of training.
    """

    name: str
    recipe: str
    data: str
    shows: str
    changes: Mapping[str, object] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    preview: bool = False
    neighbours: bool = False

    def run(self, work: Path, seed: int) -> Path:
        return work / f"{self.name}-{seed}"

    def bundle(self, work: Path, seed: int) -> Path:
        return work / f"{self.name}-{seed}.gan"

    def commands(self, work: Path, seed: int) -> dict[str, list[str]]:
        """What makes and scores a run, in order, as arguments of `ganexport`."""
        run, bundle = str(self.run(work, seed)), str(self.bundle(work, seed))
        sets = [part for key, value in self.changes.items() for part in ("--set", f"{key}={_text(value)}")]
        train = ["train", self.recipe, "--data", self.data, "--seed", str(seed), "--threads", "1", *sets, "--out", run]
        score = ["evaluate", bundle, "--data", self.data, "-n", str(SAMPLES), "--json"]
        if "held_out" in self.changes:
            score += ["--held-out", _text(self.changes["held_out"])]
        return {
            "train": train,
            "to-onnx": ["to-onnx", run, "-o", bundle],
            "verify": ["verify", bundle, "--json"],
            "evaluate": [*score, "-o", f"{run}-scores"],
        }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# A quarter of the 1,797 digits is enough to measure on: coverage is then known to within about 0.01.
_DIGITS: dict[str, object] = {"size": 16, "held_out": 0.25, "z_size": 32, "batch": 32, "ema_half_life": 5000}
_FACES: dict[str, object] = {"size": 32, "z_size": 64, "batch": 32, "ema_half_life": 5000}
# R1 and a discriminator as quick as the generator: what `ganexport demo` learned on digits.
_STEADY: dict[str, object] = {"discriminator_lr": 1e-3, "r1": 0.2, "penalty_every": 4}
_WIDE: dict[str, object] = {"width": 32, "discriminator_width": 32}


def _falling(steps: int) -> dict[str, object]:
    """So many steps, with learning rates that fall from two fifths of them on."""
    return {"steps": steps, "decay_start": steps * 2 // 5, "decay_end": steps, "decay_to": 0.02}


# What a small thing in a picture is shall be learned too: D compares features of every place with the label, and a
# quarter of what it is to tell from the real pairs are real images under wrong labels.
_TOLD: dict[str, object] = {"conditioning": "projection", "mismatched": 0.25}


# ADA: what knows 1,348 digits by heart is shown them shifted and with squares greyed out.
_AUGMENTED: dict[str, object] = {"shift": 2, "ada_target": 0.6}
# γ = 10 leaves so small a discriminator nothing to say, and 0.3 lets it win. β₁ and the rates are for few steps.
_QUICK_R3GAN: dict[str, object] = {
    "r1": 1.0,
    "r2": 1.0,
    "penalty_every": 4,
    "generator_lr": 2e-3,
    "discriminator_lr": 1e-3,
    "beta1": 0.5,
}
# The published loss. Without ADA it loses half of the digits by step 1,000, whatever γ; with it γ = 0.1 keeps them.
# Mixing and path length are left out: with them it takes several times the steps.
_QUICK_STYLEGAN2: dict[str, object] = {
    "r1": 0.1,
    "penalty_every": 8,
    "generator_lr": 2.5e-3,
    "discriminator_lr": 2.5e-3,
    **_AUGMENTED,
    "cutout": 0.5,
    "ada_images": 10_000,
    "mixing": 0,
    "path_length": 0,
}
# One discriminator step in place of five, and twice the rate for it: as SAGAN (Zhang et al. 2019) trains such networks.
_QUICK_SNGAN: dict[str, object] = {"discriminator_steps": 1, "generator_lr": 4e-4, "discriminator_lr": 8e-4}

_ALL = (
    Case(
        "digits-cgan",
        "cgan",
        "digits",
        "The digit that was asked for: a column a digit, a latent a row.",
        {**_DIGITS, **_WIDE, **_STEADY, **_falling(5000)},
        seeds=(0, 1, 2),
        preview=True,
        neighbours=True,
    ),
    Case(
        "digits-sngan-projection",
        "sngan-projection",
        "digits",
        "Labels by projection, in residual networks.",
        {**_DIGITS, **_QUICK_SNGAN, **_falling(3000)},
        preview=True,
    ),
    Case(
        "digits-mlp",
        "mlp",
        "digits",
        "Fully connected, as in 2014: no layer knows which pixels are neighbours.",
        {**_DIGITS, **_falling(3000)},
        preview=True,
    ),
    Case(
        "digits-dcgan",
        "dcgan",
        "digits",
        "Transposed convolutions, here with a little R1.",
        {**_DIGITS, **_WIDE, **_STEADY, **_falling(3500)},
        preview=True,
    ),
    Case(
        "digits-lsgan",
        "lsgan",
        "digits",
        "The same networks, with least squares in place of the log loss.",
        {**_DIGITS, **_WIDE, **_falling(3500)},
        preview=True,
    ),
    Case(
        "digits-wgan",
        "wgan",
        "digits",
        "The same networks and a critic of clipped weights, which is the slowest way to the same end.",
        {**_DIGITS, **_WIDE, "generator_lr": 2e-4, "discriminator_lr": 2e-4, "steps": 2500},
        preview=True,
    ),
    Case(
        "digits-wgan-gp",
        "wgan-gp",
        "digits",
        "The same networks and a gradient penalty.",
        {**_DIGITS, **_WIDE, "generator_lr": 5e-4, "discriminator_lr": 5e-4, **_falling(2000)},
        preview=True,
    ),
    Case(
        "digits-sngan",
        "sngan",
        "digits",
        "Spectral normalisation and the hinge loss.",
        {**_DIGITS, **_QUICK_SNGAN, **_falling(2500)},
        preview=True,
    ),
    Case(
        "digits-r3gan",
        "r3gan",
        "digits",
        "Residual networks without any normalisation, relativistic, R1 and R2.",
        {**_DIGITS, **_QUICK_R3GAN, **_AUGMENTED, "cutout": 0.3, "ada_images": 20_000, **_falling(5000)},
        preview=True,
    ),
    Case(
        "digits-stylegan2",
        "stylegan2",
        "digits",
        "Styles from a mapping, and noise of their own in every layer.",
        {**_DIGITS, **_QUICK_STYLEGAN2, **_falling(7000)},
        preview=True,
    ),
    Case(
        "digits-progressive",
        "progressive",
        "digits",
        "Grown from 4 over 8 to 16 pixels.",
        {"size": 16, "held_out": 0.25, "z_size": 32, "ema_half_life": 5000, "steps": 3000},
        preview=True,
    ),
    Case(
        "digits-vit",
        "dcgan",
        "digits",
        "The DCGAN's generator against a transformer, which any image recipe takes.",
        {
            **_DIGITS,
            "width": 32,
            "discriminator": "vit",
            "r1": 1.0,
            "generator_lr": 1e-3,
            "discriminator_lr": 2e-4,
            **_AUGMENTED,
            "cutout": 0.3,
            "ada_images": 20_000,
            **_falling(8000),
        },
    ),
    Case(
        "faces-cgan-hair",
        "cgan",
        "faces",
        "The hair that was asked for: a column a style, a latent a row.",
        {**_FACES, "width": 32, "discriminator_width": 24, **_STEADY, **_TOLD, "label": "hair_style", **_falling(3500)},
        seeds=(0, 1, 2),
        neighbours=True,
    ),
    Case(
        "faces-cgan-glasses",
        "cgan",
        "faces",
        "The glasses that were asked for: a column a kind, a latent a row.",
        {**_FACES, "width": 32, "discriminator_width": 24, **_STEADY, **_TOLD, "label": "glasses", **_falling(2500)},
        seeds=(0, 1, 2),
    ),
    Case(
        "faces-dcgan",
        "dcgan",
        "faces",
        "Drawn faces, the same way without labels.",
        {**_FACES, "width": 32, "discriminator_width": 24, **_STEADY, **_falling(3000)},
    ),
    Case(
        "faces-r3gan",
        "r3gan",
        "faces",
        "Drawn faces from the modern baseline.",
        {
            "size": 32,
            "batch": 16,
            **_QUICK_R3GAN,
            **_AUGMENTED,
            "ada_images": 20_000,
            "mirror": True,
            "ema_half_life": 5000,
            **_falling(4000),
        },
    ),
    Case(
        "faces-stylegan2",
        "stylegan2",
        "faces",
        "Drawn faces from StyleGAN2.",
        {
            "size": 32,
            "batch": 16,
            **_QUICK_STYLEGAN2,
            "cutout": 0,
            "ada_images": 20_000,
            "mirror": True,
            # Noise of their own in every pixel of every layer leaves faces grainy after so few images.
            "noise": "none",
            "r1": 1.0,
            "penalty_every": 4,
            "ema_half_life": 5000,
            **_falling(6000),
        },
    ),
    Case(
        "grid-toy",
        "toy",
        "grid",
        "Twenty-five modes, real points grey and generated ones blue.",
        preview=True,
    ),
    Case(
        "curves-painter",
        "painter",
        "curves",
        "Curves a·x² + a - 1, real ones grey and generated ones blue.",
        preview=True,
    ),
)
CASES: dict[str, Case] = {case.name: case for case in _ALL}
