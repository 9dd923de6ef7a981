"""The planner's rules, with nnU-Net's published plan as oracle where both agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_seg3d.cases.dataset import open_dataset, read_split
from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.cases.labels import regions_for
from napari_seg3d.errors import ModelError, PlanError
from napari_seg3d.events import result_of
from napari_seg3d.model.footprint import step_memory_mb
from napari_seg3d.model.network_settings import ArticleUNETR
from napari_seg3d.model.networks import build_network, network_names, parameter_count
from napari_seg3d.model.planner import (
    CPU_STEP_VOXELS,
    FEW_CASES,
    VERY_FEW_CASES,
    Hardware,
    make_plan,
    pooling,
    smaller,
)
from napari_seg3d.volumes.volume import LabelMap, LabelTable


@pytest.fixture(scope="module")
def facts(tiny_case):
    return result_of(fingerprint([tiny_case(i) for i in range(3)]))


def scaled(facts, *, shape, spacing_mm):
    """The same dataset with other grids, all in RAS order."""
    cases = [replace(c, shape=shape, cropped_shape=shape, spacing_mm=s, orientation="RAS") for c, s in
             zip(facts.cases, spacing_mm, strict=True)]  # fmt: skip
    return replace(facts, cases=tuple(cases))


def test_hippocampus_gets_nnunets_patch_and_depth(shared_data):
    folder = shared_data / "Task04_Hippocampus"
    dataset = open_dataset(folder)
    train = read_split(folder / "benchmark_split.json", dataset).train
    plan = make_plan(result_of(fingerprint(train)), device="cpu")
    assert plan.patch_voxels == (40, 56, 40)  # nnU-Net's, see nnunet_baseline.json
    assert len(plan.network.widths) == 4
    assert plan.batch_size == 2
    assert plan.spacing_mm == (1, 1, 1)
    assert plan.augmentation.mirror == ()
    assert [label.name for label in plan.labels] == ["Anterior", "Posterior"]


def test_coarse_axes_are_pooled_later_and_get_flat_kernels():
    strides, kernels = pooling((128, 128, 24), (0.5, 0.5, 5.0))
    assert strides[:4] == [(1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1)]
    assert kernels[0] == (3, 3, 1)
    assert kernels[-1] == (3, 3, 3)
    assert np.prod(strides, axis=0)[2] <= 24 / 4


def test_isotropic_patches_are_halved_until_four_voxels_remain():
    strides, kernels = pooling((64, 64, 64), (1.0, 1.0, 1.0))
    assert strides == [(1, 1, 1), *[(2, 2, 2)] * 4]
    assert set(kernels) == {(3, 3, 3)}


def test_the_target_spacing_is_the_median_but_finer_on_a_coarse_axis(facts):
    fine = scaled(facts, shape=(200, 200, 20), spacing_mm=[(1, 1, 3.5), (1, 1, 6), (1, 1, 7)])
    assert make_plan(fine, device="cpu").spacing_mm == pytest.approx((1, 1, 4.0), abs=0.01)
    even = scaled(facts, shape=(100, 100, 90), spacing_mm=[(1, 1, 1), (1, 1, 1.2), (1, 1, 2)])
    assert make_plan(even, device="cpu").spacing_mm == (1, 1, 1.2)


@pytest.mark.parametrize("network", network_names())
@pytest.mark.parametrize("shape", [(240, 240, 155), (31, 43, 24), (512, 512, 12), (9, 300, 40), (5, 6, 5)])
def test_any_dataset_gets_a_usable_plan(facts, network, shape):
    plan = make_plan(scaled(facts, shape=shape, spacing_mm=[(1, 1, 1)] * 3), network=network, device="cpu")
    assert np.prod(plan.patch_voxels) * 2 <= max(CPU_STEP_VOXELS * 1.05, 2 * 16**3)
    assert step_memory_mb(plan) < 4000
    assert all(size % d == 0 for size, d in zip(plan.patch_voxels, plan.network.divisor, strict=True))
    assert {"network", "patch_voxels", "batch_size", "spacing_mm", "targets"} <= plan.reasons.keys()


def test_whole_heads_are_mirrored_unless_a_label_has_a_side(facts):
    heads = scaled(facts, shape=(150, 180, 150), spacing_mm=[(1, 1, 1)] * 3)
    assert make_plan(heads, device="cpu").augmentation.mirror == ("left-right",)
    label = replace(heads.table.labels[0], name="left hippocampus")
    sided = replace(heads, table=replace(heads.table, labels=(label, heads.table.labels[1])))
    assert make_plan(sided, device="cpu").augmentation.mirror == ()


def test_fine_tuning_keeps_the_network_and_follows_the_new_labels(facts, tiny_plan):
    start = tiny_plan()
    other = replace(facts, modalities=("T2", "T1c"))
    plan = make_plan(other, start=start, epochs=1, device="cpu")
    assert plan.network == start.network
    assert plan.modalities == ("T1c", "T2")  # what the model knows comes first
    assert plan.learning_rate < start.learning_rate


def test_wrong_choices_are_named(facts):
    with pytest.raises(PlanError, match="fast, balanced, thorough"):
        make_plan(facts, preset="quick", device="cpu")
    with pytest.raises(ModelError, match="monai-unet"):
        make_plan(facts, network="resnet", device="cpu")
    with pytest.raises(PlanError, match="not both"):
        make_plan(facts, epochs=3, budget_s=10, device="cpu")


def test_regions_are_learned_where_they_tell_all_labels_apart(facts):
    nested = replace(
        facts, table=LabelTable.from_names({1: "oedema", 2: "non-enhancing tumour", 3: "enhancing tumour"})
    )
    nested = replace(nested, regions=regions_for(nested.table))
    assert make_plan(nested, device="cpu").targets == "regions"
    assert make_plan(nested, device="cpu", changes={"targets": "classes"}).targets == "classes"
    # With necrosis beside the non-enhancing part, the core's two labels would come back as one.
    names = {1: "necrosis", 2: "oedema", 3: "non-enhancing tumour", 4: "enhancing tumour"}
    merging = replace(nested, table=LabelTable.from_names(names), regions=regions_for(LabelTable.from_names(names)))
    assert make_plan(merging, device="cpu").targets == "classes"
    assert len(make_plan(merging, device="cpu", changes={"targets": "regions"}).regions) == 3


def test_ct_is_clipped_to_the_labelled_voxels_and_mri_is_not(tiny_case):
    def with_ct(number):
        case = tiny_case(number)
        hounsfield = replace(case.modalities["FLAIR"], data=case.modalities["FLAIR"].data * 3 - 1000, name="CT")
        return replace(case, modalities={"CT": hounsfield, "T1c": case.modalities["T1c"]})

    cases = [with_ct(i) for i in range(3)]
    plan = make_plan(result_of(fingerprint(cases)), device="cpu")
    labelled = np.concatenate([c.modalities["CT"].data[c.truth.data > 0] for c in cases])
    assert plan.ct_windows.keys() == {"CT"}
    window = plan.ct_windows["CT"]
    assert [window.low, window.high] == pytest.approx(np.percentile(labelled, [0.5, 99.5]), rel=0.05)
    assert window.mean == pytest.approx(labelled.mean(), rel=0.05)
    assert "Hounsfield" in plan.reasons["normalisation"]
    assert "CT clipped to" in "\n".join(plan.describe())
    # A model that is fine-tuned keeps the window that it has learned with.
    other = make_plan(result_of(fingerprint([with_ct(7)])), device="cpu", start=plan)
    assert other.ct_windows == plan.ct_windows


def test_a_label_named_ignore_is_not_learned(tiny_case):
    case = tiny_case(0)
    data = case.truth.data.copy()
    data[:5] = 9
    table = LabelTable.from_names({1: "oedema", 2: "enhancing tumour", 9: "ignore"})
    plan = make_plan(result_of(fingerprint([replace(case, truth=LabelMap(data, case.geometry, table))])), device="cpu")
    assert plan.ignore_value == 9
    assert [label.value for label in plan.labels] == [1, 2]
    with pytest.raises(PlanError, match="also the value of a label"):
        plan.changed({"ignore_value": 2})


def test_few_cases_are_varied_more_than_many(facts):
    very_few, few, many = (
        make_plan(replace(facts, cases=tuple(replace(facts.cases[0], id=str(i)) for i in range(n))), device="cpu")
        for n in (VERY_FEW_CASES, FEW_CASES, FEW_CASES + 1)
    )
    often = [plan.augmentation.rotation_probability for plan in (very_few, few, many)]
    assert often == sorted(often, reverse=True)
    assert len(set(often)) == 3
    assert "very strong for 10 cases" in very_few.reasons["augmentation"]
    assert many.augmentation.elastic_probability == 0


def test_a_smaller_plan_halves_the_batch_then_shortens_the_patch(facts):
    plan = make_plan(facts, device="cpu", changes={"batch_size": 4})
    sizes = []
    while plan is not None:
        sizes.append((plan.batch_size, plan.patch_voxels))
        plan = smaller(plan)
    assert [batch for batch, _ in sizes[:3]] == [4, 2, 1]
    voxels = [batch * np.prod(patch) for batch, patch in sizes]
    assert voxels == sorted(voxels, reverse=True)
    assert len(set(voxels)) == len(voxels)


@pytest.mark.parametrize("network", network_names())
def test_every_smaller_plan_can_be_computed(facts, network):
    plan = make_plan(scaled(facts, shape=(90, 70, 40), spacing_mm=[(1, 1, 1)] * 3), network=network, device="cpu")
    first, last = plan.patch_voxels, plan
    while (less := smaller(last)) is not None:
        last = less
    assert last.batch_size == 1
    if plan.network.fixed_size:
        assert last.patch_voxels == first  # its position codes fit one size only
    else:
        voxels_at_the_bottom = np.prod(np.divide(last.patch_voxels, last.network.divisor))
        assert voxels_at_the_bottom == 2 if plan.network.normalises_bottom else 1
    with torch.device("meta"):
        built, images = build_network(last).train(), torch.empty(1, len(last.modalities), *last.patch_voxels)
    outputs = built(images)
    finest = outputs[0] if isinstance(outputs, list) else outputs
    assert finest.shape == (1, last.outputs, *last.patch_voxels)


def test_networks_are_as_wide_as_published_on_a_gpu_and_narrower_on_a_cpu(facts, monkeypatch):
    brains = scaled(facts, shape=(140, 170, 140), spacing_mm=[(1, 1, 1)] * 3)
    on_cpu = {name: make_plan(brains, network=name, device="cpu") for name in network_names()}
    monkeypatch.setattr(Hardware, "of", classmethod(lambda cls, device: cls("cuda", 24.0)))
    on_gpu = {name: make_plan(brains, network=name, device="cuda") for name in network_names()}
    assert on_gpu["vox2vox"].network.base == 64
    assert on_gpu["article-unetr"].network == ArticleUNETR()
    assert on_gpu["swin-unetr"].network.feature_size == 48
    assert on_gpu["resenc-unet"].network.blocks == (1, 3, 4, 6, 6, 6)
    assert on_cpu["vox2vox"].network.base == 16
    assert "quarter of the published width" in on_cpu["vox2vox"].reasons["network"]
    for name in network_names():
        assert parameter_count(on_cpu[name]) <= parameter_count(on_gpu[name])
        assert np.prod(on_cpu[name].patch_voxels) < np.prod(on_gpu[name].patch_voxels)
        # The libraries' work space and mixed precision are left out on both sides of the estimate.
        assert step_memory_mb(on_gpu[name]) < 2 * 24_000


def test_vnet_begins_with_a_higher_learning_rate(facts):
    """Its last layer is normalised and small: with the usual rate it would need thousands of steps to be certain."""
    usual, faster = (make_plan(facts, network=network, device="cpu") for network in ("unet", "vnet"))
    assert (usual.learning_rate, faster.learning_rate) == (1e-3, 1e-2)
    assert "last layer" in faster.reasons["learning_rate"] != usual.reasons["learning_rate"]
