"""Patches are a function of the step, reach every case, and hold the foreground that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.training.cache import PreparedCache, cut_out
from napari_seg3d.training.patches import Pool, draw_cut


@pytest.fixture
def stored(tmp_path, tiny_case, tiny_plan):
    cache = PreparedCache(tmp_path / "cache")
    return Pool([cache.case(tiny_case(i), tiny_plan()) for i in range(5)])


def test_every_case_comes_up_once_a_lap(stored, tiny_plan):
    plan = tiny_plan(batch_size=2)
    order = [draw_cut(stored, plan, step, place).case for step in range(10) for place in range(2)]
    for lap in range(4):
        assert sorted(order[lap * 5 : lap * 5 + 5]) == [0, 1, 2, 3, 4]
    assert len({tuple(order[i : i + 5]) for i in (0, 5, 10, 15)}) > 1  # in another order each time


def test_a_draw_depends_on_seed_step_and_place_alone(stored, tiny_plan):
    plan = tiny_plan()
    assert draw_cut(stored, plan, 7, 1) == draw_cut(stored, plan, 7, 1)
    others = [draw_cut(stored, plan, 8, 1), draw_cut(stored, plan, 7, 0), draw_cut(stored, tiny_plan(seed=1), 7, 1)]
    assert all(other != draw_cut(stored, plan, 7, 1) for other in others)


def test_foreground_patches_hold_each_class_equally_often(stored, tiny_plan):
    plan = tiny_plan(foreground_fraction=1.0, patch_voxels=(4, 4, 4), network={
        "name": "unet", "widths": (2, 4), "kernels": ((3, 3, 3),) * 2, "strides": ((1, 1, 1), (2, 2, 2)),
    })  # fmt: skip
    found = []
    for step in range(300):
        cut = draw_cut(stored, plan, step, 0)
        found.append(stored[cut.case].target()[cut.centre])
    assert set(found) == {1, 2}
    assert 0.4 < np.mean(np.array(found) == 2) < 0.6


def test_patches_hold_the_share_of_labels_that_is_wanted(stored, tiny_plan):
    network = {"name": "unet", "widths": (2, 4), "kernels": ((3, 3, 3),) * 2, "strides": ((1, 1, 1), (2, 2, 2))}
    small = {"patch_voxels": (12, 12, 8), "network": network, "foreground_fraction": 0.0}

    def shares(**changes):
        plan, found = tiny_plan(**small, **changes), []
        for step in range(40):
            cut = draw_cut(stored, plan, step, 0)
            target = stored[cut.case].target()
            corner = [c - n // 2 for c, n in zip(cut.centre, plan.patch_voxels, strict=True)]
            found.append(np.count_nonzero(cut_out(target, corner, plan.patch_voxels)) / np.count_nonzero(target))
        return np.array(found)

    assert shares().min() < 0.1
    assert shares(least_label_share=0.1).min() >= 0.1
    # What cannot be had ends too, with the fullest of the patches drawn.
    assert shares(least_label_share=1.0).mean() > 1.3 * shares().mean()


def test_patches_lie_inside_and_small_cases_in_the_middle(stored, tiny_plan):
    plan = tiny_plan(patch_voxels=(16, 32, 8), foreground_fraction=0.0)
    for step in range(50):
        cut = draw_cut(stored, plan, step, 0)
        shape = stored[cut.case].shape
        for centre, size, whole in zip(cut.centre, plan.patch_voxels, shape, strict=True):
            if whole <= size:
                assert centre == whole // 2
            else:
                assert centre - size // 2 >= 0
                assert centre - size // 2 + size <= whole


def test_cutting_beyond_the_border_gives_zeros():
    array = np.arange(24).reshape(1, 2, 3, 4)
    whole = cut_out(array, (-1, -2, -3), (4, 7, 10))
    assert whole.sum() == array.sum()
    np.testing.assert_array_equal(whole[:, 1:3, 2:5, 3:7], array)
    assert not cut_out(array, (5, 0, 0), (2, 3, 4)).any()
    np.testing.assert_array_equal(cut_out(array, (1, 1, 1), (1, 2, 3)), array[:, 1:2, 1:3, 1:4])
