"""The record of a cross-validation: how its cases are divided, and how each was judged by a model that did not see it.

::

    cross_validation.json     what stands here
    plan.json                 the plan of all folds
    fold1, fold2 …            ordinary run folders

Reading it needs no torch: the window and the tables start with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..cases.case import CaseFiles
from ..cases.dataset import fold_cases
from ..comparison.tables import OVERLAP_DEFINITION, columns
from ..errors import FileError
from ..volumes.atomic import write_text_whole
from .run import CROSS_VALIDATION, best_validation, read_history


@dataclass(frozen=True)
class JudgedCase:
    """Dice of one case by label, by the model of the fold (from 1) in which it was not learned from."""

    case_id: str
    fold: int
    dice: Mapping[str, float]

    @property
    def mean_dice(self) -> float:
        """Over the labels."""
        return float(np.mean(list(self.dice.values())))


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (of the sample; 0 for one) and number."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of numbers, at least one."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True)
class CrossValidation:
    """A cross-validation.

    Parameters
    ----------
    dataset : str
        Where the cases come from.
    seed : int
        By which they were divided.
    divided : tuple of tuple of str
        The ids of the cases that judge each fold.
    start : str, optional
        The model that every fold started from, as seen from the folder.
    test_ids : tuple of str
        Cases that are kept for testing and are in no fold.
    judged : tuple of JudgedCase
        Each case once; empty until all folds are finished.
    """

    dataset: str
    seed: int
    divided: tuple[tuple[str, ...], ...]
    start: str | None = None
    test_ids: tuple[str, ...] = ()
    judged: tuple[JudgedCase, ...] = ()

    @property
    def folds(self) -> int:
        """How many there are."""
        return len(self.divided)

    @property
    def finished(self) -> bool:
        """Whether every case has been judged."""
        return bool(self.judged)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels or regions that are scored."""
        return tuple(self.judged[0].dice) if self.judged else ()

    @property
    def mean_dice(self) -> Spread:
        """Of the cases' mean Dice, over all cases."""
        return Spread.of([case.mean_dice for case in self.judged])

    def dice(self, fold: int | None = None) -> dict[str, Spread]:
        """Return the Dice of each label over all cases, or over those of one fold."""
        cases = [case for case in self.judged if fold in (None, case.fold)]
        return {name: Spread.of([case.dice[name] for case in cases]) for name in self.names}

    def as_lines(self) -> list[str]:
        """Return the table: a row for each fold, then mean ± standard deviation over all cases."""
        head = ["fold", "cases", "mean Dice", *self.names]
        rows = []
        for fold in range(1, self.folds + 1):
            mean = Spread.of([case.mean_dice for case in self.judged if case.fold == fold])
            rows.append(
                [str(fold), str(mean.n), f"{mean.mean:.3f}", *(f"{x.mean:.3f}" for x in self.dice(fold).values())]
            )
        rows.append(["all", str(len(self.judged)), str(self.mean_dice), *(str(x) for x in self.dice().values())])
        return [
            columns(head, rows),
            "all: mean ± standard deviation over the cases, each judged once, by the model that did not see it.",
            OVERLAP_DEFINITION,
        ]

    def as_json(self) -> dict[str, object]:
        """Return what the file holds: the record and, when finished, what follows from it."""
        facts: dict[str, object] = {"folds": self.folds, **asdict(self)}
        if self.finished:
            facts["mean_dice"] = asdict(self.mean_dice)
            facts["dice"] = {name: asdict(spread) for name, spread in self.dice().items()}
            facts["by_fold"] = [
                {name: spread.mean for name, spread in self.dice(fold).items()} for fold in range(1, self.folds + 1)
            ]
        return facts


def divide(case_ids: Mapping[str, str], folds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Return the ids of the cases that judge each fold; `case_ids` tells each case's patient ("" if it has none)."""
    cases = [CaseFiles(case_id, {}, patient=patient) for case_id, patient in case_ids.items()]
    parts = [fold_cases(cases, folds, fold, seed=seed)[1] for fold in range(1, folds + 1)]
    return tuple(tuple(case.id for case in part) for part in parts)


def fold_folder(folder: Path, fold: int) -> Path:
    """Return the run folder of a fold, counted from 1."""
    return folder / f"fold{fold}"


def is_cross_validation(folder: Path) -> bool:
    """Whether there is a cross-validation in a folder."""
    return (folder / CROSS_VALIDATION).is_file()


def write_cross_validation(folder: Path, record: CrossValidation) -> Path:
    """Write the record whole."""
    path = folder / CROSS_VALIDATION
    write_text_whole(path, json.dumps(record.as_json(), indent=1))
    return path


def read_cross_validation(folder: Path) -> CrossValidation:
    """Read the record.

    Raises
    ------
    FileError
        If there is none, or it is damaged.
    """
    try:
        values = json.loads((folder / CROSS_VALIDATION).read_text("utf-8"))
        judged = [JudgedCase(x["case_id"], int(x["fold"]), _numbers(x["dice"])) for x in values["judged"]]
        divided = tuple(tuple(str(case_id) for case_id in ids) for ids in values["divided"])
        test_ids = tuple(str(case_id) for case_id in values["test_ids"])
        return CrossValidation(
            values["dataset"], int(values["seed"]), divided, values["start"], test_ids, tuple(judged)
        )
    except OSError:
        raise FileError(f"Expected a cross-validation in {folder}; it has no {CROSS_VALIDATION}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileError(f"The file {CROSS_VALIDATION} in {folder} is damaged. Use a copy, or start anew.") from None


def with_judgements(folder: Path, record: CrossValidation) -> CrossValidation:
    """Return the record with the Dice of each case by the model that its fold kept."""
    judged: list[JudgedCase] = []
    for fold in range(1, record.folds + 1):
        run = fold_folder(folder, fold)
        best = best_validation(read_history(run))
        if best is None:
            raise FileError(f"The run {run} has not been validated. Go on with the cross-validation.")
        judged += [JudgedCase(case_id, fold, dice) for case_id, dice in best.by_case.items()]
    return replace(record, judged=tuple(judged))


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}
