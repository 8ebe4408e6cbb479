"""The draft of a spec: what is told from a network, what is guessed and said so, and what is asked for."""

from __future__ import annotations

import odd_networks as odd
import pytest
import torch
from hazards import exported
from torch import Tensor, nn
from torch.nn import functional

from ganexport.input_text import given_inputs
from ganexport.spec_draft import spec_from_module
from ganruntime.errors import ExportError, SpecError
from ganruntime.spec import GeneratorSpec, Image, Keypoints, Label, Latent, Scalar, TensorSpec, Tokens, Vector


class Dcgan(nn.Module):
    """As PyTorch's own tutorial writes it: z is given its height and width by the caller."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(100, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), last
        )

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.main(input)
        return y


class Viewed(Dcgan):
    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(z.view(z.size(0), -1, 1, 1))


class MyConditionalGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Embedding(10, 6)
        self.linear = nn.Linear(18, 3 * 64)

    def forward(self, z: Tensor, label: Tensor, truncation: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        joined = torch.cat([functional.normalize(z) * truncation[:, None], self.classes(label)], 1)
        image = torch.sigmoid(self.linear(joined)).reshape(-1, 3, 8, 8)
        return image, 3 * joined


class OneHot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 16))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.cat([z, functional.one_hot(y, num_classes=4).float()], 1) @ self.weight


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.body(photo))


class Elementwise(nn.Module):
    def forward(self, curve: Tensor) -> Tensor:
        return torch.sin(curve)


class AnyNumber(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


def test_a_latent_that_goes_straight_into_a_transposed_convolution() -> None:
    draft = spec_from_module(Dcgan(nn.Tanh()))
    assert draft.to_check == ()
    assert draft.spec == GeneratorSpec(
        "dcgan",
        (TensorSpec("input", "float32", (100, 1, 1), Latent()),),
        (TensorSpec("image", "float32", (3, 8, 8), Image()),),
    )


def test_a_latent_that_is_given_its_height_and_width_in_forward() -> None:
    draft = spec_from_module(Viewed(nn.Sigmoid()), name="mine")
    assert draft.spec.name == "mine"
    assert draft.spec.input("z") == TensorSpec("z", "float32", (100,), Latent())
    assert draft.spec.outputs[0].role == Image(range=(0.0, 1.0))
    assert draft.to_check == ()


def test_several_inputs_and_outputs_and_what_was_joined_on_the_way() -> None:
    draft = spec_from_module(MyConditionalGAN())
    assert draft.spec.name == "my-conditional-gan"
    assert draft.spec.inputs == (
        TensorSpec("z", "float32", (12,), Latent()),
        TensorSpec("label", "int64", (), Label(tuple("0123456789"))),
        TensorSpec("truncation", "float32", (), Scalar()),
    )
    assert draft.spec.outputs == (
        TensorSpec("image", "float32", (3, 8, 8), Image(range=(0.0, 1.0))),
        TensorSpec("output", "float32", (18,), Vector()),
    )
    assert [line.partition(":")[0] for line in draft.to_check] == ["label"]


def test_one_hot_labels_and_a_product_with_a_parameter() -> None:
    spec = spec_from_module(OneHot()).spec
    assert (spec.input("z").shape, spec.input("y").role) == ((8,), Label(tuple("0123")))


def test_a_draft_is_a_spec_that_exports() -> None:
    torch.manual_seed(0)
    network = odd.Small()
    draft = spec_from_module(network)
    assert draft.spec.inputs == (odd.Z,)
    exported(network, draft.spec)


def test_a_range_without_an_activation_is_measured_and_said_to_be_a_guess() -> None:
    draft = spec_from_module(Viewed(nn.Identity()))
    (line,) = draft.to_check
    assert "image: its range was guessed" in line
    assert "no tanh or sigmoid" in line


def test_an_image_is_asked_for_and_taken_as_it_is_given() -> None:
    with pytest.raises(SpecError, match="'photo' cannot be told") as caught:
        spec_from_module(Translator())
    assert "--input photo=3x64x64,image" in (caught.value.remedy or "")
    spec = spec_from_module(Translator(), given_inputs(("photo=3x16x24,image",))).spec
    assert spec.inputs == (TensorSpec("photo", "float32", (3, 16, 24), Image()),)
    assert spec.outputs == (TensorSpec("image", "float32", (3, 16, 24), Image()),)


def test_what_no_layer_says_is_asked_for() -> None:
    with pytest.raises(SpecError, match="'curve' cannot be told") as caught:
        spec_from_module(Elementwise())
    assert "--input curve=100" in (caught.value.remedy or "")
    draft = spec_from_module(Elementwise(), given_inputs(("curve=64,vector",)))
    assert draft.spec.outputs == (TensorSpec("output", "float32", (64,), Vector()),)


def test_what_cannot_be_drafted_is_refused() -> None:
    with pytest.raises(SpecError, match="does not say how many"):
        spec_from_module(AnyNumber())
    with pytest.raises(SpecError, match="no argument 'w'"):
        spec_from_module(odd.Small(), given_inputs(("w=3",)))
    with pytest.raises(ExportError, match=r"forward failed in 'linear' \(Linear\)"):
        spec_from_module(odd.Small(), given_inputs(("z=3",)))
    with pytest.raises(ExportError, match="something else than tensors"):
        spec_from_module(odd.DictOutput())


def test_inputs_are_told_in_one_line() -> None:
    texts = (
        "z=100",
        "photo=3x64x48,image",
        "label=label:3",
        "caption=77,tokens:49408,int32",
        "psi=scalar",
        "k=5x2,keypoints",
    )
    found = {name: given.tensor(name) for name, given in given_inputs(texts).items()}
    assert found == {
        "z": TensorSpec("z", "float32", (100,), Latent()),
        "photo": TensorSpec("photo", "float32", (3, 64, 48), Image()),
        "label": TensorSpec("label", "int64", (), Label(("0", "1", "2"))),
        "caption": TensorSpec("caption", "int32", (77,), Tokens(49408)),
        "psi": TensorSpec("psi", "float32", (), Scalar()),
        "k": TensorSpec("k", "float32", (5, 2), Keypoints()),
    }


@pytest.mark.parametrize("text", ["z", "=3", "z=3x", "z=label", "z=100,float33", "z=tokens:many", "z=latent:3"])
def test_text_that_describes_no_input_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        given_inputs((text,))
    assert "NAME=SHAPE" in str(caught.value.expected)
