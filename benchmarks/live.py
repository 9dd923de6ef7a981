"""What a corrector sees after each stroke: scores, difference, profile and list of disagreements, and when.

Promises, on 240 x 240 x 155 voxels of uint8 with 4 labels: after a stroke all is up to date within 50 ms (95th
percentile); the list of a case is made in 0.3 s; the surface distances of all labels take 0.5 s and equal those from
scipy's distance transform to 1e-6 mm. The predictions are the truth bent at random, as a network's is, and an empty
map, where the whole tumour is one disagreement. The truth is made up, or given as a label file.

    python benchmarks/live.py [TRUTH.nii.gz]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, zoom

from napari_seg3d.comparison.difference import difference_map, disagreements, slice_profile
from napari_seg3d.comparison.live import LiveComparison
from napari_seg3d.comparison.overlap import overlap
from napari_seg3d.comparison.surface import boundary, surface_distances
from napari_seg3d.volumes.files import read_label_map
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

SHAPE = (240, 240, 155)
STROKE_MS, LIST_S, SURFACE_S, EQUAL_MM = 50.0, 0.3, 0.5, 1e-6


def main() -> int:
    """Measure; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, nargs="?", help="a label file; default: made up")
    parser.add_argument("--strokes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    choices = parser.parse_args()
    print(describe())
    rng = np.random.default_rng(choices.seed)
    truth = made_up(rng) if choices.truth is None else read_label_map(choices.truth)
    kept = True
    for name, data in (("bent truth", bent(truth.data, rng)), ("empty", np.zeros_like(truth.data))):
        predicted = truth.with_data(data)
        kept &= lists(name, predicted, truth)
        kept &= strokes(name, predicted, truth, choices.strokes, rng)
        if data.any():
            kept &= surfaces(predicted, truth)
    return int(not kept)


def made_up(rng: np.random.Generator) -> LabelMap:
    """A tumour of four nested, ragged labels."""
    grid = np.indices(SHAPE, dtype=np.float32)
    distance = np.sqrt(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, (150, 120, 80), (38, 48, 32), strict=True)))
    distance += 3.0 * gaussian_filter(rng.normal(size=SHAPE).astype(np.float32), 4)
    labels = np.zeros(SHAPE, np.uint8, order="F")
    for value, limit in enumerate((1.0, 0.7, 0.5, 0.3), 1):
        labels[distance < limit] = value
    return LabelMap(labels, Geometry.with_spacing(SHAPE))


def bent(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The labels moved by a rough random field of some voxels."""
    coarse = (12, 12, 8)
    factors = [size / few for size, few in zip(labels.shape, coarse, strict=True)]
    places = [
        g + zoom(rng.normal(0, 3, coarse), factors, order=1)
        for g in np.meshgrid(*(np.arange(size, dtype=np.float32) for size in labels.shape), indexing="ij")
    ]
    return np.asfortranarray(map_coordinates(labels, places, order=0))


def timed(function: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The median of some runs in seconds, and what came out."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)), result


def told(kept: bool, words: str) -> bool:
    """Print a line with its verdict."""
    print(f"{'yes' if kept else 'NO '} {words}", flush=True)
    return kept


def lists(name: str, predicted: LabelMap, truth: LabelMap) -> bool:
    """Build everything, and the list alone."""
    build_s, live = timed(lambda: LiveComparison(predicted, truth))
    list_s, places = timed(lambda: disagreements(difference_map(predicted.data, truth.data), truth.geometry))
    words = f"{name}: {len(places)} disagreements listed in {list_s:.3f} s, all built for following in {build_s:.3f} s"
    return told(list_s <= LIST_S and len(live.disagreements()) == len(places), words)


def strokes(name: str, predicted: LabelMap, truth: LabelMap, count: int, rng: np.random.Generator) -> bool:
    """Strokes of a disc and a ball of 10 voxels' radius at random places of the tumour."""
    edited = predicted.data.copy(order="K")
    live = LiveComparison(predicted, truth)
    offsets = np.argwhere(np.ones((21, 21, 21), bool)) - 10
    ball = offsets[(offsets**2).sum(axis=1) <= 100]
    disc = ball[ball[:, 2] == 0]
    inside = np.argwhere(truth.data > 0)
    wall_ms, processor_ms = [], []
    for number in range(count):
        voxels = np.clip((disc if number % 2 else ball) + rng.choice(inside), 0, np.asarray(edited.shape) - 1)
        indices = tuple(np.unique(voxels, axis=0).T)
        new = np.uint8(rng.integers(0, 5))
        old = edited[indices]
        edited[indices] = new
        begin, begin_processor = time.perf_counter(), time.process_time()
        live.changed(indices, old, new)
        live.scores()
        live.disagreements()
        for axis in range(3):
            live.profile(axis)
        processor_ms.append(1000 * (time.process_time() - begin_processor))
        wall_ms.append(1000 * (time.perf_counter() - begin))
    check(live, edited, truth)
    follow_s, _ = timed(lambda: live.follow(edited))
    p95 = float(np.percentile(wall_ms, 95))
    words = (
        f"{name}: stroke to scores, difference, profile and list: median {np.median(wall_ms):.1f}, p95 {p95:.1f}, "
        f"worst {max(wall_ms):.1f} ms (processor: median {np.median(processor_ms):.1f}, p95 "
        f"{np.percentile(processor_ms, 95):.1f} ms); looking for an edit everywhere {1000 * follow_s:.1f} ms"
    )
    return told(p95 <= STROKE_MS, words)


def check(live: LiveComparison, edited: NDArray[np.uint8], truth: LabelMap) -> None:
    """Compare with a full comparison."""
    difference = difference_map(edited, truth.data)
    same = np.array_equal(live.difference, difference)
    same &= all(np.array_equal(live.profile(axis), slice_profile(difference, axis)) for axis in range(3))
    full = disagreements(difference, truth.geometry)
    same &= [place.centre_voxel for place in live.disagreements()] == [place.centre_voxel for place in full]
    for score in live.scores():
        same &= score.dice == overlap(edited, truth.data, (score.values[0],))[0].dice
    if not same:
        raise RuntimeError("The live comparison differs from a full one.")


def surfaces(predicted: LabelMap, truth: LabelMap) -> bool:
    """All labels, beside scipy's distance transform."""
    values = [value for value in range(1, 5) if np.any(truth.data == value)]
    spacing = truth.geometry.spacing_mm

    def measure() -> list[Any]:
        return [surface_distances(predicted.data == value, truth.data == value, spacing) for value in values]

    begin_processor = time.process_time()
    seconds, scores = timed(measure)
    processor_s = (time.process_time() - begin_processor) / 3
    apart = 0.0
    for value, score in zip(values, scores, strict=True):
        ours, theirs = boundary(predicted.data == value), boundary(truth.data == value)
        forth = distance_transform_edt(~theirs, sampling=spacing)[ours]
        back = distance_transform_edt(~ours, sampling=spacing)[theirs]
        both = np.concatenate([forth, back])
        hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
        for one, other in ((score.hd_mm, both.max()), (score.hd95_mm, hd95), (score.mean_mm, both.mean())):
            apart = max(apart, abs(one - other))
    words = (
        f"surface distances of {len(values)} labels in {seconds:.3f} s (processor {processor_s:.3f} s); "
        f"from the distance transform's {apart:.1e} mm"
    )
    return told(seconds <= SURFACE_S and apart <= EQUAL_MM, words)


if __name__ == "__main__":
    sys.exit(main())
