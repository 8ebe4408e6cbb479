#!/usr/bin/env python3
"""What a strong discriminator leaves of the generator's gradient: log loss, least squares and Wasserstein in one plot.

    python benchmarks/gradient_norms.py
    python benchmarks/gradient_norms.py --seeds 1 --quick   a tenth of the steps; writes nothing

The experiment of Arjovsky and Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017
(arXiv:1701.04862), figures 2 and 3, and the claim of "Wasserstein GAN", 2017 (arXiv:1701.07875), section 3: a DCGAN is
trained for a few steps on the digits, the generator is frozen, and a new discriminator is trained alone. Every so often
|∇θ of the generator's loss| is taken over the same latents:

    minimax          E[log(1 - D(G(z)))], the one that approximates the Jensen-Shannon divergence
    non_saturating   -E[log D(G(z))], of the same discriminator
    least_squares    ½ E[(D(G(z)) - 1)²]
    wasserstein      -E[D(G(z))], its critic held by the gradient penalty of WGAN-GP

All discriminators start from the same weights of the same network and are trained by the same Adam on the same batches:
only the loss differs. The network has no batch normalisation, which a gradient penalty does not bear; so that it grows
strong all the same its weights start at the scale that keeps signals as they are (He et al. 2015), not at DCGAN's 0.02,
and the result says how many of the samples it told rightly in the end. Heights of different losses do not compare, for
Adam takes no notice of a loss's scale; what compares is what is left of each.

A seed is a generator, a discriminator and an order of the data; the band is from the least to the most of them. Seeds
that are done are kept in runs/gradient_norms, and not run again. Writes results/gradient_norms.json and .png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import RESULTS, Report, run
from torch import Tensor, nn

from ganruntime.errors import InputError
from ganruntime.files import write_atomically
from ganruntime.noise import latents, stream_of
from ganruntime.spec import TensorSpec
from gantrain.checkpoint import load_generator
from gantrain.data import order
from gantrain.data.digits import digits
from gantrain.loop import train
from gantrain.networks import NetworkRecord, network_from_record
from gantrain.objectives import objective_from_name
from gantrain.penalties.interpolates import factors, slope_penalty

RUNS = Path(__file__).parent.parent / "runs" / "gradient_norms"  # ignored by git
# What D is trained on -> the generator losses that are measured with it.
TRAINED = {
    "minimax": ("minimax", "non_saturating"),
    "least_squares": ("least_squares",),
    "wasserstein": ("wasserstein",),
}
LINES = tuple(name for names in TRAINED.values() for name in names)
PENALTY = {"wasserstein": 10.0}  # λ of WGAN-GP
SIZE, BATCH, JUDGED = 16, 64, 256  # pixels; samples of each kind in a step; latents of a measurement
GENERATOR_STEPS = 200
RATE, BETAS = 1e-3, (0.5, 0.9)
STRONG = 0.999  # of the samples of the last measurements, told rightly by the discriminator of the log loss
LEFT_OF_MINIMAX, LEFT_OF_WASSERSTEIN = 1e-2, 0.2  # of the largest gradient: at most, and at least
# Of shapes, and told apart by people who see red and green alike.
_STYLES = {
    "minimax": ("#b4551a", "-", "log loss, minimax: log(1 - D)"),
    "non_saturating": ("#e8a33d", "--", "log loss, non-saturating: -log D"),
    "least_squares": ("#667085", "-.", "least squares"),
    "wasserstein": ("#1f5ab4", "-", "Wasserstein, gradient penalty"),
}


def measured_steps(most: int) -> list[int]:
    """0 and about ten a decade up to `most`."""
    places = np.geomspace(1, most, 1 + round(10 * np.log10(most)))
    return sorted({0, *(round(p) for p in places)})


def gradient_norm(generator: nn.Module, discriminator: nn.Module, z: Tensor, line: str) -> float:
    """|∇θ of the loss `line`| over the latents z [N, z_size], θ being all of the generator's parameters."""
    parameters = list(generator.parameters())
    loss = objective_from_name(line).generator_loss(discriminator(generator(z)), None)
    gradients = torch.autograd.grad(loss, parameters)
    # In double precision: the squares of what a sure discriminator leaves are below what float32 holds.
    return float(torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt())


