"""What came of learning from corrections, and which cases it is judged by; without torch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cases.case import Case, CaseFiles
from ..comparison.tables import columns
from ..errors import DatasetError
from .run import RunFacts

#: One of so many checked cases is held out, and at most as many as this: enough to judge by.
HELD_OUT_SHARE, MOST_HELD_OUT = 5, 10
#: Fewer checked cases leave too little to learn from or to judge by.
FEWEST_CASES = 3
#: Dice that differ by less are equal.
_EQUAL = 0.0005

#: Dice by label name, by case id.
ByCase = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Lesson:
    """What came of learning from corrections.

    Parameters
    ----------
    run : Path, optional
        The run folder of the better model; None if it was not better and is gone.
    learned : tuple of str
        The checked cases that it learned from.
    before, after : mapping of str to mapping of str to float
        Dice of the old and the new model, by held-out case and label.
    """

    run: Path | None
    learned: tuple[str, ...]
    before: ByCase
    after: ByCase

    @property
    def mean_before(self) -> float:
        """Mean Dice of the old model over labels and held-out cases."""
        return mean_dice(self.before)

    @property
    def mean_after(self) -> float:
        """Mean Dice of the new model over labels and held-out cases."""
        return mean_dice(self.after)

    def counts(self) -> tuple[int, int]:
        """Return in how many held-out cases the mean Dice is better, and in how many worse."""
        words = [
            change_in_words(mean_dice({"": self.before[case_id]}), mean_dice({"": dice}))
            for case_id, dice in self.after.items()
        ]
        return words.count("better"), words.count("worse")

    def summary(self) -> str:
        """Say in one sentence whether the new model is kept, and why."""
        better, worse = self.counts()
        cases = f"{len(self.after)} held-out case{'s' * (len(self.after) != 1)}"
        change = f"mean Dice {self.mean_before:.3f} → {self.mean_after:.3f} on {cases} ({better} better, {worse} worse)"
        if self.run is None:
            return f"The new model is not better: {change}. The old one stays."
        return f"The new model is better: {change}."

    def rows(self) -> list[tuple[str, str, float, float]]:
        """Return held-out case, label, Dice before and Dice after, for each of them."""
        return [
            (case_id, label, self.before[case_id][label], now)
            for case_id, dice in self.after.items()
            for label, now in dice.items()
        ]

    def as_lines(self) -> list[str]:
        """Return the table: for each held-out case and label the Dice before, after, and the change."""
        rows = [
            (case_id, label, f"{was:.3f}", f"{now:.3f}", f"{now - was:+.3f}", change_in_words(was, now))
            for case_id, label, was, now in self.rows()
        ]
        return columns(("case", "label", "before", "after", "change", ""), rows).splitlines()

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        better, worse = self.counts()
        return {
            "kept": self.run is not None,
            "learned": list(self.learned),
            "mean_before": self.mean_before,
            "mean_after": self.mean_after,
            "better": better,
            "worse": worse,
            "before": {case_id: dict(dice) for case_id, dice in self.before.items()},
            "after": {case_id: dict(dice) for case_id, dice in self.after.items()},
        }


def change_in_words(before: float, after: float) -> str:
    """Return "better", "worse" or "as before" for two Dice."""
    change = after - before
    return "better" if change > _EQUAL else "worse" if change < -_EQUAL else "as before"


def choose_held_out(cases: Sequence[Case | CaseFiles], learned: RunFacts | None) -> tuple[str, ...]:
    """Choose the checked cases to judge by: none that the model has learned from, the same ones in every round.

    Parameters
    ----------
    cases : sequence of Case or CaseFiles
        The checked ones. Cases of one patient stay together.
    learned : RunFacts, optional
        Of the current model; None if nothing is known about it.

    Raises
    ------
    DatasetError
        If the model has learned from all of them.
    """
    seen = set() if learned is None else {*learned.train_ids, *learned.older_ids, *learned.earlier_ids}
    before = set() if learned is None else set(learned.validation_ids)
    groups: dict[str, list[str]] = {}
    for case in cases:
        files = case.files if isinstance(case, Case) else case
        groups.setdefault((files.patient if files is not None else "") or case.id, []).append(case.id)
    unseen = {name: ids for name, ids in groups.items() if not seen & set(ids)}
    if not unseen:
        raise DatasetError(
            "The model has learned from all checked cases, so none can tell whether a new one is better. Check a case "
            "that it has not learned from."
        )
    wanted = min(MOST_HELD_OUT, max(1, round(len(cases) / HELD_OUT_SHARE)))
    # By a number that belongs to the name, so that a case is not chosen for being easy, checked first, or last.
    order = sorted(unseen, key=lambda name: (not before & set(unseen[name]), zlib.crc32(name.encode()), name))
    chosen: list[str] = []
    for name in order:
        if len(chosen) < wanted and len(chosen) + len(unseen[name]) < len(cases):
            chosen += unseen[name]
    return tuple(chosen)


def mean_dice(scores: ByCase) -> float:
    """Return the mean over cases of the mean over labels."""
    return float(np.mean([float(np.mean(list(dice.values()))) for dice in scores.values()]))
