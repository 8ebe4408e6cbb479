"""Inversion: own images are found again, latents stay where they may lie, and nothing else moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, TensorSpec, Vector
from gantrain.checkpoint import spec_from_generator
from gantrain.inversion import invert
from gantrain.networks import NetworkRecord, network_from_record

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = TensorSpec("image", "float32", (3, 8, 8), Image())
QUICK: dict[str, Any] = {"steps": 120, "restarts": 2, "candidates": 64}


class Drawing(nn.Module):
    """A smooth picture of 6 numbers and a class."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3 * 64), nn.Tanh())
        self.colour = nn.Embedding(max(1, classes), 3)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        images = self.layers(z).reshape(-1, 3, 8, 8)
        return images if label is None else (images + self.colour(label)[:, :, None, None]) / 2


def spec_of(role: Latent | None = None, *more: TensorSpec) -> GeneratorSpec:
    return GeneratorSpec("drawing", (TensorSpec("z", "float32", (6,), role or Latent()), *more), (IMAGE,))


def drawn(network: nn.Module, spec: GeneratorSpec, seed: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    inputs = noise.inputs(spec, seed, 0, 1)
    with torch.no_grad():
        output = network(*(torch.from_numpy(inputs[t.name]) for t in spec.inputs))
    return inputs, uint8_from_output(output.numpy(), spec.outputs[0])[0]


@pytest.mark.parametrize(
    "role",
    [Latent(), Latent("normal", 3.0), Latent("uniform", 1.5), Latent("sphere", 2.0), Latent("ball", 2.0)],
    ids=lambda role: f"{role.distribution}-{role.scale}",
)
def test_an_image_of_its_own_is_found_again_within_the_support(role: Latent) -> None:
    network, spec = Drawing(), spec_of(role)
    inputs, target = drawn(network, spec, seed=77)
    found = invert(network, spec, target, **QUICK)
    assert found.psnr_db > max(33.0, found.start_psnr_db + 8.0)
    assert found.latent.shape == (6,)
    length = float(np.linalg.norm(found.latent))
    assert {
        "normal": length < 6 * role.scale,
        "uniform": bool((np.abs(found.latent) < role.scale + 1e-9).all()),
        "sphere": length == pytest.approx(role.scale, rel=1e-5),
        "ball": length <= role.scale * (1 + 1e-6),
    }[role.distribution]
    assert np.linalg.norm(found.latent - inputs["z"][0]) < 0.3 * np.linalg.norm(inputs["z"][0])
    with torch.no_grad():
        again = uint8_from_output(network(torch.from_numpy(found.latent[None])).numpy(), IMAGE)[0]
    assert np.array_equal(again, found.image)


def test_the_best_of_the_descents_is_given_and_the_same_arguments_give_the_same_latent() -> None:
    network, spec = Drawing(), spec_of()
    _, target = drawn(network, spec, seed=3)
    steps: list[int] = []
    one = invert(
        network, spec, target, steps=15, restarts=3, candidates=8, on_step=lambda step, loss: steps.append(step)
    )
    two = invert(network, spec, target, steps=15, restarts=3, candidates=8)
    assert steps == list(range(1, 16))
    assert np.array_equal(one.latent, two.latent)
    assert one.restarts_psnr_db == tuple(sorted(one.restarts_psnr_db, reverse=True))
    assert one.psnr_db == one.restarts_psnr_db[0]
    assert len(set(one.restarts_psnr_db)) == 3


def test_the_generator_is_left_as_it_was() -> None:
    network, spec = Drawing(), spec_of()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    invert(network, spec, np.zeros((8, 8, 3), np.uint8), steps=5, restarts=1, candidates=4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_the_prior_shortens_the_latent() -> None:
    network, spec = Drawing(), spec_of()
    target = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)  # nothing that it could draw
    free, held = (invert(network, spec, target, **QUICK, prior=prior) for prior in (0.0, 1.0))
    assert np.linalg.norm(held.latent) < 0.7 * np.linalg.norm(free.latent)


def test_the_class_is_found_or_given() -> None:
    network = Drawing(classes=4)
    with torch.no_grad():
        network.colour.weight.copy_(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]))
    spec = spec_of(None, TensorSpec("label", "int64", (), Label(("red", "green", "blue", "white"))))
    inputs, target = drawn(network, spec, seed=8)
    own = int(inputs["label"][0])
    found = invert(network, spec, target, **QUICK)
    assert int(found.inputs["label"]) == own
    assert found.psnr_db > 30.0
    other = invert(network, spec, target, **QUICK, label=(own + 1) % 4)
    assert int(other.inputs["label"]) == (own + 1) % 4
    assert other.psnr_db < found.psnr_db - 6.0


def test_w_of_stylegan2_comes_as_near_as_z_to_its_own_images_and_draws_what_it_says() -> None:
    torch.manual_seed(0)
    settings = {"z_size": 4, "size": 8, "width": 8, "max_width": 8, "w_size": 5}
    network = network_from_record(NetworkRecord("stylegan2_generator", settings)).eval()
    spec = spec_from_generator(network, "style")
    _, target = drawn(network, spec, seed=6)
    for space, size in (("z", 4), ("w", 5)):
        found = invert(network, spec, target, space=space, **QUICK)
        assert found.latent.shape == (size,)
        assert found.psnr_db > max(28.0, found.start_psnr_db + 3.0), space
        assert set(found.inputs) == {t.name for t in spec.inputs} - {"z"}
    with torch.no_grad():
        planes = [torch.from_numpy(found.inputs[t.name][None]) for t in network.noise_tensors()]
        image = network.synthesis(network.styles(torch.from_numpy(found.latent[None])), planes)
    assert np.array_equal(uint8_from_output(image.numpy(), spec.outputs[0])[0], found.image)


@pytest.mark.parametrize(
    ("spec", "target", "changes", "named"),
    [
        (spec_of(), np.zeros((8, 8, 1), np.uint8), {}, "does not fit drawing"),
        (spec_of(), np.zeros((8, 8, 3), np.float32), {}, "does not fit drawing"),
        (spec_of(), np.zeros((8, 8, 3), np.uint8), {"space": "x"}, "no latent space"),
        (spec_of(), np.zeros((8, 8, 3), np.uint8), {"space": "w"}, "has no space w"),
        (spec_of(), np.zeros((8, 8, 3), np.uint8), {"steps": 0}, "steps"),
        (spec_of(), np.zeros((8, 8, 3), np.uint8), {"restarts": 9, "candidates": 8}, "candidates"),
        (
            spec_of(None, TensorSpec("pose", "float32", (2,), Vector())),
            np.zeros((8, 8, 3), np.uint8),
            {},
            "inputs that only you have",
        ),
        (
            GeneratorSpec("curves", spec_of().inputs, (TensorSpec("v", "float32", (3,), Vector()),)),
            np.zeros((8, 8, 3), np.uint8),
            {},
            "cannot be inverted",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_inverted_is_refused(
    spec: GeneratorSpec, target: NDArray[Any], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        invert(Drawing(), spec, target, **changes)
