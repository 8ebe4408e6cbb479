"""The whole way: train, export, verify, generate, judge, benchmark. Everything that a report needs comes back."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganexport.benchmark.environment import environment
from ganexport.benchmark.result import BenchResult
from ganexport.demo.folder import DemoFolder
from ganexport.demo.judging import Judgement, Resemblance, judge_images, resemblance
from ganexport.demo.options import IMAGES, IMAGES_SEED, SIZE, Options
from ganexport.demo.pictures import images_from_sheet, interpolated
from ganexport.openmp import environment_as_found
from ganruntime.bundle import bundle_changed, read_bundle
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError, ParityError
from ganruntime.files import write_atomically
from ganruntime.generator import Generator, load

if TYPE_CHECKING:
    from ganexport.verification import Report
    from ganruntime.spec import GeneratorSpec
    from gantrain.data.source import ImageSource
    from gantrain.progress import StepReport

Images = NDArray[np.uint8]
Progress = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]

STRIPS, STRIP_COLUMNS = 5, 12
_TIMELINE_IMAGES = 12


@dataclass(frozen=True)
class Stage:
    """A step of the way: its name, how long it took, what came of it, and how to do it by hand."""

    name: str
    seconds: float
    outcome: str
    command: str


@dataclass(frozen=True)
class DemoResult:
    """Everything there is to report.

    timeline: step -> images of the same latents, uint8 [12, H, W, C].
    log: the lines of the training's log.jsonl.
    images: uint8 [1000, H, W, C], of `IMAGES_SEED`.
    strips: uint8 [STRIPS · STRIP_COLUMNS, H, W, C], from one latent to another, strip after strip.
    images_per_second: of the runtime, while it drew them.
    """

    options: Options
    folder: DemoFolder
    spec: GeneratorSpec
    source: ImageSource
    stages: tuple[Stage, ...]
    timeline: Mapping[int, Images]
    log: tuple[Mapping[str, Any], ...]
    images: Images
    strips: Images
    images_per_second: float
    judgement: Judgement
    resemblance: Resemblance
    verification: Report
    bench: BenchResult
    graph_bytes: int
    environment: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    def figures(self) -> dict[str, Any]:
        """For demo.json: what a script would want to know."""
        largest = self.bench.offline[max(self.bench.offline)]
        return {
            "passed": self.judgement.passed,
            "seconds": self.seconds,
            "conditions": {c.text: {"found": c.found, "holds": c.holds} for c in self.judgement.conditions},
            "judgement": dict(self.judgement.figures),
            "copies": self.resemblance.copies,
            "max_abs": max(f.verdict.errors["max_abs"] for f in self.verification.findings.values()),
            "images_per_second": largest["ganruntime"].images_per_second.median,
            "ratio_to_eager": largest["ganruntime"].ratio.median,
            "ratio_to_eager_single_image": self.bench.single_stream["ganruntime"].ratio.median,
            "quiet": self.bench.neighbours.quiet,
        }


@dataclass
class Console:
    """Where a demo speaks to: by default nowhere.

    say: told a line at a time.
    progress: (length, label) -> a context that gives a function of the steps just done.
    on_step: for the training.
    trained: called when the training is over, before anything else is said.
    """

    say: Callable[[str], None] = lambda line: None
    progress: Progress = field(default=lambda length, label: contextlib.nullcontext(lambda steps: None))
    on_step: Callable[[StepReport], None] | None = None
    trained: Callable[[], None] = lambda: None


class Stages:
    """Times the stages and announces them."""

    def __init__(self, console: Console, count: int) -> None:
        self._console, self._count = console, count
        self.done: list[Stage] = []

    @contextlib.contextmanager
    def stage(self, name: str, command: str) -> Iterator[list[str]]:
        """Yields a list for the outcome's words."""
        self._console.say(f"[{len(self.done) + 1}/{self._count}] {name}")
        start, words = time.perf_counter(), list[str]()
        yield words
        outcome = ", ".join(words)
        self.done.append(Stage(name, time.perf_counter() - start, outcome, command))
        if outcome:
            self._console.say(f"      {outcome}")


