"""The review list, its order, checked slices, what the review costs, and how far two raters agree."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from napari_seg3d.cases.checked import checked_mask, read_checked, write_checked
from napari_seg3d.cases.corrections import save_correction
from napari_seg3d.correction.queue import (
    FILE_NAME,
    Facts,
    Review,
    ReviewList,
    State,
    agreement,
    effort,
    slices_checked,
    with_slice,
)
from napari_seg3d.errors import CorrectionError, FileError, GeometryError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable

CASES = ("p1", "p2", "p10", "p3")
SHAPE = (7, 9, 5)
GEOMETRY = Geometry.with_spacing(SHAPE, (1.0, 2.0, 5.0))


def test_states_are_kept_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "corrections"
    reviews = ReviewList(folder, CASES)
    assert reviews["p1"] == Review()
    assert not folder.exists()
    reviews.set("p1", State.FLAGGED, comment="Bewegung ±2 mm", author="Ada")
    reviews.set("p10", "checked", author="Bob")
    again = ReviewList(folder, CASES)
    assert (again["p1"].state, again["p1"].comment, again["p1"].author) == (State.FLAGGED, "Bewegung ±2 mm", "Ada")
    assert again["p10"].state is State.CHECKED
    assert again["p10"].date.endswith("+00:00")
    assert again.counts() == {State.TO_DO: 2, State.IN_PROGRESS: 0, State.CHECKED: 1, State.FLAGGED: 1}
    # A new state keeps the comment unless a new one is given.
    assert again.set("p1", State.CHECKED).comment == "Bewegung ±2 mm"
    assert again.set("p1", State.CHECKED, comment="").comment == ""
    with pytest.raises(CorrectionError, match="no case p99"):
        again.set("p99", State.CHECKED)
    with pytest.raises(ValueError, match="done"):
        again.set("p1", "done")


def test_two_windows_do_not_lose_each_others_states(tmp_path: Path) -> None:
    one, other = ReviewList(tmp_path, CASES), ReviewList(tmp_path, CASES)
    one.set("p1", State.CHECKED)
    other.set("p2", State.FLAGGED, comment="odd")
    assert other["p1"].state is State.CHECKED
    assert one["p2"].state is State.TO_DO
    assert one.refresh()
    assert one["p2"].comment == "odd"
    assert not one.refresh()


def test_many_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from napari_seg3d.correction.queue import ReviewList
cases = [f"c{i}" for i in range(20)]
reviews = ReviewList(Path(sys.argv[1]), cases)
for case in cases[int(sys.argv[2])::2]:
    reviews.set(case, "checked", author=sys.argv[2])
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [subprocess.Popen([*command, str(number)]) for number in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    reviews = ReviewList(tmp_path, [f"c{i}" for i in range(20)])
    assert [reviews[f"c{i}"].author for i in range(20)] == ["0", "1"] * 10


def test_cases_of_another_dataset_version_are_kept(tmp_path: Path) -> None:
    ReviewList(tmp_path, ("old",)).set("old", State.CHECKED)
    ReviewList(tmp_path, CASES).set("p1", State.CHECKED)
    assert ReviewList(tmp_path, ("old",))["old"].state is State.CHECKED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "other", "cases": {}}',
        '{"format": "napari-seg3d review", "cases": {"p1": {"state": "x"}}}',
    ],
)
def test_a_damaged_list_is_told_and_left(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(FileError, match="states of a review"):
        ReviewList(tmp_path, CASES)
    assert (tmp_path / FILE_NAME).read_text() == text


def test_orders(tmp_path: Path) -> None:
    reviews = ReviewList(tmp_path, CASES)
    assert reviews.order == ("p1", "p2", "p3", "p10")
    facts = {
        "p1": Facts(quality=0.9, uncertainty=0.1, predicted="2026-11-03"),
        "p2": Facts(quality=0.4, uncertainty=0.7),
        "p10": Facts(quality=0.6, uncertainty=0.2, predicted="2026-10-01"),
    }
    assert reviews.arrange("quality", facts) == ("p2", "p10", "p1", "p3")
    assert reviews.arrange("uncertainty", facts) == ("p2", "p10", "p1", "p3")
    assert reviews.arrange("certainty", facts) == ("p1", "p10", "p2", "p3")
    assert reviews.arrange("age", facts) == ("p10", "p1", "p2", "p3")
    reviews.move("p10", 0)
    reviews.move("p3", 1)
    assert reviews.arrange("hand") == ("p10", "p3", "p1", "p2")
    assert ReviewList(tmp_path, CASES).arrange("hand") == ("p10", "p3", "p1", "p2")
    assert ReviewList(tmp_path, (*CASES, "p4")).arrange("hand") == ("p10", "p3", "p1", "p2", "p4")
    with pytest.raises(CorrectionError, match="Expected an order by"):
        reviews.arrange("size")  # type: ignore[arg-type]


def test_next_goes_round_and_passes_over_what_is_done(tmp_path: Path) -> None:
    reviews = ReviewList(tmp_path, CASES)
    assert reviews.next_after() == "p1"
    assert reviews.next_after("p10") == "p1"
    reviews.set("p1", State.CHECKED)
    reviews.set("p2", State.FLAGGED)
    reviews.set("p3", State.IN_PROGRESS)
    assert reviews.next_after("p10") == "p3"
    assert reviews.next_after("p1") == "p3"
    reviews.set("p3", State.CHECKED)
    assert reviews.next_after("p3") == "p10"
    # The case one is in does not come next, though it is not done.
    assert reviews.next_after("p10") is None
    reviews.arrange("quality", {"p10": Facts(quality=0.1)})
    assert reviews.next_after() == "p10"


def test_checked_slices_are_boxes_that_training_understands(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = ((((1, 5), (2, 9), (0, 4))),)
    expected = checked_mask(boxes, SHAPE)
    for _ in range(60):
        axis = int(rng.integers(3))
        number, checked = int(rng.integers(SHAPE[axis])), bool(rng.integers(2))
        boxes = with_slice(boxes, SHAPE, axis, number, checked=checked)
        expected[(slice(None),) * axis + (number,)] = checked
        np.testing.assert_array_equal(checked_mask(boxes, SHAPE), expected)
        for a in range(3):
            others = tuple(b for b in range(3) if b != a)
            np.testing.assert_array_equal(slices_checked(boxes, SHAPE, a), expected.all(axis=others))
    labels = tmp_path / "v001.nii.gz"
    write_checked(labels, boxes)
    assert read_checked(labels) == boxes
    every = ()
    for number in range(SHAPE[2]):
        every = with_slice(every, SHAPE, 2, number)
    assert every == (((0, 7), (0, 9), (0, 5)),)
    with pytest.raises(CorrectionError, match="no slice 5"):
        with_slice((), SHAPE, 2, 5)


def test_effort_counts_all_versions(tmp_path: Path) -> None:
    first = LabelMap(np.zeros(SHAPE, np.uint8), GEOMETRY)
    data = first.data.copy()
    data[1:3, 2, 3] = 1
    second = first.with_data(data)
    data = data.copy()
    data[1, 2, 3] = 2
    data[2, 2, 3] = 0
    data[5, 5, 0] = 1
    third = first.with_data(data)
    save_correction(tmp_path, "p2", second, based_on=first, seconds=60)
    last = save_correction(tmp_path, "p2", third, based_on=second, seconds=30)
    save_correction(tmp_path, "p1", first, based_on=first, seconds=12)
    (one, two) = effort(tmp_path, CASES)
    assert (one.case_id, one.versions, one.minutes, one.changed_ml) == ("p1", 1, 0.2, 0.0)
    assert isnan(one.minutes_per_ml)
    # Two voxels, then three, of 0.01 ml each.
    assert (two.case_id, two.versions, two.minutes) == ("p2", 2, 1.5)
    assert two.changed_ml == pytest.approx(0.05)
    assert two.minutes_per_ml == pytest.approx(30)
    last.with_name("v002.json").unlink()
    assert isnan(effort(tmp_path, ["p2"])[0].changed_ml)


def kappa_by_hand(one: list[int], other: list[int]) -> Fraction:
    """Cohen's definition, voxel by voxel, in exact fractions."""
    count = len(one)
    agreed = Fraction(sum(a == b for a, b in zip(one, other, strict=True)), count)
    chance = sum(Fraction(one.count(value) * other.count(value), count**2) for value in set(one) | set(other))
    return (agreed - chance) / (1 - chance)


