from itertools import combinations

import numpy as np
import pytest

from napari_seg3d.cases import labels as schemes
from napari_seg3d.cases.labels import (
    SCHEMES,
    Region,
    enforce_nesting,
    labels_from_regions,
    merged_values,
    regions_for,
    regions_from_labels,
)
from napari_seg3d.errors import LabelError
from napari_seg3d.volumes.volume import LabelTable

# Whole tumour, tumour core, enhancing tumour of each edition, as its organisers published them.
PUBLISHED = {
    schemes.BRATS_2012_2016: ((1, 2, 3, 4), (1, 3, 4), (4,)),
    schemes.BRATS_2017_2022: ((1, 2, 4), (1, 4), (4,)),
    schemes.BRATS_CONSECUTIVE: ((1, 2, 3), (1, 3), (3,)),
    schemes.BRATS_2023: ((1, 2, 3), (1, 3), (3,)),
    schemes.BRATS_2024: ((1, 2, 3), (1, 3), (3,)),
    schemes.BRATS_PEDS_2024: ((1, 2, 3, 4), (1, 2, 3), (1,)),
    schemes.MSD_BRAIN_TUMOUR: ((1, 2, 3), (2, 3), (3,)),
    schemes.NNUNET_BRATS: ((1, 2, 3), (2, 3), (3,)),
}


@pytest.mark.parametrize("scheme", PUBLISHED, ids=lambda scheme: scheme.key)
def test_regions_are_the_published_ones(scheme):
    regions = regions_for(scheme.table)
    assert tuple(region.values for region in regions[:3]) == PUBLISHED[scheme]
    assert [region.name for region in regions[:3]] == ["whole tumour", "tumour core", "enhancing tumour"]
    assert len({region.color for region in regions}) == len(regions)


def test_a_cavity_is_a_region_of_its_own():
    assert regions_for(schemes.BRATS_2024.table)[3].values == (4,)


def test_the_dataset_json_of_the_decathlon_is_understood():
    table = LabelTable.from_names({0: "background", 1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"})
    assert [region.values for region in regions_for(table)] == [(1, 2, 3), (2, 3), (3,)]


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s not in PUBLISHED], ids=lambda scheme: scheme.key)
def test_other_schemes_have_no_regions(scheme):
    assert regions_for(scheme.table) is None


def test_numbers_alone_tell_nothing():
    assert regions_for(LabelTable.from_values((1, 2, 3))) is None


@pytest.mark.parametrize("scheme", PUBLISHED, ids=lambda scheme: scheme.key)
def test_labels_to_regions_to_labels(scheme):
    regions = regions_for(scheme.table)
    rng = np.random.default_rng(3)
    data = rng.choice((0, *scheme.table.values), (5, 8, 3)).astype(np.uint8)
    masks = regions_from_labels(data, regions)
    assert masks.shape == (len(regions), 5, 8, 3)
    again = labels_from_regions(masks, regions, scheme.table)
    merged = merged_values(regions)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again[~np.isin(data, merged)], data[~np.isin(data, merged)])
    # Merged values keep their regions: necrosis is still core.
    np.testing.assert_array_equal(regions_from_labels(again, regions), masks)


def test_what_is_not_invertible_is_said():
    by_scheme = {scheme.key: merged_values(regions_for(scheme.table)) for scheme in PUBLISHED}
    assert by_scheme.pop("brats-2012-2016") == (1,)
    assert by_scheme.pop("brats-peds-2024") == (3,)
    assert set(by_scheme.values()) == {()}


def test_children_get_their_own_numbers():
    # The trap: writing 1, 2, 3 as for adults swaps the labels.
    regions = regions_for(schemes.BRATS_PEDS_2024.table)
    masks = np.array([[[[True, True, True, False]]], [[[True, True, False, False]]], [[[True, False, False, False]]]])
    assert labels_from_regions(masks, regions, schemes.BRATS_PEDS_2024.table).ravel().tolist() == [1, 2, 4, 0]


def test_inner_regions_are_cut_to_the_outer_ones():
    regions = regions_for(schemes.BRATS_2024.table)
    rng = np.random.default_rng(0)
    masks = rng.random((4, 6, 7, 5)) < 0.5
    before = masks.copy()
    whole, core, enhancing, cavity = enforce_nesting(masks, regions)
    np.testing.assert_array_equal(masks, before)
    np.testing.assert_array_equal(whole, before[0])
    assert (core <= whole).all()
    assert (enhancing <= core).all()
    np.testing.assert_array_equal(cavity, before[3])


def test_the_order_of_regions_does_not_matter():
    regions = regions_for(schemes.BRATS_2023.table)
    rng = np.random.default_rng(1)
    masks = rng.random((3, 4, 5, 6)) < 0.6
    expected = labels_from_regions(masks, regions, schemes.BRATS_2023.table)
    for order in combinations(range(3), 3):
        turned = order[::-1]
        again = labels_from_regions(masks[list(turned)], [regions[i] for i in turned], schemes.BRATS_2023.table)
        np.testing.assert_array_equal(again, expected)


def test_large_values_get_a_large_type():
    table = LabelTable.from_names({600: "lesion"})
    masks = np.ones((1, 2, 2, 2), bool)
    assert labels_from_regions(masks, [Region.named("all", (600,))], table).dtype == np.uint16


def test_contradictions_are_refused_in_words():
    with pytest.raises(LabelError, match="above 0"):
        Region.named("nothing", ())
    with pytest.raises(LabelError, match="does not hold"):
        Region.named("core", (2, 3), written=1)
    masks = np.zeros((2, 1, 1, 1), bool)
    with pytest.raises(LabelError, match="label table has only"):
        labels_from_regions(masks[:1], [Region.named("a", (7,))], LabelTable.from_values((1,)))
    full = [Region.named("a", (1, 2)), Region.named("b", (1,)), Region.named("c", (2,))]
    with pytest.raises(LabelError, match="no label of its own"):
        labels_from_regions(np.zeros((3, 1, 1, 1), bool), full, LabelTable.from_values((1, 2)))
