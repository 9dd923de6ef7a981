"""Training runs side by side: what each was, how good it is, and whether one beats another by more than chance.

Runs can be compared where they were judged on the same cases by the same labels, never otherwise: the cases of one
split are easier than those of another. Reading needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from scipy.stats import wilcoxon

from ..cases.names import natural_key
from ..comparison.tables import OVERLAP_DEFINITION, columns
from ..errors import FileError, Seg3dError
from ..events import EpochDone
from .cross_validation import CrossValidation, fold_folder, is_cross_validation, read_cross_validation
from .run import RunFolder, best_validation, list_runs, read_history, run_name

#: What the mean over all labels is called beside the labels.
MEAN = "mean"
#: Differences whose p is below are called more than chance.
SIGNIFICANT = 0.05
#: Differences smaller than this are those of rounding.
_NO_DIFFERENCE = 1e-9
_LISTED = 5


@dataclass(frozen=True)
class RunSummary:
    """A run, a fold, or a whole cross-validation.

    Parameters
    ----------
    name : str
        Its folder; a fold's after that of its cross-validation.
    folder : Path
    network, recipe : str
    state : str
        "running", "interrupted" (killed), "stopped", "finished" or "failed".
    train_ids, validation_ids : tuple of str
        The cases it learned from and those it is judged by; of a cross-validation all of them.
    steps : int
    seconds : float
        What it has taken so far; over all folds of a cross-validation.
    dice : mapping of str to float
        By label, of the model that is kept; empty as long as nothing was validated.
    by_case : mapping of str to mapping of str to float
        The same for each case.
    folds : int
        0 for a run, the number of folds for a cross-validation.
    tuned : bool
        Whether it started from another model.
    """

    name: str
    folder: Path
    network: str
    recipe: str
    state: str
    train_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    steps: int
    seconds: float
    dice: Mapping[str, float] = field(default_factory=dict)
    by_case: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    folds: int = 0
    tuned: bool = False

    @property
    def mean_dice(self) -> float | None:
        """Over the labels and cases; None as long as nothing was validated."""
        return float(np.mean(list(self.dice.values()))) if self.dice else None

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "network": self.network,
            "recipe": self.recipe,
            "state": self.state,
            "train_cases": len(self.train_ids),
            "validation_ids": list(self.validation_ids),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "mean_dice": self.mean_dice,
            "dice": dict(self.dice),
            "by_case": {case_id: dict(dice) for case_id, dice in self.by_case.items()},
            "folds": self.folds,
            "tuned": self.tuned,
        }


@dataclass(frozen=True)
class Difference:
    """How two runs differ in the Dice of one label (or `MEAN`) over the same cases: `second` minus `first`.

    `p` is that of Wilcoxon's signed-rank test on the `n` pairs, two-sided: how probable a difference at least as large
    is where there is none. Wilcoxon F (1945), doi:10.2307/3001968.
    """

    first: str
    second: str
    label: str
    n: int
    mean: float
    p: float

    @property
    def smallest_p(self) -> float:
        """The smallest p that so few cases can give."""
        return float(min(1.0, 2.0 ** (1 - self.n)))

    def verdict(self) -> str:
        """Say whether it is more than chance."""
        if self.smallest_p >= SIGNIFICANT:
            return "too few cases to tell"
        return "more than chance" if self.p < SIGNIFICANT else "may be chance"


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    Parameters
    ----------
    names : tuple of str
        The runs.
    problems : tuple of str
        Why they cannot be compared; empty if they can.
    cautions : tuple of str
        What else to keep in mind.
    by_case : mapping of str to tuple of float
        Mean Dice of each case by run; empty if they cannot be compared.
    differences : tuple of Difference
        For each pair of runs, `MEAN` and every label.
    """

    names: tuple[str, ...]
    problems: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    by_case: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()


