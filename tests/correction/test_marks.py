"""Marks on places: there again after a crash, and only where the labels are what they were."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_seg3d.correction.marks import SUFFIX, Mark, Marks, marks_path
from napari_seg3d.errors import CorrectionError, FileError

SHAPE = (7, 5, 9)


def labels_and_places():
    labels = np.zeros(SHAPE, np.uint8, order="F")
    labels[1:4, 1:4, 2:6] = 1
    labels[2, 2, 3:5] = 3
    here = tuple(along + start for along, start in zip(np.nonzero(np.ones((2, 3, 4))), (1, 1, 2), strict=True))
    there = np.nonzero(labels == 3)
    return labels, here, there


def test_marks_are_there_again_and_can_be_taken_back(tmp_path):
    labels, here, there = labels_and_places()
    path = marks_path(tmp_path / "journals", "case1")
    assert path.name == f"case1{SUFFIX}"
    marks = Marks(SHAPE, path)
    assert not marks.settles("truth", here, labels)
    first = Mark.on(here, labels, "kept", "added label 1, 2 ml", "truth", author="anna")
    second = Mark.on(there, labels, "checked", "island", "implausible")
    marks.add(first)
    marks.add(second)
    for one in (marks, Marks(SHAPE, path)):
        assert [(mark.verdict, mark.what, mark.author) for mark in one.standing("truth", labels)] == [
            ("kept", "added label 1, 2 ml", "anna")
        ]
        assert one.settles("truth", here, labels)
        assert one.settles("implausible", there, labels)
        # Of another list, or with a voxel more, a place is not settled.
        assert not one.settles("implausible", here, labels)
        more = tuple(np.append(along, last) for along, last in zip(here, (6, 4, 8), strict=True))
        assert not one.settles("truth", more, labels)
    marks.take_back(first)
    again = Marks(SHAPE, path)
    assert again.standing("truth", labels) == ()
    assert not again.settles("truth", here, labels)
    assert again.settles("implausible", there, labels)
    # In any order of the voxels, and with what overlaps.
    shuffled = tuple(along[::-1] for along in here)
    again.add(Mark.on(shuffled, labels, "kept", "", "truth"))
    again.add(Mark.on(there, labels, "kept", "", "truth"))
    again.take_back(again.standing("truth", labels)[-1])
    assert Marks(SHAPE, path).settles("truth", here, labels)


def test_a_mark_stands_for_the_labels_that_it_was_made_on(tmp_path):
    labels, here, _ = labels_and_places()
    path = tmp_path / "case1.marks.jsonl"
    marks = Marks(SHAPE, path)
    marks.add(Mark.on(here, labels, "kept", "", "truth"))
    other = labels.astype(np.uint16)
    other[6, 4, 8] = 300  # elsewhere
    assert Marks(SHAPE, path).settles("truth", here, other)
    other[here[0][5], here[1][5], here[2][5]] += 1
    assert not Marks(SHAPE, path).settles("truth", here, other)
    assert Marks(SHAPE, path).standing("truth", other) == ()
    # Another grid has nothing to do with it.
    assert len(Marks((5, 7, 9), path)) == 0
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_line_that_was_cut_short_costs_one_mark(tmp_path, cut):
    labels, here, there = labels_and_places()
    path = tmp_path / "case1.marks.jsonl"
    marks = Marks(SHAPE, path)
    marks.add(Mark.on(here, labels, "kept", "", "truth"))
    marks.add(Mark.on(there, labels, "kept", "", "implausible"))
    path.write_bytes(path.read_bytes()[:-cut])
    left = Marks(SHAPE, path)
    assert left.settles("truth", here, labels)
    whole = cut == 1  # only the end of the line is missing
    assert left.settles("implausible", there, labels) == whole
    left.add(Mark.on(there, labels, "checked", "", "uncertain"))
    assert len(Marks(SHAPE, path)) == 2 + whole


def test_what_no_mark_can_be_is_passed_over(tmp_path):
    labels, here, _ = labels_and_places()
    path = tmp_path / "case1.marks.jsonl"
    marks = Marks(SHAPE, path)
    marks.add(Mark.on(here, labels, "kept", "", "truth"))
    good = json.loads(path.read_text())
    bad = ([[0, 10**12, 1]], [[10**6, 1, 1]], [[-4, 2, 1]], [[0, 0, 1]], [[0, 1]], [], "runs", None)
    lines = [{**good, "id": str(n), "runs": np.ravel(runs).tolist() if isinstance(runs, list) else runs}
             for n, runs in enumerate(bad)]  # fmt: skip
    path.write_text("\n".join(json.dumps(line) for line in (*lines, [], {}, good, {"back": "unknown"})) + "\n\xff\n")
    assert [mark.id for mark in Marks(SHAPE, path).standing("truth", labels)] == [good["id"]]
    with pytest.raises(CorrectionError):
        marks_path(tmp_path, "../case1")
    with pytest.raises(FileError, match="cannot be read"):
        Marks(SHAPE, tmp_path)
    blocked = Marks(SHAPE, tmp_path / "journals" / "case1.marks.jsonl")
    (tmp_path / "journals").write_text("a file")
    with pytest.raises(FileError, match="not kept on disk"):
        blocked.add(Mark.on(here, labels, "kept", "", "truth"))
    assert blocked.settles("truth", here, labels)