def test_agreement_equals_its_definition() -> None:
    rng = np.random.default_rng(4)
    table = LabelTable.from_names({1: "core", 2: "oedema"})
    one = LabelMap(rng.integers(0, 3, SHAPE).astype(np.uint8), GEOMETRY, table)
    data = np.where(rng.random(SHAPE) < 0.8, one.data, rng.integers(0, 4, SHAPE)).astype(np.uint8)
    other = one.with_data(data)
    between = agreement(one, other)
    assert between.kappa == pytest.approx(float(kappa_by_hand(one.data.ravel().tolist(), data.ravel().tolist())))
    for name, value in (("core", 1), ("oedema", 2), ("label 3", 3)):
        both, either = (one.data == value) & (data == value), (one.data == value).sum() + (data == value).sum()
        assert between.by_label[name] == pytest.approx(2 * both.sum() / either)
        assert between.first_ml[name] == pytest.approx(one.volume_ml(value))
        assert between.second_ml[name] == pytest.approx(other.volume_ml(value))
    empty = one.with_data(np.zeros(SHAPE, np.uint8))
    assert agreement(empty, empty).kappa == 1.0
    with pytest.raises(GeometryError, match="Two raters"):
        agreement(one, LabelMap(data, Geometry.with_spacing(SHAPE)))


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    ReviewList(tmp_path, CASES).set("p1", State.IN_PROGRESS, comment="half", author="Ada")
    facts = json.loads((tmp_path / FILE_NAME).read_text("utf-8"))
    assert facts["cases"]["p1"]["state"] == "in progress"
