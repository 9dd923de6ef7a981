"""Scores as text for a person, CSV for a spreadsheet and JSON for a program."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..volumes.atomic import write_text_whole
from .baselines import ALL_BACKGROUND, BASELINE_DEFINITION, Baseline
from .report import LabelScores, Scores, Summary, Table
from .surface import DEFINITIONS

#: What the overlap scores mean; stated beside them.
OVERLAP_DEFINITION = (
    "Dice = 2·TP / (2·TP + FP + FN) per case, then the mean over cases; background does not count. "
    "A structure absent from truth and prediction scores 1, from one of them 0."
)

#: Column of the CSV file -> how it is found.
_COLUMNS: dict[str, Callable[[Scores, LabelScores], Any]] = {
    "case": lambda case, _: case.case,
    "label": lambda _, score: score.name,
    "values": lambda _, score: " ".join(str(value) for value in score.values),
    "kind": lambda _, score: "region" if score.is_region else "label",
    "dice": lambda _, score: score.dice,
    "iou": lambda _, score: score.iou,
    "predicted_ml": lambda _, score: score.predicted_ml,
    "truth_ml": lambda _, score: score.truth_ml,
    "difference_ml": lambda _, score: score.difference_ml,
    "hd_mm": lambda _, score: score.hd_mm,
    "hd95_mm": lambda _, score: score.hd95_mm,
    "mean_surface_mm": lambda _, score: score.mean_surface_mm,
    "surface_dice": lambda _, score: score.surface_dice,
    "tolerance_mm": lambda case, _: case.tolerance_mm,
    "all_background_dice": lambda case, score: _baseline_dice(case, score, 0),
    "best_threshold_dice": lambda case, score: _baseline_dice(case, score, 1),
}


def _baseline_dice(case: Scores, score: LabelScores, number: int) -> float:
    known = case.baselines
    return dice_of(known[number], score) if number < len(known) else nan


def dice_of(baseline: Baseline, score: LabelScores | Summary) -> float:
    """Dice of a baseline for one class or region; NaN if it is not known."""
    return (baseline.region_dice if score.is_region else baseline.dice).get(score.name, nan)


def as_csv(table: Table) -> str:
    """One row per case and class or region; an undefined distance is an empty cell.

    Cells that a spreadsheet would take for a formula are made harmless by a leading apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for case in table.cases:
        for score in (*case.by_label, *case.by_region):
            writer.writerow([cell(column(case, score)) for column in _COLUMNS.values()])
    return text.getvalue()


