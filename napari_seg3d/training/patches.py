"""Where training patches are cut: seeded and foreground-balanced.

Every draw is a function of (seed, step, place in the batch), so that a resumed training sees exactly the patches it
would have seen, and no random state needs saving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..cases.case import Case, CaseFiles
from ..errors import DatasetError
from ..model.plan import Plan
from .cache import StoredCase

#: First number of each stream of random draws, so that no two purposes share numbers.
STREAM_ORDER, STREAM_PATCH, STREAM_AUGMENT, STREAM_REHEARSAL = range(4)


@dataclass(frozen=True)
class Pool:
    """What is learned from: the cases of the training, and older ones that are mixed in so as not to be forgotten."""

    cases: Sequence[StoredCase]
    older: Sequence[StoredCase] = ()

    def __getitem__(self, number: int) -> StoredCase:
        return self.cases[number] if number < len(self.cases) else self.older[number - len(self.cases)]

    def __len__(self) -> int:
        return len(self.cases) + len(self.older)


@dataclass(frozen=True)
class Cut:
    """One patch: which case, and the voxel that its centre lies on."""

    case: int
    centre: tuple[int, int, int]


def draw_cut(pool: Pool, plan: Plan, step: int, place: int) -> Cut:
    """Draw one patch of a step.

    Every case comes up once before any comes up again. A share of the patches, ``plan.foreground_fraction``, is centred
    on a voxel of a class drawn evenly among those that the case has; the others lie anywhere, or anywhere in what is
    known of a truth that is known in parts. A share ``plan.rehearsal_fraction`` is cut from older cases, if there are.
    """
    case = _draw_case(pool, plan, step, place)
    rng = np.random.default_rng((plan.seed, STREAM_PATCH, step, place))
    stored = pool[case]
    shape = np.array(stored.shape)
    places = stored.known
    if stored.places and rng.random() < plan.foreground_fraction:
        places = stored.places[rng.integers(len(stored.places))]
    centre = rng.integers(shape) if places is None or not len(places) else places[rng.integers(len(places))].astype(int)
    # Keep the patch inside the volume; where the volume is smaller, put it in the middle.
    patch = np.array(plan.patch_voxels)
    low, high = patch // 2, shape - (patch - patch // 2)
    centre = np.where(shape <= patch, shape // 2, np.clip(centre, low, np.maximum(low, high)))
    return Cut(case, (int(centre[0]), int(centre[1]), int(centre[2])))


def _draw_case(pool: Pool, plan: Plan, step: int, place: int) -> int:
    if pool.older:
        rng = np.random.default_rng((plan.seed, STREAM_REHEARSAL, step, place))
        if rng.random() < plan.rehearsal_fraction:
            return len(pool.cases) + int(rng.integers(len(pool.older)))
    lap, position = divmod(step * plan.batch_size + place, len(pool.cases))
    return int(np.random.default_rng((plan.seed, STREAM_ORDER, lap)).permutation(len(pool.cases))[position])


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
