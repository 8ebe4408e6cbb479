"""A transformer for a discriminator, small, for any image recipe: Dosovitskiy et al., "An Image is Worth 16x16 Words",
2021 (arXiv:2010.11929), as in TransGAN (Jiang, Chang and Wang, 2021, arXiv:2102.07074) and ViTGAN (Lee et al., 2022,
arXiv:2107.04589).

Attention is written out: the fused operation has no gradient of its gradient, which gradient penalties need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from ganruntime.errors import InputError
from gantrain.networks import checked_integer
from gantrain.networks.checks import checked_classes, checked_flag, require_label


class VitDiscriminator(nn.Module):
    """Images [N, channels, size, size], with classes label int64 [N] -> logits float32 [N], positive for "real".

    Patches, a learned position each, blocks with normalisation before each branch, the mean over patches. With classes
    the logit is the product of the features with a learned vector of the label, over √width.

    Args:
        patch: side of the square patches, in pixels; divides size.
        width: of the vector of each patch; a multiple of heads.
        spectral_norm: spectral normalisation of every linear layer (Miyato et al., 2018, arXiv:1802.05957).

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        patch: int = 4,
        width: int = 64,
        blocks: int = 3,
        heads: int = 4,
        spectral_norm: bool = False,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        checked_integer("size", size, 8, 1024)
        checked_integer("channels", channels, 1, 64)
        checked_integer("patch", patch, 1, size)
        checked_integer("width", width, 1, 8192)
        checked_integer("heads", heads, 1, 64)
        self.classes = checked_classes(classes)
        for whole, part, name in (
            (size, patch, "patch does not divide size"),
            (width, heads, "heads do not divide width"),
        ):
            if whole % part:
                raise InputError(name, got=f"{part} and {whole}")
        self.patch = patch
        self.embed = nn.Linear(channels * patch * patch, width)
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(checked_integer("blocks", blocks, 1, 64))))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, width if self.classes else 1)
        if self.classes:
            self.embedding = nn.Embedding(len(self.classes), width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if checked_flag("spectral_norm", spectral_norm):
            for module in list(self.modules()):
                if isinstance(module, nn.Linear):
                    with_spectral_norm(module)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        patches = functional.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)  # [N, T, C·patch²]
        x = self.blocks(self.embed(patches) + self.position)  # [N, T, width]
        features: Tensor = self.last(self.norm(x).mean(1))  # [N, 1 or width]
        if label is None:
            return features.squeeze(1)  # [N]
        projected: Tensor = (features * self.embedding(label)).sum(1) / math.sqrt(features.shape[1])  # [N]
        return projected


class _Block(nn.Module):
    """[N, T, width] -> the same: attention and a two-layer perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widened, self.narrowed = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attended(self.norm_1(x))
        return x + self.narrowed(functional.gelu(self.widened(self.norm_2(x))))  # type: ignore[no-any-return]

    def _attended(self, x: Tensor) -> Tensor:
        split = self.query_key_value(x).unflatten(2, (3, self.heads, -1))  # [N, T, 3, heads, width / heads]
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [N, heads, T, width / heads]
        weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[3]), dim=3)  # [N, heads, T, T]
        attended: Tensor = self.joined((weights @ value).transpose(1, 2).flatten(2))  # [N, T, width]
        return attended
