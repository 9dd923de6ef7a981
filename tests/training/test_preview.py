"""A previewed patch is the one that the training would see, and stands where it was cut."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_seg3d.events import Finished, Progress, Saved, result_of
from napari_seg3d.model.prepare import IGNORED
from napari_seg3d.training.augment import draw_augmentation
from napari_seg3d.training.batches import Supply
from napari_seg3d.training.cache import PreparedCache
from napari_seg3d.training.patches import Pool, draw_cut
from napari_seg3d.training.preview import preview, write_patches

STILL = {
    f"augmentation.{kind}_probability": 0.0
    for kind in (
        "rotation", "scale", "elastic", "noise", "blur", "brightness", "shift", "contrast", "gamma", "low_resolution"
    )
} | {"augmentation.mirror": ()}  # fmt: skip

REGIONS = {
    "targets": "regions",
    "regions": [
        {"name": "whole tumour", "values": (1, 2), "color": "#f7d038"},
        {"name": "enhancing tumour", "values": (2,), "color": "#49c6f2"},
    ],
}


@pytest.fixture
def cache(tmp_path):
    return PreparedCache(tmp_path / "cache")


def test_it_is_bit_for_bit_what_the_training_sees(tiny_case, tiny_plan, cache):
    plan = tiny_plan(**{"batch_size": 2, "augmentation.noise_probability": 1.0})
    cases = [tiny_case(number) for number in range(3)]
    pool = Pool([cache.case(case, plan) for case in cases])
    for step in (0, 3):
        images, targets = Supply(pool, plan, torch.device("cpu")).batch(step)
        patches = result_of(preview(plan, cases, step=step, cache=cache))
        assert [(patch.step, patch.place) for patch in patches] == [(step, 0), (step, 1)]
        for place, patch in enumerate(patches):
            assert patch.case_id == cases[draw_cut(pool, plan, step, place).case].id
            assert list(patch.images) == list(plan.modalities)
            for channel, volume in enumerate(patch.images.values()):
                assert np.array_equal(volume.data, images[place, channel].numpy())
            values = np.array([0, *(label.value for label in plan.labels)])
            assert np.array_equal(patch.target.data, values[targets[place, 0].numpy()])
            assert any(words.startswith("noise") for words in patch.done)


def test_only_the_cases_that_are_needed_are_prepared(tiny_case, tiny_plan, cache):
    cases = [tiny_case(number) for number in range(6)]
    events = list(preview(tiny_plan(batch_size=2), cases, cache=cache))
    assert isinstance(events[-1], Finished)
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert cache.size()[0] == 2


def test_a_patch_left_as_it_is_lies_on_its_place_in_the_patient(tiny_case, tiny_plan, cache):
    case = tiny_case(0)
    # The case's own spacing, so that nothing is interpolated: voxel meets voxel.
    plan = tiny_plan(**STILL, batch_size=1, spacing_mm=case.geometry.spacing_mm)
    (patch,) = result_of(preview(plan, [case], cache=cache))
    assert patch.done == ()
    geometry = patch.target.geometry
    assert geometry.orientation == "RAS"
    voxels = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    own = np.linalg.inv(case.geometry.affine_voxel_to_world)
    there = geometry.world(voxels) @ own[:3, :3].T + own[:3, 3]
    nearest = np.rint(there).astype(int)
    assert there == pytest.approx(nearest, abs=1e-6)
    inside = ((nearest >= 0) & (nearest < case.geometry.shape)).all(-1)
    assert inside.sum() > 500
    expected = case.truth.data[tuple(nearest[inside].T)]
    assert np.array_equal(patch.target.data[inside], expected)
    assert expected.any()


def test_regions_overlap_and_unknown_voxels_are_named(tiny_case, tiny_plan, cache):
    case = tiny_case(0)
    plan = tiny_plan(**STILL, **REGIONS, batch_size=1)
    (patch,) = result_of(preview(plan, [case], cache=cache))
    assert list(patch.regions) == list(plan.output_names)
    for region in plan.label_regions:
        mask = patch.regions[region.name]
        assert np.array_equal(mask.data > 0, np.isin(patch.target.data, region.values))
        assert mask.table[1].color == region.color
    part = replace(case, checked=(((0, 10), (0, 26), (0, 13)),))
    (patch,) = result_of(preview(tiny_plan(**STILL, batch_size=1), [part], cache=cache))
    assert patch.target.table[IGNORED].name == "not known"
    assert (patch.target.data == IGNORED).any()


def test_what_was_done_is_said(tiny_case, tiny_plan, cache):
    plan = tiny_plan(**STILL, batch_size=4).changed(
        {
            "augmentation.rotation_probability": 1.0,
            "augmentation.rotation_degrees": 30.0,
            "augmentation.mirror": ("left-right",),
        }
    )
    for patch in result_of(preview(plan, [tiny_case(0)], cache=cache)):
        draw = draw_augmentation(plan, 0, patch.place)
        assert any("turned by" in words for words in patch.done)
        assert ("mirrored left-right" in patch.done) == (draw.mirror == (0,))
        assert patch.case_id in patch.in_words()


def test_files_hold_the_same_numbers_for_other_programs(tiny_case, tiny_plan, tmp_path):
    plan = tiny_plan(batch_size=2)
    events = list(write_patches(plan, [tiny_case(0), tiny_case(1)], tmp_path / "out", count=3))
    assert isinstance(events[-1], Finished), events[-1]
    written = events[-1].result
    assert [(patch.step, patch.place) for patch, _ in written] == [(0, 0), (0, 1), (1, 0)]
    assert [e.path for e in events if isinstance(e, Saved)] == [path for _, paths in written for path in paths]
    patch, paths = written[0]
    assert {path.name for path in paths} == {"patch.png", "FLAIR.nii.gz", "T1c.nii.gz", "target.nii.gz"}
    read = nib.load(paths[1])
    assert np.array_equal(read.get_fdata(dtype=np.float32), patch.images["FLAIR"].data)
    assert read.affine == pytest.approx(patch.target.geometry.affine_voxel_to_world, abs=1e-5)
    assert np.array_equal(np.asarray(nib.load(paths[3]).dataobj), patch.target.data)
