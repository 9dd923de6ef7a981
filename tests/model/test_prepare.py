"""To the network's grid and back: exact where nothing is interpolated, close where it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from nibabel.orientations import aff2axcodes

from napari_seg3d.cases.case import Case
from napari_seg3d.cases.labels import regions_for
from napari_seg3d.errors import LabelError, ModelError
from napari_seg3d.model.prepare import IGNORED, prepare, restore, restore_intensities
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume


def logits_of(target: np.ndarray, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(target.astype(np.int64)), classes).movedim(-1, 0).float() * 9


def with_affine(case: Case, affine: np.ndarray) -> Case:
    geometry = Geometry(case.geometry.shape, affine)
    volumes = {k: replace(v, geometry=geometry) for k, v in case.modalities.items()}
    return Case(case.id, volumes, replace(case.truth, geometry=geometry))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_all_48_orientations_come_back_voxel_for_voxel(tiny_case, tiny_plan, order, signs):
    oblique = tiny_case(0).geometry.affine_voxel_to_world
    affine = np.eye(4)
    affine[:3, :3] = (oblique[:3, :3] * signs)[:, order]
    case = with_affine(tiny_case(0), affine)
    ras_spacing = np.array(case.geometry.spacing_mm)[np.argsort(
        [["RL", "AP", "SI"].index(next(p for p in ("RL", "AP", "SI") if c in p)) for c in aff2axcodes(affine)]
    )]  # fmt: skip
    plan = tiny_plan(spacing_mm=tuple(ras_spacing))
    prepared = prepare(case, plan)
    assert restore(logits_of(prepared.target, 3), prepared.grid, plan).tobytes() == case.truth.data.tobytes()
    # On the network's grid the axes run to the right, to the front and up, and the truth's centre is where it was.
    assert prepared.grid.network.orientation == "RAS"
    there = prepared.grid.network.world(np.argwhere(prepared.target == 2).mean(0))
    here = case.geometry.world(np.argwhere(case.truth.data == 2).mean(0))
    assert there == pytest.approx(here, abs=1e-6)


def test_resampled_labels_and_intensities_come_back_close(tiny_case, tiny_plan):
    case = tiny_case(3)
    plan = tiny_plan(spacing_mm=(1.0, 1.0, 1.0))
    prepared = prepare(case, plan)
    assert prepared.grid.network.spacing_mm == pytest.approx((1, 1, 1), rel=0.05)
    back = restore(logits_of(prepared.target, 3), prepared.grid, plan)
    both = np.count_nonzero((back == 2) & (case.truth.data == 2))
    assert 2 * both / (np.count_nonzero(back == 2) + np.count_nonzero(case.truth.data == 2)) > 0.93
    again = restore_intensities(torch.from_numpy(prepared.image[0]), prepared.grid)
    assert np.corrcoef(again.ravel(), case.modalities["FLAIR"].data.ravel())[0, 1] > 0.97


def test_a_network_grid_covers_the_same_box_to_a_thousandth(tiny_case, tiny_plan):
    grid = prepare(tiny_case(0), tiny_plan(spacing_mm=(2.0, 2.0, 2.0))).grid
    box = grid.network
    corners = box.world([(-0.5, -0.5, -0.5), np.array(box.shape) - 0.5])
    case = tiny_case(0).geometry
    outer = case.world(list(product(*[(-0.5, n - 0.5) for n in case.shape])))
    for corner in corners:
        assert np.linalg.norm(outer - corner, axis=1).min() < 1e-3


def test_the_foregrounds_box_is_cut_out_and_put_back(tiny_case, tiny_plan):
    case = tiny_case(1)
    volumes = {}
    for name, volume in case.modalities.items():
        data = np.full((31, 36, 23), -4.0, np.float32)  # a constant background that is not zero
        data[5:26, 5:31, 5:18] = volume.data
        affine = case.geometry.affine_voxel_to_world.copy()
        affine[:3, 3] = case.geometry.world((-5, -5, -5))
        volumes[name] = Volume(data, Geometry(data.shape, affine), name)
    truth = np.zeros((31, 36, 23), np.uint8)
    truth[5:26, 5:31, 5:18] = case.truth.data
    geometry = volumes["FLAIR"].geometry
    wide = Case("wide", volumes, LabelMap(truth, geometry, case.truth.table))
    plan = tiny_plan()
    prepared = prepare(wide, plan)
    assert prepared.image.shape == prepare(case, plan).image.shape
    np.testing.assert_allclose(prepared.image, prepare(case, plan).image, atol=1e-4)
    assert np.array_equal(restore(logits_of(prepared.target, 3), prepared.grid, plan), truth)


def test_intensities_are_z_scores_of_the_foreground(tiny_case, tiny_plan):
    mask = np.zeros(tiny_case(0).geometry.shape, bool)
    mask[4:18, 5:20, 3:10] = True
    case = replace(tiny_case(0), mask=mask)
    plan = tiny_plan(crop_to_foreground=False, modalities=("T1c", "FLAIR"))
    prepared = prepare(case, plan)
    inside = prepared.grid.inside(mask)
    for channel in prepared.image:
        assert channel[inside].mean() == pytest.approx(0, abs=1e-4)
        assert channel[inside].std() == pytest.approx(1, abs=1e-4)
        assert not channel[~inside].any()
    # The plan's order of channels rules, not the case's.
    t1c = np.corrcoef(prepared.image[0][inside], prepared.grid.inside(case.modalities["T1c"].data)[inside])[0, 1]
    assert t1c == pytest.approx(1, abs=1e-4)


def test_ct_is_clipped_and_normalised_by_the_dataset_also_outside_the_foreground(tiny_case, tiny_plan):
    window = {"low": 300, "high": 400, "mean": 350, "std": 20}
    plan = tiny_plan(ct_windows={"FLAIR": window}, crop_to_foreground=False)
    case = tiny_case(0)
    prepared = prepare(case, plan)
    assert prepared.grid.network.shape == prepared.grid.box_shape  # nothing is interpolated
    expected = prepared.grid.inside((np.clip(case.modalities["FLAIR"].data, 300, 400) - 350) / 20)
    np.testing.assert_allclose(prepared.image[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(prepared.image[1], prepare(case, tiny_plan(crop_to_foreground=False)).image[1])


def test_what_is_to_be_ignored_becomes_ignored(tiny_case, tiny_plan):
    case = tiny_case(0)
    data = case.truth.data.copy()
    data[3:6] = 77
    marked = replace(case, truth=replace(case.truth, data=data))
    with pytest.raises(LabelError, match="77"):
        prepare(marked, tiny_plan())
    prepared = prepare(marked, tiny_plan(ignore_value=77, crop_to_foreground=False))
    np.testing.assert_array_equal(prepared.target == IGNORED, prepared.grid.inside(data == 77))


def test_label_values_of_the_dataset_are_kept(tiny_case, tiny_plan):
    case = tiny_case(0, values=(150, 10))
    labels = [{"value": v, "name": str(v), "color": "#ff0000"} for v in (10, 150)]
    plan = tiny_plan(labels=labels)
    prepared = prepare(case, plan)
    assert set(np.unique(prepared.target)) == {0, 1, 2}
    assert np.array_equal(restore(logits_of(prepared.target, 3), prepared.grid, plan), case.truth.data)


def test_regions_come_back_as_labels_and_are_nested(tiny_case, tiny_plan):
    case = tiny_case(0)
    table = LabelTable.from_names({1: "oedema", 2: "enhancing tumour"})
    regions = regions_for(table) or ()
    chosen = [{"name": r.name, "values": r.values, "color": r.color, "written": r.written} for r in regions]
    plan = tiny_plan(targets="regions", regions=chosen)
    prepared = prepare(case, plan)
    inner = torch.from_numpy((prepared.target == 2).astype(np.float32)) * 8 - 4
    # The network contradicts itself: its whole tumour leaves the enhancing part out.
    outer = torch.from_numpy((prepared.target == 1).astype(np.float32)) * 8 - 4
    names = {"enhancing tumour": inner}
    back = restore(torch.stack([names.get(r.name, outer) for r in regions]), prepared.grid, plan)
    assert not (back == 2).any()  # outside the whole tumour nothing enhances
    whole = torch.maximum(inner, outer)
    back = restore(torch.stack([names.get(r.name, whole if len(r.values) > 1 else inner) for r in regions]),
                   prepared.grid, plan)  # fmt: skip
    assert np.array_equal(back, case.truth.data)


def test_a_case_that_does_not_fit_is_named(tiny_case, tiny_plan):
    case = tiny_case(0)
    with pytest.raises(ModelError, match=r"wants FLAIR, T1c, T2; case case00 has FLAIR, T1c. Missing: T2"):
        prepare(case, tiny_plan(modalities=("FLAIR", "T1c", "T2")))
    labels = [{"value": 1, "name": "one", "color": "#ff0000"}]
    with pytest.raises(LabelError, match=r"case00 has the label values \[2\]"):
        prepare(case, tiny_plan(labels=labels))
