"""Processes that train together, as torchrun starts them: which one this is, and what they tell one another.

Every process holds the whole training and takes its share of each batch; after a step's backward passes all gradients
are summed in one flat tensor. Not DistributedDataParallel: it hooks one forward and one backward pass of one module,
and here two networks pass several times a step, frozen in turn, with gradients of gradients, and some with layers that
have not grown yet.

The first process alone writes. What goes wrong in any of them ends all: see `agreed` and `PeerError`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from ganruntime.errors import DeviceError, InputError, TrainingError

# The others wait this long for the first, which scores, fits a judge and writes alone.
PATIENCE = timedelta(minutes=30)
_DIGEST_BYTES = 32


class PeerError(TrainingError):
    """Another process of this training has ended, or has raised.

    Attributes:
        told: whether that process says why, so that this one need not say anything.
    """

    told = False


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Args:
        rank: of this one, from 0.
        count: of all.
        local_rank: of this one among those of its machine: the number of its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Every tensor becomes its sum over the processes, in place: the same bits in all of them."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._reduced(flat, dist.ReduceOp.SUM)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers, which are at least 0."""
        if self.count == 1:
            return number
        return int(self._reduced(torch.tensor([number]), dist.ReduceOp.MAX))

    def wait(self) -> None:
        """Returns when all processes have come here."""
        self.largest(0)

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """What is done inside, all processes have done afterwards; where one raises, all do.

        Raises:
            PeerError: another process has raised; one process alone tells what is wrong with all.
        """
        if self.count == 1:
            yield
            return
        try:
            yield
        except Exception as error:
            if 0 in self._failed(True) and not self.first:
                raise self._peer_failed(0) from error
            raise
        failed = self._failed(False)
        if failed:
            raise self._peer_failed(failed[0])

    def check_equal(self, what: str, digest: Callable[[], bytes]) -> None:
        """Raises `TrainingError` in all processes unless their digests, of 32 bytes, are equal."""
        if self.count == 1:
            return
        rows = torch.zeros(self.count, _DIGEST_BYTES, dtype=torch.int64)
        rows[self.rank] = torch.tensor(list(digest()))
        self._reduced(rows, dist.ReduceOp.SUM)
        unequal = [rank for rank in range(self.count) if not torch.equal(rows[rank], rows[0])]
        if unequal:
            raise TrainingError(
                f"{what} differ between the processes of this training",
                got=f"process {unequal[0]} of {self.count} has others than process 0",
                expected="the same in all",
                remedy="run all of them on the same data and machines of one kind, and go on with --resume",
            )

    def _failed(self, failed: bool) -> list[int]:
        """The ranks of those that say so."""
        rows = torch.zeros(self.count, dtype=torch.int64)
        rows[self.rank] = int(failed)
        return self._reduced(rows, dist.ReduceOp.SUM).nonzero().flatten().tolist()

    def _peer_failed(self, rank: int) -> PeerError:
        error = PeerError(f"process {rank} of {self.count} cannot go on, and says why")
        error.told = True
        return error

    def _reduced(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        try:
            dist.all_reduce(tensor, operation)
        except RuntimeError as error:
            raise PeerError(
                f"process {self.rank} of {self.count} has lost another process of this training",
                got=str(error).strip().splitlines()[-1][:200],
                remedy="see what the other one says; go on from the last checkpoint with --resume",
            ) from error
        return tensor


ALONE = Processes()


def processes_from_environment() -> Processes:
    """Which process this is, by the variables that torchrun sets. Raises `InputError` where they make no sense."""
    count = _number("WORLD_SIZE", 1)
    if count <= 1:
        return ALONE
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        raise InputError(
            "WORLD_SIZE says that there are several processes, and not which one this is",
            got=f"WORLD_SIZE={count} without RANK and MASTER_ADDR",
            remedy=f"torchrun --nproc-per-node {count} -m ganexport train …, or unset WORLD_SIZE",
        )
    rank = _number("RANK", 0)
    if not 0 <= rank < count:
        raise InputError("RANK is none of the processes'", got=rank, expected=f"from 0 to {count - 1}")
    return Processes(rank, count, _number("LOCAL_RANK", rank))


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """The processes of this training, connected: by gloo for tensors on the CPU, by NCCL for those on GPUs.

    A process group that the caller has made is used as it is.

    Raises:
        InputError: the variables of torchrun make no sense.
        DeviceError: the processes do not find one another.
    """
    processes = processes_from_environment()
    if processes.count == 1 or dist.is_initialized():
        yield processes
        return
    # Before there is a group: its functions have that of the moment as a default argument, and whatever imports them
    # later, as torch's optimisers do, keeps it for good. Gloo's threads are then left when the interpreter ends, and
    # now and then one of them aborts the process.
    importlib.import_module("torch.distributed.nn.functional")

    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"process {processes.rank} of {processes.count} does not find the others",
            got=str(error).strip().splitlines()[0][:200],
            remedy="start all of them with torchrun, with the same --rdzv-endpoint",
        ) from error
    try:
        yield processes
    finally:
        # Closes the connections, by which the others notice where this one has raised.
        dist.destroy_process_group()


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal():
        raise InputError(f"{variable} is no number", got=repr(text), remedy="start with torchrun, or unset it")
    return int(text)
