"""Colour: brightness, saturation and contrast of every image, as DiffAugment has them."""

from __future__ import annotations

from torch import Tensor


def recoloured(images: Tensor, amounts: Tensor) -> Tensor:
    """Brightness by up to ± ½, saturation times 0 to 2, contrast times ½ to 1½.

    Args:
        images: float32 [N, C, H, W] in [-1, 1].
        amounts: float32 [N, 3] in [-1, 1]: of brightness, saturation and contrast; 0 leaves an image as it is.
    """
    brightness, saturation, contrast = (a.reshape(-1, 1, 1, 1) for a in amounts.unbind(1))  # [N, 1, 1, 1]
    images = images + 0.5 * brightness
    if images.shape[1] > 1:  # grey images have no saturation
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (1.0 + saturation) * (images - grey)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (1.0 + 0.5 * contrast) * (images - mean)
