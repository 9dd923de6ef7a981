"""What holds for every tool: it changes what it says, where it may, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nibabel.affines import from_matvec
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_seg3d.correction.between import fill_between
from napari_seg3d.correction.brushes import brush, polygon, threshold_brush
from napari_seg3d.correction.change import Change
from napari_seg3d.correction.combine import combine, copy_part, relabel, relabel_part, take
from napari_seg3d.correction.islands import fill_holes, keep_island, keep_largest, remove_island, remove_smaller
from napari_seg3d.correction.masks import ANYWHERE, Where
from napari_seg3d.correction.seeds import grow_from_seeds
from napari_seg3d.correction.shape import grow, shrink, smooth
from napari_seg3d.correction.split import split_by_plane, split_by_seeds
from napari_seg3d.errors import GeometryError, LabelError, Seg3dError
from napari_seg3d.volumes.geometry import Geometry

SHAPE = (27, 23, 15)
SPACING = (0.9, 1.2, 2.5)
#: Oblique and left-handed.
TURN = Rotation.from_euler("xyz", (6, -9, 17), degrees=True).as_matrix() @ np.diag((-1, 1, 1))
GRID = Geometry(SHAPE, from_matvec(TURN @ np.diag(SPACING), (10, -30, 42)))


def study() -> np.ndarray:
    """Oedema 1 around core 2 around 3, with a hole, islands and rough edges; 4 beside them."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:18, 4:18, 3:12] = 1
    labels[8:15, 7:15, 5:10] = 2
    labels[10:12, 9:12, 6:8] = 3
    labels[18:22, 5:9, 4:8] = 4
    labels[9, 8, 6] = 0
    labels[5:7, 5:7, 4] = 0
    labels[23:25, 19:21, 12] = 1
    labels[16, 16, 10] = labels[1, 1, 1] = 2
    labels[18, 12, 6] = labels[3, 9, 8] = 1
    labels[6, 13, 7] = 3
    return labels


LABELS = study()
OTHER = np.roll(LABELS, 2, axis=0)
IMAGE = gaussian_filter(LABELS.astype(np.float32) * 100, 0.6)
SEEDS = np.zeros(SHAPE, np.uint8)
SEEDS[11, 11, 7], SEEDS[5, 10, 7], SEEDS[1:3, 20, 7], SEEDS[25, 2, 7] = 2, 1, 9, 9
GAPPED = np.where((np.arange(15) - 3) % 4, 0, LABELS).astype(np.uint8)

#: Every tool by name: labels before and the call, given the condition.
TOOLS: dict[str, tuple[np.ndarray, Callable[[Where], Change]]] = {
    "ball": (LABELS, lambda w: brush(LABELS, GRID, 2, [(6, 6, 6), (17, 12, 7)], radius_mm=3, where=w)),
    "disc": (LABELS, lambda w: brush(LABELS, GRID, 2, [(6, 6, 6)], radius_mm=4, axis=1, where=w)),
    "eraser": (LABELS, lambda w: brush(LABELS, GRID, 0, [(12, 12, 7)], radius_mm=6, where=w)),
    "threshold brush": (
        LABELS,
        lambda w: threshold_brush(LABELS, GRID, 2, [(6, 6, 6)], IMAGE, lowest=20, highest=110, radius_mm=6, where=w),
    ),
    "polygon": (LABELS, lambda w: polygon(LABELS, 2, [(2, 2), (20, 3), (16, 20)], axis=2, first=5, last=7, where=w)),
    "between": (GAPPED, lambda w: fill_between(GAPPED, GRID, (1, 2, 3, 4), axis=2, where=w)),
    "seeds": (LABELS, lambda w: grow_from_seeds(LABELS, GRID, SEEDS, [IMAGE], background=9, where=w)),
    "smooth": (LABELS, lambda w: smooth(LABELS, GRID, 1, kernel_mm=5, where=w)),
    "smooth all": (LABELS, lambda w: smooth(LABELS, GRID, kernel_mm=5, where=w)),
    "grow": (LABELS, lambda w: grow(LABELS, GRID, 1, margin_mm=2.5, where=w)),
    "shrink": (LABELS, lambda w: shrink(LABELS, GRID, 1, margin_mm=2.5, where=w)),
    "keep largest": (LABELS, lambda w: keep_largest(LABELS, 1, where=w)),
    "remove smaller": (LABELS, lambda w: remove_smaller(LABELS, GRID, 1, smallest_ml=0.02, where=w)),
    "keep island": (LABELS, lambda w: keep_island(LABELS, (23, 19, 12), where=w)),
    "remove island": (LABELS, lambda w: remove_island(LABELS, (23, 19, 12), where=w)),
    "fill holes": (LABELS, lambda w: fill_holes(LABELS, 1, where=w)),
    "fill holes in slices": (LABELS, lambda w: fill_holes(LABELS, 2, axis=2, where=w)),
    "take": (LABELS, lambda w: take(LABELS, OTHER, np.nonzero(LABELS != OTHER), where=w)),
    "copy part": (LABELS, lambda w: copy_part(LABELS, OTHER, (12, 12, 8), where=w)),
    "union": (LABELS, lambda w: combine(LABELS, 1, OTHER == 1, "union", where=w)),
    "intersection": (LABELS, lambda w: combine(LABELS, 1, OTHER == 1, "intersection", where=w)),
    "difference": (LABELS, lambda w: combine(LABELS, 1, OTHER == 1, "difference", where=w)),
    "relabel": (LABELS, lambda w: relabel(LABELS, 1, 2, where=w)),
    "relabel part": (LABELS, lambda w: relabel_part(LABELS, (6, 6, 6), 2, where=w)),
    "plane": (
        LABELS,
        lambda w: split_by_plane(
            LABELS, GRID, 1, 2, point_mm=GRID.world((10.2, 10, 7)), normal_mm=(1, 0.4, 0.1), where=w
        ),
    ),
    "scribbles": (
        LABELS,
        lambda w: split_by_seeds(LABELS, GRID, 1, 2, stays=[(5, 10, 7)], leaves=[(16, 10, 7)], where=w),
    ),
}
every_tool = pytest.mark.parametrize("name", TOOLS)


