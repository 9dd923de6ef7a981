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
#: So often a patch is drawn that shall hold a share of the labels.
TRIES = 20


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

    With ``plan.least_label_share`` a patch is drawn again until it holds that share of the labelled voxels of its case;
    after `TRIES` the fullest of them is taken, for a share may be out of reach.
    """
    case = _draw_case(pool, plan, step, place)
    rng = np.random.default_rng((plan.seed, STREAM_PATCH, step, place))
    stored = pool[case]
    wanted = plan.least_label_share
    if not wanted or not stored.places:
        return Cut(case, _draw_centre(stored, plan, rng))
    best, most = (0, 0, 0), -1.0
    for _ in range(TRIES):
        centre = _draw_centre(stored, plan, rng)
        share = _label_share(stored, plan, centre)
        if share > most:
            best, most = centre, share
        if most >= wanted:
            break
    return Cut(case, best)


def _draw_centre(stored: StoredCase, plan: Plan, rng: np.random.Generator) -> tuple[int, int, int]:
    shape = np.array(stored.shape)
    places = stored.known
    if stored.places and rng.random() < plan.foreground_fraction:
        places = stored.places[rng.integers(len(stored.places))]
    centre = rng.integers(shape) if places is None or not len(places) else places[rng.integers(len(places))].astype(int)
    # Keep the patch inside the volume; where the volume is smaller, put it in the middle.
    patch = np.array(plan.patch_voxels)
    low, high = patch // 2, shape - (patch - patch // 2)
    centre = np.where(shape <= patch, shape // 2, np.clip(centre, low, np.maximum(low, high)))
    return int(centre[0]), int(centre[1]), int(centre[2])


def _label_share(stored: StoredCase, plan: Plan, centre: tuple[int, int, int]) -> float:
    """Return the share of the remembered labelled voxels that a patch holds; exact for cases that are small."""
    patch = np.array(plan.patch_voxels)
    low = np.array(centre) - patch // 2
    places = np.concatenate(stored.places)
    return float(((places >= low) & (places < low + patch)).all(1).mean())


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
