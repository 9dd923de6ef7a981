"""The review list in the window: states, order, marks on slices, cases loaded ahead, and going on to the next one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_seg3d.cases.checked import read_checked
from napari_seg3d.cases.corrections import save_correction, versions
from napari_seg3d.correction.queue import State
from napari_seg3d.gui.queue_section import _pace
from napari_seg3d.gui.queueing import CaseQueue
from napari_seg3d.volumes.files import read_label_map, write_label_map


def predict(study: Path, case_id: str, shift: int, run: str = "run") -> Path:
    truth = read_label_map(study / "labels" / "case1.nii.gz")
    path = study.with_name("study-seg3d") / "predictions" / run / f"{case_id}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_label_map(path, truth.with_data(np.roll(truth.data, shift, axis=0)))


def test_the_list_goes_by_quality_or_by_hand_and_is_kept(workspace, study):
    predict(study, "case1", 1)
    predict(study, "case2", 3)
    workspace.open_dataset(study)
    queue = CaseQueue(workspace)
    assert [queue.place(name) for name in ("case1", "case2", "case10")] == [0, 1, 2]
    queue.arrange("quality")
    # The worst comes first, what nobody knows last.
    assert [queue.place(name) for name in ("case2", "case1", "case10")] == [0, 1, 2]
    assert queue.next_after(None) == "case2"
    queue.set("case2", State.FLAGGED, comment="moved", author="anna")
    assert queue.next_after(None) == "case1"
    queue.move("case10", -1)
    assert queue.order == "hand"
    assert [queue.place(name) for name in ("case2", "case10", "case1")] == [0, 1, 2]
    # Another window, later.
    other = CaseQueue(workspace)
    assert other.review("case2").comment == "moved"
    other.arrange("hand")
    assert [other.place(name) for name in ("case2", "case10", "case1")] == [0, 1, 2]
    # And back here, at the next case.
    other.set("case1", State.CHECKED)
    workspace.open_case("case1")
    assert queue.review("case1").state is State.CHECKED
    # Another project folder has a list of its own.
    workspace.set_output(study.with_name("elsewhere"))
    assert queue.review("case2").comment == ""


def test_a_case_that_was_loaded_ahead_opens_without_being_read(workspace, study):
    predict(study, "case2", 1)
    workspace.open_dataset(study)
    workspace.open_case("case1")
    workspace.prepare_case("case2")
    assert workspace.is_prepared("case2")
    started = []
    workspace.job_started.connect(lambda job: started.append(job.kind))
    workspace.open_case("case2")
    assert workspace.case_id == "case2"
    assert "load" not in started
    assert next(iter(workspace.opened_predictions.values())).data.any()
    # What has changed since is read again.
    workspace.prepare_case("case1")
    (study / "images" / "case1.nii.gz").touch()
    workspace.open_case("case1")
    assert workspace.case_id == "case1"
    assert "load" in started
    # A case that is still being loaded ahead is shown as soon as it is there.
    workspace.quick.hold = True
    workspace.prepare_case("case2")
    workspace.open_case("case2")
    assert workspace.case_id == "case1"
    workspace.quick.go()
    assert workspace.case_id == "case2"
    assert started.count("load") == 1


def test_marks_on_slices_are_kept_until_they_stand_beside_a_version(workspace, study):
    workspace.open_dataset(study)
    queue = CaseQueue(workspace)
    workspace.open_case("case1")
    assert queue.toggle_slice(2, 4)
    queue.toggle_slice(2, 5)
    queue.toggle_slice(2, 7)
    assert not queue.toggle_slice(2, 7)
    assert np.flatnonzero(queue.slices(2)).tolist() == [4, 5]
    # A crash does not take them along.
    workspace.open_case("case2")
    assert not queue.slices(2).any()
    workspace.open_case("case1")
    assert np.flatnonzero(queue.slices(2)).tolist() == [4, 5]
    layer = SimpleNamespace(name="prediction")
    path = save_correction(workspace.corrections_folder, "case1", workspace.case.truth, seconds=90)
    queue.after_saving(layer, path)
    assert read_checked(path) == (((0, 20), (0, 24), (4, 6)),)
    assert queue.review("case1").state is State.IN_PROGRESS
    assert queue.efforts == {} or "case1" in queue.efforts
    # Of a case that is checked as a whole no marks remain.
    queue.checking = "case1"
    second = save_correction(workspace.corrections_folder, "case1", workspace.case.truth, seconds=30)
    queue.after_saving(layer, second)
    assert read_checked(second) is None
    assert queue.review("case1").state is State.CHECKED
    workspace.refresh_results()
    queue.look_at_costs()
    assert queue.efforts["case1"].minutes == 2
    assert (
        json.loads((workspace.corrections_folder / "review.json").read_text())["cases"]["case1"]["state"] == "checked"
    )


def test_save_check_next_and_versions_in_the_window(viewer, study, qtbot):
    from napari_seg3d.gui.data_panel import DataPanel
    from napari_seg3d.gui.review_panel import ReviewPanel
    from napari_seg3d.gui.session import session_for

    def wait(condition):
        qtbot.waitUntil(lambda: bool(condition()), timeout=40000)

    for case_id, shift in (("case1", 1), ("case2", 2)):
        predict(study, case_id, shift)
    session = session_for(viewer)
    workspace = session.workspace
    page, data = ReviewPanel(workspace, viewer), DataPanel(workspace, viewer)
    viewer.window.add_dock_widget(page, name="Review", area="right")
    viewer.window.add_dock_widget(data, name="Data", area="right")
    workspace.open_dataset(study)
    wait(lambda: workspace.dataset is not None)
    shown = []
    session.view.shown.connect(lambda: shown.append(workspace.case_id))
    workspace.open_case("case1")
    wait(lambda: shown == ["case1"])
    layer = viewer.layers["prediction"]
    layer.visible = True
    layer.paint((5, 5, 5), 2)
    expected = np.array(layer.data)
    page.queue._look_ahead()
    layer.mode, layer.brush_size = "paint", 7
    page.queue.save_check_next()
    wait(lambda: shown == ["case1", "case2"])
    # One goes on with the brush in hand.
    assert viewer.layers.selection.active is viewer.layers["prediction"]
    assert (str(page.predicted_layer.mode), page.predicted_layer.brush_size) == ("paint", 7)
    (version,) = versions(workspace.corrections_folder, "case1")
    from napari_seg3d.gui.layers import on_screen

    saved = read_label_map(version.path)
    np.testing.assert_array_equal(on_screen(saved.data, saved.geometry), expected)
    assert session.queue.review("case1").state is State.CHECKED
    table = data._table
    assert table.data(table.index(0, 5)) == "✓ checked"
    assert "1 of 3 checked" in page.queue._words.text()
    # The journal of what was saved has gone.
    session.keeper.wait()
    assert not (session.keeper.folder / "case1.journal").exists()

    # The version can be opened again and compared with.
    workspace.open_case("case1")
    wait(lambda: len(shown) == 3)
    assert page.versions.table.item(0, 0).text() == "v001"
    page.versions.compare()
    wait(lambda: page.truth_layer is not None and page.truth_layer.name.startswith("version 1"))
    np.testing.assert_array_equal(page.truth_layer.data, expected)


@pytest.mark.parametrize(
    ("minutes", "words"), [(12.34, "12.3 min per ml"), (0.5, "30 s per ml"), (0.0154, "0.92 s per ml")]
)
def test_a_pace_in_words(minutes: float, words: str) -> None:
    assert _pace(minutes) == words
