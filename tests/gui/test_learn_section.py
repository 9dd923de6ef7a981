"""Learning from corrections in the window: what it learns from, the verdict, and what is predicted then."""

from __future__ import annotations

import pytest

from napari_seg3d.cases.corrections import save_correction
from napari_seg3d.correction.queue import State
from napari_seg3d.events import result_of
from napari_seg3d.gui.queueing import CaseQueue
from napari_seg3d.gui.teaching import Teacher
from napari_seg3d.training.lesson import Lesson
from napari_seg3d.training.loop import train
from napari_seg3d.volumes.files import write_label_map, write_volume


@pytest.fixture
def dataset(tmp_path, tiny_case):
    """Six cases with two images, of which the last two have no truth; and a model that hardly knows the first."""
    folder = tmp_path / "study"
    for number in range(6):
        case = tiny_case(number)
        (folder / case.id).mkdir(parents=True)
        for name, volume in case.modalities.items():
            write_volume(folder / case.id / f"{case.id}_{name}.nii.gz", volume)
        if number < 4:
            write_label_map(folder / case.id / f"{case.id}_seg.nii.gz", case.truth)
    return folder


@pytest.fixture
def model(tmp_path, tiny_case, tiny_plan):
    run = tmp_path / "study-seg3d" / "runs" / "first"
    plan = tiny_plan(epochs=1, steps_per_epoch=2, learning_rate=1e-2)
    return result_of(train(plan, [tiny_case(0)], run, threads=1))


def check(workspace, queue, tiny_case, numbers):
    for number in numbers:
        case = tiny_case(number)
        save_correction(workspace.corrections_folder, case.id, case.truth, author="me", seconds=1.0)
        queue.set(case.id, State.CHECKED)
    workspace.refresh_results()


def test_it_learns_from_what_was_checked_and_predicts_what_is_to_do(workspace, dataset, model, tiny_case):
    workspace.open_dataset(dataset)
    queue = CaseQueue(workspace)
    teacher = Teacher(workspace, queue)
    assert [path for _, path in teacher.models()] == [model]
    assert "no model" in teacher.material(None).problem
    check(workspace, queue, tiny_case, (0, 1))
    assert "Check 1 more case" in teacher.material(model).problem
    check(workspace, queue, tiny_case, (2, 3))
    queue.set("case05", State.FLAGGED)
    material = teacher.material(model)
    assert not material.problem
    assert [case.id for case in material.cases] == ["case00", "case01", "case02", "case03"]
    assert len(material.held_out) == 1
    assert "case00" not in material.held_out

    ended = []
    teacher.ended.connect(lambda: ended.append(teacher.lesson))
    teacher.start(model, 4.0, device="cpu")
    (lesson,) = ended
    assert teacher.job is None
    assert set(lesson.after) == set(material.held_out)
    new = workspace.runs / "first learned 1"
    if lesson.run is None:
        assert not new.exists()
        assert workspace.predictions == {}
    else:
        assert lesson.run == new
        # Only what nobody has begun: the flagged case is left alone.
        assert {case_id: [path.parent.name for path in paths] for case_id, paths in workspace.predictions.items()} == {
            "case04": ["first learned 1"]
        }
        assert teacher.models()[0][1] == new
    assert [path.name for path in workspace.runs.iterdir() if path.name.startswith(".")] == []


def test_a_lesson_that_fails_says_why(workspace, dataset, model, tiny_case):
    workspace.open_dataset(dataset)
    queue = CaseQueue(workspace)
    teacher = Teacher(workspace, queue)
    check(workspace, queue, tiny_case, range(4))
    (model / "model.safetensors").write_bytes(b"no model")
    teacher.start(model, 4.0, device="cpu")
    assert teacher.lesson is None
    assert "model" in teacher.failure.message


def test_the_verdict_stands_in_a_table(viewer, dataset, tiny_case, qtbot, tmp_path, model):
    from napari_seg3d.gui.dock import Seg3DDock
    from napari_seg3d.gui.session import session_for

    dock = Seg3DDock(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    page = dock.show_page("Review")
    section, workspace = page.learning, page.workspace
    workspace.open_dataset(dataset)
    qtbot.waitUntil(lambda: workspace.dataset is not None and workspace.output is not None, timeout=20_000)
    section.set_open(True)
    assert not section.button.isEnabled()
    teacher = session_for(viewer).teacher
    check(workspace, session_for(viewer).queue, tiny_case, range(4))
    qtbot.waitUntil(section.button.isEnabled, timeout=10_000)
    before = {"case01": {"oedema": 0.5, "core": 0.8}}
    teacher.lesson = Lesson(model, ("case00",), before, {"case01": {"oedema": 0.7, "core": 0.75}})
    teacher.ended.emit()
    rows = [[section.table.item(row, column).text() for column in range(5)] for row in range(2)]
    assert rows == [
        ["case01", "oedema", "0.500", "0.700", "+0.200"],
        ["case01", "core", "0.800", "0.750", "-0.050"],
    ]
    assert section.table.item(1, 4).toolTip() == "worse"
    assert "better" in section.verdict.text()
