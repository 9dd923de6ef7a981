"""How long each tool of the correction bench takes on a map of BraTS' size.

Promise: every tool answers within 500 ms on a 240 × 240 × 155 map of type uint8 with four labels, growing from seeds
within 1000 ms in a box of 128³ voxels. The map is made up (a lumpy tumour of four nested labels with islands and holes)
or that of a BraTS 2013 case; it lies in memory as a file gives it (first axis fastest). What counts is
the processor time of the fastest of three calls: every tool works on one core, so on a quiet machine this is also the
time that a user waits, and other work does not change it.

    python benchmarks/tools.py [DATA]        DATA: the folder that holds BraTS2013
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, use_cores
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.comparison.difference import difference_map, disagreements
from napari_seg3d.correction.between import fill_between
from napari_seg3d.correction.brushes import brush, polygon, threshold_brush
from napari_seg3d.correction.change import Change
from napari_seg3d.correction.combine import combine, copy_part, relabel, relabel_part, take
from napari_seg3d.correction.islands import fill_holes, keep_island, keep_largest, remove_island, remove_smaller
from napari_seg3d.correction.seeds import grow_from_seeds
from napari_seg3d.correction.shape import grow, shrink, smooth
from napari_seg3d.correction.split import split_by_plane, split_by_seeds
from napari_seg3d.volumes.geometry import Geometry

SHAPE = (240, 240, 155)
BUDGET_MS = 500
SEEDS_BUDGET_MS = 1000
BACKGROUND_SEED = 200


def made_up() -> tuple[NDArray[np.uint8], Geometry, list[NDArray[np.float32]]]:
    """Labels (X, Y, Z) with rough borders, islands and holes, and two noisy images of them."""
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    radius = np.sqrt((x - 100) ** 2 + (y - 130) ** 2 + (z - 75) ** 2.0)
    radius += 60 * gaussian_filter(rng.standard_normal(SHAPE), 4)
    labels = np.zeros(SHAPE, np.uint8)
    for value, limit in ((2, 42), (3, 28), (4, 22), (1, 14)):
        labels[radius < limit] = value
    noise = gaussian_filter(rng.standard_normal(SHAPE), 1.5) * 6
    labels[(noise > 1.3) & (radius < 55)] = 2
    labels[(noise < -1.3) & (radius < 42)] = 0
    images = [
        np.asarray(80 * (labels > 0) + 60 * (labels == value) + 20 * rng.standard_normal(SHAPE), np.float32, order="F")
        for value in (2, 4)
    ]
    return np.asfortranarray(labels), Geometry(SHAPE, np.diag([-1.0, -1, 1, 1])), images


def real(data: Path) -> tuple[NDArray[np.uint8], Geometry, list[NDArray[np.float32]]]:
    """Truth and images of the first BraTS 2013 case."""
    case = open_dataset(data / "BraTS2013").cases[0].load()
    if case.truth is None:
        raise SystemExit(f"{case.id} has no truth")
    return case.truth.data.astype(np.uint8), case.geometry, [image.data for image in case.modalities.values()]


def scribbles(labels: NDArray[np.uint8], box: tuple[slice, ...]) -> NDArray[np.uint8]:
    """A few voxels well inside each label, in five slices of a box; a frame of background around."""
    seeds = np.zeros_like(labels)
    inner = seeds[box]
    for value in (1, 2, 3, 4):
        core = binary_erosion(labels[box] == value, iterations=2)
        for slice_ in np.unique(np.linspace(20, 108, 5).astype(int)):
            places = np.argwhere(core[..., slice_])[::9]
            inner[places[:, 0], places[:, 1], slice_] = value
    inner[4:-4:3, 4, 20:108:20] = inner[4:-4:3, -4, 20:108:20] = BACKGROUND_SEED
    return seeds


def tools(
    labels: NDArray[np.uint8], geometry: Geometry, images: list[NDArray[np.float32]]
) -> Iterator[tuple[str, Callable[[], Change], int]]:
    """Name, call and budget in ms of every tool, on the largest label where it works on one."""
    value = 1 + int(np.argmax(np.bincount(labels.ravel(order="K"), minlength=5)[1:5]))
    points = np.argwhere(labels == value)
    middle = points[len(points) // 2]
    centre = np.clip(np.argwhere(labels > 0).mean(axis=0).astype(int), 64, np.array(SHAPE) - 64)
    box = tuple(slice(int(c) - 64, int(c) + 64) for c in centre)
    seeds = scribbles(labels, box)
    other = np.roll(labels, 2, axis=0)
    largest = disagreements(difference_map(labels, other), geometry)[0]
    stroke = middle + np.array([(0, 0, 0), (12, 5, 0), (20, -8, 3)])
    circle = np.stack([middle[0] + 40 * np.cos(a := np.linspace(0, 6.2, 90)), middle[1] + 40 * np.sin(a)], axis=1)
    every_fifth = np.where(np.arange(SHAPE[2]) % 5 == 0, labels, 0).astype(np.uint8)
    low, high = np.quantile(images[0][labels == value], (0.1, 0.9))
    ends = {"stays": points[: len(points) // 8 : 50], "leaves": points[-(len(points) // 8) :: 50]}
    g = geometry
    calls: dict[str, Callable[[], Change]] = {
        "ball, radius 10 mm": lambda: brush(labels, g, value, stroke, radius_mm=10),
        "disc, radius 10 mm": lambda: brush(labels, g, value, stroke * (1, 1, 0), radius_mm=10, axis=2),
        "threshold brush, radius 10 mm": lambda: threshold_brush(
            labels, g, value, stroke, images[0], lowest=low, highest=high, radius_mm=10
        ),
        "lasso": lambda: polygon(labels, value, circle, axis=2, first=int(middle[2])),
        "fill between slices, every 5th, 4 labels": lambda: fill_between(every_fifth, g, (1, 2, 3, 4), axis=2),
        "smooth, 3 mm": lambda: smooth(labels, g, value, kernel_mm=3),
        "smooth, 5 mm": lambda: smooth(labels, g, value, kernel_mm=5),
        "smooth all labels, 3 mm": lambda: smooth(labels, g, kernel_mm=3),
        "smooth all labels, 5 mm": lambda: smooth(labels, g, kernel_mm=5),
        "keep the largest part": lambda: keep_largest(labels, value),
        "remove parts below 1 ml": lambda: remove_smaller(labels, g, value, smallest_ml=1),
        "keep the clicked part": lambda: keep_island(labels, middle),
        "remove the clicked part": lambda: remove_island(labels, middle),
        "fill holes": lambda: fill_holes(labels, value),
        "fill holes in slices": lambda: fill_holes(labels, value, axis=2),
        "grow by 2 mm": lambda: grow(labels, g, value, margin_mm=2),
        "grow by 10 mm": lambda: grow(labels, g, value, margin_mm=10),
        "shrink by 2 mm": lambda: shrink(labels, g, value, margin_mm=2),
        "shrink by 5 mm": lambda: shrink(labels, g, value, margin_mm=5),
        "take one disagreement": lambda: take(labels, other, largest.indices),
        "copy a part": lambda: copy_part(labels, other, middle + np.array((2, 0, 0))),
        "union with another layer": lambda: combine(labels, value, other == value, "union"),
        "intersection": lambda: combine(labels, value, other == value, "intersection"),
        "difference": lambda: combine(labels, value, other == value, "difference"),
        "relabel": lambda: relabel(labels, value, 7),
        "relabel a part": lambda: relabel_part(labels, middle, 7),
        "split by a plane": lambda: split_by_plane(
            labels, g, value, 7, point_mm=g.world(middle), normal_mm=(1, 0.5, 0.2)
        ),
        "split by scribbles": lambda: split_by_seeds(labels, g, value, 7, **ends),
    }
    yield from ((name, call, BUDGET_MS) for name, call in calls.items())
    yield (
        "grow from seeds, 128³, two images",
        lambda: grow_from_seeds(labels, g, seeds, images, background=BACKGROUND_SEED, box=(box[0], box[1], box[2])),
        SEEDS_BUDGET_MS,
    )


def measured(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of the fastest of three calls in ms, and what it returned."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        result = call()
        times.append(1000 * (time.process_time() - begin))
    return min(times), result


def main() -> int:
    """Print a table of times; 1 if a tool took too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path, nargs="?", help="folder that holds BraTS2013")
    arguments = parser.parse_args()
    use_cores(2)
    print(describe())
    late = 0
    studies: dict[str, Callable[[], Any]] = {"made up": made_up}
    if arguments.data:
        studies["BraTS 2013"] = lambda: real(arguments.data)
    for title, study in studies.items():
        labels, geometry, images = study()
        print(f"\n{title}: {np.bincount(labels.ravel(order='K')).tolist()} voxels of each label")
        print(f"{'tool':<42} {'ms':>6} {'voxels':>8}")
        for name, call, budget in tools(labels, geometry, images):
            took, change = measured(call)
            late += took > budget
            print(f"{name:<42} {took:6.0f} {len(change):8d}{'  too late' if took > budget else ''}", flush=True)
    print(f"\n{late} too late" if late else "\nall in time")
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