def summarise_runs(folder: Path) -> list[RunSummary]:
    """Return the runs and cross-validations in a folder, or in ``runs`` of a project folder, newest first.

    The folds of a cross-validation follow it. Damaged runs are left out.

    Raises
    ------
    FileError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise FileError(f"There is no folder {folder}.")
    inside = folder / "runs"
    if inside.is_dir() and not list_runs(folder):
        folder = inside
    found: list[RunSummary] = []
    seen: set[Path] = set()
    for run in list_runs(folder):
        whole = run.parent if is_cross_validation(run.parent) else None
        if whole in seen:
            continue
        try:
            if whole is not None:
                seen.add(whole)
                found += summarise_cross_validation(whole)
            else:
                found.append(summarise_run(run))
        except Seg3dError:
            continue
    return found


def summarise_run(run: Path) -> RunSummary:
    """Return what a run folder tells; raises `FileError` or `PlanError` if it is damaged."""
    folder = RunFolder.open(run)
    facts, plan, history = folder.facts(), folder.plan, read_history(run)
    best = best_validation(history)
    rounds = [event for event in history if isinstance(event, EpochDone)]
    return RunSummary(
        name=run_name(run),
        folder=run,
        network=plan.network.name,
        recipe=plan.recipe,
        state=_state(run, facts.state),
        train_ids=facts.train_ids,
        validation_ids=facts.validation_ids,
        steps=rounds[-1].steps if rounds else 0,
        seconds=rounds[-1].elapsed_s if rounds else 0.0,
        dice={} if best is None else best.dice,
        by_case={} if best is None else best.by_case,
        tuned=facts.start_model is not None,
    )


def summarise_cross_validation(folder: Path) -> list[RunSummary]:
    """Return a cross-validation as one, over all cases that have been judged so far, and then its folds."""
    record = read_cross_validation(folder)
    folds = [summarise_run(run) for number in range(record.folds) if (run := fold_folder(folder, number + 1)).is_dir()]
    if not folds:
        raise FileError(f"No fold of the cross-validation in {folder} has begun.")
    by_case = {case_id: dice for fold in folds for case_id, dice in fold.by_case.items()}
    names = list(next(iter(by_case.values()), {}))
    whole = RunSummary(
        name=folder.name,
        folder=folder,
        network=folds[0].network,
        recipe=folds[0].recipe,
        state=_state_of_folds(record, folds),
        train_ids=tuple(case_id for ids in record.divided for case_id in ids),
        validation_ids=tuple(case_id for ids in record.divided for case_id in ids),
        steps=sum(fold.steps for fold in folds),
        seconds=sum(fold.seconds for fold in folds),
        dice={name: float(np.mean([dice[name] for dice in by_case.values()])) for name in names},
        by_case=by_case,
        folds=record.folds,
        tuned=record.start is not None,
    )
    return [whole, *folds]


def compare_runs(runs: Sequence[RunSummary]) -> Comparison:
    """Compare runs, at least two, case by case."""
    names = tuple(run.name for run in runs)
    cautions = tuple(
        f"{run.name} started from another model, which may have learned from these cases." for run in runs if run.tuned
    )
    if problems := _why_not(runs):
        return Comparison(names, problems, cautions)
    case_ids = sorted(runs[0].by_case, key=natural_key)
    by_case = {case_id: tuple(_value(run, case_id, MEAN) for run in runs) for case_id in case_ids}
    differences = tuple(
        _difference(first, second, label, case_ids)
        for first, second in combinations(runs, 2)
        for label in (MEAN, *runs[0].dice)
    )
    if len(runs) > 2:
        cautions += (f"Of {len(runs)} runs some differ by chance alone: p is for one pair at a time.",)
    return Comparison(names, (), cautions, by_case, differences)


def runs_as_lines(runs: Sequence[RunSummary]) -> list[str]:
    """Return the table of runs as text."""
    labels = list(dict.fromkeys(name for run in runs for name in run.dice))
    head = ["run", "network", "recipe", "state", "cases", "judged by", "steps", "minutes", "mean Dice", *labels]
    rows = [
        [
            run.name,
            run.network,
            run.recipe,
            run.state,
            str(len(run.train_ids)),
            str(len(run.validation_ids)),
            str(run.steps),
            f"{run.seconds / 60:.1f}",
            "–" if run.mean_dice is None else f"{run.mean_dice:.3f}",
            *(f"{run.dice[name]:.3f}" if name in run.dice else "–" for name in labels),
        ]
        for run in runs
    ]
    return [columns(head, rows), OVERLAP_DEFINITION]


def comparison_as_lines(comparison: Comparison) -> list[str]:
    """Return a comparison as text: what stands against it, or the cases and the differences."""
    lines = [f"Not comparable: {problem}" for problem in comparison.problems]
    if comparison.by_case:
        rows = [[case_id, *(f"{dice:.3f}" for dice in values)] for case_id, values in comparison.by_case.items()]
        lines.append(columns(["mean Dice of", *comparison.names], rows))
    if comparison.differences:
        lines.append(columns(DIFFERENCE_HEAD, [difference_cells(each) for each in comparison.differences]))
        lines.append("p: Wilcoxon's signed-rank test on the pairs of cases, two-sided.")
    return lines + [f"Note: {caution}" for caution in comparison.cautions]


#: The columns that `difference_cells` fills.
DIFFERENCE_HEAD = ("difference", "of", "Dice", "n", "p", "verdict")


def difference_cells(difference: Difference) -> list[str]:
    """Return a difference as the cells of a row."""
    p = "< 0.001" if difference.p < 1e-3 else f"{difference.p:.3f}"
    which = f"{difference.second} − {difference.first}"
    return [which, difference.label, f"{difference.mean:+.3f}", str(difference.n), p, difference.verdict()]


def _why_not(runs: Sequence[RunSummary]) -> tuple[str, ...]:
    """Say why runs cannot be compared."""
    if len(runs) < 2:
        return ("Choose at least two runs.",)
    if silent := [run.name for run in runs if not run.by_case]:
        return (f"{', '.join(silent)} has not been validated.",)
    first, problems = runs[0], []
    for other in runs[1:]:
        if set(other.by_case) != set(first.by_case):
            problems.append(f"judged on different cases; {_only(first, other)}{_only(other, first)}".rstrip("; ") + ".")
        if set(other.dice) != set(first.dice):
            problems.append(f"{first.name} finds {', '.join(first.dice)}; {other.name} finds {', '.join(other.dice)}.")
    return tuple(problems)


def _only(one: RunSummary, other: RunSummary) -> str:
    """Say which cases only one of two runs was judged by."""
    ids = sorted(set(one.by_case) - set(other.by_case), key=natural_key)
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return f"only {one.name}: {', '.join(ids[:_LISTED])}{more}; " if ids else ""


def _difference(first: RunSummary, second: RunSummary, label: str, case_ids: Sequence[str]) -> Difference:
    values = np.array([_value(second, case_id, label) - _value(first, case_id, label) for case_id in case_ids])
    values[np.abs(values) < _NO_DIFFERENCE] = 0
    # Pairs without a difference say nothing about its direction (Wilcoxon's own way); without any there is no test.
    told = values[values != 0]
    p = float(wilcoxon(told).pvalue) if told.size else 1.0
    return Difference(first.name, second.name, label, len(values), float(values.mean()), p)


def _value(run: RunSummary, case_id: str, label: str) -> float:
    dice = run.by_case[case_id]
    return float(np.mean(list(dice.values()))) if label == MEAN else dice[label]


def _state(run: Path, state: str) -> str:
    """Return the state of a run: one that says it runs although nobody trains in it was killed."""
    if state != "running":
        return state
    lock = FileLock(run / ".lock")
    try:
        with lock.acquire(timeout=0):
            return "interrupted"
    except (Timeout, OSError):
        return state


def _state_of_folds(record: CrossValidation, folds: Sequence[RunSummary]) -> str:
    if record.finished:
        return "finished"
    active = [fold.state for fold in folds if fold.state != "finished"]
    if active:
        return active[-1]
    # Between two folds, or all are done and only the table is missing.
    return "stopped"
