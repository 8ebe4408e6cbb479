"""Everything that a training is at a step, and how it is kept on disk: tensors in safetensors, numbers in JSON.

    checkpoint/             as `gantrain.checkpoint` says; its generator is the averaged one
      training/state.json               {"schema_version": 1, "step": …, "seconds": …, "best": {"step": …, …} or null}
                                        and of fp16 "scales": {"generator": {"scale": …, "steps": …}, …}
      training/generator.safetensors    the generator that is trained, with its BatchNorm statistics
      training/discriminator.safetensors
      training/optimisers.safetensors   their moments: "generator/PARAMETER/exp_avg", …
      training/extras.safetensors       only where a part keeps a state of its own: "ada", …
      training/random.safetensors       torch's random states, as bytes: "cpu", and "cuda" where it ran there

Latents, the order of the data and mirroring need no state: they are functions of the seed and the step. `seconds`
is the only number in a run that a second run of the same seed does not repeat.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ganruntime.errors import CheckpointError
from ganruntime.files import folder_written_atomically
from ganruntime.spec import GeneratorSpec
from gantrain.best import Best
from gantrain.checkpoint import (
    WEIGHTS_FILE,
    check_tensors,
    read_json,
    read_tensors,
    write_generator,
    write_json,
    write_tensors,
)
from gantrain.networks import NetworkRecord
from gantrain.networks.progan import Growing
from gantrain.optimisers import MOMENTS
from gantrain.precision import scales_of, set_scales

SCHEMA_VERSION = 1
FOLDER = "training"
EXTRAS_FILE = "extras.safetensors"


@dataclass
class TrainingState:
    """A training at a step: `step` generator steps are made, in `seconds`; `extras` are what its parts remember.

    `scalers` are those of the networks' losses under fp16, and none otherwise.
    `best` says which step's generator scored best, and stands in `best/` of the run; None before the first score.
    """

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module
    generator_optimiser: torch.optim.Optimizer
    discriminator_optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    extras: dict[str, Tensor] = field(default_factory=dict)
    best: Best | None = None
    scalers: dict[str, torch.amp.GradScaler] = field(default_factory=dict)

    def is_finite(self) -> bool:
        """Whether no weight and no statistic is NaN or infinite: only such a state may replace a checkpoint."""
        return all(
            bool(torch.isfinite(tensor).all())
            for network in (self.generator, self.discriminator, self.average)
            for tensor in network.state_dict().values()
        )

    def fingerprint(self) -> bytes:
        """SHA-256 of all that decides the next step, 32 bytes: equal where weights and moments have the same bits."""
        digest = hashlib.sha256(str(self.step).encode())
        for network in (self.generator, self.discriminator, self.average):
            for name, tensor in network.state_dict().items():
                _digest(digest, name, tensor)
        for name, network, optimiser in self._trained():
            for i, parameter in enumerate(network.parameters()):
                for key, value in sorted(optimiser.state.get(parameter, {}).items()):
                    _digest(digest, f"{name} {i} {key}", value)
        for name, tensor in sorted(self.extras.items()):
            _digest(digest, name, tensor)
        return digest.digest()

    def _trained(self) -> tuple[tuple[str, nn.Module, torch.optim.Optimizer], ...]:
        return (
            ("generator", self.generator, self.generator_optimiser),
            ("discriminator", self.discriminator, self.discriminator_optimiser),
        )


def save_state(path: Path, state: TrainingState, record: NetworkRecord, spec: GeneratorSpec) -> None:
    """Writes a checkpoint that can be resumed from, in place of the one at `path`: whole, or not at all.

    Raises:
        OutputError: it could not be written; the one at `path` is as it was.
    """
    with folder_written_atomically(path) as folder:
        write_generator(folder, state.average, record, spec)
        inner = folder / FOLDER
        inner.mkdir()
        moments: dict[str, Tensor] = {}
        for name, network, optimiser in state._trained():
            write_tensors(inner / f"{name}.safetensors", network.state_dict())
            for parameter_name, parameter in network.named_parameters():
                for key, value in optimiser.state.get(parameter, {}).items():
                    moments[f"{name}/{parameter_name}/{key}"] = value
        write_tensors(inner / "optimisers.safetensors", moments)
        if state.extras:
            write_tensors(inner / EXTRAS_FILE, state.extras)
        write_tensors(inner / "random.safetensors", _random_states(state))
        write_json(
            inner / "state.json",
            {
                "schema_version": SCHEMA_VERSION,
                "step": state.step,
                "seconds": round(state.seconds, 3),
                "best": None if state.best is None else state.best.to_json(),
                **({"scales": scales_of(state.scalers)} if state.scalers else {}),
            },
        )


def load_state(path: Path, state: TrainingState) -> None:
    """Fills a fresh state of the same networks, and torch's random states, from a checkpoint.

    Raises:
        CheckpointError: a file is missing, truncated, of a newer schema, or of other networks; names it.
    """
    inner = path / FOLDER
    if not inner.is_dir():
        raise CheckpointError(
            f"{path} holds a generator and no training state", remedy="start a new run: without --resume"
        )
    state.step, state.seconds, state.best, scales = _numbers(inner / "state.json")
    if scales is not None:  # otherwise it was not fp16 before
        try:
            set_scales(state.scalers, scales)
        except ValueError as error:
            raise CheckpointError(
                f"{inner / 'state.json'} does not say how losses are scaled",
                got=str(error),
                remedy="start a new run: without --resume",
            ) from error
    _load(state.average, path / WEIGHTS_FILE)
    moments_file = inner / "optimisers.safetensors"
    moments = read_tensors(moments_file)
    expected: dict[str, Tensor] = {}
    for name, network, optimiser in state._trained():
        _load(network, inner / f"{name}.safetensors")
        per_parameter: dict[int, dict[str, Tensor]] = {}
        # fp16 leaves out steps that overflow, the first ones most of all.
        stepped = state.step > 0 and (scales is None or any(key.startswith(f"{name}/") for key in moments))
        for i, (parameter_name, parameter) in enumerate(network.named_parameters()):
            prefix = f"{name}/{parameter_name}/"
            # Layers that have not grown yet were never stepped: such an optimiser keeps nothing of them.
            rests = isinstance(network, Growing) and not any(key.startswith(prefix) for key in moments)
            if stepped and not rests:
                expected[prefix + "step"] = torch.zeros((), dtype=torch.float32)
                expected |= {prefix + moment: parameter for moment in MOMENTS[type(optimiser)]}
            per_parameter[i] = {
                key.removeprefix(prefix): _laid_out_as(parameter, v)
                for key, v in moments.items()
                if key.startswith(prefix)
            }
        check_tensors(
            {key: value for key, value in moments.items() if key.startswith(f"{name}/")},
            {key: value for key, value in expected.items() if key.startswith(f"{name}/")},
            f"{moments_file} is of another optimiser",
        )
        if stepped:
            groups = optimiser.state_dict()["param_groups"]
            kept = {i: values for i, values in per_parameter.items() if values}
            optimiser.load_state_dict({"state": kept, "param_groups": groups})
    if state.extras:
        extras = read_tensors(inner / EXTRAS_FILE)
        check_tensors(extras, state.extras, f"{inner / EXTRAS_FILE} is of other parts")
        for name, tensor in state.extras.items():
            tensor.copy_(extras[name])
    _set_random_states(inner / "random.safetensors", state)


def _digest(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(name.encode())
    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    """A moment in the memory order of its parameter, as the optimiser makes it: a resumed run is no slower."""
    if moment.shape != parameter.shape:
        return moment  # the step's number
    return torch.empty_like(parameter).copy_(moment)


def _numbers(path: Path) -> tuple[int, float, Best | None, object]:
    table = read_json(path)
    version, step, seconds = table.get("schema_version"), table.get("step"), table.get("seconds")
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema version is not one that this release reads",
            got=version,
            expected=SCHEMA_VERSION,
            remedy="pip install --upgrade ganexport",
        )
    if not isinstance(step, int) or step < 0 or not isinstance(seconds, (int, float)):
        raise CheckpointError(
            f"{path} does not say which step it is of",
            got=repr(table)[:120],
            remedy="start a new run: without --resume",
        )
    best = table.get("best")  # not in a checkpoint of an earlier release
    try:
        return step, float(seconds), None if best is None else Best.from_json(best), table.get("scales")
    except ValueError as error:
        raise CheckpointError(
            f"{path} does not say which step was the best", got=str(error), remedy="start a new run: without --resume"
        ) from error


def _load(network: nn.Module, path: Path) -> None:
    tensors = read_tensors(path)
    check_tensors(tensors, network.state_dict(), f"{path} is of another network")
    network.load_state_dict(tensors)


def _random_states(state: TrainingState) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    device = next(state.generator.parameters()).device
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(path: Path, state: TrainingState) -> None:
    states = read_tensors(path)
    check_tensors(
        {key: value for key, value in states.items() if key != "cuda"},
        {"cpu": torch.get_rng_state()},
        f"{path} is no random state of this torch",
    )
    torch.set_rng_state(states["cpu"])
    device = next(state.generator.parameters()).device
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
