"""The standard set: which generators, the commands that make their bundles, who is measured, and what is aimed for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from generators import generator_of
from stylegan2 import StyleGAN2, stylegan2
from torch import nn

from ganruntime.spec import GeneratorSpec

# Speed at the price of precision counts only where the worst image keeps this, the floor of the rung int8.
FLOOR_PSNR_DB = 40
# Every row of ours is to be this much faster than the best that is measured without this project.
OVER_PLAIN = 1.05
# What `ganruntime.load` runs of these bundles on the CPU where nobody has tuned them, by its name as a contender.
UNTUNED = "ganruntime:fp32@onnxruntime"
OBJECTIVES = ("throughput", "latency")


@dataclass(frozen=True)
class Aim:
    """A ratio over eager PyTorch that ours is to reach at a batch size, in a precision, or in any (None)."""

    batch: int
    precision: str | None
    ratio: float


@dataclass(frozen=True)
class Case:
    """One generator of the set.

    make: the network and its spec; None where `demo` trains it: a word for `ganexport demo --data`.
    latents, calibration: how many prove each graph, and how many ranges are measured on; fewer for networks that take
        long. proof_batches: the batch sizes of the proofs, where they are not the usual ones. pixels: whether the
        bundle gets the variant to uint8 as well, which has to be proven too.
    batches, seconds, rounds, queries, pool_images: as in `ganexport.benchmark.settings`.
    begins_with_pixel: whether its first layer is a ConvTranspose over one pixel, which the default passes change.
    is_slow: whether it takes so long that it is left out unless it is asked for. Then nothing is tuned, and only who
        may be the fastest is measured: neither channels-last nor autocast, nor plain int8, which misses the floor in
        the smaller networks; ours with `streams` alone.
    rungs, later_rungs: what ours is measured in; the latter by a command of their own, so that int8 is not searched
        for again where a bundle is from before them. gpu_rungs: the same on a GPU.
    streams: of OpenVINO, with each of which ours is measured.
    scaled: makes the network with StyleGAN2's modulation in the scaled form, for torch.compile.
    """

    name: str
    batches: tuple[int, ...]
    seconds: float
    rounds: int
    make: Callable[[], tuple[nn.Module, GeneratorSpec]] | None = None
    demo: str | None = None
    latents: int = 256
    calibration: int | None = None
    proof_batches: tuple[int, ...] | None = None
    pixels: bool = True
    is_slow: bool = False
    streams: tuple[int, ...] = (1, 2)
    begins_with_pixel: bool = True
    queries: int = 100
    pool_images: int = 256
    rungs: tuple[str, ...] = ("fp32-cpu", "bf16", "int8")
    later_rungs: tuple[str, ...] = ()
    gpu_rungs: tuple[str, ...] = ("fp32-cuda", "fp16")
    aims: tuple[Aim, ...] = ()
    scaled: Callable[[], nn.Module] | None = None

    def commands(self, folder: Path, *, gpu: bool = False) -> list[list[str]]:
        """What makes the bundles, as arguments of `ganexport`; for a GPU one bundle, proven there, and not tuned."""
        bundle, plain = str(self.bundle(folder)), str(self.plain(folder))
        proven_in = [] if self.proof_batches is None else ["--batch", ",".join(map(str, self.proof_batches))]
        if self.demo is not None:
            source = [str(folder / "run")]
            made = [["demo", "--data", self.demo, "--out", str(folder)]]
        else:
            factory = f"standard_cases:{self.name.replace('-', '_')}"
            source = ["--factory", factory, "--spec", str(folder / f"{self.name}.json")]
            source += ["--latents", str(self.latents), *proven_in]
            made = [["to-onnx", *source, "-o", bundle, *([] if self.pixels else ["--no-uint8"])]]
        if self.begins_with_pixel and not gpu:
            made.append(["to-onnx", *source, "-o", plain, "--without-pass", "convtranspose_to_gemm", "--no-uint8"])
        latents = ["--latents", str(self.latents), *proven_in]
        if self.calibration is not None:
            latents += ["--calibration-latents", str(self.calibration)]
        wanted = (self.gpu_rungs,) if gpu else (self.rungs, self.later_rungs)
        made += [["precision", bundle, *rungs, *latents] for rungs in wanted if rungs]
        made.append(["verify", bundle, *(("--device", "cuda") if gpu else ("--backend", "openvino")), *proven_in])
        return made if self.is_slow or gpu else [*made, self.tuning(folder)]

    def tuning(self, folder: Path) -> list[str]:
        """The last of the commands, which is of this machine as it is now."""
        batches = ",".join(map(str, sorted({1, *self.batches})))
        return [
            "tune",
            str(self.bundle(folder)),
            "--floor",
            f"psnr={FLOOR_PSNR_DB}",
            "--batch",
            batches,
            "--seconds",
            "30",
        ]

    def bundle(self, folder: Path) -> Path:
        return folder / f"{self.demo or self.name}.gan"

    def plain(self, folder: Path) -> Path:
        """The bundle whose graph the others run: with what any optimiser does, and nothing that is ours alone."""
        return folder / "plain.gan" if self.begins_with_pixel else self.bundle(folder)


def _dcgan_64() -> tuple[nn.Module, GeneratorSpec]:
    """z 100, ngf 64, random weights, the last layer scaled so that images use their range: otherwise they would be all
    but grey, and any precision good enough."""
    module, spec = generator_of("dcgan-64")
    last = [layer for layer in module.modules() if isinstance(layer, nn.ConvTranspose2d)][-1]
    with torch.no_grad():
        spread = module(torch.randn(256, spec.inputs[0].size, generator=torch.Generator().manual_seed(1))).std()
        last.weight.mul_(round(0.5 / float(spread), 2))  # rounded: with other threads the spread has other last bits
    return module, spec


# Factories for `ganexport to-onnx --factory standard_cases:NAME`.
def dcgan_64() -> nn.Module:
    return _dcgan_64()[0]


def stylegan2_64() -> nn.Module:
    return stylegan2(64, 8192)[0]


def stylegan2_256() -> nn.Module:
    return stylegan2(256, 16384)[0]


def _scaled(size: int, channel_base: int) -> nn.Module:
    module, _ = stylegan2(size, channel_base)
    assert isinstance(module, StyleGAN2)
    return module.scaled()


CASES = {
    case.name: case
    for case in (
        # Proven as a user's would be by default: over 256 latents an int8 of the faces passed that others show to fail.
        # In many rounds: an image takes 0.1 ms, and a machine that is slower for a second is so for many images.
        Case("digits", (1, 64), 1.2, 12, demo="digits", latents=4096),
        Case("faces", (1, 64), 1.2, 12, demo="faces", latents=4096),
        Case(
            "dcgan-64",
            (1, 64),
            3.0,
            5,
            make=_dcgan_64,
            aims=(Aim(64, "fp32", 1.25), Aim(64, "int8", 3.5), Aim(1, None, 5.0)),
        ),
        Case(
            "stylegan2-64",
            (8,),
            4.0,
            3,
            make=lambda: stylegan2(64, 8192),
            latents=16,
            calibration=32,
            pixels=False,
            begins_with_pixel=False,
            queries=12,
            pool_images=16,
            later_rungs=("bf16-cpu",),
            gpu_rungs=("fp16",),  # no ConvTranspose
            aims=(Aim(8, "fp32", 5.0), Aim(8, "int8", 8.0)),
            scaled=lambda: _scaled(64, 8192),
        ),
        Case(
            "stylegan2-256",
            (8,),
            2.0,
            2,
            make=lambda: stylegan2(256, 16384),
            latents=8,
            calibration=8,
            # A batch of 257 such images takes the reference a quarter of an hour, and 4 GB for a layer.
            proof_batches=(1, 3, 8),
            is_slow=True,
            streams=(2,),
            pixels=False,
            begins_with_pixel=False,
            queries=4,
            pool_images=16,
            rungs=("fp32-cpu", "bf16", "bf16-cpu", "int8"),
            gpu_rungs=("fp16",),
            scaled=lambda: _scaled(256, 16384),
        ),
    )
}


def contenders(case: Case, gpu: bool) -> tuple[str, ...]:
    """The names of everybody who is measured beside eager PyTorch (`ganexport bench --help`)."""
    if gpu:
        ours = (f"ganruntime:{rung}" for rung in ("fp32", *case.gpu_rungs))
        return ("channels-last", "bf16-autocast", "torch-compile", "onnxruntime:fp32", *ours)
    # Where there is a scaled form, that is compiled, as an extra; compiling the grouped one too would take minutes.
    compiled = () if case.scaled else ("torch-compile",)
    rungs = (*case.rungs, *case.later_rungs)
    ours = [f"ganruntime:{rung}@openvino" + ("" if n == 1 else f"/{n}") for n in case.streams for rung in rungs]
    if case.is_slow:
        return (*compiled, *ours)
    plain = ("ganruntime:fp32@onnxruntime", "ganruntime:fp32@openvino")
    return ("channels-last", "bf16-autocast", *compiled, *plain, *ours)