def do(name: str, where: Where = ANYWHERE) -> tuple[np.ndarray, Change]:
    """Labels before and the change; no tool may write into what it is given."""
    before, tool = TOOLS[name]
    kept = before.copy()
    change = tool(where)
    assert np.array_equal(before, kept)
    return before, change


@every_tool
def test_every_voxel_of_a_change_changes_once_and_keeps_the_type(name: str) -> None:
    before, change = do(name)
    assert len(change) > 0
    assert change.what
    assert change.values.dtype == before.dtype
    assert all(places.dtype == np.intp for places in change.indices)
    assert np.all(before[change.indices] != change.values)
    assert len(set(zip(*(places.tolist() for places in change.indices), strict=True))) == len(change)
    after = change.applied_to(before)
    assert np.count_nonzero(after != before) == len(change)
    after[change.indices] = before[change.indices]
    assert np.array_equal(after, before)


@every_tool
def test_a_condition_leaves_exactly_what_it_allows(name: str) -> None:
    """The result with a mask and a range is that without, where both hold, and the old labels elsewhere."""
    before, free = do(name)
    mask = np.indices(SHAPE).sum(axis=0) % 3 > 0
    allowed = mask & (IMAGE >= 5) & (IMAGE <= 180)
    _, change = do(name, Where(mask=mask, intensities=IMAGE, lowest=5, highest=180))
    assert np.array_equal(change.applied_to(before), np.where(allowed, free.applied_to(before), before))


@every_tool
@pytest.mark.parametrize("locked", [(3,), (3, 4)])
def test_locked_labels_neither_lose_nor_gain(name: str, locked: tuple[int, ...]) -> None:
    before, change = do(name, Where(locked=locked))
    after = change.applied_to(before)
    for label in locked:
        assert np.array_equal(after == label, before == label)
    # All that does not touch the locked labels happens as without the lock.
    unlocked = do(name)[1].applied_to(before)
    concerned = np.isin(before, locked) | np.isin(unlocked, locked)
    assert np.array_equal(after[~concerned], unlocked[~concerned])


@every_tool
@pytest.mark.parametrize("inside", [(0,), (1,), (0, 4)])
def test_painting_inside_labels_leaves_the_others(name: str, inside: tuple[int, ...]) -> None:
    before, change = do(name, Where(inside=inside))
    assert np.isin(before[change.indices], inside).all()


@every_tool
def test_the_memory_order_of_the_labels_makes_no_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, change = do(name)
    for array in ("LABELS", "OTHER", "GAPPED"):
        # As a viewer gives them: turned, not contiguous, and the file's own order underneath.
        flipped = np.asfortranarray(globals()[array][::-1])[::-1]
        monkeypatch.setitem(globals(), array, flipped)
    assert np.array_equal(TOOLS[name][1](ANYWHERE).applied_to(before), change.applied_to(before))


@every_tool
def test_a_mask_of_another_grid_is_refused(name: str) -> None:
    with pytest.raises(GeometryError, match="shape"):
        do(name, Where(mask=np.ones((3, 4, 5), np.bool_)))


