"""Features of a network that the user brings as a TorchScript file: Inception, for those who have its weights.

NVlabs' `inception-2015-12-05.pt`, which StyleGAN2-ADA's metrics use, is such a file. It is never downloaded here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganruntime.errors import InputError
from gantrain.metrics.spaces import Description, FeatureSpace, checked_images


class ScriptFeatures(FeatureSpace):
    """What the file gives of images float32 [N, 3, H, W] in [0, 255]: features [N, D].

    Where its `forward` takes `return_features`, as NVlabs' files do, that is passed. The name is the file's, with the
    first eight digits of its SHA-256: other weights are another space.

    Args:
        path: the TorchScript file. TorchScript runs no Python, but what it computes is up to the file: bring your own.

    Raises:
        InputError: there is no such file, or it is none, or gives no features.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(
                f"there is no features file {path}",
                expected="judge, random, or the path of a TorchScript file",
                remedy="torch.jit.script(network).save(FILE) makes one",
            )
        try:
            self._network: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            arguments = [argument.name for argument in self._network.forward.schema.arguments]
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"{path} is no TorchScript file", got=str(error).strip().splitlines()[0][:200]) from error
        self._options = {"return_features": True} if "return_features" in arguments else {}
        self.name = f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"

    @torch.no_grad()
    def describe(self, samples: NDArray[np.generic]) -> Description:
        images = checked_images(samples)
        rgb = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
        try:
            features = self._network(
                torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), np.float32)), **self._options
            )
        except RuntimeError as error:
            lines = str(error).strip().splitlines()
            raise InputError(
                f"{self.name} does not take these images", got=lines[-1][:200], expected="float32 [N, 3, H, W]"
            ) from error
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(images):
            raise InputError(
                f"{self.name} gives no features",
                got=list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__,
                expected="a tensor [N, D]",
            )
        return Description(features.to(torch.float32).numpy())
