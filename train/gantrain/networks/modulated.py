"""Modulated convolution, in the form that scales activations: Karras, Laine, Aittala, Hellsten, Lehtinen and Aila,
"Analyzing and Improving the Image Quality of StyleGAN", 2020 (arXiv:1912.04958), section 2.2.

The paper's weights per sample, w[n,o,i,k] = W[o,i,k] · s[n,i] · d[n,o] with d[n,o] = 1 / √Σ(W[o,i,k] · s[n,i])², make
one convolution of N groups in its published code, with the batch as the number of groups. The same comes of scaling the
input by s, one convolution with the shared W, and scaling the output by d: constant weights, any batch. The tests hold
this against the grouped form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantrain.networks.equalised import EqualisedLinear
from gantrain.networks.resampling import Binomial

_EPSILON = 1e-8


class ModulatedConv2d(nn.Module):
    """x [N, inputs, H, W], w [N, w_size] -> [N, outputs, H, W], or with `up` [N, outputs, 2 H, 2 W].

    Args:
        demodulate: divide each output plane by the norm of its modulated weights.
        up: a transposed convolution of stride 2, blurred with [1, 3, 3, 1].
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, w_size: int, *, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.demodulate, self.padding = demodulate, kernel // 2
        self.scale = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualisedLinear(w_size, inputs, bias=1.0)
        # A transposed 3×3 gives 2 H + 1, the blur takes that to 2 H; stride 2 leaves a quarter of the sum, hence 4.
        self.blur = Binomial(padding=1, gain=4.0) if up else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.weight * self.scale  # [O, I, k, k]
        style = self.style(w)  # [N, I]
        x = x * style[:, :, None, None]
        if self.blur is None:
            y = functional.conv2d(x, weight, padding=self.padding)
        else:
            y = self.blur(functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if self.demodulate:
            power = style.square() @ weight.square().sum((2, 3)).t()  # [N, O]
            y = y * torch.rsqrt(power + _EPSILON)[:, :, None, None]
        return y