@pytest.mark.parametrize("name", ["ball", "smooth", "grow", "shrink", "keep largest", "fill holes", "union", "relabel"])
def test_a_locked_label_cannot_be_the_active_one(name: str) -> None:
    with pytest.raises(LabelError, match="locked"):
        do(name, Where(locked=(1, 2)))


REPEATED: dict[str, Callable[[np.ndarray], Change]] = {
    "ball": lambda a: brush(a, GRID, 2, [(6, 6, 6)], radius_mm=3),
    "between": lambda a: fill_between(a, GRID, (1, 2), axis=2, slices=(3, 11)),
    "fill holes": lambda a: fill_holes(a, 1),
    "fill holes in slices": lambda a: fill_holes(a, 1, axis=0),
    "keep largest": lambda a: keep_largest(a, 1),
    "remove smaller": lambda a: remove_smaller(a, GRID, 1, smallest_ml=0.02),
    "take": lambda a: take(a, OTHER, np.nonzero(a != OTHER)),
    "union": lambda a: combine(a, 1, OTHER == 1, "union"),
    "difference": lambda a: combine(a, 1, OTHER == 1, "difference"),
    "relabel": lambda a: relabel(a, 1, 2),
}


@pytest.mark.parametrize("name", REPEATED)
def test_doing_it_twice_is_doing_it_once(name: str) -> None:
    once = REPEATED[name](LABELS).applied_to(LABELS)
    assert len(REPEATED[name](once)) == 0


@pytest.mark.parametrize("name", ["fill holes", "keep largest", "relabel", "union"])
def test_a_label_without_voxels_changes_nothing(name: str) -> None:
    empty = np.zeros(SHAPE, np.uint8)
    calls = {**REPEATED, "union": lambda a: combine(a, 1, a == 3, "union")}
    assert len(calls[name](empty)) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: brush(LABELS, GRID, 300, [(1, 1, 1)], radius_mm=1), "does not fit"),
        (lambda: brush(LABELS, GRID, 1, [(1, 1, 1)], radius_mm=-1), "radius above 0"),
        (lambda: brush(LABELS, GRID, 1, [(1, 1)], radius_mm=1), "points along X, Y, Z"),
        (lambda: brush(LABELS, GRID, 1, [(1, 1, 1), (1, 1, 4)], radius_mm=1, axis=2), "one slice"),
        (lambda: brush(LABELS.astype(float), GRID, 1, [(1, 1, 1)], radius_mm=1), "integers"),
        (lambda: polygon(LABELS, 1, [(1, 1), (2, 2)], axis=2, first=1), "three corners"),
        (lambda: polygon(LABELS, 1, [(1, 1), (2, 2), (3, 1)], axis=2, first=15), "slices from 0 to 14"),
        (lambda: fill_between(LABELS, GRID, (1,), axis=3), "axis 0, 1 or 2"),
        (lambda: fill_between(LABELS, GRID, (), axis=1), "at least one label"),
        (lambda: smooth(LABELS, GRID, 1, kernel_mm=1), "second voxel"),
        (lambda: grow(LABELS, GRID, 0, margin_mm=1), "background"),
        (lambda: shrink(LABELS, GRID, 1, margin_mm=float("nan")), "margin above 0"),
        (lambda: remove_smaller(LABELS, GRID, 1, smallest_ml=0), "above 0 ml"),
        (lambda: keep_island(LABELS, (0, 0, 0)), "only background"),
        (lambda: remove_island(LABELS, (99, 0, 0)), "outside the image"),
        (lambda: keep_largest(LABELS, 1, touching="edges"), "faces"),
        (lambda: grow_from_seeds(LABELS, GRID, SEEDS, []), "at least one image"),
        (lambda: grow_from_seeds(LABELS, GRID, np.where(SEEDS == 1, SEEDS, 0), [IMAGE]), "two kinds"),
        (lambda: take(LABELS, OTHER[1:], np.nonzero(LABELS)), "shape"),
        (lambda: combine(LABELS, 1, OTHER == 1, "xor"), "union, intersection, difference"),
        (lambda: split_by_plane(LABELS, GRID, 1, 2, point_mm=(0, 0, 0), normal_mm=(0, 0, 0)), "direction"),
        (lambda: split_by_seeds(LABELS, GRID, 1, 2, stays=[(0, 0, 0)], leaves=[(5, 10, 7)]), "two scribbles"),
        (lambda: Where(lowest=3, highest=2, intensities=IMAGE), "low to high"),
        (lambda: Where(lowest=3), "image"),
    ],
)
def test_nonsense_is_refused_in_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(Seg3dError, match=words):
        call()
