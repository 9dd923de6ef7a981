"""Batches on the device, made ahead of it where that helps."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..model.plan import Plan
from .augment import augmented, draw_augmentation, margin_voxels
from .patches import StoredCase, cut_out, draw_cut

Batch = tuple[Tensor, Tensor]


def make_batch(cases: Sequence[StoredCase], plan: Plan, step: int, device: torch.device) -> Batch:
    """Make the batch of one step: a function of the plan's seed and the step alone.

    Returns
    -------
    images : (B, C, X, Y, Z) float32 Tensor
    targets : (B, 1, X, Y, Z) uint8 Tensor
    """
    images, targets = [], []
    for place in range(plan.batch_size):
        cut = draw_cut(cases, plan, step, place)
        draw = draw_augmentation(plan, step, place)
        size = margin_voxels(draw, plan.patch_voxels)
        corner = [centre - length // 2 for centre, length in zip(cut.centre, size, strict=True)]
        case = cases[cut.case]
        assert case.target is not None  # only labelled cases are trained on
        image = torch.from_numpy(cut_out(case.image, corner, size).astype(np.float32)).to(device)
        target = torch.from_numpy(cut_out(case.target, corner, size)).to(device)
        image, target = augmented(image, target, draw, plan.patch_voxels)
        images.append(image)
        targets.append(target)
    return torch.stack(images), torch.stack(targets)[:, None]


def batches(
    cases: Sequence[StoredCase], plan: Plan, first_step: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Yield batches without end, from a step on.

    For a GPU two batches are made ahead in a thread of their own. On the CPU that thread would only take the network's
    cores, so each batch is made when it is wanted.
    """
    if device.type == "cpu":
        step = first_step
        while True:
            yield make_batch(cases, plan, step, device)
            step += 1
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        step = first_step
        try:
            while True:
                while len(waiting) < 2:
                    waiting.append(pool.submit(make_batch, cases, plan, step, device))
                    step += 1
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
