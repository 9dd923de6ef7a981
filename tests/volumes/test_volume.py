"""Volume, LabelMap, LabelTable."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.errors import GeometryError, LabelError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import Label, LabelMap, LabelTable, Volume, distinct_values


def test_voxels_and_geometry_must_fit():
    with pytest.raises(GeometryError, match=r"\(2, 3, 4\), got \(4, 3, 2\)"):
        Volume(np.zeros((4, 3, 2)), Geometry.with_spacing((2, 3, 4)))


def test_label_maps_hold_integers():
    with pytest.raises(LabelError, match="float32"):
        LabelMap(np.zeros((2, 3, 4), np.float32), Geometry.with_spacing((2, 3, 4)))


def test_volume_in_millilitres(label_map):
    count = int((label_map.data == 2).sum())
    assert label_map.volume_ml(2) == pytest.approx(count * 0.9 * 1.1 * 2.5 / 1000)
    assert label_map.volume_ml(3) == 0


def test_with_data_keeps_grid_and_names(label_map):
    other = label_map.with_data(label_map.data + 1)
    assert other.geometry is label_map.geometry
    assert other.table is label_map.table
    with pytest.raises(GeometryError):
        label_map.with_data(label_map.data[1:])


@pytest.mark.parametrize("values", [(0,), (-1,), (2, 2)])
def test_tables_refuse_background_negative_and_doubled_values(values):
    with pytest.raises(LabelError, match="above 0"):
        LabelTable(tuple(Label(value, "x", "#000000") for value in values))


def test_tables_are_sorted_and_cover_what_is_found():
    table = LabelTable.from_names({0: "background", 4: "enhancing tumour", 2: "oedema"})
    assert table.values == (2, 4)
    more = table.covering([0, 4, 7])
    assert more.values == (2, 4, 7)
    assert more[2] == table[2]
    assert more[7].name == "label 7"
    assert table.covering([2]) is table


def test_a_meaning_has_one_colour_whatever_its_value():
    one = LabelTable.from_names({2: "peritumoral edema", 4: "Enhancing tumor"})
    other = LabelTable.from_names({1: "oedema", 3: "ET (enhancing tumour)", 5: "non-enhancing core"})
    assert one[2].color == other[1].color
    assert one[4].color == other[3].color
    assert len({label.color for label in other}) == 3
    assert one[2].rgb == pytest.approx([int(one[2].color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "u8", "f4", "f8"])
def test_distinct_values_are_those_of_unique(dtype):
    rng = np.random.default_rng(3)
    for top in (3, 200):
        data = rng.integers(0, top, (7, 9, 5)).astype(dtype)
        assert distinct_values(data).tolist() == np.unique(data).tolist()
    assert distinct_values(np.array([[5, -3]])).tolist() == [-3, 5]
    assert distinct_values(np.array([[2**40, 0]])).tolist() == [0, 2**40]
    assert distinct_values(np.zeros((0, 3), int)).tolist() == []
