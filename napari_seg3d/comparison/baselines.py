"""What one gets without learning anything: the numbers to show beside every model.

A Dice of 0.9 says little where a threshold gives 0.88, and nothing where most cases are empty.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cases.case import Case
from ..cases.labels import Region
from ..errors import DatasetError
from ..volumes.volume import distinct_values
from .overlap import dice

#: Quantiles of a modality, and again of its labelled voxels, that are tried as lower and upper threshold.
STEPS = 200
ALL_BACKGROUND, BEST_THRESHOLD = "all background", "best threshold"
#: What the two are; stated beside them.
BASELINE_DEFINITION = (
    "Without learning anything: background is the Dice of labelling nothing at all; threshold that of the best single "
    "range of intensities of one modality, chosen for each case and structure with the truth in hand."
)


@dataclass(frozen=True)
class Baseline:
    """Dice of a method that learns nothing, by name of label and of region; `how` says for each label what it does."""

    name: str
    dice: Mapping[str, float]
    how: Mapping[str, str]
    region_dice: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean_dice(self) -> float:
        """Mean over the labels."""
        return fmean(self.dice.values())


def baselines(case: Case, regions: Sequence[Region] = ()) -> tuple[Baseline, Baseline]:
    """All background, and the best threshold.

    The threshold is the best that intensity alone can do: for each label and region the modality and the lower and
    upper limit are chosen with the truth of this very case, so it is a bound that no honest thresholding reaches.

    Raises
    ------
    DatasetError
        If the case has no truth, or no label.
    """
    search = search_baselines(case, regions)
    try:
        while True:
            next(search)
    except StopIteration as end:
        found: tuple[Baseline, Baseline] = end.value
        return found


def search_baselines(case: Case, regions: Sequence[Region] = ()) -> Generator[str, None, tuple[Baseline, Baseline]]:
    """As `baselines`, in parts: yields the name of each modality before it is searched, and returns the result."""
    if case.truth is None:
        raise DatasetError(f"Case {case.id} has no truth, so there is nothing to compare with.")
    truth = case.truth.data
    table = case.truth.table.covering(distinct_values(truth).tolist())
    if not len(table):
        raise DatasetError(f"The truth of case {case.id} has no label, so there is nothing to compare with.")
    inside = [truth == label.value for label in table] + [np.isin(truth, region.values) for region in regions]
    names = ([label.name for label in table], [region.name for region in regions])
    nothing = [_Attempt(float(not mask.any()), "background") for mask in inside]
    best = list(nothing)
    for modality, volume in case.modalities.items():
        yield modality
        best = _best_thresholds(modality, volume.data, truth != 0, inside, best)
    return _baseline(ALL_BACKGROUND, nothing, *names), _baseline(BEST_THRESHOLD, best, *names)


def mean_baseline(parts: Sequence[Baseline]) -> Baseline:
    """Mean of one baseline over cases, for each label and region over the cases that know it.

    Raises
    ------
    DatasetError
        If there is no case.
    """
    if not parts:
        raise DatasetError("There is no case whose baselines could be averaged.")
    return Baseline(
        parts[0].name, _means([part.dice for part in parts]), {}, _means([part.region_dice for part in parts])
    )


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: fmean(part[name] for part in parts if name in part) for name in names}


class _Attempt(NamedTuple):
    dice: float
    how: str


def _baseline(name: str, attempts: Sequence[_Attempt], labels: Sequence[str], regions: Sequence[str]) -> Baseline:
    of_labels = dict(zip(labels, attempts, strict=False))
    of_regions = dict(zip(regions, attempts[len(labels) :], strict=True))
    return Baseline(
        name,
        dice={label: attempt.dice for label, attempt in of_labels.items()},
        how={label: attempt.how for label, attempt in of_labels.items()},
        region_dice={region: attempt.dice for region, attempt in of_regions.items()},
    )


def _best_thresholds(
    modality: str,
    data: NDArray[Any],
    labelled: NDArray[np.bool_],
    inside: Sequence[NDArray[np.bool_]],
    so_far: Sequence[_Attempt],
) -> list[_Attempt]:
    """Return for each mask the better of what is known and the best band of this modality."""
    values, counts = np.unique(data, return_counts=True)
    commonest = values[counts.argmax()]
    varied = data != commonest
    limits = _limits(data, varied, labelled, commonest)
    # Most voxels are the constant background and share a bin: only the others need be sorted into theirs.
    bins = np.searchsorted(limits, data[varied], side="right")
    background = int(np.searchsorted(limits, commonest, side="right"))
    everything = np.bincount(bins, minlength=len(limits) + 1)
    everything[background] += data.size - bins.size
    best = list(so_far)
    for i, mask in enumerate(inside):
        hits = np.bincount(bins[mask[varied]], minlength=len(limits) + 1)
        hits[background] += np.count_nonzero(mask) - hits.sum()
        score, low, high = _best_band(everything, hits)
        if score > best[i].dice:
            best[i] = _Attempt(score, _band_in_words(modality, limits, low, high))
    return best


def _limits(
    data: NDArray[Any], varied: NDArray[np.bool_], labelled: NDArray[np.bool_], commonest: Any
) -> NDArray[np.float64]:
    """Candidate limits, ascending; the commonest intensity is left out, for it is the constant background."""
    inside = data[varied]
    if not inside.size:
        return np.array([commonest], np.float64)
    steps = np.linspace(0, 1, STEPS + 1)
    # Quantiles of everything are too coarse where the labels are a thousandth of the study.
    return np.unique([np.quantile(part, steps) for part in (inside, data[labelled]) if part.size]).astype(np.float64)


def _best_band(everything: NDArray[np.intp], hits: NDArray[np.intp]) -> tuple[float, int, int]:
    """Best Dice of "bin from `low` up to, not including, `high`", with both; arguments are voxels by bin."""
    everything = np.concatenate([[0], everything.cumsum()])
    hits = np.concatenate([[0], hits.cumsum()])
    # [low, high]: voxels chosen, and those of them that are right, for all pairs of limits at once.
    chosen = everything[None, :] - everything[:, None]
    right = hits[None, :] - hits[:, None]
    scores = np.where(chosen > 0, 2 * right / np.maximum(chosen + hits[-1], 1), 0.0)
    low, high = np.unravel_index(int(scores.argmax()), scores.shape)
    right_here, chosen_here = int(right[low, high]), int(chosen[low, high])
    return dice(right_here, chosen_here - right_here, int(hits[-1]) - right_here), int(low), int(high)


def _band_in_words(modality: str, limits: NDArray[np.float64], low: int, high: int) -> str:
    lower = f"{limits[low - 1]:.4g} ≤ " if low > 0 else ""
    upper = f" < {limits[high - 1]:.4g}" if high <= len(limits) else ""
    return f"{lower}{modality}{upper}"
