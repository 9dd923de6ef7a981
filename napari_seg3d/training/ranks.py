"""The processes that train one model together: one alone, or those that ``torchrun`` has started.

The batch is shared out: with N ranks each computes every N-th patch of the very batch that one rank would compute, the
loss is that of the whole batch, and gradients are averaged by torch's DistributedDataParallel. So N ranks learn what
one would, up to the order of sums. Rank 0 alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import TrainingError
from .torchrun import ranks_here

#: Ranks wait for each other that long: while one prepares a large case or writes a checkpoint, the others stand still.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """Number `rank` of `size` processes. `group` carries what is agreed on; it lives on the CPU even beside GPUs."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def shared(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network so that its gradients are averaged over all ranks."""
        if self.size == 1:
            return network
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all ranks; the gradient flows back to each."""
        total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
        return total

    def told(self, *values: float) -> tuple[float, ...]:
        """Return the first rank's values: what depends on a clock must be decided once."""
        if self.size == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(told, 0, group=self.group)
        return tuple(told.tolist())

    def gathered(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Wait until all ranks have come this far."""
        if self.size > 1:
            distributed.barrier(group=self.group)


class _Sum(torch.autograd.Function):
    """A sum over all ranks: each term gets the gradients that all ranks have for the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


@contextmanager
def joined(device: torch.device, batch_size: int) -> Iterator[Ranks]:
    """Join the other processes, if torchrun has started some, and leave them at the end.

    Raises
    ------
    TrainingError
        If the batch cannot be shared out evenly.
    """
    rank, size, _ = ranks_here()
    if size == 1:
        yield Ranks()
        return
    if batch_size % size:
        more = -(-batch_size // size) * size
        raise TrainingError(
            f"A batch of {batch_size} patches cannot be shared by {size} processes. Set batch_size to {more}."
        )
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank, size, distributed.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        distributed.destroy_process_group()
