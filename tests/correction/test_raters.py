"""Two raters: how far they agree, held against small maps made by hand, and a consensus that is nobody's own."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from napari_seg3d.cases.corrections import save_correction, versions
from napari_seg3d.comparison.difference import MISSED, difference_map, disagreements
from napari_seg3d.comparison.live import LiveComparison, LiveVolumes
from napari_seg3d.correction.queue import agreement
from napari_seg3d.correction.raters import NOBODY, as_csv, compare_raters, consensus, newest_by_rater
from napari_seg3d.correction.stops import disagreement_stops
from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.files import read_label_map
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable

TABLE = LabelTable.from_names({1: "core", 2: "oedema"})
#: A voxel has 0.5 ml.
GRID = Geometry((1, 2, 5), np.diag([-5.0, 5, 20, 1]))


def rated(*rows: list[int]) -> LabelMap:
    return LabelMap(np.array([rows], np.uint8), GRID, TABLE)


ANNA = rated([1, 1, 1, 0, 0], [2, 2, 0, 0, 0])
BEN = rated([1, 1, 2, 0, 2], [2, 0, 0, 0, 2])


def test_newest_versions_by_rater_and_their_agreement(tmp_path):
    folder = tmp_path / "corrections"
    save_correction(folder, "case1", rated([0] * 5, [1] * 5), author="anna")
    save_correction(folder, "case1", BEN, author="ben")
    save_correction(folder, "case1", ANNA, author="anna")
    save_correction(folder, "case2", ANNA, author="=anna")
    save_correction(folder, "case2", ANNA)
    assert {name: one.version for name, one in newest_by_rater(folder, "case1").items()} == {"anna": 3, "ben": 2}
    assert list(newest_by_rater(folder, "case2")) == ["=anna", NOBODY]
    assert newest_by_rater(folder, "case3") == {}
    (pair,) = compare_raters(folder, "case1", TABLE)
    assert (pair.raters, [one.version for one in pair.versions]) == (("anna", "ben"), [3, 2])
    # core: 3 and 2 voxels, 2 in common; oedema: 2 and 4 voxels, 1 in common.
    assert pair.agreement.by_label == {"core": pytest.approx(4 / 5), "oedema": pytest.approx(2 / 6)}
    assert pair.mean_dice == pytest.approx((4 / 5 + 1 / 3) / 2)
    assert pair.agreement.first_ml == pytest.approx({"core": 1.5, "oedema": 1.0})
    assert pair.agreement.second_ml == pytest.approx({"core": 1.0, "oedema": 2.0})
    # 6 of 10 agree; by chance 0.5 x 0.4 + 0.3 x 0.2 + 0.2 x 0.4.
    assert pair.agreement.kappa == pytest.approx((0.6 - 0.34) / (1 - 0.34))
    rows = list(csv.DictReader(io.StringIO(as_csv([pair, *compare_raters(folder, "case2", TABLE)]))))
    assert len(rows) == 4
    assert rows[1] == {
        "case": "case1", "rater_1": "anna", "rater_2": "ben", "version_1": "v003.nii.gz", "version_2": "v002.nii.gz",
        "label": "oedema", "dice": "0.333333", "volume_1_ml": "1", "volume_2_ml": "2", "kappa": "0.393939",
    }  # fmt: skip
    assert (rows[2]["rater_1"], rows[2]["kappa"]) == ("'=anna", "1")


def test_a_consensus_names_its_parents_and_is_nobodys_own(tmp_path):
    folder = tmp_path / "corrections"
    one = save_correction(folder, "case1", ANNA, author="anna")
    other = save_correction(folder, "case1", BEN, author="ben")
    first, second = read_label_map(one, TABLE), read_label_map(other, TABLE)
    begun, undecided = consensus([first, second])
    np.testing.assert_array_equal(begun.data, ANNA.data)
    assert undecided.tolist() == [[[False, False, True, False, True], [False, True, False, False, True]]]
    assert begun.data is not first.data
    # The longer wins nothing: what one rater alone has named is named in both.
    named = LabelMap(BEN.data, GRID, LabelTable.from_names({7: "vessel"}))
    assert [label.name for label in consensus([first, named])[0].table] == ["core", "oedema", "vessel"]
    path = save_correction(folder, "case1", begun, based_on=first, author="anna", parents=(one, other))
    facts = json.loads(path.with_name("v003.json").read_text())
    assert facts["parents"] == ["case1/v001.nii.gz", "case1/v002.nii.gz"]
    save_correction(folder, "case1", begun, based_on=read_label_map(path, TABLE), author="ben")
    assert [version.parents for version in versions(folder, "case1")] == [(), (), tuple(facts["parents"]), ()]
    # Neither the consensus nor what was made of it is a rater's own.
    assert {name: version.version for name, version in newest_by_rater(folder, "case1").items()} == {
        "anna": 1,
        "ben": 2,
    }
    with pytest.raises(GeometryError, match="one grid"):
        consensus([ANNA, LabelMap(BEN.data, Geometry.with_spacing((1, 2, 5)))])


def test_places_are_told_in_words_that_fit_raters():
    places = disagreements(difference_map(ANNA.data, BEN.data), GRID)
    stops = disagreement_stops(places, ANNA, BEN, raters=("anna", "ben"))
    assert sorted(stop.words for stop in stops) == [
        "core in anna but oedema in ben, 0.5 ml",
        "oedema only in anna, 0.5 ml",
        "oedema only in ben, 1 ml",
    ]
    assert {stop.kind for stop in stops} >= {"missed", "added"}
    assert stops[0].label == 2
    assert places[0].kind == MISSED


def test_kappa_and_volumes_follow_edits():
    live, volumes = LiveComparison(ANNA, BEN), LiveVolumes(ANNA)
    edited = ANNA.data.copy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        flat = np.flatnonzero(rng.random(edited.size) < 0.3)
        indices = np.unravel_index(flat, edited.shape)
        new = rng.choice([0, 1, 2, 4], len(flat)).astype(np.uint8)
        old = edited[indices]
        edited[indices] = new
        live.changed(indices, old, new)
        volumes.changed(old, new)
        now = ANNA.with_data(edited)
        assert live.kappa == pytest.approx(agreement(now, BEN).kappa)
        for one in volumes.volumes():
            (value,) = one.values
            assert one.volume_ml == pytest.approx(0.5 * np.count_nonzero(edited == value))
            assert one.change_ml == pytest.approx(one.volume_ml - 0.5 * np.count_nonzero(ANNA.data == value))
    assert [one.name for one in volumes.volumes()] == ["core", "oedema", "label 4"]
    loaded = LiveVolumes(now, loaded=ANNA).volumes()
    assert [(one.name, one.volume_ml, one.change_ml) for one in loaded] == [
        (one.name, one.volume_ml, one.change_ml) for one in volumes.volumes()
    ]
