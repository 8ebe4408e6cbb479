"""Whether a network is a function of its inputs: what is shown of it before it is exported."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ganexport.eager import Arrays, eager_outputs
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import proof_sizes
from ganruntime.errors import ExportError
from ganruntime.sizes import Size, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image

if TYPE_CHECKING:
    import torch
    from torch import nn

PROBE_SEED = 0x70726F62  # "prob"
# Between batch sizes only summation orders differ, some 1e-6 of the peak; batch statistics differ by tenths.
_ROW_BOUND = 1e-3


def inference_copy(module: nn.Module, spec: GeneratorSpec) -> nn.Module:
    """A copy in eval mode that was shown to be a function of its inputs.

    The network itself is never touched: a forward pass may change buffers, and a failed export may leave a module in
    train mode.

    Raises:
        ExportError: the spec has dtypes or shapes that are not exported, or the network cannot be copied; the forward
            pass fails, gives other outputs than the spec says, gives values that are not finite, draws random numbers
            (names the modules that do), mixes the rows of a batch, or changes its own parameters or buffers.
    """
    require_exportable(spec)
    sizes: tuple[Size | None, ...] = proof_sizes(spec) or (None,)
    twin = copied_network(module, spec)
    before = {name: tensor.clone() for name, tensor in _state(twin).items()}
    for size in sizes:
        _require_function(twin, spec_at(spec, size), before)
    return twin


def _require_function(twin: nn.Module, spec: GeneratorSpec, before: dict[str, torch.Tensor]) -> None:
    """Raises as `inference_copy` does, at one height and width."""
    _require_no_draws(twin, spec)
    _require_unchanged(twin, before, spec)
    rows: Arrays = {}
    for batch in (2, 3, 1):
        inputs = probe_inputs(spec, PROBE_SEED, 0, batch)
        first = eager_outputs(twin, spec, inputs)
        second = eager_outputs(twin, spec, inputs)
        for name in first:
            if not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f"):
                raise ExportError(
                    f"{spec.name}: two runs on the same inputs give different values of {name!r}",
                    got="random numbers that no function of torch was seen to draw: numpy.random, random, the time, or "
                    "dropout inside a fused operation",
                    expected="a function of the inputs in eval mode",
                    remedy="make noise an input with the role 'noise', or a constant buffer",
                )
            if not np.isfinite(first[name]).all():
                raise ExportError(
                    f"{spec.name}: output {name!r} has values that are not finite", remedy="take an earlier checkpoint"
                )
            _require_own_row(rows.get(name), first[name], name, spec)
        rows = first
    _require_unchanged(twin, before, spec)


def copied_network(module: nn.Module, spec: GeneratorSpec) -> nn.Module:
    """A copy on the CPU in eval mode, without gradients. Raises `ExportError` where the network cannot be copied."""
    from ganexport.program.tracing import cause_of

    # Hooks that compute weights (weight_norm, spectral_norm) leave results with a history, which deepcopy refuses; the
    # next forward pass computes them again.
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if _is_computed(value)
    }
    try:
        return copy.deepcopy(module, computed).cpu().eval().requires_grad_(False)
    except Exception as error:  # whatever a stranger's code raises
        raise ExportError(
            f"{spec.name}: the network cannot be copied",
            got=cause_of(error),
            expected="a module that copy.deepcopy copies",
            remedy="remove what cannot be copied (open files, locks, generators) from the module's attributes",
        ) from error


def _is_computed(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and not value.is_leaf


def _require_no_draws(network: nn.Module, spec: GeneratorSpec) -> None:
    from ganexport.program.draws import draws_of

    draws = draws_of(network, spec, probe_inputs(spec, PROBE_SEED, 0, 2))
    if draws:
        more = f"; and {len(draws) - 4} more" if len(draws) > 4 else ""
        raise ExportError(
            f"{spec.name}: the network draws random numbers",
            got="; ".join(f"in {d}" for d in draws[:4]) + more,
            expected="images that are a function of their inputs",
            remedy="--random input makes each draw an input of the graph, --random freeze a constant; or make noise an "
            "input of forward with the role 'noise', and turn dropout off in eval mode",
        )


def require_exportable(spec: GeneratorSpec) -> None:
    """Raises `ExportError` where the spec has a dtype that is not exported, or dimensions that vary and may not."""
    for t in (*spec.inputs, *spec.outputs):
        if t.dtype == "bfloat16":
            raise ExportError(
                f"{spec.name}: {t.name!r} is bfloat16, which NumPy does not have",
                expected="float32 at the network's ends, whatever it computes in",
                remedy="cast in forward, and say float32 in the spec",
            )
        if None not in t.shape:
            continue
        both = isinstance(t.role, Image) and all(t.shape[axis] is None for axis in t.role.height_and_width)
        if not both or not varying_inputs(spec):
            raise ExportError(
                f"{spec.name}: {t.name!r} has dimensions that vary",
                got=list(t.shape),
                expected="a fixed shape; of image inputs, and of image outputs that follow them, height and width may "
                "vary, both together",
                remedy="give the height and width in the spec",
            )


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers: a state_dict leaves out those that are not persistent."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _require_unchanged(module: nn.Module, before: dict[str, torch.Tensor], spec: GeneratorSpec) -> None:
    import torch

    after = _state(module)
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or not torch.equal(old.nan_to_num(), new.nan_to_num()):
            raise ExportError(
                f"{spec.name}: forward changes {name!r} in eval mode",
                expected="parameters and buffers that stay as they are",
                remedy="guard the update with `if self.training:`",
            )


def _require_own_row(before: Any, now: Any, name: str, spec: GeneratorSpec) -> None:
    """The same inputs in a batch of another size must have given the same rows."""
    if before is None:
        return
    rows = min(len(before), len(now))
    reference = before[:rows].astype(np.float64)
    difference = float(np.abs(now[:rows].astype(np.float64) - reference).max(initial=0.0))
    if difference > _ROW_BOUND * max(float(np.abs(reference).max(initial=0.0)), 1e-6):
        raise ExportError(
            f"{spec.name}: a row of {name!r} depends on the other rows of its batch",
            got=f"a difference of {difference:.3g} between batches of {len(before)} and {len(now)}",
            expected="each image a function of its own inputs",
            remedy="keep running statistics in BatchNorm (track_running_stats=True), sums over the batch and the batch "
            "itself out of Python conditions, and noise as an input",
        )


def evaluate_from_module(module: nn.Module, spec: GeneratorSpec) -> Any:
    """The network as a function of arrays, for `golden_from_reference`."""

    def evaluate(inputs: Arrays) -> Arrays:
        return eager_outputs(module, spec, inputs)

    return evaluate
