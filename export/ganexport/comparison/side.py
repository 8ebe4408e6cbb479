"""A side of a comparison: a bundle's variant, or a checkpoint that PyTorch runs, named in one word."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganexport.source import Source
from ganruntime.bundle import Bundle, Variant, read_bundle
from ganruntime.bundle.manifest import MANIFEST_NAME
from ganruntime.errors import InputError
from ganruntime.sizes import varying_inputs
from ganruntime.spec import GeneratorSpec

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Opened:
    """A side that is ready to run. run: {input: [n, *shape]} -> {output: [n, *shape]}. where: on what, for people."""

    run: Callable[[Arrays], Arrays]
    where: str


class Side(ABC):
    """What `A` or `B` of a comparison means.

    Attributes:
        label: what it is called in reports.
        spec: what the generator takes and gives.
        gives_pixels: whether its images are uint8 [N, H, W, C], and not as the spec says.
    """

    label: str
    spec: GeneratorSpec
    gives_pixels: bool = False

    @abstractmethod
    def opened(self, device: str, batch: int) -> contextlib.AbstractContextManager[Opened]:
        """Loads it on a device, to be run in batches of `batch`; an engine keeps its own batch sizes and its GPU.

        Raises:
            BackendError, MissingDependencyError, DeviceError: it cannot run here.
            BundleIntegrityError: a file of the bundle is damaged.
        """


class BundleSide(Side):
    """One variant of a bundle; its graph runs in `backend`, `onnxruntime` or `openvino`."""

    def __init__(self, bundle: Bundle, variant: Variant, backend: str = "onnxruntime") -> None:
        self.backend = backend
        self.bundle = bundle
        self.variant = variant
        self.spec = bundle.spec
        self.label = f"{bundle.path}:{variant.name}"
        self.gives_pixels = variant.output == "uint8"

    @contextlib.contextmanager
    def opened(self, device: str, batch: int) -> Iterator[Opened]:
        from ganexport.verification import open_session
        from ganruntime.generator import Generator

        session = open_session(self.bundle, self.variant, device, (batch,), self.backend)
        name, version = next(iter(session.versions().items()))
        backend = f"{session.backend} evaluation by" if session.backend == "reference" else session.backend
        runs_it = f"{backend} {version}" if name == session.backend else f"{backend} {name} {version}"
        with Generator(session) as generator:
            yield Opened(generator.outputs, f"{runs_it} on {session.device}")


class CheckpointSide(Side):
    """The network of a checkpoint or run folder, in PyTorch's eager mode."""

    def __init__(self, path: Path, source: Source) -> None:
        self.source = source
        self.spec = source.spec
        self.label = str(path)

    @contextlib.contextmanager
    def opened(self, device: str, batch: int) -> Iterator[Opened]:
        from ganexport.benchmark.contender import EagerPyTorch
        from ganexport.graph import inference_copy
        from ganruntime.cores import usable_cores

        eager = EagerPyTorch(inference_copy(self.source.module, self.spec), self.spec, device, usable_cores())
        with contextlib.closing(eager):
            yield Opened(eager.run, f"eager {eager.setting()}")


def side_from_text(text: str, beside: Side | None = None) -> Side:
    """What a word on the command line means.

    Args:
        text: `NAME.gan`, the variant that `ganruntime.load` takes by default; `NAME.gan:VARIANT`; `:VARIANT`, of the
            bundle of `beside`; or a checkpoint or run folder.
        beside: the other side.

    Raises:
        InputError: there is nothing of that name, or no such variant.
        BundleError, CheckpointError: it cannot be used.
    """
    path, variant = _parts(text)
    if text.startswith(":"):
        if not isinstance(beside, BundleSide):
            raise InputError(
                f"{text!r} names a variant and no bundle",
                got="a first side that is a checkpoint" if beside is not None else None,
                expected="NAME.gan:VARIANT, or :VARIANT where the first side is a bundle",
            )
        return BundleSide(beside.bundle, _variant(beside.bundle, variant))
    if not _exists(path):
        raise InputError(
            f"{path} does not exist",
            expected="a bundle (NAME.gan or NAME.gan:VARIANT), a checkpoint folder or a run folder",
            remedy="ganexport to-onnx CHECKPOINT -o NAME.gan makes a bundle, ganexport train a run folder",
        )
    # A file is refused by either reader; a bundle's reader says what a bundle is, and needs no torch for it.
    if path.is_file() or _exists(path / MANIFEST_NAME):
        bundle = read_bundle(path)
        return BundleSide(bundle, _variant(bundle, variant))
    from ganexport.source import generator_from_checkpoint

    source = generator_from_checkpoint(path)
    if variant is not None:
        raise InputError(f"{path} is a checkpoint, and has no variants", got=f":{variant}", remedy=f"say {path} alone")
    if varying_inputs(source.spec):
        from ganexport.program.size_search import source_with_sizes

        source = source_with_sizes(source)  # as an export finds them: which sizes it takes, and what it makes of them
    return CheckpointSide(path, source)


def _parts(text: str) -> tuple[Path, str | None]:
    """(path, variant): what stands behind the last colon, unless there is a file of the whole name."""
    path, colon, variant = text.rpartition(":")
    if not colon or _exists(Path(text)):
        return Path(text), None
    return Path(path), variant


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise InputError(f"{str(path)[:400]} cannot be opened", got=error.strerror) from error
    return True


def _variant(bundle: Bundle, name: str | None) -> Variant:
    from ganruntime.generator import candidates

    if name is None:
        return candidates(bundle, "onnx", "auto")[0]
    found = next((v for v in bundle.manifest.variants if v.name == name), None)
    if found is None:
        listed = ", ".join(f"{v.name} ({v.status})" for v in bundle.manifest.variants)
        raise InputError(
            f"{bundle.path} has no variant {name!r}", expected=listed, remedy=f"ganexport inspect {bundle.path}"
        )
    return found
