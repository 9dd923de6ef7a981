"""Scores as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from math import nan
from pathlib import Path

import pytest

from napari_seg3d.comparison.baselines import Baseline
from napari_seg3d.comparison.report import LabelScores, Scores, Table, compare
from napari_seg3d.comparison.tables import as_csv, as_json, as_text, columns, scores_as_text, write_table
from napari_seg3d.errors import FileError
from napari_seg3d.volumes.volume import LabelMap


def _score(name: str, value: int, dice: float, hd95_mm: float = nan) -> LabelScores:
    return LabelScores(
        name, (value,), "#808080", False, dice, dice / (2 - dice), 1.5, 2.0, hd95_mm, hd95_mm, hd95_mm / 4, 0.9
    )


@pytest.fixture
def table() -> Table:
    return Table(
        (
            Scores("good", (_score("core", 1, 0.9, 2.0), _score("rim", 2, 0.8, 3.0))),
            Scores("bad", (_score("core", 1, 0.5, 6.0), _score("rim", 2, 0.0)), notes=("Odd.",)),
        ),
        predictions_without_truth=("stray",),
        truths_without_prediction=tuple(f"t{i}" for i in range(12)),
        failed={"broken": "broken.nii.gz is damaged."},
    )


def test_csv_has_a_row_per_case_and_label(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [(row["case"], row["label"]) for row in rows] == [
        ("good", "core"),
        ("good", "rim"),
        ("bad", "core"),
        ("bad", "rim"),
    ]
    assert float(rows[0]["dice"]) == 0.9
    assert float(rows[0]["difference_ml"]) == -0.5
    assert rows[3]["hd95_mm"] == ""


@pytest.mark.parametrize("name", ["=1+2", "+cmd", "-2", "@SUM(A1)", "\t=x", "\r+x", "\n@x", " =x"])
def test_no_cell_is_a_formula(name: str) -> None:
    text = as_csv(Table((Scores(name, (_score(name, 1, 0.5),)),)))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["case"] == row["label"] == f"'{name.strip()}"


def test_names_with_commas_and_quotes_survive() -> None:
    name = 'left, "upper"'
    (row,) = csv.DictReader(io.StringIO(as_csv(Table((Scores(name, (_score("a", 1, 0.5),)),)))))
    assert row["case"] == name


def test_json_is_read_by_every_program(table: Table) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(json.dumps(as_json(table)), parse_constant=refuse)
    assert content["mean_dice"] == pytest.approx((0.85 + 0.25) / 2)
    assert content["cases"][1]["labels"][1]["hd95_mm"] is None
    assert content["cases"][1]["notes"] == ["Odd."]
    rim = content["summary"][1]
    assert (rim["name"], rim["mean_hd95_mm"], rim["without_distance"]) == ("rim", 3.0, 1)
    assert content["failed"] == {"broken": "broken.nii.gz is damaged."}
    assert any("HD95" in definition for definition in content["definitions"])


def test_text_shows_means_with_their_counts_and_the_worst_case_first(table: Table) -> None:
    text = as_text(table)
    assert "Mean Dice 0.550 over 2 cases" in text
    assert text.index("\nbad ") < text.index("\ngood ")
    rim = next(line.split() for line in text.splitlines() if line.startswith("rim"))
    assert rim[1:3] == ["2", "0.400"]
    assert rim[-1] == "1"  # one case without a distance, beside the mean of the other
    assert "Predictions without a truth (1): stray" in text
    assert "t9 and 2 more" in text
    assert "Not compared (1): broken" in text
    assert "Odd. (bad)" in text
    assert "absent from truth and prediction scores 1" in text


def test_one_case_as_text(predicted: LabelMap, truth: LabelMap) -> None:
    text = scores_as_text(compare(predicted, truth))
    whole = next(line for line in text.splitlines() if line.startswith("whole tumour"))
    assert whole.split()[2] == "0.909"


def test_a_table_without_cases() -> None:
    assert "over 0 cases" in as_text(Table(()))
    assert as_json(Table(()))["mean_dice"] is None


def test_columns_are_aligned() -> None:
    lines = columns(("a", "long head"), [("first", "1"), ("x", "22")]).splitlines()
    assert [len(line) for line in lines] == [16, 16, 16]


def test_files_by_their_ending(table: Table, tmp_path: Path) -> None:
    assert write_table(tmp_path / "new" / "scores.csv", table).read_text(encoding="utf-8") == as_csv(table)
    assert json.loads(write_table(tmp_path / "scores.json", table).read_text(encoding="utf-8")) == as_json(table)
    with pytest.raises(FileError, match=r"\.csv or \.json"):
        write_table(tmp_path / "scores.xlsx", table)


def test_what_is_reached_without_learning_stands_beside_every_score(predicted: LabelMap, truth: LabelMap) -> None:
    found = Baseline("best threshold", {"oedema": 0.25}, {"oedema": "3 ≤ T1"}, {"whole tumour": 0.5})
    scores = compare(predicted, truth, case="a").with_threshold(found)
    table = Table((scores,))
    nothing, threshold = table.baselines()
    assert set(nothing.dice.values()) == set(nothing.region_dice.values()) == {0.0}
    # A label that the truth does not have is best left alone.
    assert threshold.dice == {"oedema": 0.25, scores.by_label[1].name: 1.0, scores.by_label[2].name: 1.0}
    text = as_text(table)
    assert f"Mean Dice {table.mean_dice:.3f} over 1 case · all background 0.000 · best threshold 0.750" in text
    assert "label" in text.splitlines()[2]
    assert text.splitlines()[2].split()[2:5] == ["Dice", "background", "threshold"]
    assert text.splitlines()[3].split()[3:5] == ["0.000", "0.250"]
    assert f"Voxel accuracy {scores.voxel_accuracy:.4f} · all background {scores.background_accuracy:.4f}" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [row["best_threshold_dice"] for row in rows[:2]] == ["0.25", "1"]
    assert rows[3]["label"] == "whole tumour"
    assert (rows[3]["all_background_dice"], rows[3]["best_threshold_dice"]) == ("0", "0.5")
    content = as_json(table)
    assert content["baselines"]["best threshold"]["mean_dice"] == 0.75
    assert content["cases"][0]["baselines"]["best threshold"]["how"]["oedema"] == "3 ≤ T1"
    assert content["voxel_accuracy"]["all background"] == scores.background_accuracy
    json.dumps(content, allow_nan=False)


def test_thresholds_that_only_some_cases_have_are_not_averaged(predicted: LabelMap, truth: LabelMap) -> None:
    plain = compare(predicted, truth, case="a")
    other = plain.with_threshold(Baseline("best threshold", {"oedema": 0.25}, {}))
    assert [each.name for each in Table((plain, other)).baselines()] == ["all background"]
    assert Table((Scores("empty", ()),)).baselines() == ()
