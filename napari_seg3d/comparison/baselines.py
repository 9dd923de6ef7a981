"""What one gets without learning anything: the numbers to show beside every model.

A Dice of 0.9 says little where a threshold gives 0.88, and nothing where most cases are empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cases.case import Case
from ..cases.labels import Region
from ..errors import DatasetError
from .overlap import dice

#: Quantiles of a modality, and again of its labelled voxels, that are tried as lower and upper threshold.
STEPS = 200


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
    if case.truth is None:
        raise DatasetError(f"Case {case.id} has no truth, so there is nothing to compare with.")
    truth = case.truth.data
    table = case.truth.table.covering(np.unique(truth).tolist())
    if not len(table):
        raise DatasetError(f"The truth of case {case.id} has no label, so there is nothing to compare with.")
    inside = [truth == label.value for label in table] + [np.isin(truth, region.values) for region in regions]
    names = ([label.name for label in table], [region.name for region in regions])
    nothing = [_Attempt(float(not mask.any()), "background") for mask in inside]
    return (
        _baseline("all background", nothing, *names),
        _baseline("best threshold", _best_thresholds(case, truth != 0, inside, nothing), *names),
    )


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
    case: Case, labelled: NDArray[np.bool_], inside: Sequence[NDArray[np.bool_]], nothing: Sequence[_Attempt]
) -> list[_Attempt]:
    best = list(nothing)
    for modality, volume in case.modalities.items():
        limits = _limits(volume.data, labelled)
        bins = np.searchsorted(limits, volume.data.ravel(), side="right")
        for i, mask in enumerate(inside):
            score, low, high = _best_band(bins, mask.ravel(), len(limits) + 1)
            if score > best[i].dice:
                best[i] = _Attempt(score, _band_in_words(modality, limits, low, high))
    return best


def _limits(data: NDArray[Any], labelled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Candidate limits, ascending; the commonest intensity is left out, for it is the constant background."""
    values, counts = np.unique(data, return_counts=True)
    inside = data[data != values[counts.argmax()]]
    if not inside.size:
        return values[:1].astype(np.float64)
    steps = np.linspace(0, 1, STEPS + 1)
    # Quantiles of everything are too coarse where the labels are a thousandth of the study.
    return np.unique([np.quantile(part, steps) for part in (inside, data[labelled]) if part.size]).astype(np.float64)


def _best_band(bins: NDArray[np.intp], inside: NDArray[np.bool_], count: int) -> tuple[float, int, int]:
    """Best Dice of "bin from `low` up to, not including, `high`", with both."""
    everything = np.concatenate([[0], np.bincount(bins, minlength=count).cumsum()])
    hits = np.concatenate([[0], np.bincount(bins[inside], minlength=count).cumsum()])
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
