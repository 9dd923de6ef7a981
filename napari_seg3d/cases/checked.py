"""Which voxels of a truth a person has looked at: boxes in a small JSON file beside the label file.

A truth without such a file is taken as checked everywhere. With one, only the voxels inside its boxes are learned from
and scored; a checked slice is a box that is one voxel thick. ``case_seg.nii.gz`` has ``case_seg.checked.json``::

    {"format": "napari-seg3d checked", "boxes": [[[0, 240], [0, 240], [77, 78]], …]}

Each box has first voxel and end along X, Y, Z of the stored array.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError
from ..volumes.atomic import write_text_whole
from ..volumes.files import strip_suffix

FORMAT = "napari-seg3d checked"
#: First voxel and end along X, Y, Z.
VoxelBox = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def checked_file(labels: Path) -> Path:
    """Return where the boxes of a label file stand.

    Examples
    --------
    >>> checked_file(Path("case1.nii.gz")).name
    'case1.checked.json'
    """
    return labels.with_name(f"{strip_suffix(labels)}.checked.json")


def read_checked(labels: Path) -> tuple[VoxelBox, ...] | None:
    """Return the boxes that were checked in a label file; None if there is no such note: all of it.

    Raises
    ------
    FileError
        If the note cannot be understood.
    """
    path = checked_file(labels)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT:
            raise ValueError("another format")
        return tuple(_box(box) for box in values["boxes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(
            f"Expected checked boxes as JSON in {path.name}; it cannot be understood ({error}). "
            "Repair it, or delete it if the whole truth is checked."
        ) from None


def write_checked(labels: Path, boxes: Sequence[VoxelBox]) -> Path:
    """Note which boxes of a label file were checked, whole or not at all; return the note's path."""
    path = checked_file(labels)
    write_text_whole(path, json.dumps({"format": FORMAT, "boxes": [_box(box) for box in boxes]}))
    return path


def checked_mask(boxes: Sequence[VoxelBox], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return (X, Y, Z) bool: True inside any of the boxes, as far as they lie in the volume."""
    mask = np.zeros(shape, bool)
    for box in boxes:
        x, y, z = (slice(start, end) for start, end in box)
        mask[x, y, z] = True
    return mask


def _box(box: Sequence[Sequence[int]]) -> VoxelBox:
    (x0, x1), (y0, y1), (z0, z1) = box
    for start, end in ((x0, x1), (y0, y1), (z0, z1)):
        if {type(start), type(end)} != {int} or not 0 <= start < end:
            raise ValueError(f"{start}:{end} is no range of voxels")
    return (x0, x1), (y0, y1), (z0, z1)
