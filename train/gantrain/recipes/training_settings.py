"""What every recipe can be told: the settings that the loop reads. A recipe's own extend them, with other defaults."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.recipes.settings import Settings, setting

OBJECTIVE_NAMES = ("non_saturating", "minimax", "least_squares", "wasserstein", "hinge", "relativistic")


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """For data of any kind."""

    label: str = setting("", "which attribute of the data conditions both networks; empty: the only one there is")
    z_size: int = setting(100, "length of the latent vector", least=1, most=65536)
    steps: int = setting(3000, "generator steps to make in all", least=1)
    batch: int = setting(64, "images in a batch", least=2, most=65536)
    accumulate: int = setting(
        1, "a batch is taken in this many parts, one after another, which needs less memory", least=1, most=1024
    )
    precision: str = setting(
        "fp32", "of the networks' passes; bf16 and fp16 by autocast", choices=("fp32", "bf16", "fp16")
    )
    discriminator_steps: int = setting(1, "discriminator steps before each generator step: k", least=1, most=100)
    pack: int = setting(1, "PacGAN: D judges this many samples together", least=1, most=64)
    objective: str = setting("non_saturating", "what both networks optimise", choices=OBJECTIVE_NAMES)
    real_label: float = setting(
        1.0, "target of the discriminator for real images; 0.9 is one-sided label smoothing", least=0.5, most=1.0
    )
    mismatched: float = setting(
        0.0, "share of real samples with wrong labels in what D is to call generated: GAN-CLS", least=0.0, most=0.9
    )
    optimiser: str = setting("adam", "of both networks; RMSprop has no betas", choices=("adam", "rmsprop"))
    generator_lr: float = setting(2e-4, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(2e-4, "the discriminator's learning rate", least=0.0)
    beta1: float = setting(0.5, "Adam's decay of the gradient's mean", least=0.0, most=0.99999)
    beta2: float = setting(0.999, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    decay_start: int = setting(0, "the step up to which learning rates stay as they are", least=0)
    decay_end: int = setting(0, "the step at which they have fallen, linearly, to `decay_to`; 0 for no decay", least=0)
    decay_to: float = setting(0.0, "share of the learning rates that is left after the decay", least=0.0, most=1.0)
    gradient_penalty: float = setting(0.0, "WGAN-GP's weight λ of (|∇D| - 1)² between real and fake", least=0.0)
    drift: float = setting(0.0, "weight of D(x)² on real data: holds a critic's level near 0", least=0.0)
    r1: float = setting(0.0, "weight γ of R1, γ/2·|∇D|² on real images", least=0.0)
    r2: float = setting(0.0, "weight γ of R2, γ/2·|∇D|² on generated images", least=0.0)
    penalty_every: int = setting(1, "R1 and R2 in every n-th discriminator step, n times as heavy", least=1, most=1000)
    clip: float = setting(0.0, "WGAN: D's weights are clipped to ± this after each step; 0 for not", least=0.0)
    ema_half_life: float = setting(
        10_000.0, "half-life of the averaged generator weights, in images; 0 for none", least=0.0
    )
    sample_images: int = setting(64, "images on a sample sheet", least=1, most=4096)
    sample_every: int = setting(1000, "steps between sample sheets, beside 0, 100, 300, 1000, 2000, 5000", least=1)
    metrics_every: int = setting(1000, "steps between scores of the generator; 0 for none", least=0)
    metrics_samples: int = setting(1000, "samples that a score is computed from", least=16, most=100_000)
    tensorboard: bool = setting(False, "write files for TensorBoard too, RUN/tensorboard/; needs the extra tensorboard")
    log_every: int = setting(10, "steps between lines of log.jsonl", least=1)
    checkpoint_every: int = setting(1000, "steps between checkpoints", least=1)


@dataclass(frozen=True)
class ImageSettings(TrainingSettings):
    """For images: their size, and what the discriminator is shown of them."""

    size: int = setting(32, "side of the square images, in pixels", least=2, most=256)
    channels: int = setting(0, "1 for grey, 3 for RGB, 0 for what the data source has", choices=(0, 1, 3))
    discriminator: str = setting("own", "the recipe's own, or a transformer (ViT)", choices=("own", "vit"))
    images: int = setting(0, "train on the first this many images; 0 for all (4,000 of the drawn faces)", least=0)
    held_out: float = setting(
        0.0, "share of the images that is kept out of training, to measure on", least=0.0, most=0.5
    )
    broken: str = setting(
        "skip", "pictures that cannot be decoded: leave out and name, or stop", choices=("skip", "stop")
    )
    mirror: bool = setting(False, "mirror every image left to right at random; not for digits or letters")
    shift: int = setting(
        0, "differentiable augmentation: D sees all images shifted by up to this many pixels", least=0, most=64
    )
    colour: float = setting(
        0.0,
        "differentiable augmentation: brightness, saturation and contrast vary; 1 as published",
        least=0.0,
        most=1.0,
    )
    cutout: float = setting(
        0.0, "differentiable augmentation: a square of this share of the side is greyed out", least=0.0, most=0.9
    )
    ada_target: float = setting(
        0.0, "ADA: augment as often as keeps the mean sign of D(x) here; 0 for always; 0.6 as published",
        least=0.0, most=0.99,
    )  # fmt: skip
    ada_images: float = setting(100_000.0, "ADA: images in which the probability can go from 0 to 1", least=1.0)
    mixing: float = setting(0.0, "StyleGAN: share of the images with the styles of two latents", least=0.0, most=1.0)
    path_length: float = setting(0.0, "StyleGAN2: weight of the path-length regularisation", least=0.0)
    path_every: int = setting(4, "path length in every n-th generator step, n times as heavy", least=1, most=1000)
    stage_images: int = setting(
        0, "progressive growing: real images at each size, and as many in each fade; 0 for none", least=0
    )