def run_demo(options: Options, path: Path, console: Console | None = None) -> DemoResult:
    """Makes everything but the report.

    Raises:
        InputError: the folder holds something else.
        TrainingStopped: Ctrl-C while training; the checkpoint is kept, and the same call goes on from there.
        ParityError: the exported graph does not compute what the network computes.
        MissingDependencyError, BackendError, OutputError: what they say.
    """
    console = console or Console()
    folder = DemoFolder(path, options)
    found = folder.open()
    if found:
        console.say(found)
    stages = Stages(console, 6)
    source = _train(options, folder, console, stages)
    graph_bytes = _export(folder, console, stages)
    verification = _verify(folder, console, stages)
    generator = load(folder.bundle, "cpu", "onnxruntime")
    with generator:
        images, rate = _generate(generator, folder, console, stages)
        spec = generator.spec
        assert spec.latent is not None
        # Further images of the same seed, so that none of the thousand is shown twice.
        strips = generator(interpolated(spec.latent, IMAGES_SEED, IMAGES, STRIPS, STRIP_COLUMNS))
    with stages.stage("judge", "") as words:
        judgement = judge_images(images, source)
        alike = resemblance(images, source.images)
        words += [f"{c.text}: {c.found}{'' if c.holds else ' (DOES NOT HOLD)'}" for c in judgement.conditions]
    bench = _bench(options, folder, stages)
    return DemoResult(
        options=options,
        folder=folder,
        spec=spec,
        source=source,
        stages=tuple(stages.done),
        timeline=_timeline(folder),
        log=_log(folder),
        images=images,
        strips=strips,
        images_per_second=rate,
        judgement=judgement,
        resemblance=alike,
        verification=verification,
        bench=bench,
        graph_bytes=graph_bytes,
        environment=environment(),
    )


def _train(options: Options, folder: DemoFolder, console: Console, stages: Stages) -> ImageSource:
    from gantrain.data.named import source_from_name
    from gantrain.loop import train
    from gantrain.run_folder import RUN_FILE

    words = [
        "ganexport", "train", options.recipe, "--data", options.data, "--out", folder.run,
        "--steps", options.steps_to_make, "--seed", options.seed,
    ]  # fmt: skip
    changes = [part for key, value in options.settings.items() for part in ("--set", f"{key}={value}")]
    with stages.stage(f"train {options.recipe} on {options.data}", _command(*words, *changes)) as outcome:
        source = source_from_name(options.data, SIZE)
        try:
            train(
                options.recipe,
                source,
                folder.run,
                steps=options.steps_to_make,
                seed=options.seed,
                resume=(folder.run / RUN_FILE).is_file(),
                settings=options.settings,
                on_step=console.on_step,
                threads=usable_cores(),
            )
        finally:
            console.trained()
        outcome += [f"{options.steps_to_make:,} steps on {len(source.images):,} images"]
    return source


def _export(folder: DemoFolder, console: Console, stages: Stages) -> int:
    from ganexport.bundling import bundle_from_source, images_to_run
    from ganexport.gate import LATENTS
    from ganexport.source import generator_from_checkpoint

    with stages.stage("export to ONNX", _command("ganexport", "to-onnx", folder.run, "-o", folder.bundle)) as outcome:
        source = generator_from_checkpoint(folder.run)
        with console.progress(images_to_run(source.spec, LATENTS), "      proving") as progress:
            exported = bundle_from_source(source, folder.bundle, progress=progress)
        outcome += [f"{folder.bundle}", f"graph of {exported.graph_bytes / 2**20:.1f} MiB"]
    return exported.graph_bytes


