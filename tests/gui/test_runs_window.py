"""Runs stand side by side, sorted by number and not by letter; those judged on the same cases are compared."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from qtpy.QtCore import QItemSelectionModel, Qt

from napari_seg3d.gui.runs_window import RunsWindow


@pytest.fixture
def runs(trained_study):
    """Runs of the small study: three judged on the same twelve cases, one on others, one not at all."""
    folder = trained_study.with_name("study-seg3d") / "runs"
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.7, 12)
    for name, steps, shift, first in (("a-10", 1000, 0.0, 0), ("a-2", 9, 0.05, 0), ("b", 50, 0.1, 3)):
        shutil.copytree(folder / "tiny", folder / name)
        scores = base + shift + (rng.normal(0, 0.01, 12) if shift else 0)
        by_case = {f"case{i + first}": {"oedema": x, "enhancing": x - 0.1} for i, x in enumerate(scores)}
        dice = {"oedema": float(scores.mean()), "enhancing": float(scores.mean() - 0.1)}
        rounds = {"event": "EpochDone", "epoch": 1, "epochs": 2, "loss": 0.4, "learning_rate": 1e-3, "steps": steps,
                  "elapsed_s": 90.0, "seconds_left": None}  # fmt: skip
        judged = {"event": "Validated", "epoch": 1, "step": steps, "dice": dice, "by_case": by_case, "best": True,
                  "mean_dice": float(scores.mean() - 0.05), "elapsed_s": 91.0}  # fmt: skip
        (folder / name / "events.jsonl").write_text(f"{json.dumps(rounds)}\n{json.dumps(judged)}\n")
    (folder / "tiny" / "events.jsonl").unlink()
    return folder


@pytest.fixture
def window(qtbot, runs):
    window = RunsWindow()
    qtbot.addWidget(window)
    window.show_runs(runs)
    return window


def column(window, head):
    table = window.table
    (place,) = [i for i in range(table.columnCount()) if table.horizontalHeaderItem(i).text() == head]
    return place, [table.item(row, place).text() for row in range(table.rowCount())]


def choose(window, *names):
    window.table.clearSelection()
    rows = column(window, "Run")[1]
    for name in names:
        index = window.table.model().index(rows.index(name), 0)
        window.table.selectionModel().select(
            index, QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        )


def test_runs_are_listed_and_sorted_by_what_the_cells_mean(window):
    assert set(column(window, "Run")[1]) == {"a-2", "a-10", "b", "tiny"}
    for head, expected in (("Run", ["a-2", "a-10", "b", "tiny"]), ("Steps", ["0", "9", "50", "1000"])):
        place, _ = column(window, head)
        window.table.sortItems(place, Qt.SortOrder.AscendingOrder)
        assert column(window, head)[1] == expected
    rows = dict(zip(column(window, "Run")[1], column(window, "oedema")[1], strict=True))
    assert rows["tiny"] == "–"
    assert float(rows["b"]) > float(rows["a-2"]) > float(rows["a-10"])


def test_two_runs_of_the_same_cases_are_compared_case_by_case(window):
    window.table.sortItems(0, Qt.SortOrder.DescendingOrder)  # rows have moved
    choose(window, "a-2", "a-10")
    assert {run.name for run in window.chosen()} == {"a-2", "a-10"}
    assert not window.comparison.problems
    assert "Wilcoxon" in window.verdict.text()
    assert window.differences.item(0, 1).text() == "mean"
    assert window.differences.item(0, 5).text() == "more than chance"
    assert [window.cases.item(row, 0).text() for row in range(12)] == [f"case{i}" for i in range(12)]
    assert abs(float(window.cases.item(0, 3).text())) > 0.01
    window.refresh()
    assert {run.name for run in window.chosen()} == {"a-2", "a-10"}


def test_other_cases_are_a_clear_warning(window):
    window.show()
    choose(window, "a-2", "b")
    assert "Not comparable:</b> judged on different cases" in window.verdict.text()
    assert "case14" in window.verdict.text()
    assert not window.differences.isVisible()
    choose(window, "a-2", "tiny")
    assert "tiny has not been validated" in window.verdict.text()
    choose(window, "a-2")
    assert "Choose two or more runs" in window.verdict.text()


def test_a_double_click_asks_for_the_run(window, runs, qtbot):
    row = column(window, "Run")[1].index("a-10")
    with qtbot.waitSignal(window.wanted) as wanted:
        window.table.cellDoubleClicked.emit(row, 2)
    assert wanted.args == [runs / "a-10"]