def norms_of_seed(seed: int, generator_steps: int, steps: int) -> dict[str, Any]:
    """{line: [a norm at each of `measured_steps`]}, and {objective: D's accuracy there}."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = {"size": SIZE, "sample_every": max(1, generator_steps), "sample_images": 1}
        generator, spec = load_generator(
            train("dcgan", "digits", run, steps=generator_steps, seed=seed, settings=settings, threads=1)
        )
    pixels = torch.tensor(digits(SIZE).images).permute(0, 3, 1, 2)  # uint8 [N, 1, H, W]
    latent = spec.inputs[0]
    z = _latents(latent, stream_of(f"gradient norms, judged, seed {seed}"), 0, JUDGED)
    taken = measured_steps(steps)
    norms: dict[str, list[float]] = {line: [] for line in LINES}
    accuracy: dict[str, list[float]] = {name: [] for name in TRAINED}
    for name, lines in TRAINED.items():
        objective = objective_from_name(name)
        torch.manual_seed(seed)  # the same weights for every objective
        discriminator = network_from_record(
            NetworkRecord("dcgan_discriminator", {"size": SIZE, "channels": 1, "width": 32, "batch_norm": False})
        )
        for layer in discriminator.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
        optimiser = torch.optim.Adam(discriminator.parameters(), RATE, BETAS)
        generator.eval().requires_grad_(False)
        for step in range(steps + 1):
            first = step * BATCH
            real = pixels[torch.from_numpy(order.indices(seed, first, BATCH, len(pixels)))].float() / 127.5 - 1.0
            fake = generator(_latents(latent, stream_of(f"gradient norms, seed {seed}"), first, BATCH))
            real_logits, fake_logits = discriminator(real), discriminator(fake)
            if step in taken:
                generator.requires_grad_(True)
                for line in lines:
                    norms[line].append(gradient_norm(generator, discriminator, z, line))
                generator.requires_grad_(False)
                accuracy[name].append(float(objective.accuracy(real_logits, fake_logits)))
            loss = objective.discriminator_loss(real_logits, fake_logits, 1.0)
            if name in PENALTY:
                u = torch.from_numpy(factors(seed, first, BATCH))
                loss = loss + PENALTY[name] * slope_penalty(discriminator, real, fake, u)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return {"seed": seed, "norms": norms, "accuracy": accuracy}


def kept_norms_of_seed(seed: int, generator_steps: int, steps: int) -> dict[str, Any]:
    """`norms_of_seed`, unless it is there; what other numbers gave is not used."""
    path = RUNS / f"seed-{seed}.json"
    what = {
        "seed": seed, "generator_steps": generator_steps, "steps": steps, "size": SIZE, "batch": BATCH,
        "judged": JUDGED, "rate": RATE, "betas": list(BETAS), "penalty": PENALTY, "torch": torch.__version__,
    }  # fmt: skip
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["what"] == what:
            norms: dict[str, Any] = kept["norms"]
            return norms
        raise InputError(f"{path} was made with other settings", remedy=f"run the seed anew: rm {path}")
    made = norms_of_seed(seed, generator_steps, steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps({"what": what, "norms": made}) + "\n").encode())
    return made


def left(runs: Sequence[Mapping[str, Any]], line: str) -> float:
    """The geometric mean over the seeds of the last norm over the largest, in (0, 1].

    The largest, for a discriminator that has seen nothing yet has no gradient to give either.
    """
    shares = [run["norms"][line][-1] / max(run["norms"][line]) for run in runs]
    return float(np.exp(np.mean(np.log(np.maximum(shares, 1e-300)))))


def told_rightly(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    """The mean over the seeds and the last five measurements of the share of samples that D told rightly."""
    return float(np.mean([run["accuracy"][name][-5:] for run in runs]))


def picture(path: Path, runs: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for line in LINES:
        colour, dashes, text = _STYLES[line]
        values: NDArray[np.float64] = np.array([run["norms"][line] for run in runs])[:, 1:]  # a log axis has no 0
        axes.fill_between(steps[1:], values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps[1:], np.exp(np.log(values).mean(0)), dashes, color=colour, label=text)
    axes.set(
        xscale="log", yscale="log", xlabel="steps of the discriminator alone, G frozen", ylabel="|∇θ loss of G|",
        title=f"What a discriminator that is trained on leaves of G's gradient ({len(runs)} seeds)",
    )  # fmt: skip
    axes.grid(True, which="major", color="#e4e7ec")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _latents(latent: TensorSpec, seed: int, first: int, count: int) -> Tensor:
    return torch.from_numpy(latents(latent, seed, first, count))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5, help="0, 1, … (default %(default)s)")
    options.add_argument("--steps", type=int, default=4000, help="of each discriminator (default %(default)s)")
    options.add_argument("--quick", action="store_true", help="a tenth of all steps; writes no results")
    arguments = options.parse_args()
    if arguments.seeds < 1 or arguments.steps < 100:
        options.error("--seeds: at least 1; --steps: at least 100")
    torch.set_num_threads(1)
    report = Report("gradient_norms", None)
    steps, generator_steps = arguments.steps, GENERATOR_STEPS
    if arguments.quick:
        steps, generator_steps = steps // 10, generator_steps // 10
    taken = measured_steps(steps)
    runs: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        made = norms_of_seed if arguments.quick else kept_norms_of_seed
        runs.append(made(seed, generator_steps, steps))
        shares = ", ".join(f"{line} {left(runs[-1:], line):.2g}" for line in LINES)
        sure = told_rightly(runs[-1:], "minimax")
        print(
            f"seed {seed}: D tells {100 * sure:.1f} % rightly; of the largest gradient after {steps} steps: {shares}",
            flush=True,
        )
    if arguments.quick:
        print("short runs: nothing is written")
        return 0
    report.put("command", f"benchmarks/gradient_norms.py --seeds {arguments.seeds} --steps {steps}")
    report.put("generator_steps", generator_steps)
    report.put("steps", taken)
    report.put("left", {line: left(runs, line) for line in LINES})
    report.put("told_rightly", {name: told_rightly(runs, name) for name in TRAINED})
    report.put("runs", runs)
    report.limit("minimax: left of the largest gradient", left(runs, "minimax"), LEFT_OF_MINIMAX)
    report.limit(
        "Wasserstein: largest gradient over what is left",
        1.0 / left(runs, "wasserstein"), 1.0 / LEFT_OF_WASSERSTEIN,
    )  # fmt: skip
    report.limit("told wrongly by D of the log loss", 1.0 - told_rightly(runs, "minimax"), 1.0 - STRONG)
    picture(RESULTS / "gradient_norms.png", runs, taken)
    return report.finish()


if __name__ == "__main__":
    run(main)
