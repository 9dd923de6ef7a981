"""A batch is the same wherever its cases lie, whoever makes it, and whether it is made ahead."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from napari_seg3d.training.batches import Supply
from napari_seg3d.training.cache import PreparedCache
from napari_seg3d.training.patches import Pool, draw_cut

CPU = torch.device("cpu")


@pytest.fixture
def pool(tmp_path, tiny_case, tiny_plan):
    cache = PreparedCache(tmp_path / "cache")
    return Pool([cache.case(tiny_case(i), tiny_plan()) for i in range(4)])


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan(batch_size=4, patch_voxels=(16, 24, 8))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_cases_on_the_device_give_the_batches_of_cases_on_disk(pool, plan):
    disk, resident = (Supply(pool, plan, CPU, resident=where) for where in (False, True))
    for step in range(6):
        batch = disk.batch(step)
        assert batch[0].shape == (4, 2, 16, 24, 8)
        assert batch[0].dtype == torch.float32
        assert batch[1].shape == (4, 1, 16, 24, 8)
        assert batch[1].dtype == torch.uint8
        assert same(batch, resident.batch(step))


def test_batches_made_ahead_are_those_made_when_wanted(pool, plan):
    supply = Supply(pool, plan, CPU)
    ahead = supply.batches(3, ahead=True)
    for step, batch in enumerate(islice(ahead, 4), start=3):
        assert same(batch, supply.batch(step))
    ahead.close()


def test_ranks_share_one_batch(pool, plan):
    whole = Supply(pool, plan, CPU)
    parts = [Supply(pool, plan, CPU, rank=rank, ranks=2) for rank in range(2)]
    for step in range(3):
        images, targets = whole.batch(step)
        for rank, part in enumerate(parts):
            its_images, its_targets = part.batch(step)
            # Turned patches may be read from larger boxes together; what they show is the same.
            torch.testing.assert_close(its_images, images[rank::2], atol=1e-4, rtol=1e-4)
            assert (its_targets != targets[rank::2]).float().mean() < 0.002


def test_older_cases_come_up_as_often_as_planned(pool, plan):
    mixed = Pool(pool.cases[:2], pool.cases[2:])
    plan = plan.changed({"rehearsal_fraction": 0.3})
    drawn = [draw_cut(mixed, plan, step, place).case for step in range(250) for place in range(4)]
    assert len(mixed) == 4
    assert 0.25 < np.mean(np.array(drawn) >= 2) < 0.35
    assert set(drawn) == {0, 1, 2, 3}
    assert all(draw_cut(Pool(pool.cases[:2]), plan, step, 0).case < 2 for step in range(50))
