"""Where training patches are cut: seeded, foreground-balanced, in bounded memory.

Every draw is a function of (seed, step, place in the batch), so that a resumed training sees exactly the patches it
would have seen, and no random state needs saving.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..cases.case import Case, CaseFiles
from ..errors import DatasetError
from ..model.plan import Plan
from ..model.prepare import Grid, prepare

Scalar = TypeVar("Scalar", bound=np.generic)

#: Voxels remembered for each class of a case, from which patch centres are drawn.
PLACES_PER_CLASS = 5000
#: First number of each stream of random draws, so that no two purposes share numbers.
STREAM_ORDER, STREAM_PATCH, STREAM_AUGMENT, STREAM_PLACES = range(4)
#: float16 holds up to 65504; a z-score beyond this is a broken voxel.
_LARGEST = 6e4


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A prepared case on disk, read in parts.

    Parameters
    ----------
    image : (C, X, Y, Z) float16 memory map
    target : (X, Y, Z) uint8 memory map, optional
    places : one (n, 3) int16 ndarray for each class that occurs
        Voxels from which foreground patches are drawn.
    grid : Grid
        The way back to the case's own grid.
    """

    id: str
    image: NDArray[np.float16]
    target: NDArray[np.uint8] | None
    places: tuple[NDArray[np.int16], ...]
    grid: Grid
    source: Case | CaseFiles


class PreparedCases:
    """Prepared cases in a folder of their own, which is removed at the end.

    Each case is prepared once and mapped into memory, so that memory does not grow with the number of cases: the
    operating system keeps what is used and drops what is not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)  # left over from a training that was killed
        folder.mkdir(parents=True)

    def add(self, source: Case | CaseFiles, plan: Plan) -> StoredCase:
        """Read and prepare a case."""
        case = source.load()
        prepared = prepare(case, plan)
        number = len(list(self.folder.glob("*.image.npy")))
        image = self._mapped(f"{number}.image.npy", np.clip(prepared.image, -_LARGEST, _LARGEST).astype(np.float16))
        target = None if prepared.target is None else self._mapped(f"{number}.target.npy", prepared.target)
        rng = np.random.default_rng((plan.seed, STREAM_PLACES, number))
        # A case in memory is kept as it is; of a case on disk only its files are remembered.
        return StoredCase(case.id, image, target, _places(prepared.target, rng), prepared.grid, source)

    def _mapped(self, name: str, array: NDArray[Scalar]) -> NDArray[Scalar]:
        path = self.folder / name
        np.save(path, array, allow_pickle=False)
        mapped: NDArray[Scalar] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped

    def remove(self) -> None:
        """Delete the folder. The arrays of its cases must no longer be used."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Cut:
    """One patch: which case, and the voxel that its centre lies on."""

    case: int
    centre: tuple[int, int, int]


def draw_cut(cases: Sequence[StoredCase], plan: Plan, step: int, place: int) -> Cut:
    """Draw one patch of a step.

    Every case comes up once before any comes up again. A share of the patches, ``plan.foreground_fraction``, is centred
    on a voxel of a class drawn evenly among those that the case has; the others lie anywhere.
    """
    number = step * plan.batch_size + place
    lap, position = divmod(number, len(cases))
    case = int(np.random.default_rng((plan.seed, STREAM_ORDER, lap)).permutation(len(cases))[position])
    rng = np.random.default_rng((plan.seed, STREAM_PATCH, step, place))
    stored = cases[case]
    shape = np.array(stored.image.shape[1:])
    if stored.places and rng.random() < plan.foreground_fraction:
        places = stored.places[rng.integers(len(stored.places))]
        centre = places[rng.integers(len(places))].astype(int)
    else:
        centre = rng.integers(shape)
    # Keep the patch inside the volume; where the volume is smaller, put it in the middle.
    patch = np.array(plan.patch_voxels)
    low, high = patch // 2, shape - (patch - patch // 2)
    centre = np.where(shape <= patch, shape // 2, np.clip(centre, low, np.maximum(low, high)))
    return Cut(case, (int(centre[0]), int(centre[1]), int(centre[2])))


def cut_out(array: NDArray[Scalar], corner: Sequence[int], size: Sequence[int]) -> NDArray[Scalar]:
    """Copy a box out of the last three axes of an array; what lies outside is 0."""
    out = np.zeros((*array.shape[:-3], *size), array.dtype)
    here: list[slice] = []
    there: list[slice] = []
    for first, length, whole in zip(corner, size, array.shape[-3:], strict=True):
        start, stop = max(0, first), min(whole, first + length)
        here.append(slice(start, max(start, stop)))
        there.append(slice(start - first, max(start, stop) - first))
    out[..., there[0], there[1], there[2]] = array[..., here[0], here[1], here[2]]
    return out


def labelled(cases: Sequence[Case | CaseFiles]) -> Iterator[Case | CaseFiles]:
    """Yield the cases that have a truth.

    Raises
    ------
    DatasetError
        If none has.
    """
    found = [c for c in cases if (c.truth if isinstance(c, Case) else c.best_truth) is not None]
    if not found:
        raise DatasetError("None of the cases has a truth to learn from. Choose a dataset with label files.")
    yield from found


def _places(target: NDArray[np.uint8] | None, rng: np.random.Generator) -> tuple[NDArray[np.int16], ...]:
    if target is None:
        return ()
    places = []
    for index in range(1, int(target.max()) + 1):
        flat = np.flatnonzero(target == index)
        if flat.size:
            chosen = flat if flat.size <= PLACES_PER_CLASS else rng.choice(flat, PLACES_PER_CLASS, replace=False)
            places.append(np.stack(np.unravel_index(chosen, target.shape), axis=1).astype(np.int16))
    return tuple(places)