def cell(value: Any) -> str:
    """Return a value as a cell of a CSV table; what a spreadsheet would run is made harmless by an apostrophe."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.6g}"
    # Spreadsheets run what begins like this, and case names come from files that anybody may have named.
    text = re.sub(r"[\x00-\x1f\x7f]", " ", str(value)).strip()
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_json(table: Table) -> dict[str, Any]:
    """Everything as one JSON object; an undefined number is null."""
    return {
        "mean_dice": _number(table.mean_dice),
        "baselines": _baselines_as_json(table.baselines()),
        "voxel_accuracy": _accuracy_as_json(*table.voxel_accuracy),
        "cases": [scores_as_json(case) for case in table.cases],
        "summary": [_fields(summary) for summary in table.summaries()],
        "predictions_without_truth": list(table.predictions_without_truth),
        "truths_without_prediction": list(table.truths_without_prediction),
        "failed": dict(table.failed),
        "definitions": [OVERLAP_DEFINITION, DEFINITIONS, BASELINE_DEFINITION],
    }


def scores_as_json(scores: Scores) -> dict[str, Any]:
    """One case as a JSON object; an undefined number is null."""
    return {
        "case": scores.case,
        "mean_dice": _number(scores.mean_dice),
        "mean_region_dice": _number(scores.mean_region_dice),
        "labels": [_fields(score) for score in scores.by_label],
        "regions": [_fields(score) for score in scores.by_region],
        "baselines": _baselines_as_json(scores.baselines),
        "voxel_accuracy": _accuracy_as_json(scores.voxel_accuracy, scores.background_accuracy),
        "tolerance_mm": scores.tolerance_mm,
        "notes": list(scores.notes),
    }


def _baselines_as_json(baselines: Sequence[Baseline]) -> dict[str, Any]:
    return {
        each.name: {
            "mean_dice": _number(each.mean_dice) if each.dice else None,
            "dice": {name: _number(value) for name, value in each.dice.items()},
            "region_dice": {name: _number(value) for name, value in each.region_dice.items()},
            **({"how": dict(each.how)} if each.how else {}),
        }
        for each in baselines
    }


def _accuracy_as_json(accuracy: float, background: float) -> dict[str, Any]:
    return {"prediction": _number(accuracy), ALL_BACKGROUND: _number(background)}


def _fields(of: LabelScores | Summary) -> dict[str, Any]:
    fields = {name: _number(value) for name, value in vars(of).items()}
    return fields | {"values": list(of.values)}


def _number(value: Any) -> Any:
    # JSON has no NaN; programs other than Python refuse it.
    return None if isinstance(value, float) and not isfinite(value) else value


def as_text(table: Table) -> str:
    """The means per class and region, the cases from worst to best, and what was left out."""
    paragraphs = [summary_as_text(table)]
    ranked = sorted(table.cases, key=lambda case: case.mean_dice)
    rows = [
        (case.case, _shown(case.mean_dice, ".3f"), *(_shown(s.dice, ".3f") for s in case.by_label)) for case in ranked
    ]
    names = [score.name for score in table.cases[0].by_label] if table.cases else []
    if len(table.cases) > 1 and all(len(row) == len(names) + 2 for row in rows):
        paragraphs.append(columns(("case", "mean Dice", *names), rows))
    paragraphs += [f"{note} ({case.case})" for case in table.cases for note in case.notes]
    for what, left_out in (
        ("Predictions without a truth", table.predictions_without_truth),
        ("Truths without a prediction", table.truths_without_prediction),
        ("Not compared", tuple(table.failed)),
    ):
        if left_out:
            more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
            paragraphs.append(f"{what} ({len(left_out)}): {', '.join(left_out[:10])}{more}")
    return "\n\n".join([*paragraphs, "\n".join((OVERLAP_DEFINITION, DEFINITIONS, BASELINE_DEFINITION))])


def summary_as_text(table: Table) -> str:
    """The mean per class and region as an aligned table, with the counts that belong to the means."""
    baselines = table.baselines()
    # Beside every score stands what is reached without learning.
    beside = tuple(each.name.removeprefix("all ").removeprefix("best ") for each in baselines)
    head = (
        "label",
        "cases",
        "Dice",
        *beside,
        "lowest",
        "IoU",
        "HD95 mm",
        "surface mm",
        "Δ ml",
        "absent",
        "no distance",
    )
    rows = [
        (
            summary.name,
            str(summary.cases),
            _shown(summary.mean_dice, ".3f"),
            *(_shown(dice_of(each, summary), ".3f") for each in baselines),
            _shown(summary.lowest_dice, ".3f"),
            _shown(summary.mean_iou, ".3f"),
            _shown(summary.mean_hd95_mm, ".2f"),
            _shown(summary.mean_surface_mm, ".2f"),
            _shown(summary.mean_difference_ml, "+.2f"),
            str(summary.absent),
            str(summary.without_distance),
        )
        for summary in table.summaries()
    ]
    count = len(table.cases)
    mean = f"Mean Dice {_shown(table.mean_dice, '.3f')} over {count} case{'' if count == 1 else 's'}"
    if not rows:
        return mean
    mean += "".join(f" · {each.name} {each.mean_dice:.3f}" for each in baselines)
    accuracy, background = table.voxel_accuracy
    last = "" if isnan(accuracy) else f"\n\nVoxel accuracy {accuracy:.4f} · all background {background:.4f}"
    return f"{mean}\n\n{columns(head, rows)}{last}"


def scores_as_text(scores: Scores) -> str:
    """One case: every class and region as an aligned table."""
    baselines = scores.baselines
    beside = tuple(each.name.removeprefix("all ").removeprefix("best ") for each in baselines)
    head = ("label", "Dice", *beside, "IoU", "predicted ml", "truth ml", "HD95 mm", "surface mm", "surface Dice")
    rows = [
        (
            score.name,
            _shown(score.dice, ".3f"),
            *(_shown(dice_of(each, score), ".3f") for each in baselines),
            _shown(score.iou, ".3f"),
            _shown(score.predicted_ml, ".2f"),
            _shown(score.truth_ml, ".2f"),
            _shown(score.hd95_mm, ".2f"),
            _shown(score.mean_surface_mm, ".2f"),
            _shown(score.surface_dice, ".3f"),
        )
        for score in (*scores.by_label, *scores.by_region)
    ]
    return "\n\n".join([columns(head, rows), *scores.notes])


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in aligned columns, the first to the left, the others to the right.

    Examples
    --------
    >>> print(columns(("label", "Dice"), [("core", "0.8"), ("oedema", "0.75")]))
    label   Dice
    core     0.8
    oedema  0.75
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for first, *others in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def _shown(value: float, form: str) -> str:
    return "–" if isnan(value) else format(value, form)


def write_table(path: Path, table: Table) -> Path:
    """Write a table as CSV or JSON, by the ending of `path`; an older file of that name is replaced.

    Raises
    ------
    FileError
        If the ending is another, or the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        text = json.dumps(as_json(table), indent=1, ensure_ascii=False) + "\n"
    elif path.suffix.lower() == ".csv":
        text = as_csv(table)
    else:
        raise FileError(
            f"Scores are written as .csv or .json; {path.name} ends differently. Choose one of these endings."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(path, text)
    return path
