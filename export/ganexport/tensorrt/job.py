"""One piece of work with TensorRT's builder, as a folder: what goes in, what comes out, and how to do it again.

    job.json       the step, its options, the spec, the bundle's name
    model.onnx     the graph, weights inside
    old.plan       refit only: the engine that gets new weights
    engine.plan    the result
    result.json    what it was built by and on; readback.json: what each layer got
    log.txt        what was printed meanwhile

The folder is all that the work needs, so a step that failed can be repeated from it, on this machine or another.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganexport.tensorrt.engine_builder import BuiltEngine, engine_from_onnx
from ganexport.tensorrt.first_run import run_first
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.progress import OnProgress
from ganexport.tensorrt.readback import ReadBack, readback_from_engine
from ganexport.tensorrt.refit import engine_from_refit
from ganruntime.errors import InputError
from ganruntime.sessions.cuda import Gpu
from ganruntime.spec import GeneratorSpec

JOB, MODEL, OLD_PLAN, PLAN, RESULT, READBACK, LOG = (
    "job.json",
    "model.onnx",
    "old.plan",
    "engine.plan",
    "result.json",
    "readback.json",
    "log.txt",
)


@dataclass(frozen=True)
class Job:
    """What TensorRT's builder is asked for.

    Args:
        model: the ONNX file's bytes, weights inside.
        spec: what the graph takes and gives.
        options: fitted to the spec.
        bundle: the bundle's name, for the commands in errors.
        old_plan: an engine that gets the model's weights, instead of a build.

    Raises:
        InputError: the options do not fit the spec.
    """

    model: bytes
    spec: GeneratorSpec
    options: BuildOptions
    bundle: str = "NAME.gan"
    old_plan: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", self.options.fitted(self.spec))

    def write(self, folder: Path) -> None:
        """Into an empty folder. Raises `OSError`."""
        options = asdict(self.options)
        if self.options.timing_cache is not None:
            options["timing_cache"] = str(self.options.timing_cache.absolute())
        job = {"options": options, "spec": self.spec.to_json(), "bundle": self.bundle}
        (folder / MODEL).write_bytes(self.model)
        if self.old_plan is not None:
            (folder / OLD_PLAN).write_bytes(self.old_plan)
        (folder / JOB).write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Raises `InputError` where the folder is not a job's."""
        try:
            job = json.loads((folder / JOB).read_text(encoding="utf-8"))
            options = dict(job["options"])
            options["buckets"] = tuple(options["buckets"])
            options["sizes"] = tuple((height, width) for height, width in options["sizes"])
            if options["timing_cache"] is not None:
                options["timing_cache"] = Path(options["timing_cache"])
            return cls(
                model=(folder / MODEL).read_bytes(),
                spec=GeneratorSpec.from_json(job["spec"]),
                options=BuildOptions(**options),
                bundle=str(job["bundle"]),
                old_plan=(folder / OLD_PLAN).read_bytes() if (folder / OLD_PLAN).exists() else None,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} is not the folder of a build that failed",
                got=f"{type(error).__name__}: {error}",
                expected=f"{JOB} and {MODEL}",
            ) from error


@dataclass(frozen=True)
class Made:
    """An engine, and what was found when it was opened again."""

    built: BuiltEngine
    readback: ReadBack

    def write(self, folder: Path) -> None:
        built = self.built
        result = {
            "tensorrt_version": built.tensorrt_version,
            "gpu": asdict(built.gpu),
            "seconds": built.seconds,
            "timing_cache_hit_bytes": built.timing_cache_hit_bytes,
            "warnings": list(built.warnings),
        }
        (folder / PLAN).write_bytes(built.plan)
        (folder / READBACK).write_text(json.dumps(self.readback.to_json()) + "\n", encoding="utf-8")
        (folder / RESULT).write_text(json.dumps(result) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, job: Job) -> Made:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        gpu, warnings = Gpu(**result.pop("gpu")), tuple(result.pop("warnings"))
        built = BuiltEngine(
            plan=(folder / PLAN).read_bytes(),
            options=job.options,
            gpu=gpu,
            profiles=job.options.profiles(job.spec),
            warnings=warnings,
            **result,
        )
        readback = json.loads((folder / READBACK).read_text(encoding="utf-8"))
        return cls(built, ReadBack.from_json(readback))


RunJob = Callable[[Job, OnProgress | None], Made]


def run_job(job: Job, on_progress: OnProgress | None = None) -> Made:
    """Builds, or refits, reads back and runs each profile once in this process: a crash of TensorRT ends it.

    Raises as `engine_from_onnx`, `engine_from_refit`, `readback_from_engine` and `run_first` do.
    """
    if job.old_plan is not None:
        built = engine_from_refit(job.model, job.spec, job.old_plan, job.options, job.bundle)
    else:
        built = engine_from_onnx(job.model, job.spec, job.options, bundle=job.bundle, on_progress=on_progress)
    readback = readback_from_engine(built, job.spec, job.model)
    run_first(built, job.spec, job.model, job.bundle, on_progress)
    return Made(built, readback)


def reproduce_command(folder: Path) -> str:
    """The command that does a job again from its folder, with this Python."""
    return shlex.join([sys.executable, "-m", "ganexport.tensorrt.job_process", str(folder)])
