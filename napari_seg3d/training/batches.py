"""Batches on the device, made ahead of it where that helps."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from ..model.plan import Plan
from .augment import Draw, draw_augmentation, margin_voxels, turned, varied
from .cache import StoredCase, overlap
from .patches import Pool, draw_cut

#: All cases move to the GPU when they take at most this part of its free memory.
RESIDENT_SHARE = 0.4

Batch = tuple[Tensor, Tensor]
Size = Sequence[int]


class _Boxes(Protocol):
    """Where boxes of a case are cut from."""

    def __call__(self, case: int, corner: Size, size: Size) -> tuple[Tensor, Tensor]:
        """Return image (C, X, Y, Z) float16 and target (X, Y, Z) uint8."""


class _FromDisk:
    """Boxes from the files of the cases."""

    def __init__(self, pool: Pool, device: torch.device) -> None:
        self.pool, self.device = pool, device

    def __call__(self, case: int, corner: Size, size: Size) -> tuple[Tensor, Tensor]:
        image, target = (torch.from_numpy(part) for part in self.pool[case].cut(corner, size))
        if self.device.type == "cuda":
            # Pinned memory lets the copy run while the GPU computes.
            image, target = image.pin_memory(), target.pin_memory()
        return image.to(self.device, non_blocking=True), target.to(self.device, non_blocking=True)


class _Resident:
    """Boxes from cases that all lie in the device's memory."""

    def __init__(self, pool: Pool, device: torch.device) -> None:
        self.cases = [_uploaded(pool[i], device) for i in range(len(pool))]

    def __call__(self, case: int, corner: Size, size: Size) -> tuple[Tensor, Tensor]:
        image, target = self.cases[case]
        here, there = overlap(corner, size, target.shape)
        if all(s.stop - s.start == n for s, n in zip(here, size, strict=True)):
            return image[(slice(None), *here)], target[here]
        boxes = image.new_zeros((len(image), *size)), target.new_zeros(tuple(size))
        boxes[0][(slice(None), *there)] = image[(slice(None), *here)]
        boxes[1][there] = target[here]
        return boxes


class Supply:
    """Makes the batches of a training.

    Parameters
    ----------
    rank, ranks : int
        This process makes the places rank, rank + ranks, … of each batch.
    resident : bool, optional
        Whether all cases lie in the device's memory; by default on a GPU where they fit easily.
    """

    def __init__(
        self,
        pool: Pool,
        plan: Plan,
        device: torch.device,
        *,
        rank: int = 0,
        ranks: int = 1,
        resident: bool | None = None,
    ) -> None:
        self.pool, self.plan, self.device = pool, plan, device
        self.places = range(rank, plan.batch_size, ranks)
        fits = _fits(pool, device) if resident is None else resident
        self._boxes: _Boxes = _Resident(pool, device) if fits else _FromDisk(pool, device)

    def batch(self, step: int) -> Batch:
        """Make the batch of one step: a function of the plan's seed and the step alone.

        Returns
        -------
        images : (B, C, X, Y, Z) float32 Tensor
        targets : (B, 1, X, Y, Z) uint8 Tensor
        """
        plan = self.plan
        draws = [draw_augmentation(plan, step, place) for place in self.places]
        moved = [i for i, draw in enumerate(draws) if draw.matrix is not None]
        # One size for all that are turned, so that they are resampled together.
        sizes = [margin_voxels(draws[i], plan.patch_voxels) for i in moved]
        margin = [max(lengths) for lengths in zip(*sizes, strict=True)]
        patches: list[Batch] = []
        for place, draw in zip(self.places, draws, strict=True):
            cut = draw_cut(self.pool, plan, step, place)
            size = plan.patch_voxels if draw.matrix is None else margin
            corner = [centre - length // 2 for centre, length in zip(cut.centre, size, strict=True)]
            image, target = self._boxes(cut.case, corner, size)
            patches.append((image.float(), target))
        if moved:
            images, targets = (torch.stack(parts) for parts in zip(*(patches[i] for i in moved), strict=True))
            images, targets = turned(images, targets, [draws[i] for i in moved], plan.patch_voxels)
            for i, image, target in zip(moved, images, targets, strict=True):
                patches[i] = image, target
        images, targets = (torch.stack(parts) for parts in zip(*map(_varied, patches, draws), strict=True))
        return images, targets[:, None]

    def batches(self, first_step: int, ahead: bool | None = None) -> Generator[Batch, None, None]:
        """Yield batches without end, from a step on.

        For a GPU two batches are made ahead in a thread of their own. On the CPU that thread would only take the
        network's cores, so by default each batch is made when it is wanted.
        """
        step = first_step
        if not (self.device.type == "cuda" if ahead is None else ahead):
            while True:
                yield self.batch(step)
                step += 1
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                while True:
                    while len(waiting) < 2:
                        waiting.append(pool.submit(self.batch, step))
                        step += 1
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def _varied(patch: Batch, draw: Draw) -> Batch:
    return varied(*patch, draw)


def _uploaded(case: StoredCase, device: torch.device) -> Batch:
    return torch.from_numpy(case.image()).to(device), torch.from_numpy(case.target()).to(device)


def _fits(pool: Pool, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(pool[i].nbytes for i in range(len(pool))) <= RESIDENT_SHARE * free
