"""Networks for the export tests: good ones with lively statistics, and one for each way to break an export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Scalar, TensorSpec, Vector
from gantrain.checkpoint import spec_from_generator
from gantrain.networks import NetworkRecord, network_from_record

LATENT = 8
Z = TensorSpec("z", "float32", (LATENT,), Latent())
IMAGE = TensorSpec("image", "float32", (1, 4, 4), Image())
LABEL = TensorSpec("label", "int64", (), Label(("cat", "dog", "owl")))
TRUNCATION = TensorSpec("truncation", "float32", (), Scalar(1.0, (0.0, 1.0)))
CODE = TensorSpec("code", "float32", (LATENT,), Vector())


def spec_of(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (IMAGE,), name: str = "odd") -> GeneratorSpec:
    return GeneratorSpec(name, inputs or (Z,), outputs)


def lively(record: NetworkRecord, seed: int = 0) -> nn.Module:
    """A network whose BatchNorm layers have something to fold: random gains and biases, statistics of real passes."""
    torch.manual_seed(seed)
    network = network_from_record(record)
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.5)
        elif isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.1)  # at the paper's 0.02 every image is nearly the same grey
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(32, network.z_size) + 0.5)  # off centre, or the first means would be near zero
    return network


def lively_with_spec(network: str, seed: int = 0, **settings: Any) -> tuple[nn.Module, GeneratorSpec, NetworkRecord]:
    record = NetworkRecord(network, settings)
    module = lively(record, seed)
    return module, spec_from_generator(module, network.replace("_", "-")), record


class Small(nn.Module):
    """z [N, 8] -> image [N, 1, 4, 4]; the base of what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(LATENT, 16)
        self.register_buffer("w_avg", torch.zeros(LATENT))

    def draw(self, z: Tensor) -> Tensor:
        images: Tensor = torch.tanh(self.linear(z)).reshape(-1, 1, 4, 4)
        return images

    def forward(self, z: Tensor) -> Any:
        return self.draw(z)


class RandomNoise(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z + 0.1 * torch.randn_like(z))


class SeededNoise(Small):
    """The same numbers in every row and every run: only the graph gives it away."""

    def forward(self, z: Tensor) -> Tensor:
        torch.manual_seed(0)
        return self.draw(z + 0.1 * torch.randn(LATENT))


class SeededNoiseInBranch(Small):
    """The same, inside a branch of the graph."""

    def forward(self, z: Tensor) -> Tensor:
        def noisy(z: Tensor) -> Tensor:
            return self.draw(z + 0.0 * torch.randn_like(z))

        images: Tensor = torch.cond(z.sum() > 1e6, noisy, self.draw, (z,))
        return images


class Branches(Small):
    """A condition on values that torch exports as it should: an If node, with graphs inside."""

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = torch.cond(z.sum() > 1e6, lambda z: self.draw(0.5 * z), self.draw, (z,))
        return images


class DropoutLeftOn(Small):
    def forward(self, z: Tensor) -> Tensor:
        return functional.dropout(self.draw(z), 0.2)  # training=True is its default


class UpdatesBuffer(Small):
    """StyleGAN2's w_avg, updated by every forward."""

    def forward(self, z: Tensor) -> Tensor:
        self.w_avg.copy_(z.mean(0).lerp(self.w_avg, 0.99))
        return self.draw(z)


class UpdatesHiddenBuffer(Small):
    """A buffer that no state_dict shows, replaced instead of written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        self.count = self.count + 1
        return self.draw(z)


class UsesBatchStatistics(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(LATENT, track_running_stats=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(self.norm(z))


class BranchesOnSmallBatch(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(2 * z if z.shape[0] > 2 else z)


class BranchesOnLargeBatch(Small):
    """No batch that is tried in eager mode is so large; the trace is held to a range."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(2 * z if z.shape[0] >= 48 else z)


class BranchesOnOne(Small):
    """Torch's own operations ask whether there is one row, so a trace may, too."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(2 * z if z.shape[0] == 1 else z)


class BranchesOnValues(Small):
    """A value in a Python condition, the same for all probes: torch.export must refuse it."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(2 * z if z.abs().sum() > 0 else z)


class BatchInGroups(Small):
    """StyleGAN2's modulated convolution as published: the batch is folded into the groups."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(1, 1, 3, 3))
        self.style = nn.Linear(LATENT, 1)

    def forward(self, z: Tensor) -> Tensor:
        n = z.shape[0]
        weights = self.kernel[None] * self.style(z).reshape(n, 1, 1, 1, 1)  # [N, 1, 1, 3, 3]
        images = self.draw(z).reshape(1, n, 4, 4)
        images = functional.conv2d(images, weights.reshape(n, 1, 3, 3), padding=1, groups=n)
        return torch.tanh(images.reshape(n, 1, 4, 4))


class FixedReshape(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z).reshape(2, 1, 4, 4)


class WrongShape(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z)[:, :, :3]


class WrongDtype(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z).double()


class HalfOutput(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z).bfloat16()


class TwoOutputs(Small):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.draw(z), 3 * z


class DictOutput(Small):
    def forward(self, z: Tensor) -> dict[str, Tensor]:
        return {"image": self.draw(z)}


class NotFinite(Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z) / 0


class Raises(Small):
    def forward(self, z: Tensor) -> Tensor:
        raise RuntimeError("no such layer")


class Conditional(Small):
    """z, label, truncation -> image: every input matters."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Embedding(3, LATENT)

    def forward(self, z: Tensor, label: Tensor, truncation: Tensor) -> Tensor:
        return self.draw(z * truncation[:, None] + self.classes(label))


class ConditionalStarred(Conditional):
    def forward(self, z: Tensor, *rest: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(z, *rest)


class IgnoresLabel(Small):
    def forward(self, z: Tensor, label: Tensor, truncation: Tensor) -> Tensor:
        return self.draw(z * truncation[:, None])


class Starred(Small):
    def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return self.draw(*inputs)
