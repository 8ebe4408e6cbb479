"""Judges: classifiers of our own, trained in seconds on the very data that a generator learns from.

A judge is fitted to three quarters of a labelled source, for all its attributes at once, and its accuracy is measured
on the last quarter. `gantrain.data.split` nests: what is kept from a generator, up to a quarter, was kept from the
judge too.

Fitted judges are kept in the user's cache folder (`$GANEXPORT_CACHE`, else `$XDG_CACHE_HOME/ganexport`, else
`~/.cache/ganexport`), under a name that has the data, torch's version and the CPU in it, because other CPUs round
otherwise. Nothing depends on them: a folder that cannot be written to, or a file that is damaged, costs the seconds of
another fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ganruntime.errors import InputError, OutputError
from ganruntime.files import write_atomically
from gantrain.data.source import ImageSource
from gantrain.data.split import split
from gantrain.metrics.judge_network import JudgeNetwork, at_judges_size, trained
from gantrain.metrics.spaces import Description, FeatureSpace, checked_images

VERSION = 1  # of how judges are trained: a change makes other judges, and old files in the cache are left alone
HELD_OUT = 0.25
_EPOCHS, _LEAST_STEPS, _MOST_STEPS, _BATCH = 9, 200, 1500, 64
_CHUNK = 256


class Judge(FeatureSpace):
    """Tells the classes of images, and gives 64 features of each.

    Attributes:
        name: the source, the side of the images that it looks at, and the first eight digits of its weights' SHA-256.
        classes: attribute -> class names.
        accuracy: attribute -> share of the quarter it was not fitted to that it tells rightly.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        source_name: str,
        size: int,
        classes: Mapping[str, tuple[str, ...]],
        accuracy: Mapping[str, float],
    ) -> None:
        self._network = network.eval()
        self.classes = dict(classes)
        self.accuracy = dict(accuracy)
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        self.name = f"{source_name}-judge-{min(size, 32)}px-{digest.hexdigest()[:8]}"

    @torch.no_grad()
    def describe(self, samples: NDArray[np.generic]) -> Description:
        """Images uint8 [N, H, W, C], C as in the source.

        Raises:
            InputError: they are no such images.
        """
        images = checked_images(samples)
        if images.shape[3] != self._network.channels:
            raise InputError(
                f"{self.name} was fitted to images of {self._network.channels} channels",
                got=f"{images.shape[3]} channels",
            )
        parts = []
        for first in range(0, len(images), _CHUNK):
            features, logits = self._network(at_judges_size(images[first : first + _CHUNK]))
            heads = {name: head.softmax(dim=1).numpy() for name, head in zip(self.classes, logits, strict=True)}
            parts.append(Description(features.numpy(), heads))
        return Description.joined(parts)


def judged_attributes(source: ImageSource) -> dict[str, tuple[str, ...]]:
    """The attributes that a judge of this source tells: those of two classes or more."""
    return {name: tuple(classes) for name, classes in source.classes.items() if len(classes) > 1}


def fit(source: ImageSource) -> Judge:
    """A judge of the source's labels: about ten seconds of one core for 4,000 images of 32 px with 11 attributes.

    Raises:
        InputError: the source has no labels, or too few images.
    """
    classes = judged_attributes(source)
    if not classes:
        raise InputError(
            f"{source.name} has no labels to fit a judge to",
            expected="at least one attribute of two classes",
            remedy="--features random needs no labels",
        )
    parts = split(source, HELD_OUT)
    assert parts.held_out is not None
    steps = min(_MOST_STEPS, max(_LEAST_STEPS, _EPOCHS * len(parts.train.images) // _BATCH))
    heads = {name: len(names) for name, names in classes.items()}
    network = trained(at_judges_size(parts.train.images), parts.train.labels, heads, steps, seed=0)
    judge = Judge(network, source.name, source.images.shape[1], classes, {})
    told = judge.describe(parts.held_out.images).probabilities
    judge.accuracy = {name: float((p.argmax(axis=1) == parts.held_out.labels[name]).mean()) for name, p in told.items()}
    return judge


def judge_of(source: ImageSource, cache: Path | None = None) -> Judge:
    """The judge of a source, from the cache where it is there, fitted and put there otherwise.

    Args:
        cache: the folder; None for the user's.

    Raises:
        InputError: as `fit` does.
    """
    file = (cache if cache is not None else cache_folder()) / "judges" / f"{_key(source)}.safetensors"
    judge = _read(file, source)
    if judge is None:
        judge = fit(source)
        # A cache that cannot be written to is none: the judge is there all the same.
        with contextlib.suppress(OSError, OutputError):
            file.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"accuracy": json.dumps(judge.accuracy), "name": judge.name}
            write_atomically(file, save(judge._network.state_dict(), metadata))
    return judge


def cache_folder() -> Path:
    """Where judges are kept. It need not exist."""
    chosen = os.environ.get("GANEXPORT_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "ganexport"


def _key(source: ImageSource) -> str:
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    text = f"{VERSION} {torch.__version__} {machine} {source.name} {source.fingerprint}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(file: Path, source: ImageSource) -> Judge | None:
    """The judge in a file; None where it is not there or is not whole."""
    classes = judged_attributes(source)
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        accuracy = {name: float(json.loads(metadata["accuracy"])[name]) for name in classes}
        network = JudgeNetwork(source.channels, {name: len(names) for name, names in classes.items()})
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    judge = Judge(network, source.name, source.images.shape[1], classes, accuracy)
    return judge if judge.name == metadata.get("name") else None