def _verify(folder: DemoFolder, console: Console, stages: Stages) -> Report:
    from ganexport.gate import BATCHES, LATENTS
    from ganexport.verification import images_to_run, verify_bundle

    with stages.stage("verify", _command("ganexport", "verify", folder.bundle)) as outcome:
        bundle = read_bundle(folder.bundle)
        total = images_to_run(bundle, LATENTS, BATCHES, (), False)
        with console.progress(total, "      verifying") as progress:
            report = verify_bundle(bundle, progress=progress)
        problems = [p for finding in report.findings.values() for p in finding.problems]
        problems += [p for check in report.checks.values() for p in check]
        if not report.passed:
            raise ParityError(f"{folder.bundle} does not hold what it should", got="; ".join(problems) or "nothing ran")
        with bundle_changed(folder.bundle) as draft:
            for variant in list(draft.variants):
                if variant.name in report.verdicts:
                    draft.put_variant(variant.with_verdict(report.verdicts[variant.name]))
        verdict = next(iter(report.findings.values())).verdict
        outcome += [
            f"{verdict.latents:,} latents in batches {', '.join(map(str, verdict.batches))}",
            f"largest error {verdict.errors['max_abs']:.1e} (bound {verdict.bound:.0e})",
        ]
    return report


def _generate(generator: Generator, folder: DemoFolder, console: Console, stages: Stages) -> tuple[Images, float]:
    words = ["ganexport", "generate", folder.bundle, "-n", IMAGES, "--seed", IMAGES_SEED, "-o", folder.images]
    with stages.stage(f"generate {IMAGES:,} images", _command(*words)) as outcome:
        chunks, seconds = [], 0.0
        with console.progress(IMAGES, "      drawing") as progress:
            stream = generator.stream(IMAGES, seed=IMAGES_SEED)
            for _ in range(0, IMAGES, generator.session.buckets[-1]):
                start = time.perf_counter()
                chunks.append(next(stream))
                seconds += time.perf_counter() - start
                progress(len(chunks[-1]))
        images = np.concatenate(chunks)
        file = io.BytesIO()
        np.savez_compressed(file, images=images)
        write_atomically(folder.images, file.getvalue())
        outcome += [f"{IMAGES / seconds:,.0f} images/s"]
    return images, IMAGES / seconds


def _bench(options: Options, folder: DemoFolder, stages: Stages) -> BenchResult:
    """In a process of its own: with torch's threads as they are by default, and nothing left over from the training."""
    arguments = [
        "bench", str(folder.bundle), "--against", str(folder.run), "--seconds", f"{options.bench_seconds:g}",
        "--rounds", "5", "-o", str(folder.bench),
    ]  # fmt: skip
    with stages.stage("benchmark", _command("ganexport", *arguments)) as outcome:
        done = subprocess.run(
            [sys.executable, "-m", "ganexport", *arguments],
            stdout=subprocess.DEVNULL,
            env=environment_as_found(),
            check=False,
        )
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode not in (0, 3):  # 3: measured, and one latent over and over was faster; the report says so
            raise BackendError("the benchmark failed", got=f"exit code {done.returncode}; its error stands above")
        result = BenchResult.from_json(json.loads((folder.bench / "bench.json").read_text(encoding="utf-8")))
        largest = max(result.offline)
        ours = result.offline[largest]["ganruntime"]
        outcome += [
            f"batch {largest}: {ours.images_per_second.median:,.0f} images/s",
            f"{ours.ratio.median:.2f} times eager PyTorch",
            f"one image at a time: {result.single_stream['ganruntime'].ratio.median:.2f} times",
        ]
        if not result.neighbours.quiet:
            outcome.append(f"other processes took {result.neighbours.share:.0%} of the cores")
    return result


def _timeline(folder: DemoFolder) -> dict[int, Images]:
    from gantrain.run_folder import read_run, sample_sheets

    total = int(read_run(folder.run).settings["sample_images"])
    sheets = sample_sheets(folder.run)
    return {step: images_from_sheet(path, SIZE, total, _TIMELINE_IMAGES) for step, path in sheets.items()}


def _log(folder: DemoFolder) -> tuple[Mapping[str, Any], ...]:
    from gantrain.run_folder import LOG_FILE

    lines = (folder.run / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines if line.strip())


def _command(*words: object) -> str:
    return shlex.join(str(word) for word in words)
