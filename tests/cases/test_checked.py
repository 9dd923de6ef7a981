"""Notes on what was checked are read as they were written, and refused when they make no sense."""

from __future__ import annotations

import json

import pytest

from napari_seg3d.cases.checked import checked_file, checked_mask, read_checked, write_checked
from napari_seg3d.errors import FileError

BOXES = (((0, 4), (2, 3), (1, 9)), ((5, 6), (0, 20), (0, 30)))


def test_boxes_come_back(tmp_path):
    labels = tmp_path / "case_seg.nii.gz"
    assert read_checked(labels) is None
    assert write_checked(labels, BOXES) == tmp_path / "case_seg.checked.json"
    assert read_checked(labels) == BOXES
    mask = checked_mask(BOXES, (6, 5, 7))
    assert mask.sum() == 4 * 1 * 6 + 1 * 5 * 7
    assert mask[5].all()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": "other", "boxes": []}',
        '{"format": "napari-seg3d checked"}',
        *(
            json.dumps({"format": "napari-seg3d checked", "boxes": [box]})
            for box in ([[0, 1], [0, 1]], [[3, 2], [0, 1], [0, 1]], [[0, 1.5], [0, 1], [0, 1]],
                        [[-1, 2], [0, 1], [0, 1]], [[True, 2], [0, 1], [0, 1]], "box", None)
        ),
    ],
)  # fmt: skip
def test_nonsense_is_refused(tmp_path, content):
    labels = tmp_path / "a.nii.gz"
    checked_file(labels).write_text(content)
    with pytest.raises(FileError, match=r"Expected checked boxes as JSON in a\.checked\.json"):
        read_checked(labels)
